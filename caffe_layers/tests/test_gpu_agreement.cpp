#include "caffe/common.hpp"

#ifndef CPU_ONLY

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/util/math_functions.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "renet_reference.hpp"

namespace caffe {

namespace {

typedef vector<int> Shape;

/// A layer on maps of given shapes. Bottoms after the first one get no
/// gradient, and only their shape counts, if they are no image.
struct Case {
  LayerParameter parameter;
  vector<Shape> bottoms;
  ReNetCase renet;  // where the layer is a ReNet layer: what fills its blobs
  bool is_renet;
  bool has_image = false;  // the second bottom, of the size of the first

  Case Phased(Phase phase) const {
    Case changed = *this;
    changed.parameter.set_phase(phase);
    return changed;
  }
  Case Precision(ReNetParameter::Precision precision) const {
    Case changed = *this;
    changed.parameter.mutable_renet_param()->set_precision(precision);
    return changed;
  }
};

std::ostream& operator<<(std::ostream& stream, const Case& c) {
  if (c.is_renet) { return stream << c.renet; }
  stream << c.parameter.type();
  for (const Shape& shape : c.bottoms) {
    stream << (&shape == &c.bottoms[0] ? " of" : " to");
    for (int size : shape) { stream << " " << size; }
  }
  return stream;
}

Case ReNet(const ReNetCase& renet) {
  Case c = {renet.Parameter(TRAIN),
      {{renet.num, renet.channels, renet.height, renet.width}}, renet, true};
  return c.Precision(ReNetParameter::FLOAT32);
}

Case Bilinear(int num, int channels, int height, int width, int target_height,
    int target_width) {
  Case c = {LayerParameter(), {{num, channels, height, width},
      {num, 3, target_height, target_width}}, ReNetCase(), false};
  c.parameter.set_type("BilinearInterpolation");
  return c;
}

Case DenseCRF(int num, int classes, int height, int width, int iterations) {
  Case c = {LayerParameter(), {{num, classes, height, width},
      {num, 3, height, width}}, ReNetCase(), false};
  c.has_image = true;
  c.parameter.set_type("DenseCRF");
  DenseCRFParameter* const crf = c.parameter.mutable_dense_crf_param();
  crf->set_max_iter(iterations);
  crf->set_bi_rgb_std(20);
  return c;
}

Case L2Normalization(int num, int channels, int height, int width) {
  Case c = {LayerParameter(), {{num, channels, height, width}}, ReNetCase(),
      false};
  c.parameter.set_type("L2Normalization");
  c.parameter.mutable_l2_normalization_param()->set_scale(100);
  return c;
}

Case BN(int num, int channels, int height, int width, const string& fields) {
  Case c = {LayerParameter(), {{num, channels, height, width}}, ReNetCase(),
      false};
  c.parameter.set_type("BN");
  CHECK(google::protobuf::TextFormat::ParseFromString(fields,
      c.parameter.mutable_bn_param()));
  return c;
}

const char* const kBNForms[] = {"bn_mode: LEARN", "bn_mode: INFERENCE",
    "momentum: 0.5 slope_filler { value: 0.7 }", "frozen: true"};

Case LearnedDenseCRF(Case c) {
  c.parameter.mutable_dense_crf_param()->set_learn(true);
  return c;
}

/// Every unit with every option, in both directions.
vector<ReNetCase> Sweeps() {
  vector<ReNetCase> sweeps;
  for (const ReNetCase& unit : ReNetUnits()) {
    sweeps.push_back(unit.Direction(true));
    sweeps.push_back(unit.Direction(false));
  }
  return sweeps;
}

/// A layer of each kind at a small size.
vector<Case> SmallCases() {
  vector<Case> cases;
  for (const ReNetCase& sweep : Sweeps()) {
    cases.push_back(ReNet(sweep.Map(2, 3, 7, 11).Patch(2, 1).Hidden(13)));
  }
  cases.push_back(Bilinear(2, 5, 6, 7, 13, 9));
  cases.push_back(DenseCRF(2, 5, 6, 7, 3));
  cases.push_back(LearnedDenseCRF(DenseCRF(2, 5, 6, 7, 2)));
  cases.push_back(L2Normalization(2, 5, 6, 7));
  for (const char* form : kBNForms) { cases.push_back(BN(2, 5, 6, 7, form)); }
  return cases;
}

/// What a pass forward and backward leaves.
template <typename Dtype>
struct Results {
  vector<Dtype> top;
  vector<Dtype> bottom_diff;
  vector<vector<Dtype> > parameter_diffs;
  bool float_inside;  // whatever Dtype is: the weights of a CRF's lattice
};

/// A layer with its blobs, whose contents are a function of the case alone and
/// equal in float and in double.
template <typename Dtype>
class Subject {
 public:
  explicit Subject(const Case& c)
      : has_image_(c.has_image), propagate_down_(c.bottoms.size(), false) {
    propagate_down_[0] = true;
    for (size_t i = 0; i < c.bottoms.size(); ++i) {
      bottoms_.push_back(shared_ptr<Blob<Dtype> >(
          new Blob<Dtype>(c.bottoms[i])));
      bottom_.push_back(bottoms_[i].get());
    }
    top_.push_back(&result_);
    Caffe::set_mode(Caffe::CPU);
    layer_ = LayerRegistry<Dtype>::CreateLayer(c.parameter);
    layer_->SetUp(bottom_, top_);
    if (c.is_renet) {
      const bool irnn = c.renet.type == "ReNetIRNN";
      FillParameters(c.renet, irnn ? 0.3 : 1, layer_->blobs());
      // So an IRNN's sums stay on their side of the kink: at it, the gradient
      // would be decided by a rounding.
      for (int scan = 0; scan < 2 && irnn; ++scan) {
        Dtype* const bias = layer_->blobs()[scan * 3 + 1]->mutable_cpu_data();
        for (int i = 0; i < c.renet.hidden; ++i) {
          bias[i] = i % 2 ? -1.5 : 1.5;
        }
      }
    }
    ClearDiffs();
    SetMaps(c.bottoms);
  }

