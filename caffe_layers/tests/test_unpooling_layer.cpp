#include "cuda_emulation.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

#include <limits>
#include <vector>

#include "layer_under_test.hpp"

#include "caffe/layers/pooling_layer.hpp"
#include "caffe/util/unpooling.hpp"
#ifdef CAFFE_CUDA_EMULATION
#include "caffe/util/unpooling.cuh"
#include "emulated_device.hpp"
#endif

namespace caffe {

namespace {

// Windows of a pooling, each side its own, and the map's size; 0: as far as the
// windows reach.
struct Windows {
  int height, width;
  int kernel[2], stride[2], pad[2];
  int to_height, to_width;
};

// Side by side, with gaps, over each other, with padding, one side each way;
// maps that the windows do not fill and that end within one.
const Windows kWindows[] = {
  {3, 4, {2, 2}, {2, 2}, {0, 0}, 0, 0}, {3, 4, {2, 2}, {2, 2}, {0, 0}, 5, 7},
  {3, 4, {3, 3}, {2, 2}, {0, 0}, 7, 10}, {4, 3, {3, 2}, {1, 2}, {1, 0}, 0, 0},
  {2, 5, {1, 4}, {3, 1}, {0, 2}, 6, 4}, {1, 1, {5, 3}, {1, 1}, {0, 0}, 0, 0},
  {5, 2, {3, 3}, {2, 2}, {1, 1}, 9, 4}, {2, 2, {2, 2}, {4, 4}, {0, 0}, 3, 3},
};

string Text(const Windows& windows, const string& method) {
  std::ostringstream text;
  text << "name: 'back' type: 'Unpooling' unpooling_param { unpool: " << method
       << " kernel_h: " << windows.kernel[0] << " kernel_w: "
       << windows.kernel[1] << " stride_h: " << windows.stride[0]
       << " stride_w: " << windows.stride[1] << " pad_h: " << windows.pad[0]
       << " pad_w: " << windows.pad[1];
  if (windows.to_height > 0) {
    text << " unpool_h: " << windows.to_height << " unpool_w: "
         << windows.to_width;
  }
  text << " }";
  return text.str();
}

// For each window of one map, how much it counts in each place: by the
// definition, place by place.
vector<vector<double> > Weights(const Windows& w, int height, int width,
    bool average) {
  vector<vector<double> > weights;
  for (int window = 0; window < w.height * w.width; ++window) {
    vector<double> own(height * width, 0.);
    int padded = 0;
    for (int i = 0; i < w.kernel[0]; ++i) {
      for (int j = 0; j < w.kernel[1]; ++j) {
        const int y = window / w.width * w.stride[0] - w.pad[0] + i;
        const int x = window % w.width * w.stride[1] - w.pad[1] + j;
        padded += y < height + w.pad[0] && x < width + w.pad[1];
        if (y >= 0 && y < height && x >= 0 && x < width) {
          own[y * width + x] = 1;
        }
      }
    }
    for (double& weight : own) { weight /= average ? std::max(padded, 1) : 1; }
    weights.push_back(own);
  }
  return weights;
}

// Noise for a mask: places of maps, not all different.
template <typename Dtype>
void FillMask(Blob<Dtype>* mask, int area) {
  for (int i = 0; i < mask->count(); ++i) {
    mask->mutable_cpu_data()[i] = caffe_rng_rand() % area;
  }
}

// Value and gradient of the last one that goes to a place.
template <typename Dtype>
vector<double> Scattered(const Blob<Dtype>& values, const Blob<Dtype>& mask,
    int area) {
  vector<double> result(values.num() * values.channels() * area, 0.);
  for (int i = 0; i < values.count(); ++i) {
    const int map = i / values.count(2);
    result[map * area + static_cast<int>(mask.cpu_data()[i])] =
        values.cpu_data()[i];
  }
  return result;
}

template <typename Dtype>
vector<double> Gathered(const Blob<Dtype>& result, const Blob<Dtype>& mask) {
  const int area = result.count(2), windows = mask.count(2);
  vector<double> gradient(mask.count());
  for (int i = 0; i < mask.count(); ++i) {
    bool is_last = true;
    for (int j = i + 1; j < (i / windows + 1) * windows; ++j) {
      is_last &= mask.cpu_data()[j] != mask.cpu_data()[i];
    }
    gradient[i] = !is_last ? 0 : result.cpu_diff()[i / windows * area +
        static_cast<int>(mask.cpu_data()[i])];
  }
  return gradient;
}

}  // namespace

template <typename TypeParam>
class UnpoolingLayerTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  typedef LayerUnderTest<Dtype> Run;

