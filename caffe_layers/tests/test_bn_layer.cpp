#include "cuda_emulation.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/bn_layer.hpp"
#include "caffe/net.hpp"
#include "caffe/util/io.hpp"
#ifdef CAFFE_CUDA_EMULATION
#include "caffe/util/batch_statistics.cuh"
#include "emulated_device.hpp"
#endif

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"

#include "google/protobuf/text_format.h"

namespace caffe {

namespace {

const char kLearn[] = "scale_filler { value: 1 } shift_filler { value: 0 }";
const char kInference[] = "bn_mode: INFERENCE";
const char kRunning[] = "slope_filler { value: 1 } momentum: 0.75 eps: 0.001";
const char kFrozen[] = "frozen: true eps: 0.001";

// Odd sizes, one value, few and many tiles, more channels than a block.
const vector<vector<int> > kShapes = {
  {2, 3, 5, 7}, {1, 1, 1, 1}, {3, 2, 37, 41}, {4, 5}, {1, 300, 1, 3},
  {2, 1, 80, 90}, {2, 3, 2, 3, 2},
};

LayerParameter Named(const string& fields, Phase phase = TRAIN) {
  LayerParameter parameter;
  parameter.set_name("bn1");
  parameter.set_phase(phase);
  CHECK(google::protobuf::TextFormat::ParseFromString(fields,
      parameter.mutable_bn_param()));
  return parameter;
}

template <typename Dtype>
void FillNoise(double mean, bool diff, Blob<Dtype>* blob) {
  FillerParameter filler_param;
  filler_param.set_mean(mean);
  GaussianFiller<Dtype> filler(filler_param);
  Blob<Dtype> noise(blob->shape());
  filler.Fill(&noise);
  caffe_copy(blob->count(), noise.cpu_data(),
      diff ? blob->mutable_cpu_diff() : blob->mutable_cpu_data());
}

/// The definition, with sums in double.
struct Reference {
  template <typename Dtype>
  Reference(const Blob<Dtype>& x, float eps_given)  // as a parameter of the layer is
      : num(x.shape(0)), channels(x.shape(1)), plane(x.count(2)),
        eps(eps_given), mean(channels, 0.), variance(channels, 0.),
        of_batch(true) {
    for (int i = 0; i < x.count(); ++i) {
      mean[Channel(i)] += x.cpu_data()[i] / (1. * num * plane);
    }
    for (int i = 0; i < x.count(); ++i) {
      variance[Channel(i)] += std::pow(x.cpu_data()[i] - mean[Channel(i)], 2) /
          (1. * num * plane);
    }
  }
  int Channel(int i) const { return i / plane % channels; }
  double Inverse(int c) const { return 1 / std::sqrt(variance[c] + eps); }
  template <typename Dtype>
  vector<double> Normalized(const Blob<Dtype>& x) const {
    vector<double> result(x.count());
    for (int i = 0; i < x.count(); ++i) {
      const int c = Channel(i);
      result[i] = (x.cpu_data()[i] - mean[c]) * Inverse(c);
    }
    return result;
  }
  // dx as the sum over all that x_j changes: y_i through itself and through the
  // statistics.
  template <typename Dtype>
  vector<double> Gradient(const Blob<Dtype>& x, const Dtype* dy,
      const Dtype* scale) const {
    const vector<double> normalized = Normalized(x);
    vector<double> all(channels, 0.), along(channels, 0.), dx(x.count());
    for (int i = 0; i < x.count() && of_batch; ++i) {
      all[Channel(i)] += dy[i] / (1. * num * plane);
      along[Channel(i)] += dy[i] * normalized[i] / (1. * num * plane);
    }
    for (int i = 0; i < x.count(); ++i) {
      const int c = Channel(i);
      dx[i] = scale[c] * Inverse(c) *
          (dy[i] - all[c] - normalized[i] * along[c]);
    }
    return dx;
  }