  void SetMaps(const vector<Shape>& shapes) {
    for (size_t i = 0; i < shapes.size(); ++i) {
      bottom_[i]->Reshape(shapes[i]);
    }
    layer_->Reshape(bottom_, top_);
    FillUniform(1, -1, 1, bottom_[0]->count(), bottom_[0]->mutable_cpu_data());
    FillUniform(2, -1, 1, result_.count(), result_.mutable_cpu_diff());
    if (has_image_) { DrawImage(); }
    // What no one writes is found by this.
    caffe_set(result_.count(), Dtype(777), result_.mutable_cpu_data());
    caffe_set(bottom_[0]->count(), Dtype(777), bottom_[0]->mutable_cpu_diff());
  }
  // Two surfaces with noise, as 8-bit values.
  void DrawImage() {
    Blob<Dtype>* const image = bottom_[1];
    const int width = image->width(), area = image->height() * width;
    FillUniform(3, 0, 20, image->count(), image->mutable_cpu_data());
    for (int i = 0; i < image->count(); ++i) {
      Dtype* const value = image->mutable_cpu_data() + i;
      const int x = i % width, y = i % area / width;
      *value = std::floor(*value) + (2 * x + y > width ? 150 : 70);
    }
  }
  void ClearDiffs() {
    for (const shared_ptr<Blob<Dtype> >& blob : layer_->blobs()) {
      caffe_set(blob->count(), Dtype(0), blob->mutable_cpu_diff());
    }
  }

  void Forward(Caffe::Brew mode) {
    Caffe::set_mode(mode);
    layer_->Forward(bottom_, top_);
    Caffe::set_mode(Caffe::CPU);
  }
  void Backward(Caffe::Brew mode) {
    Caffe::set_mode(mode);
    layer_->Backward(top_, propagate_down_, bottom_);
    Caffe::set_mode(Caffe::CPU);
  }

  Results<Dtype> results() const {
    Results<Dtype> results;
    results.float_inside = has_image_;
    results.top.assign(result_.cpu_data(),
        result_.cpu_data() + result_.count());
    results.bottom_diff.assign(bottom_[0]->cpu_diff(),
        bottom_[0]->cpu_diff() + bottom_[0]->count());
    for (const shared_ptr<Blob<Dtype> >& blob : layer_->blobs()) {
      results.parameter_diffs.push_back(vector<Dtype>(blob->cpu_diff(),
          blob->cpu_diff() + blob->count()));
    }
    return results;
  }