  void ExpectScattered(Run* run) {
    run->Forward();
    run->Backward();
    const int area = run->top().count(2);
    ExpectNear(Scattered(run->bottom(), run->bottom(1), area),
        run->top().cpu_data(), 0);
    ExpectNear(Gathered(run->top(), run->bottom(1)), run->bottom().cpu_diff(),
        0);
  }
  // Of one of the layer types, with bottoms of 2 x 3 x 2 x 2.
  void ExpectDeath(const string& text, const string& message,
      int bottoms = 2) {
    Run run(text, bottoms);
    run.Shape({2, 3, 2, 2});
    if (bottoms > 1) { run.bottom(1).Reshape(2, 3, 2, 2); }
    EXPECT_DEATH(run.SetUp(), message);
  }
};

TYPED_TEST_CASE(UnpoolingLayerTest, TestDtypesAndDevices);

TYPED_TEST(UnpoolingLayerTest, TestWindowsOverTheMap) {
  typedef typename TypeParam::Dtype Dtype;
  for (const Windows& windows : kWindows) {
    for (const string method : {"AVE", "TILE"}) {
      SCOPED_TRACE(Text(windows, method));
      LayerUnderTest<Dtype> run(Text(windows, method));
      run.Shape({2, 3, windows.height, windows.width});
      run.SetUp();
      run.Forward();
      run.Backward();
      const int height = run.top().height(), width = run.top().width();
      if (windows.to_height == 0) {
        EXPECT_EQ((windows.height - 1) * windows.stride[0] +
            windows.kernel[0] - 2 * windows.pad[0], height);
      }
      const vector<vector<double> > weights =
          Weights(windows, height, width, method == "AVE");
      vector<double> values(run.top().count(), 0.);
      vector<double> gradients(run.bottom().count(), 0.);
      for (int i = 0; i < run.bottom().count(); ++i) {
        const int map = i / weights.size() * height * width;
        for (int place = 0; place < height * width; ++place) {
          const double weight = weights[i % weights.size()][place];
          values[map + place] += weight * run.bottom().cpu_data()[i];
          gradients[i] += weight * run.top().cpu_diff()[map + place];
        }
      }
      ExpectNear(values, run.top().cpu_data(), RoundingOf<Dtype>());
      ExpectNear(gradients, run.bottom().cpu_diff(), RoundingOf<Dtype>());
    }
  }
}

TYPED_TEST(UnpoolingLayerTest, TestMaximumWithoutAMaskTakesTheFirstPlace) {
  typedef typename TypeParam::Dtype Dtype;
  for (const Windows& windows : kWindows) {
    SCOPED_TRACE(Text(windows, "MAX"));
    LayerUnderTest<Dtype> run(Text(windows, "MAX"));
    run.Shape({2, 3, windows.height, windows.width});
    run.SetUp();
    run.Forward();
    run.Backward();
    Blob<Dtype> mask(run.bottom().shape());
    for (int i = 0; i < mask.count(); ++i) {
      const int row = i / windows.width % windows.height;
      const int y = std::min(run.top().height() - 1,
          std::max(0, row * windows.stride[0] - windows.pad[0]));
      const int x = std::min(run.top().width() - 1, std::max(0,
          i % windows.width * windows.stride[1] - windows.pad[1]));
      mask.mutable_cpu_data()[i] = y * run.top().width() + x;
    }
    ExpectNear(Scattered(run.bottom(), mask, run.top().count(2)),
        run.top().cpu_data(), 0);
    ExpectNear(Gathered(run.top(), mask), run.bottom().cpu_diff(), 0);
  }
}