  int num, channels, plane;
  double eps;
  vector<double> mean, variance;
  bool of_batch;
};

template <typename Dtype>
void ExpectNear(const vector<double>& expected, const Dtype* actual,
    const string& what) {
  double largest = 1;
  for (double value : expected) {
    largest = std::max(largest, std::abs(value));
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(expected[i], actual[i],
        (sizeof(Dtype) == 4 ? 2e-5 : 1e-10) * largest) << what << ", value "
        << i;
  }
}

}  // namespace

template <typename TypeParam>
class BNLayerTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  BNLayerTest() : bottom_(1, &x_), top_(1, &y_) {}

  void SetUpLayer(BNLayer<Dtype>* layer) {
    layer->SetUp(bottom_, top_);
    for (int i = 0; i < 2; ++i) { FillNoise(1, false, layer->blobs()[i].get()); }
  }
  /// y, dx and the parameters' gradients by the definition; forward and
  /// backward of the layer, which gets x and may work in place.
  void ExpectPass(const Reference& reference, const Blob<Dtype>& x,
      BNLayer<Dtype>* layer) {
    const vector<shared_ptr<Blob<Dtype> > >& blobs = layer->blobs();
    layer->Forward(bottom_, top_);
    const vector<double> normalized = reference.Normalized(x);
    vector<double> y(x.count());
    for (int i = 0; i < x.count(); ++i) {
      const int c = reference.Channel(i);
      y[i] = blobs[0]->cpu_data()[c] * normalized[i] + blobs[1]->cpu_data()[c];
    }
    ExpectNear(y, top_[0]->cpu_data(), "y of " + x.shape_string());
    Blob<Dtype> dy(x.shape());
    FillNoise(0.5, false, &dy);
    vector<double> dscale(x.shape(1), 3.), dshift(x.shape(1), -2.);
    for (int i = 0; i < x.count(); ++i) {
      dscale[reference.Channel(i)] += dy.cpu_data()[i] * normalized[i];
      dshift[reference.Channel(i)] += dy.cpu_data()[i];
    }
    caffe_set(blobs[0]->count(), Dtype(3), blobs[0]->mutable_cpu_diff());
    caffe_set(blobs[0]->count(), Dtype(-2), blobs[1]->mutable_cpu_diff());
    caffe_copy(x.count(), dy.cpu_data(), top_[0]->mutable_cpu_diff());
    layer->Backward(top_, vector<bool>(1, true), bottom_);
    ExpectNear(reference.Gradient(x, dy.cpu_data(), blobs[0]->cpu_data()),
        bottom_[0]->cpu_diff(), "dx of " + x.shape_string());
    ExpectNear(dscale, blobs[0]->cpu_diff(), "dscale");
    ExpectNear(dshift, blobs[1]->cpu_diff(), "dshift");
  }

  Blob<Dtype> x_, y_, mean_, variance_;
  vector<Blob<Dtype>*> bottom_, top_;
};

TYPED_TEST_CASE(BNLayerTest, TestDtypesAndDevices);

TYPED_TEST(BNLayerTest, TestBatchStatisticsInEveryPhase) {
  typedef typename TypeParam::Dtype Dtype;
  for (Phase phase : {TRAIN, TEST}) {
    for (bool in_place : {false, true}) {
      for (const vector<int>& shape : kShapes) {
        this->x_.Reshape(shape);
        FillNoise(3, false, &this->x_);
        Blob<Dtype> x(shape);
        x.CopyFrom(this->x_);
        this->top_.assign(1, in_place ? &this->x_ : &this->y_);
        BNLayer<Dtype> layer(Named(kLearn, phase));
        this->SetUpLayer(&layer);
        this->ExpectPass(Reference(x, 1e-9), x, &layer);
      }
    }
  }
}