 private:
  const bool has_image_;
  shared_ptr<Layer<Dtype> > layer_;
  vector<shared_ptr<Blob<Dtype> > > bottoms_;
  Blob<Dtype> result_;
  vector<Blob<Dtype>*> bottom_, top_;
  vector<bool> propagate_down_;
};

template <typename Dtype>
Results<Dtype> RunOnce(const Case& c, Caffe::Brew forward,
    Caffe::Brew backward) {
  Subject<Dtype> subject(c);
  subject.Forward(forward);
  subject.Backward(backward);
  return subject.results();
}

/// The norm of the difference, as a part of the expected values' norm.
template <typename Dtype>
double RelativeNorm(const vector<Dtype>& actual,
    const vector<double>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(actual[i] - expected[i], 2);
    norm += std::pow(expected[i], 2);
  }
  const double relative = std::sqrt(difference / std::max(norm, 1e-30));
  return std::isnan(relative) ? std::numeric_limits<double>::infinity() :
      relative;
}

/// The bounds that every layer keeps to a reference in double.
template <typename Dtype>
void ExpectNear(const Results<Dtype>& actual, const Results<double>& expected) {
  const bool is_float =
      sizeof(Dtype) == sizeof(float) || expected.float_inside;
  const double forward = is_float ? 2e-5 : 1e-11;
  const double gradient = is_float ? 2e-3 : 1e-8;
  ASSERT_EQ(expected.top.size(), actual.top.size());
  EXPECT_LE(LargestError(expected.top.size(), actual.top.data(),
      expected.top.data()), forward) << "top";
  ASSERT_EQ(expected.bottom_diff.size(), actual.bottom_diff.size());
  EXPECT_LE(LargestGradientError(expected.bottom_diff.size(),
      actual.bottom_diff.data(), expected.bottom_diff.data()), gradient)
      << "gradient of the bottom";
  ASSERT_EQ(expected.parameter_diffs.size(), actual.parameter_diffs.size());
  for (size_t i = 0; i < expected.parameter_diffs.size(); ++i) {
    EXPECT_LE(LargestGradientError(expected.parameter_diffs[i].size(),
        actual.parameter_diffs[i].data(), expected.parameter_diffs[i].data()),
        gradient) << "gradient of parameter blob " << i;
  }
}

template <typename Dtype>
void ExpectSameBits(const Results<Dtype>& one, const Results<Dtype>& other) {
  EXPECT_TRUE(one.top == other.top) << "top";
  EXPECT_TRUE(one.bottom_diff == other.bottom_diff) << "gradient of the bottom";
  EXPECT_TRUE(one.parameter_diffs == other.parameter_diffs)
      << "gradients of the parameters";
}

}  // namespace

/// The layers on the GPU in Dtype, beside the same ones on the CPU in double.
template <typename Dtype>
class GPUAgreementTest : public ::testing::Test {
 protected:
  virtual void TearDown() { Caffe::set_mode(Caffe::CPU); }

  static void ExpectAgreement(const Case& c) {
    SCOPED_TRACE(::testing::Message() << c);
    ExpectNear(RunOnce<Dtype>(c, Caffe::GPU, Caffe::GPU),
        RunOnce<double>(c, Caffe::CPU, Caffe::CPU));
  }
};

TYPED_TEST_CASE(GPUAgreementTest, TestDtypes);

TYPED_TEST(GPUAgreementTest, ReNetShapes) {
  for (const ReNetCase& sweep : Sweeps()) {
    const ReNetCase cases[] = {
        sweep.Map(1, 1, 1, 1).Hidden(1),
        sweep.Map(1, 2, 1, 1).Patch(3, 2).Hidden(2),
        sweep.Map(2, 3, 7, 11).Patch(2, 2).Hidden(5),
        sweep.Map(3, 2, 8, 7).Patch(3, 2).Hidden(33),
        sweep.Map(1, 1, 90, 2).Hidden(17),
        sweep.Map(1, 5, 9, 37).Hidden(60),
        sweep.Map(1, 3, 6, 9).Hidden(161),
        // More than any block's memory holds.
        sweep.Map(2, 3, 5, 7).Hidden(300)};
    for (const ReNetCase& c : cases) { this->ExpectAgreement(ReNet(c)); }
  }
}

// The shapes of the benchmark on smaller maps.
TYPED_TEST(GPUAgreementTest, ReNetBenchmarkShapes) {
  for (const ReNetCase& sweep : Sweeps()) {
    this->ExpectAgreement(ReNet(sweep.Map(2, 12, 30, 40).Hidden(40)));
    this->ExpectAgreement(ReNet(sweep.Map(2, 240, 13, 16).Hidden(120)));
    this->ExpectAgreement(ReNet(sweep.Map(1, 1024, 12, 16).Hidden(120)));
  }
}