// Also where several windows have one maximum.
TYPED_TEST(UnpoolingLayerTest, TestMask) {
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run("type: 'Unpooling' unpooling_param { unpool: MAX "
      "kernel_size: 2 stride: 2 unpool_size: 7 }", 2);
  run.Shape({1, 1, 4, 4});
  run.bottom(1).ReshapeLike(run.bottom());
  run.SetUp();
  for (const vector<int>& shape : vector<vector<int> >(
      {{2, 3, 4, 5}, {1, 2, 2, 3}, {3, 4, 6, 6}})) {
    run.Shape(shape);
    run.bottom(1).Reshape(shape);
    FillMask(&run.bottom(1), 49);
    this->ExpectScattered(&run);
  }
}

TYPED_TEST(UnpoolingLayerTest, TestBackWhereAPoolingFoundThem) {
  typedef typename TypeParam::Dtype Dtype;
  for (const string engine : {"CAFFE", "DEFAULT"}) {
    LayerUnderTest<Dtype> run("type: 'Upsample' upsample_param { upsample_h: 5 "
        "upsample_w: 9 }", 2);
    LayerParameter param;
    param.set_type("Pooling");
    param.mutable_pooling_param()->set_kernel_size(2);
    param.mutable_pooling_param()->set_stride(2);
    param.mutable_pooling_param()->set_engine(engine == "CAFFE" ?
        PoolingParameter::CAFFE : PoolingParameter::DEFAULT);
    shared_ptr<Layer<Dtype> > pooling =
        LayerRegistry<Dtype>::CreateLayer(param);
    Blob<Dtype> map(2, 3, 5, 9);
    LayerUnderTest<Dtype>::Fill(&map);
    vector<Blob<Dtype>*> maps(1, &map);
    pooling->SetUp(maps, run.bottom_vector());
    pooling->Forward(maps, run.bottom_vector());
    run.SetUp();
    run.Forward();
    int found = 0;
    for (int i = 0; i < map.count(); ++i) {
      const Dtype value = run.top().cpu_data()[i];
      EXPECT_TRUE(value == 0 || value == map.cpu_data()[i]);
      found += value != 0;
    }
    EXPECT_EQ(2 * 3 * 3 * 5, found);
  }
}

TYPED_TEST(UnpoolingLayerTest, TestSizesOfUpsample) {
  typedef typename TypeParam::Dtype Dtype;
  const struct { const char* param; int height, width; } cases[] = {
    {"", 6, 8}, {"scale: 3", 9, 12}, {"scale_h: 1 scale_w: 4", 3, 16},
    {"scale: 2 pad_out_h: true", 5, 8},
    {"scale: 2 pad_out_h: true pad_out_w: true", 5, 7},
    {"scale: 2 upsample_h: 5 upsample_w: 9", 5, 9}};
  for (const auto& test : cases) {
    SCOPED_TRACE(test.param);
    LayerUnderTest<Dtype> run(string("type: 'Upsample' upsample_param { ") +
        test.param + " }", 2);
    run.Shape({2, 3, 3, 4});
    run.bottom(1).ReshapeLike(run.bottom());
    FillMask(&run.bottom(1), test.height * test.width);
    run.SetUp();
    EXPECT_EQ(test.height, run.top().height());
    EXPECT_EQ(test.width, run.top().width());
    this->ExpectScattered(&run);
  }
}

TYPED_TEST(UnpoolingLayerTest, TestUpsampleFollowsItsInput) {
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run("type: 'Upsample'", 2);
  for (int size : {3, 5, 2}) {
    run.Shape({2, 2, size, size + 1});
    run.bottom(1).ReshapeLike(run.bottom());
    FillMask(&run.bottom(1), 4 * size * (size + 1));
    if (size == 3) { run.SetUp(); }
    this->ExpectScattered(&run);
    EXPECT_EQ(2 * size, run.top().height());
  }
}