TYPED_TEST(BNLayerTest, TestBatchStatisticsAreTops) {
  typedef typename TypeParam::Dtype Dtype;
  this->x_.Reshape(kShapes[0]);
  FillNoise(3, false, &this->x_);
  this->top_.push_back(&this->mean_);
  this->top_.push_back(&this->variance_);
  BNLayer<Dtype> layer(Named(kLearn));
  this->SetUpLayer(&layer);
  layer.Forward(this->bottom_, this->top_);
  const Reference reference(this->x_, 0);
  EXPECT_EQ("1 3 1 1 (3)", this->mean_.shape_string());
  ExpectNear(reference.mean, this->mean_.cpu_data(), "mean");
  ExpectNear(reference.variance, this->variance_.cpu_data(), "variance");
}

// The map's size changes from pass to pass.
TYPED_TEST(BNLayerTest, TestInferenceIsScaleAndShift) {
  typedef typename TypeParam::Dtype Dtype;
  for (bool in_place : {false, true}) {
    this->top_.assign(1, in_place ? &this->x_ : &this->y_);
    BNLayer<Dtype> layer(Named(kInference));
    const vector<vector<int> > shapes = {{2, 3, 5, 7}, {1, 3, 11, 2}, {4, 3, 1, 1}};
    for (const vector<int>& shape : shapes) {
      this->x_.Reshape(shape);
      FillNoise(3, false, &this->x_);
      Blob<Dtype> x(shape);
      x.CopyFrom(this->x_);
      if (shape == shapes[0]) { this->SetUpLayer(&layer); }
      Reference reference(x, 0);
      reference.mean.assign(3, 0.);
      reference.variance.assign(3, 1.);
      reference.of_batch = false;
      this->ExpectPass(reference, x, &layer);
    }
  }
}

TYPED_TEST(BNLayerTest, TestRunningStatistics) {
  typedef typename TypeParam::Dtype Dtype;
  BNLayer<Dtype> layer(Named(kRunning));
  vector<double> mean(3, 0.), variance(3, 0.);
  const vector<vector<int> > shapes = {{2, 3, 5, 7}, {1, 3, 11, 2}, {4, 3, 1, 3}};
  for (const vector<int>& shape : shapes) {
    this->x_.Reshape(shape);
    FillNoise(3, false, &this->x_);
    if (shape == shapes[0]) { this->SetUpLayer(&layer); }
    const Reference batch(this->x_, 1e-3);
    this->ExpectPass(batch, this->x_, &layer);
    for (int c = 0; c < 3; ++c) {
      mean[c] = 0.75 * mean[c] + 0.25 * batch.mean[c];
      variance[c] = 0.75 * variance[c] + 0.25 * batch.variance[c];
    }
    ExpectNear(mean, layer.blobs()[2]->cpu_data(), "mean");
    ExpectNear(variance, layer.blobs()[3]->cpu_data(), "variance");
  }
  // What a test net does with them, and leaves as they are.
  BNLayer<Dtype> tested(Named(kRunning, TEST));
  tested.blobs() = layer.blobs();
  tested.SetUp(this->bottom_, this->top_);
  Reference reference(this->x_, 1e-3);
  reference.mean = mean;
  reference.variance = variance;
  reference.of_batch = false;
  this->ExpectPass(reference, this->x_, &tested);
  ExpectNear(mean, tested.blobs()[2]->cpu_data(), "mean");
}

TYPED_TEST(BNLayerTest, TestFrozenLearnsNothing) {
  typedef typename TypeParam::Dtype Dtype;
  for (bool in_place : {false, true}) {
    this->x_.Reshape(kShapes[0]);
    FillNoise(3, false, &this->x_);
    Blob<Dtype> x(kShapes[0]);
    x.CopyFrom(this->x_);
    this->top_.assign(1, in_place ? &this->x_ : &this->y_);
    BNLayer<Dtype> layer(Named(kFrozen));
    this->SetUpLayer(&layer);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(0, layer.blobs()[2]->cpu_data()[i]);
      EXPECT_EQ(1, layer.blobs()[3]->cpu_data()[i]);
    }
    layer.Forward(this->bottom_, this->top_);
    Reference reference(x, 1e-3);
    reference.mean.assign(3, 0.);
    reference.variance.assign(3, 1.);
    reference.of_batch = false;
    FillNoise(0, true, this->top_[0]);
    Blob<Dtype> dy(kShapes[0]);
    caffe_copy(x.count(), this->top_[0]->cpu_diff(), dy.mutable_cpu_data());
    for (int i = 0; i < 4; ++i) {
      caffe_set(3, Dtype(7), layer.blobs()[i]->mutable_cpu_diff());
    }
    layer.Backward(this->top_, vector<bool>(1, true), this->bottom_);
    ExpectNear(reference.Gradient(x, dy.cpu_data(),
        layer.blobs()[0]->cpu_data()), this->x_.cpu_diff(), "dx");
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(7, layer.blobs()[i]->cpu_diff()[1]) << i;
      EXPECT_EQ(0, layer.layer_param().param(i).lr_mult()) << i;
    }
  }
}