TYPED_TEST(GPUAgreementTest, BilinearInterpolationShapes) {
  const int shapes[][6] = {
      {1, 1, 1, 1, 1, 1}, {2, 3, 1, 1, 37, 51}, {2, 3, 37, 51, 1, 1},
      {1, 9, 1, 7, 3, 7}, {3, 7, 4, 1, 9, 3}, {2, 8, 5, 6, 5, 6},
      {1, 17, 9, 8, 4, 3}, {2, 5, 3, 40, 31, 6}, {1, 4, 60, 2, 3, 97},
      {2, 8, 60, 80, 120, 160}, {1, 21, 41, 33, 321, 257}};
  for (const int* s : shapes) {
    this->ExpectAgreement(Bilinear(s[0], s[1], s[2], s[3], s[4], s[5]));
  }
}

TYPED_TEST(GPUAgreementTest, BNShapes) {
  const int shapes[][4] = {{1, 2, 5, 3}, {2, 300, 3, 5}, {3, 7, 97, 61},
      {2, 64, 45, 60}};
  for (const int* s : shapes) {
    for (const char* form : kBNForms) {
      this->ExpectAgreement(BN(s[0], s[1], s[2], s[3], form));
    }
  }
}

TYPED_TEST(GPUAgreementTest, DenseCRFShapes) {
  const int shapes[][4] = {
      {1, 2, 1, 1}, {1, 21, 1, 40}, {2, 3, 33, 1}, {2, 21, 37, 23},
      {1, 100, 9, 14}, {3, 2, 8, 5}, {1, 21, 121, 161}};
  for (const int* s : shapes) {
    Case c = DenseCRF(s[0], s[1], s[2], s[3], 2);
    this->ExpectAgreement(c);
    this->ExpectAgreement(LearnedDenseCRF(c));
    c.parameter.mutable_dense_crf_param()->set_output(
        DenseCRFParameter_Output_LOG_PROBABILITY);
    this->ExpectAgreement(c);
  }
}

TYPED_TEST(GPUAgreementTest, DenseCRFOptions) {
  for (int option = 0; option < 11; ++option) {
    Case c = DenseCRF(2, 4, 15, 18, option == 0 ? 10 : option == 1 ? 0 : 2);
    DenseCRFParameter* const crf = c.parameter.mutable_dense_crf_param();
    if (option == 2) { crf->set_pos_w(0); }
    if (option == 3) { crf->set_bi_w(0); }
    if (option == 4) {
      crf->set_order(DenseCRFParameter_Order_RGB);
      crf->set_scale(0.5);
      crf->add_mean_value(-60);
    }
    // a lattice with many vertices: noise is far from noise
    if (option == 5) { crf->set_bi_rgb_std(1); }
    if (option == 6 || option == 9) {
      crf->set_normalization(DenseCRFParameter_Normalization_AFTER);
    }
    if (option == 7) {
      crf->set_normalization(DenseCRFParameter_Normalization_BEFORE);
    }
    if (option == 8) {
      crf->set_normalization(DenseCRFParameter_Normalization_NONE);
      crf->set_pos_w(0.1);
      crf->set_bi_w(0.1);
    }
    if (option >= 9) {
      crf->set_kernel_weights(DenseCRFParameter_ClassMatrix_MATRIX);
      crf->set_compatibility(DenseCRFParameter_ClassMatrix_MATRIX);
      crf->set_output(DenseCRFParameter_Output_SCORE);
    }
    this->ExpectAgreement(c);
  }
}

TYPED_TEST(GPUAgreementTest, L2NormalizationShapes) {
  const int shapes[][4] = {{1, 2, 1, 1}, {2, 3, 5, 7}, {3, 64, 16, 16},
      {1, 65, 16, 16}, {2, 512, 47, 63}};
  for (const int* s : shapes) {
    this->ExpectAgreement(L2Normalization(s[0], s[1], s[2], s[3]));
  }
}