TYPED_TEST(UnpoolingLayerTest, TestUpsampleWithoutAMask) {
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run("type: 'Upsample' upsample_param { scale: 3 }");
  run.Shape({2, 3, 3, 5});
  run.SetUp();
  run.Forward();
  ASSERT_EQ(9, run.top().height());
  ASSERT_EQ(15, run.top().width());
  for (int i = 0; i < run.top().count(); ++i) {
    const int y = i / 15 % 9, x = i % 15, map = i / 135;
    EXPECT_EQ(run.bottom().data_at(map / 3, map % 3, y / 3, x / 3),
        run.top().cpu_data()[i]);
  }
  run.CheckGradient();
}

TYPED_TEST(UnpoolingLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  for (const string method : {"MAX", "AVE", "TILE"}) {
    LayerUnderTest<Dtype> run(Text(kWindows[2], method));
    run.Shape({2, 2, 3, 4});
    run.CheckGradient();
  }
  LayerUnderTest<Dtype> run("type: 'Upsample'", 2);
  run.Shape({2, 2, 3, 3});
  run.bottom(1).Reshape(2, 2, 3, 3);
  FillMask(&run.bottom(1), 36);
  run.CheckGradient();
}

TYPED_TEST(UnpoolingLayerTest, TestHonoursPropagateDown) {
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run("type: 'Upsample'", 2);
  run.Shape({1, 2, 3, 3});
  run.bottom(1).Reshape(1, 2, 3, 3);
  FillMask(&run.bottom(1), 36);
  run.SetUp();
  run.Forward();
  caffe_set(18, Dtype(777), run.bottom().mutable_cpu_diff());
  run.layer()->Backward(run.top_vector(), vector<bool>(2, false),
      run.bottom_vector());
  for (int i = 0; i < 18; ++i) {
    EXPECT_EQ(777, run.bottom().cpu_diff()[i]);
  }
}

#ifdef _OPENMP
TYPED_TEST(UnpoolingLayerTest, TestThreadsChangeNoBit) {
  typedef typename TypeParam::Dtype Dtype;
  const int threads = omp_get_max_threads();
  for (int count : {1, 3}) {
    omp_set_num_threads(count);
    LayerUnderTest<Dtype> run("type: 'Upsample'", 2);
    run.Shape({3, 5, 7, 6});
    run.bottom(1).ReshapeLike(run.bottom());
    FillMask(&run.bottom(1), 4 * 42);
    run.SetUp();
    this->ExpectScattered(&run);
  }
  omp_set_num_threads(threads);
}
#endif

TYPED_TEST(UnpoolingLayerTest, TestPlacesBeyondTheMapAreTold) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const Dtype nan = std::numeric_limits<Dtype>::quiet_NaN();
  for (Dtype value : {Dtype(30), Dtype(-1), nan, Dtype(0.5), Dtype(1e30)}) {
    LayerUnderTest<Dtype> run("name: 'up' type: 'Upsample' upsample_param { "
        "upsample_h: 5 upsample_w: 6 }", 2);
    run.Shape({2, 3, 2, 3});
    run.bottom(1).ReshapeLike(run.bottom());
    FillMask(&run.bottom(1), 30);
    run.SetUp();
    run.Forward();
    run.bottom(1).mutable_cpu_data()[(1 * 3 + 2) * 6 + 4] = value;
    const string message = "Upsample layer 'up': the mask \\(bottom 1\\) is .* "
        "in image 1 of the batch, channel 2, row 1, column 1, which is no "
        "place of a map of 5 x 6 \\(0 to 29\\); .* by upsample_h and "
        "upsample_w";
    EXPECT_DEATH(run.Forward(), message);
    if (Caffe::mode() == Caffe::CPU) { EXPECT_DEATH(run.Backward(), message); }
  }
}

