#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <opencv2/imgcodecs/imgcodecs.hpp>

#include "gtest/gtest.h"

#include "layer_under_test.hpp"

#include "fuzz/any_datum.hpp"
#include "fuzz/any_layer.hpp"

namespace caffe {

namespace {

// How many shapes and inputs are tried: CAFFE_TEST_SHAPES, which `make sanitize` sets.
int Count() {
  const char* const count = std::getenv("CAFFE_TEST_SHAPES");
  return count == NULL ? 400 : std::atoi(count);
}

// A layer's text and the shapes of its bottoms, drawn at random; all of it is right.
class RandomCase {
 public:
  explicit RandomCase(unsigned int seed) : generator_(seed) {
    const int n = Draw(1, 3), c = Draw(1, 5), h = Draw(1, 9), w = Draw(1, 9);
    map_ = {n, c, h, w};
    bottoms_ = {map_};
    const vector<void (RandomCase::*)()> kinds = {&RandomCase::ReNet, &RandomCase::DenseCRF, &RandomCase::Meanfield,
        &RandomCase::Interpolation, &RandomCase::Interp, &RandomCase::Upsample, &RandomCase::Unpooling,
        &RandomCase::Permute, &RandomCase::Normalization, &RandomCase::BN, &RandomCase::Labels, &RandomCase::Dropout,
        &RandomCase::Convolution, &RandomCase::Pooling, &RandomCase::ReLU};
    (this->*kinds[seed % kinds.size()])();
  }

  string text() const { return "name: 'random' phase: TRAIN " + text_.str(); }
  const vector<vector<int> >& bottoms() const { return bottoms_; }
  // Values of a bottom's places are 0 to below this, whole numbers; 0: any value.
  int whole_below(int bottom) const { return bottom == whole_ ? whole_below_ : 0; }

 private:
  int Draw(int least, int most) { return std::uniform_int_distribution<int>(least, most)(generator_); }
  bool Toss() { return Draw(0, 1) == 1; }

  void ReNet() {
    const char* const types[] = {"ReNetLSTM", "ReNetGRU", "ReNetIRNN"};
    const int type = Draw(0, 2);
    text_ << "type: '" << types[type] << "' renet_param { num_output: " << Draw(1, 9) << " direction: "
        << (Toss() ? "VERTICAL" : "HORIZONTAL") << " patch_height: " << Draw(1, 3) << " patch_width: " << Draw(1, 3)
        << (type == 0 && Toss() ? " peephole: true" : "") << (type == 0 && Toss() ? " output: CELL" : "") << " }";
  }
  void DenseCRF() {
    bottoms_.push_back({map_[0], 3, map_[2], map_[3]});
    const char* const outputs[] = {"PROBABILITY", "LOG_PROBABILITY", "SCORE"};
    text_ << "type: 'DenseCRF' dense_crf_param { max_iter: " << Draw(0, 3) << " pos_xy_std: " << Draw(1, 4)
        << " bi_xy_std: " << Draw(1, 60) << " bi_rgb_std: " << Draw(1, 20) << " output: " << outputs[Draw(0, 2)]
        << (Toss() ? " learn: true" : "") << (Toss() ? " kernel_weights: MATRIX" : "")
        << (Toss() ? " compatibility: MATRIX" : "") << " }";
  }
  void Meanfield() {
    bottoms_ = {map_, map_, {map_[0], 3, map_[2], map_[3]}};
    text_ << "type: 'MultiStageMeanfield' multi_stage_meanfield_param { num_iterations: " << Draw(1, 3)
        << " theta_alpha: 20 theta_beta: " << Draw(1, 9) << " theta_gamma: 3 }";
  }
  void Interpolation() {
    bottoms_.push_back({Draw(1, 2), Draw(1, 3), Draw(1, 12), Draw(1, 12)});
    text_ << "type: 'BilinearInterpolation'";
  }
  void Interp() {
    text_ << "type: 'Interp' interp_param { pad_beg: " << -Draw(0, std::min(map_[2], map_[3]) - 1);
    if (Toss()) {
      text_ << " height: " << Draw(1, 12) << " width: " << Draw(1, 12) << " }";
    } else {
      text_ << " zoom_factor: " << Draw(1, 4) << " shrink_factor: " << Draw(1, 4) << " }";
    }
  }
  void Upsample() {
    const int scale = Draw(1, 4);
    text_ << "type: 'Upsample' upsample_param { scale: " << scale << " }";
    if (Toss()) { Mask(scale * scale * map_[2] * map_[3]); }
  }
  void Unpooling() {
    const char* const methods[] = {"MAX", "AVE", "TILE"};
    const int kernel = Draw(1, 4);
    text_ << "type: 'Unpooling' unpooling_param { unpool: " << methods[Draw(0, 2)] << " kernel_size: " << kernel
        << " stride: " << Draw(1, 3) << " }";
  }
  void Mask(int area) {
    bottoms_.push_back(map_);
    whole_ = 1;
    whole_below_ = area;
  }
  void Permute() {
    vector<int> axes(4);
    std::iota(axes.begin(), axes.end(), 0);
    std::shuffle(axes.begin(), axes.end(), generator_);
    text_ << "type: 'Permute' permute_param {";
    for (int axis : axes) { text_ << " order: " << axis; }
    text_ << " }";
  }
  void Normalization() {
    if (Toss()) {
      text_ << "type: 'L2Normalization' l2_normalization_param { scale: " << Draw(1, 20) << " }";
    } else {
      text_ << "type: 'Normalize' norm_param { across_spatial: " << (Toss() ? "true" : "false") << " channel_shared: "
          << (Toss() ? "true" : "false") << " }";
    }
  }
  void BN() {
    text_ << "type: 'BN' bn_param { " << (Toss() ? "scale_filler { value: 1 } bn_mode: LEARN" :
        "slope_filler { value: 1 } bias_filler { } frozen: false") << " }";
  }
  void Labels() {
    bottoms_.push_back({map_[0], 1, map_[2], map_[3]});
    whole_ = 1;
    whole_below_ = map_[1];
    if (Toss()) {
      text_ << "type: 'SegAccuracy'";
    } else {
      text_ << "type: 'SoftmaxWithLoss' loss_param { hard_example_fraction: 0." << Draw(1, 9) << " }";
    }
  }
  void Dropout() { text_ << "type: 'Dropout' dropout_param { dropout_ratio: 0." << Draw(1, 9) << " }"; }
  void Convolution() {
    const int group = map_[1] % 2 == 0 && Toss() ? 2 : 1, kernel = Draw(1, 3), dilation = Draw(1, 3);
    text_ << "type: '" << (Toss() ? "Convolution" : "Deconvolution") << "' convolution_param { num_output: "
        << group * Draw(1, 5) << " group: " << group << " kernel_size: " << kernel << " dilation: " << dilation
        << " stride: " << Draw(1, 3) << " weight_filler { type: 'xavier' }";
    // the kernel reaches no further than the map and the padding
    map_[2] = map_[3] = (kernel - 1) * dilation + Draw(1, 9);
    bottoms_ = {map_};
    text_ << " pad: " << Draw(0, kernel / 2) << " }";
  }
  void Pooling() {
    const int kernel = Draw(1, std::min(map_[2], map_[3]));
    text_ << "type: 'Pooling' pooling_param { pool: " << (Toss() ? "MAX" : "AVE") << " kernel_size: " << kernel
        << " stride: " << Draw(1, 3) << " pad: " << Draw(0, kernel / 2) << " }";
  }
  void ReLU() { text_ << "type: 'ReLU' relu_param { negative_slope: 0." << Draw(0, 9) << " }"; }