// Of a map of one value the sign is left, so the gradient is 0 but for rounding,
// and has no size to hold a difference against.
TYPED_TEST(GPUAgreementTest, L2NormalizationOfOneValue) {
  const Case c = L2Normalization(3, 1, 1, 1);
  const Results<double> expected =
      RunOnce<double>(c, Caffe::CPU, Caffe::CPU);
  const Results<TypeParam> actual =
      RunOnce<TypeParam>(c, Caffe::GPU, Caffe::GPU);
  EXPECT_LE(LargestError(expected.top.size(), actual.top.data(),
      expected.top.data()), 2e-5);
  const double rounding = sizeof(TypeParam) == sizeof(float) ? 1e-2 : 1e-10;
  for (size_t i = 0; i < actual.bottom_diff.size(); ++i) {
    EXPECT_NEAR(0, expected.bottom_diff[i], 1e-10);
    EXPECT_NEAR(0, actual.bottom_diff[i], rounding);
  }
}

// One layer whose maps grow and shrink; each answer is that of a new layer.
TYPED_TEST(GPUAgreementTest, SizesThatChange) {
  const int sizes[][3] = {
      {2, 7, 11}, {1, 23, 40}, {1, 1, 1}, {3, 5, 90}, {2, 7, 11}, {1, 40, 3}};
  for (const Case& c : SmallCases()) {
    SCOPED_TRACE(::testing::Message() << c);
    Subject<TypeParam> changing(c);
    Subject<double> expected(c);
    for (const int* size : sizes) {
      SCOPED_TRACE(::testing::Message() << size[0] << " maps of " << size[1]
          << " x " << size[2]);
      vector<Shape> shapes = c.bottoms;
      for (size_t i = 0; i < shapes.size(); ++i) {
        shapes[i][0] = size[0];
        const bool same = i == 0 || c.has_image;
        shapes[i][2] = same ? size[1] : size[2];
        shapes[i][3] = same ? size[2] : size[1] + 2;
      }
      changing.SetMaps(shapes);
      expected.SetMaps(shapes);
      changing.ClearDiffs();
      expected.ClearDiffs();
      changing.Forward(Caffe::GPU);
      changing.Backward(Caffe::GPU);
      expected.Forward(Caffe::CPU);
      expected.Backward(Caffe::CPU);
      ExpectNear(changing.results(), expected.results());
    }
  }
}

// The gradients of the parameters add up, that of the bottom is the same again.
TYPED_TEST(GPUAgreementTest, BackwardTwice) {
  for (const Case& c : SmallCases()) {
    SCOPED_TRACE(::testing::Message() << c);
    Subject<TypeParam> actual(c);
    Subject<double> expected(c);
    actual.Forward(Caffe::GPU);
    expected.Forward(Caffe::CPU);
    for (int round = 0; round < 2; ++round) {
      actual.Backward(Caffe::GPU);
      expected.Backward(Caffe::CPU);
    }
    ExpectNear(actual.results(), expected.results());
  }
}

TYPED_TEST(GPUAgreementTest, BackwardInATestNet) {
  for (const Case& c : SmallCases()) { this->ExpectAgreement(c.Phased(TEST)); }
}

// Each pass on whichever device: backward finds, or computes again, what it
// needs of a forward pass on the other one.
TYPED_TEST(GPUAgreementTest, ModeChangesBetweenForwardAndBackward) {
  for (const Case& c : SmallCases()) {
    for (Phase phase : {TRAIN, TEST}) {
      SCOPED_TRACE(::testing::Message() << c << ", " << Phase_Name(phase));
      const Case phased = c.Phased(phase);
      const Results<double> expected =
          RunOnce<double>(phased, Caffe::CPU, Caffe::CPU);
      ExpectNear(RunOnce<TypeParam>(phased, Caffe::CPU, Caffe::GPU), expected);
      ExpectNear(RunOnce<TypeParam>(phased, Caffe::GPU, Caffe::CPU), expected);
    }
  }
}

// To and fro in one layer, on another map each time, so that nothing left by
// the other device serves by chance.
TYPED_TEST(GPUAgreementTest, ModeChangesBetweenPasses) {
  const Caffe::Brew modes[][2] = {{Caffe::GPU, Caffe::GPU},
      {Caffe::CPU, Caffe::CPU}, {Caffe::GPU, Caffe::CPU},
      {Caffe::GPU, Caffe::GPU}, {Caffe::CPU, Caffe::GPU}};
  for (const Case& c : SmallCases()) {
    SCOPED_TRACE(::testing::Message() << c);
    Subject<TypeParam> actual(c);
    Subject<double> expected(c);
    for (int pass = 0; pass < 5; ++pass) {
      SCOPED_TRACE(::testing::Message() << "pass " << pass);
      vector<Shape> shapes = c.bottoms;
      shapes[0][3] += pass;
      if (c.has_image) { shapes[1][3] += pass; }
      actual.SetMaps(shapes);
      expected.SetMaps(shapes);
      actual.Forward(modes[pass][0]);
      actual.Backward(modes[pass][1]);
      expected.Forward(Caffe::CPU);
      expected.Backward(Caffe::CPU);
      ExpectNear(actual.results(), expected.results());
    }
  }
}