// A mask of a larger or smaller image would bring values to other places.
TYPED_TEST(UnpoolingLayerTest, TestAMaskOfAnotherSizeOfImageIsTold) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const string layers[] = {
      "name: 'u' type: 'Unpooling' unpooling_param { kernel_size: 2 stride: 2 "
      "unpool_h: 23 unpool_w: 30 }",
      "name: 'u' type: 'Upsample' upsample_param { scale: 2 upsample_h: 23 "
      "upsample_w: 30 }"};
  for (const string& text : layers) {
    LayerUnderTest<Dtype> run(text, 2);
    run.Shape({1, 2, 12, 15});
    run.bottom(1).ReshapeLike(run.bottom());
    run.SetUp();
    run.Shape({1, 2, 12, 12});
    run.bottom(1).ReshapeLike(run.bottom());
    EXPECT_DEATH(run.Forward(), " layer 'u': the mask \\(bottom 1\\) is of "
        "12 x 12 windows, but a pooling of a map of 23 x 30 has 12 x 15; .* "
        "go with one size of image");
  }
  LayerUnderTest<Dtype> run("type: 'Upsample' upsample_param { upsample_h: 23 "
      "upsample_w: 30 }", 2);
  run.Shape({1, 2, 3, 4});
  run.bottom(1).ReshapeLike(run.bottom());
  run.SetUp();  // of a pooling that is not said
}

TYPED_TEST(UnpoolingLayerTest, TestBadParametersAreNamed) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const string unpooling = "name: 'u' type: 'Unpooling' unpooling_param { ";
  const string upsample = "name: 'u' type: 'Upsample' upsample_param { ";
  const string who = "Unpooling layer 'u': ", whom = "Upsample layer 'u': ";
  this->ExpectDeath(unpooling + "}", who + "unpooling_param needs kernel_size");
  this->ExpectDeath(unpooling + "kernel_h: 2 }",
      who + "give kernel_h and kernel_w together, or kernel_size for both");
  this->ExpectDeath(unpooling + "kernel_size: 2 kernel_h: 2 kernel_w: 2 }",
      who + "give kernel_h and kernel_w together, or kernel_size");
  this->ExpectDeath(unpooling + "kernel_size: 2 stride: 0 }",
      who + "unpooling_param's stride must be 1 or more");
  this->ExpectDeath(unpooling + "kernel_size: 2 pad: 2 }",
      who + "unpooling_param's pad must be less than its kernel_size");
  this->ExpectDeath(unpooling + "kernel_size: 2 unpool_size: 0 }",
      who + "unpooling_param's unpool_size must be 1 or more");
  this->ExpectDeath(upsample + "scale: 0 }",
      whom + "upsample_param's scale is 0 and ");
  this->ExpectDeath(upsample + "upsample_h: 4 }",
      whom + "give upsample_h and upsample_w together");
  this->ExpectDeath(upsample + "scale: 3 pad_out_w: true }",
      whom + "upsample_param's pad_out_h and pad_out_w go with a scale of 2");
  this->ExpectDeath(upsample + "upsample_h: 4 upsample_w: 4 }",
      whom + "upsample_param's upsample_h and upsample_w go with a second "
      "bottom, the mask", 1);
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run("name: 'u' type: 'Upsample'", 2);
  run.Shape({2, 3, 2, 2});
  run.bottom(1).Reshape(2, 3, 4, 4);
  EXPECT_DEATH(run.SetUp(), whom + "bottom 1 is the mask, the second top of a "
      "Pooling layer, and must have the shape of bottom 0");
}

#ifdef CAFFE_CUDA_EMULATION

template <typename Dtype>
class UnpoolingKernelTest : public ::testing::Test {
 protected:
  typedef LayerUnderTest<Dtype> Run;

  virtual void TearDown() { emulation::settings() = emulation::Settings(); }

  static PoolingAxis Axis(const Windows& windows, int side, int size) {
    const PoolingAxis axis = {side == 0 ? windows.height : windows.width, size,
        windows.kernel[side], windows.stride[side], windows.pad[side]};
    return axis;
  }
  static dim3 Blocks(int count) {
    return dim3((count - 1) / kUnpoolingThreads + 1);
  }
  static vector<double> Doubles(const Dtype* values, int count) {
    return vector<double>(values, values + count);
  }
};

TYPED_TEST_CASE(UnpoolingKernelTest, TestDtypes);