  std::mt19937 generator_;
  std::ostringstream text_;
  vector<int> map_;
  vector<vector<int> > bottoms_;
  int whole_ = -1, whole_below_ = 0;
};

}  // namespace

template <typename Dtype>
class RandomShapesTest : public CPUDeviceTest<Dtype> {};

TYPED_TEST_CASE(RandomShapesTest, TestDtypes);

TYPED_TEST(RandomShapesTest, TestAllLayers) {
  for (int i = 0; i < Count(); ++i) {
    const RandomCase random(i);
    SCOPED_TRACE(random.text());
    LayerUnderTest<TypeParam> layer(random.text(), random.bottoms().size());
    for (size_t k = 0; k < random.bottoms().size(); ++k) {
      layer.bottom(k).Reshape(random.bottoms()[k]);
      layer.Fill(&layer.bottom(k));
      const int below = random.whole_below(k);
      for (int e = 0; below > 0 && e < layer.bottom(k).count(); ++e) {
        layer.bottom(k).mutable_cpu_data()[e] = e % below;
      }
    }
    layer.SetUp();
    layer.Forward();
    for (int e = 0; e < layer.top().count(); ++e) {
      ASSERT_TRUE(std::isfinite(layer.top().cpu_data()[e])) << e << " of " << layer.top().shape_string();
    }
    if (random.text().find("SegAccuracy") != string::npos) { continue; }
    layer.Backward();
    for (int e = 0; e < layer.bottom().count(); ++e) {
      ASSERT_TRUE(std::isfinite(layer.bottom().cpu_diff()[e])) << e << " of " << layer.bottom().shape_string();
    }
  }
}

// What the fuzzer's programs do, for bytes at random: each input works or ends in a CHECK, and both happen. In a process
// of its own: glog keeps the words of a CHECK that did not end the program, and its buffer cuts those of later ones.
class RandomInputsDeathTest : public ::testing::Test {
 protected:
  template <typename Work>
  static void Run(const Work& work, const string& seed = string()) {
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_EXIT(std::exit(IsAsExpected(work, seed) ? 0 : 1), ::testing::ExitedWithCode(0), "");
  }

 private:
  template <typename Work>
  static bool IsAsExpected(const Work& work, const string& seed) {
    int failed = 0;
    for (int i = 0; i < Count(); ++i) {
      std::mt19937 generator(i);
      string bytes = seed;
      if (seed.empty()) {
        bytes.resize(generator() % 64);
        for (char& byte : bytes) { byte = generator(); }
      } else if (i > 0) {
        for (int k = 0; k < 3; ++k) { bytes[generator() % bytes.size()] = generator(); }
      }
      failed += EndsInCheck([&] {
        FuzzInput input(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
        work(&input);
      });
    }
    std::cerr << failed << " of " << Count() << " inputs end in a CHECK\n";
    return failed > 0 && failed < Count();
  }
};

TEST_F(RandomInputsDeathTest, TestAnyLayer) { Run(RunAnyLayer); }

TEST_F(RandomInputsDeathTest, TestAnyDatum) {
  const string decisions("\1\0\11\11\1\2\4\1\1", 9);  // from the end: scales, rotation, ..., a bare image
  for (const char* format : {".png", ".jpg", ".bmp", ".tiff", ".webp"}) {
    SCOPED_TRACE(format);
    const cv::Mat pixels(20, 30, CV_8UC1, cv::Scalar(2));
    vector<uchar> encoded;
    cv::imencode(format, pixels, encoded);
    Run(ReadAnyDatum, string(encoded.begin(), encoded.end()) + decisions);
  }
}

}  // namespace caffe