TYPED_TEST(BNLayerTest, TestGradients) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<int> shape = {2, 3, 3, 2};
  for (const char* fields : {kLearn, kInference}) {
    this->x_.Reshape(shape);
    FillNoise(0, false, &this->x_);
    BNLayer<Dtype> layer(Named(fields));
    this->SetUpLayer(&layer);
    GradientChecker<Dtype> checker(1e-2, 1e-3);
    checker.CheckGradientExhaustive(&layer, this->bottom_, this->top_);
  }
}

TYPED_TEST(BNLayerTest, TestATestNetInPlaceKeepsNoInput) {
  typedef typename TypeParam::Dtype Dtype;
  this->x_.Reshape(kShapes[0]);
  FillNoise(3, false, &this->x_);
  this->top_.assign(1, &this->x_);
  BNLayer<Dtype> layer(Named(kInference, TEST));
  this->SetUpLayer(&layer);
  layer.Forward(this->bottom_, this->top_);
  caffe_set(3, Dtype(7), layer.blobs()[0]->mutable_cpu_diff());
  caffe_set(this->x_.count(), Dtype(1), this->x_.mutable_cpu_diff());
  layer.Backward(this->top_, vector<bool>(1, true), this->bottom_);
  EXPECT_EQ(layer.blobs()[0]->cpu_data()[0], this->x_.cpu_diff()[0]);
  EXPECT_EQ(7, layer.blobs()[0]->cpu_diff()[0]);
}

#ifdef _OPENMP
TYPED_TEST(BNLayerTest, TestThreadsChangeNoBit) {
  typedef typename TypeParam::Dtype Dtype;
  const int threads = omp_get_max_threads();
  this->x_.Reshape(kShapes[2]);
  FillNoise(3, false, &this->x_);
  BNLayer<Dtype> layer(Named(kLearn));
  this->SetUpLayer(&layer);
  vector<vector<Dtype> > results;
  for (int count : {1, 3}) {
    omp_set_num_threads(count);
    layer.Forward(this->bottom_, this->top_);
    results.push_back(vector<Dtype>(this->y_.cpu_data(),
        this->y_.cpu_data() + this->y_.count()));
  }
  omp_set_num_threads(threads);
  EXPECT_TRUE(results[0] == results[1]);
}
#endif

// A training net and its test net, with the rates that a solver sees.
TYPED_TEST(BNLayerTest, TestInANet) {
  typedef typename TypeParam::Dtype Dtype;
  NetParameter parameter;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      "layer { name: 'data' type: 'DummyData' top: 'data' dummy_data_param {"
      "  shape { dim: 2 dim: 3 dim: 4 dim: 5 }"
      "  data_filler { type: 'gaussian' mean: 2 } } }"
      "layer { name: 'bn' type: 'BN' bottom: 'data' top: 'data'"
      "  param { lr_mult: 2 } bn_param { slope_filler { value: 1 } } }",
      &parameter));
  parameter.mutable_state()->set_phase(TRAIN);
  Net<Dtype> trained(parameter);
  ASSERT_EQ(4, trained.params_lr().size());
  EXPECT_EQ(2, trained.params_lr()[0]);
  EXPECT_EQ(1, trained.params_lr()[1]);
  EXPECT_EQ(0, trained.params_lr()[2]);
  EXPECT_EQ(0, trained.params_weight_decay()[3]);
  for (int i = 0; i < 100; ++i) { trained.Forward(); }
  parameter.mutable_state()->set_phase(TEST);
  Net<Dtype> tested(parameter);
  tested.ShareTrainedLayersWith(&trained);
  tested.Forward();
  const Blob<Dtype>& y = *tested.blob_by_name("data");
  EXPECT_NEAR(0, Reference(y, 0).mean[1], 0.7);
  EXPECT_NEAR(1, Reference(y, 0).variance[1], 0.7);
}