TYPED_TEST(GPUAgreementTest, EveryRunGivesTheSameBits) {
  for (const Case& c : SmallCases()) {
    SCOPED_TRACE(::testing::Message() << c);
    const Results<TypeParam> first =
        RunOnce<TypeParam>(c, Caffe::GPU, Caffe::GPU);
    for (int run = 0; run < 3; ++run) {
      ExpectSameBits(first, RunOnce<TypeParam>(c, Caffe::GPU, Caffe::GPU));
    }
  }
}

/// The options of renet_param that round the factors of products.
class GPUPrecisionTest : public ::testing::Test {
 protected:
  virtual void TearDown() { Caffe::set_mode(Caffe::CPU); }

  static bool HasTensorCores() {
    int device, major;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&major,
        cudaDevAttrComputeCapabilityMajor, device));
    return major >= 8;
  }

  // `state` bounds the largest error of the top, `gradient` the norm of each
  // gradient's error as a part of the gradient's own. (Rounding to the nearest
  // is expected to take a third of the bounds given below, and cutting off,
  // which some hardware does, twice as much.)
  static void ExpectWithin(ReNetParameter::Precision precision, double state,
      double gradient) {
    for (const ReNetCase& sweep : Sweeps()) {
      const ReNetCase cases[] = {
          sweep.Map(2, 3, 7, 11).Patch(2, 2).Hidden(5),
          sweep.Map(2, 12, 30, 40).Hidden(40),
          sweep.Map(1, 5, 9, 37).Hidden(60),
          sweep.Map(2, 240, 13, 16).Hidden(120),
          sweep.Map(1, 1024, 12, 16).Hidden(120),
          sweep.Map(2, 3, 5, 7).Hidden(300)};
      for (const ReNetCase& renet : cases) {
        SCOPED_TRACE(::testing::Message() << renet);
        const Case c = ReNet(renet).Precision(precision);
        const Results<double> expected =
            RunOnce<double>(c, Caffe::CPU, Caffe::CPU);
        const Results<float> actual = RunOnce<float>(c, Caffe::GPU, Caffe::GPU);
        EXPECT_LE(LargestError(expected.top.size(), actual.top.data(),
            expected.top.data()), state) << "top";
        EXPECT_LE(RelativeNorm(actual.bottom_diff, expected.bottom_diff),
            gradient) << "gradient of the bottom";
        for (size_t i = 0; i < expected.parameter_diffs.size(); ++i) {
          EXPECT_LE(RelativeNorm(actual.parameter_diffs[i],
              expected.parameter_diffs[i]), gradient)
              << "gradient of parameter blob " << i;
        }
        // And the option has an effect; float32's own error is a tenth of this.
        if (HasTensorCores() && (renet.hidden == 40 || renet.hidden == 60)) {
          EXPECT_GE(RelativeNorm(actual.top, expected.top), 1e-5) << "top";
        }
      }
    }
  }
};

TEST_F(GPUPrecisionTest, TF32) {
  ExpectWithin(ReNetParameter::TF32, 2e-3, 3e-3);
}

TEST_F(GPUPrecisionTest, BF16) {
  ExpectWithin(ReNetParameter::BF16, 1.5e-2, 1.5e-2);
}

// Products of doubles are never rounded.
TEST_F(GPUPrecisionTest, DoubleStaysDouble) {
  for (const ReNetCase& sweep : Sweeps()) {
    const ReNetCase renet = sweep.Map(2, 3, 7, 11).Hidden(40);
    SCOPED_TRACE(::testing::Message() << renet);
    const Case c = ReNet(renet).Precision(ReNetParameter::BF16);
    ExpectNear(RunOnce<double>(c, Caffe::GPU, Caffe::GPU),
        RunOnce<double>(c, Caffe::CPU, Caffe::CPU));
  }
}

}  // namespace caffe

#endif  // CPU_ONLY