TYPED_TEST(UnpoolingKernelTest, TestEqualsTheLayer) {
  const TypeParam nothing = std::numeric_limits<TypeParam>::quiet_NaN();
  for (const Windows& windows : kWindows) {
    for (int mode = 0; mode < 4; ++mode) {
      const bool has_mask = mode == 3;
      LayerUnderTest<TypeParam> run(Text(windows, mode == 0 ? "AVE" :
          mode == 1 ? "TILE" : "MAX"), has_mask ? 2 : 1);
      run.Shape({3, 37, windows.height, windows.width});
      if (has_mask) { run.bottom(1).ReshapeLike(run.bottom()); }
      run.SetUp();
      const int area = run.top().count(2);
      if (has_mask) { FillMask(&run.bottom(1), area); }
      run.Forward();
      run.Backward();
      const int count = run.bottom().count(), places = run.top().count();
      const PoolingAxis rows = this->Axis(windows, 0, run.top().height());
      const PoolingAxis columns = this->Axis(windows, 1, run.top().width());
      const TypeParam* const mask = has_mask ? run.bottom(1).cpu_data() : NULL;
      vector<TypeParam> values(places, nothing), gradients(count, nothing);
      const dim3 threads(kUnpoolingThreads);
      EmulatedDevice device;
      for (int order = 0; order < 2; ++order) {
        emulation::settings().order = order == 0 ?
            emulation::Settings::SHUFFLED : emulation::Settings::DESCENDING;
        if (mode < 2) {
          device.Launch(&UnpoolingSpreadKernel<TypeParam>,
              this->Blocks(places), threads, 0, places, rows, columns,
              mode == 0, run.bottom().cpu_data(), values.data());
          device.Launch(&UnpoolingCollectKernel<TypeParam>,
              this->Blocks(count), threads, 0, count, rows, columns, mode == 0,
              run.top().cpu_diff(), gradients.data());
        } else {
          vector<int> winners(places, 0);
          int bad = 0;
          device.Launch(&UnpoolingWinnersKernel<TypeParam>,
              this->Blocks(count), threads, 0, count, rows, columns, mask,
              winners.data(), &bad);
          device.Launch(&UnpoolingForwardKernel<TypeParam>,
              this->Blocks(places), threads, 0, places, winners.data(),
              run.bottom().cpu_data(), values.data());
          device.Launch(&UnpoolingBackwardKernel<TypeParam>,
              this->Blocks(count), threads, 0, count, rows, columns, mask,
              winners.data(), run.top().cpu_diff(), gradients.data());
          EXPECT_EQ(0, bad);
        }
        ExpectNear(this->Doubles(run.top().cpu_data(), places), values.data(),
            0);
        ExpectNear(this->Doubles(run.bottom().cpu_diff(), count),
            gradients.data(), 0);
      }
    }
  }
}

TYPED_TEST(UnpoolingKernelTest, TestPlacesBeyondTheMap) {
  const Windows& windows = kWindows[1];  // 3 x 4 of 5 x 7
  const PoolingAxis rows = this->Axis(windows, 0, 5);
  const PoolingAxis columns = this->Axis(windows, 1, 7);
  const TypeParam nan = std::numeric_limits<TypeParam>::quiet_NaN();
  for (TypeParam value : {TypeParam(35), TypeParam(-1), nan}) {
    vector<TypeParam> mask(24, 3), gradients(24, nan), diffs(70, 1);
    mask[7] = mask[17] = value;
    vector<int> winners(70, 0);
    int bad = 0;
    EmulatedDevice device;
    device.Launch(&UnpoolingWinnersKernel<TypeParam>, dim3(1),
        dim3(kUnpoolingThreads), 0, 24, rows, columns, mask.data(),
        winners.data(), &bad);
    device.Launch(&UnpoolingBackwardKernel<TypeParam>, dim3(1),
        dim3(kUnpoolingThreads), 0, 24, rows, columns, mask.data(),
        winners.data(), diffs.data(), gradients.data());
    EXPECT_EQ(18, bad);
    for (int i = 0; i < 24; ++i) {
      EXPECT_EQ(i == 11 || i == 23, gradients[i]) << i;
    }
  }
}

#endif  // CAFFE_CUDA_EMULATION

}  // namespace caffe