TYPED_TEST(BNLayerTest, TestBadFieldsAreNamed) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  this->x_.Reshape(kShapes[0]);
  const vector<vector<string> > cases = {
    {"", "BN layer 'bn1': bn_param says not which form it is; give bn_mode"},
    {"bn_mode: LEARN frozen: true",
     "BN layer 'bn1': bn_param has fields of both forms"},
    {"momentum: 1.5", "BN layer 'bn1': momentum .* must be 0 to 1, not 1.5"},
    {"eps: 0", "BN layer 'bn1': eps .* must be above 0, not 0"},
  };
  for (const vector<string>& each : cases) {
    BNLayer<Dtype> layer(Named(each[0]));
    EXPECT_DEATH(layer.SetUp(this->bottom_, this->top_), each[1]);
  }
  BNLayer<Dtype> layer(Named(kLearn));
  layer.SetUp(this->bottom_, this->top_);
  this->x_.Reshape(2, 4, 5, 7);
  EXPECT_DEATH(layer.Reshape(this->bottom_, this->top_),
      "BN layer 'bn1': an input of 4 channels, where the layer has 3");
  this->top_.push_back(&this->mean_);
  BNLayer<Dtype> tested(Named(kInference));
  EXPECT_DEATH(tested.SetUp(this->bottom_, this->top_),
      "BN layer 'bn1': 2 tops; only bn_mode: LEARN has more than one");
}

#ifdef CAFFE_CUDA_EMULATION

/// The kernels' source on the host.
template <typename Dtype>
class BNKernelTest : public ::testing::Test {
 protected:
  virtual void TearDown() { emulation::settings() = emulation::Settings(); }

  void Run(const vector<int>& shape) {
    x_.Reshape(shape);
    FillNoise(3, false, &x_);
    FillNoise(0.5, true, &x_);
    scale_.Reshape(vector<int>(1, shape[1]));
    FillNoise(1, false, &scale_);
    FillNoise(1, true, &scale_);
    const BNShape bn = { shape[0], shape[1], x_.count(2) };
    const Dtype poison = std::numeric_limits<Dtype>::quiet_NaN();
    statistics_.assign(4 * bn.channels, poison);
    sums_.assign(2 * bn.channels * bn.tiles(), poison);
    mean_.assign(bn.channels, poison);
    variance_.assign(bn.channels, poison);
    running_.assign(2 * bn.channels, Dtype(2));
    y_.assign(x_.count(), poison);
    dx_.assign(x_.count(), poison);
    dscale_.assign(bn.channels, Dtype(3));
    dshift_.assign(bn.channels, Dtype(-2));
    const BNOutputs<Dtype> outputs = { mean_.data(), variance_.data(),
        running_.data(), running_.data() + bn.channels, 0.75 };
    EmulatedDevice device;
    LaunchBNStatistics(&device, bn, 1e-3f, x_.cpu_data(), outputs,
        sums_.data(), statistics_.data());
    const size_t count = x_.count();
    const double* const read = statistics_.data();
    device.Launch(&BNForwardKernel<Dtype>, dim3(BNBlocks(count)),
        dim3(kBNThreads), 0, count, bn.channels, bn.plane, read,
        scale_.cpu_data(), scale_.cpu_diff(), x_.cpu_data(), y_.data());
    LaunchBNGradientSums(&device, bn, x_.cpu_data(), x_.cpu_diff(),
        sums_.data(), statistics_.data(), dscale_.data(), dshift_.data());
    device.Launch(&BNBackwardKernel<Dtype>, dim3(BNBlocks(count)),
        dim3(kBNThreads), 0, count, bn.channels, bn.plane, true, read,
        scale_.cpu_data(), x_.cpu_data(), x_.cpu_diff(), dx_.data());
  }

  Blob<Dtype> x_, scale_;  // dy and the shift in the diffs
  vector<double> statistics_, sums_;
  vector<Dtype> mean_, variance_, running_, y_, dx_, dscale_, dshift_;
};

TYPED_TEST_CASE(BNKernelTest, TestDtypes);

TYPED_TEST(BNKernelTest, TestEqualsTheDefinition) {
  for (const vector<int>& shape : kShapes) {
    this->Run(shape);
    const Reference reference(this->x_, 1e-3);
    const vector<double> normalized = reference.Normalized(this->x_);
    const TypeParam* const dy = this->x_.cpu_diff();
    vector<double> y(normalized), dscale(shape[1], 3.), dshift(shape[1], -2.);
    vector<double> running;
    for (const vector<double>* batch : {&reference.mean, &reference.variance}) {
      for (double value : *batch) { running.push_back(1.5 + 0.25 * value); }
    }
    for (size_t i = 0; i < y.size(); ++i) {
      const int c = reference.Channel(i);
      y[i] = this->scale_.cpu_data()[c] * y[i] + this->scale_.cpu_diff()[c];
      dscale[c] += dy[i] * normalized[i];
      dshift[c] += dy[i];
    }
    ExpectNear(reference.mean, this->mean_.data(), "mean");
    ExpectNear(reference.variance, this->variance_.data(), "variance");
    ExpectNear(running, this->running_.data(), "running");
    ExpectNear(y, this->y_.data(), "y");
    ExpectNear(reference.Gradient(this->x_, dy, this->scale_.cpu_data()),
        this->dx_.data(), "dx");
    ExpectNear(dscale, this->dscale_.data(), "dscale");
    ExpectNear(dshift, this->dshift_.data(), "dshift");
  }
}

TYPED_TEST(BNKernelTest, TestFixedStatistics) {
  const int channels = 300;
  vector<TypeParam> mean(channels), variance(channels);
  for (int c = 0; c < channels; ++c) {
    mean[c] = c;
    variance[c] = c % 7;
  }
  const TypeParam* const means = mean.data();
  const TypeParam* const variances = variance.data();
  const TypeParam* const none = NULL;
  vector<double> statistics(4 * channels, -1.);
  EmulatedDevice device;
  device.Launch(&BNFixedKernel<TypeParam>, dim3(BNBlocks(channels)),
      dim3(kBNThreads), 0, channels, 0.5, means, variances, statistics.data());
  EXPECT_EQ(299, statistics[299]);
  EXPECT_DOUBLE_EQ(1 / std::sqrt(5.5), statistics[channels + 299]);
  EXPECT_EQ(-1, statistics[2 * channels]);
  device.Launch(&BNFixedKernel<TypeParam>, dim3(BNBlocks(channels)),
      dim3(kBNThreads), 0, channels, 0.5, none, none, statistics.data());
  EXPECT_EQ(0, statistics[299]);
  EXPECT_EQ(1, statistics[channels + 299]);
}

TYPED_TEST(BNKernelTest, TestOrderOfThreads) {
  Caffe::set_random_seed(1);
  this->Run(kShapes[2]);
  const vector<TypeParam> ascending = this->dx_;
  emulation::settings().order = emulation::Settings::DESCENDING;
  Caffe::set_random_seed(1);
  this->Run(kShapes[2]);
  EXPECT_TRUE(ascending == this->dx_);
}

#endif  // CAFFE_CUDA_EMULATION

}  // namespace caffe
