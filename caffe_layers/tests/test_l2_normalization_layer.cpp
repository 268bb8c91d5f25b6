#include "cuda_emulation.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/l2_normalization_layer.hpp"
#ifdef CAFFE_CUDA_EMULATION
#include "caffe/util/l2_normalization.cuh"
#include "emulated_device.hpp"
#endif

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"

namespace caffe {

namespace {

// N, C, H, W: pieces and tiles, whole ones and not, and many maps.
const int kShapes[][4] = {
  {1, 1, 1, 1}, {2, 3, 5, 7}, {1, 4, 32, 32}, {3, 5, 37, 23}, {1, 17, 33, 31},
  {2, 64, 16, 16}, {1, 65, 16, 16}, {70, 2, 3, 1},
};

LayerParameter Scaled(float scale) {
  LayerParameter parameter;
  parameter.set_name("normalise");
  parameter.mutable_l2_normalization_param()->set_scale(scale);
  return parameter;
}

template <typename Dtype>
void FillNoise(Blob<Dtype>* blob, bool diff) {
  FillerParameter filler_param;
  filler_param.set_mean(0.3);
  GaussianFiller<Dtype> filler(filler_param);
  Blob<Dtype> noise(blob->shape());
  filler.Fill(&noise);
  caffe_copy(blob->count(), noise.cpu_data(),
      diff ? blob->mutable_cpu_diff() : blob->mutable_cpu_data());
}

// Map n of y, or of dx, by the definition.
template <typename Dtype>
vector<double> Expected(const Blob<Dtype>& x, const Blob<Dtype>* y, int n,
    double scale) {
  const int size = x.count(1);
  const Dtype* const values = x.cpu_data() + n * size;
  const Dtype* const dy = y == NULL ? NULL : y->cpu_diff() + n * size;
  double squares = 0, product = 0;
  for (int i = 0; i < size; ++i) {
    squares += std::pow(static_cast<double>(values[i]), 2);
    if (dy != NULL) { product += static_cast<double>(values[i]) * dy[i]; }
  }
  vector<double> result(size, 0.);
  for (int i = 0; i < size && squares > 0; ++i) {
    const double norm = std::sqrt(squares);
    result[i] = dy == NULL ? scale * values[i] / norm :
        scale / norm * (dy[i] - values[i] * product / squares);
  }
  return result;
}

template <typename Dtype>
void ExpectMaps(const Blob<Dtype>& x, const Blob<Dtype>* y, double scale,
    const Dtype* actual) {
  const int size = x.count(1);
  for (int n = 0; n < x.num(); ++n) {
    const vector<double> expected = Expected(x, y, n, scale);
    // A gradient is a difference of terms that may be much larger.
    double largest = 1e-12, squares = 1e-30;
    for (int i = 0; i < size; ++i) {
      squares += std::pow(static_cast<double>(x.cpu_data()[n * size + i]), 2);
      largest = std::max(largest, y == NULL ? std::abs(expected[i]) :
          std::abs(static_cast<double>(y->cpu_diff()[n * size + i])));
    }
    if (y != NULL) { largest *= scale / std::sqrt(squares); }
    const double tolerance = (sizeof(Dtype) == 4 ? 1e-6 : 1e-13) * largest;
    for (int i = 0; i < size; ++i) {
      ASSERT_NEAR(expected[i], actual[n * size + i], tolerance)
          << "map " << n << " of " << x.shape_string() << ", value " << i;
    }
  }
}

}  // namespace

template <typename TypeParam>
class L2NormalizationLayerTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  L2NormalizationLayerTest() : bottom_(1, &x_), top_(1, &y_) {}

  void Shape(const int* shape) {
    x_.Reshape(shape[0], shape[1], shape[2], shape[3]);
    FillNoise(&x_, false);
  }
  void Backward(L2NormalizationLayer<Dtype>* layer) {
    FillNoise(&y_, true);
    caffe_set(x_.count(), Dtype(777), x_.mutable_cpu_diff());
    layer->Backward(top_, vector<bool>(1, true), bottom_);
  }

  Blob<Dtype> x_, y_;
  vector<Blob<Dtype>*> bottom_, top_;
};

TYPED_TEST_CASE(L2NormalizationLayerTest, TestDtypesAndDevices);

// One layer whose maps grow and shrink, in a TEST net, too.
TYPED_TEST(L2NormalizationLayerTest, TestForwardAndBackward) {
  typedef typename TypeParam::Dtype Dtype;
  for (Phase phase : {TRAIN, TEST}) {
    LayerParameter parameter = Scaled(1000);
    parameter.set_phase(phase);
    L2NormalizationLayer<Dtype> layer(parameter);
    bool is_first = true;
    for (const int* shape : kShapes) {
      this->Shape(shape);
      if (is_first) { layer.SetUp(this->bottom_, this->top_); }
      is_first = false;
      layer.Forward(this->bottom_, this->top_);
      ExpectMaps<Dtype>(this->x_, NULL, 1000, this->y_.cpu_data());
      this->Backward(&layer);
      ExpectMaps(this->x_, &this->y_, 1000, this->x_.cpu_diff());
      layer.Backward(this->top_, vector<bool>(1, true), this->bottom_);
      ExpectMaps(this->x_, &this->y_, 1000, this->x_.cpu_diff());
    }
  }
}

TYPED_TEST(L2NormalizationLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  const int shape[] = {2, 3, 4, 5};
  this->Shape(shape);
  L2NormalizationLayer<Dtype> layer(Scaled(10));
  GradientChecker<Dtype> checker(1e-2, 1e-3);
  checker.CheckGradientExhaustive(&layer, this->bottom_, this->top_);
}

TYPED_TEST(L2NormalizationLayerTest, TestAMapOfZerosStaysZero) {
  typedef typename TypeParam::Dtype Dtype;
  const int shape[] = {3, 2, 3, 3};
  this->Shape(shape);
  const int size = this->x_.count(1);
  caffe_set(size, Dtype(0), this->x_.mutable_cpu_data() + size);
  L2NormalizationLayer<Dtype> layer(Scaled(5));
  layer.SetUp(this->bottom_, this->top_);
  layer.Forward(this->bottom_, this->top_);
  this->Backward(&layer);
  ExpectMaps<Dtype>(this->x_, NULL, 5, this->y_.cpu_data());
  ExpectMaps(this->x_, &this->y_, 5, this->x_.cpu_diff());
  for (int i = size; i < 2 * size; ++i) {
    EXPECT_EQ(0, this->y_.cpu_data()[i]);
    EXPECT_EQ(0, this->x_.cpu_diff()[i]);
  }
}

TYPED_TEST(L2NormalizationLayerTest, TestHonoursPropagateDown) {
  typedef typename TypeParam::Dtype Dtype;
  this->Shape(kShapes[1]);
  L2NormalizationLayer<Dtype> layer(Scaled(1));
  layer.SetUp(this->bottom_, this->top_);
  layer.Forward(this->bottom_, this->top_);
  caffe_set(this->x_.count(), Dtype(777), this->x_.mutable_cpu_diff());
  layer.Backward(this->top_, vector<bool>(1, false), this->bottom_);
  for (int i = 0; i < this->x_.count(); ++i) {
    EXPECT_EQ(777, this->x_.cpu_diff()[i]);
  }
}

#ifdef _OPENMP
TYPED_TEST(L2NormalizationLayerTest, TestThreadsChangeNoBit) {
  typedef typename TypeParam::Dtype Dtype;
  const int threads = omp_get_max_threads();
  this->Shape(kShapes[3]);
  L2NormalizationLayer<Dtype> layer(Scaled(100));
  layer.SetUp(this->bottom_, this->top_);
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

TYPED_TEST(L2NormalizationLayerTest, TestBadParametersAreNamed) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  this->Shape(kShapes[1]);
  for (float scale : {0.f, -1.f}) {
    L2NormalizationLayer<Dtype> layer(Scaled(scale));
    EXPECT_DEATH(layer.SetUp(this->bottom_, this->top_),
        "L2Normalization layer 'normalise': scale is the norm of the result "
        "and must be above 0");
  }
  L2NormalizationLayer<Dtype> layer(Scaled(1));
  EXPECT_DEATH(layer.SetUp(this->bottom_, this->bottom_),
      "L2Normalization layer 'normalise': cannot work in place");
}

#ifdef CAFFE_CUDA_EMULATION

/// The kernels' source on the host.
template <typename Dtype>
class L2NormalizationKernelTest : public ::testing::Test {
 protected:
  virtual void TearDown() { emulation::settings() = emulation::Settings(); }

  vector<Dtype> Run(const Blob<Dtype>& x, const Dtype* dy) {
    const int size = x.count(1);
    vector<double> sums(2 * x.num() * L2Tiles(size),
        std::numeric_limits<double>::quiet_NaN());
    vector<Dtype> result(x.count(), std::numeric_limits<Dtype>::quiet_NaN());
    EmulatedDevice device;
    LaunchL2Normalization(&device, x.num(), size, 1000., x.cpu_data(), dy,
        sums.data(), result.data());
    return result;
  }
};

TYPED_TEST_CASE(L2NormalizationKernelTest, TestDtypes);

TYPED_TEST(L2NormalizationKernelTest, TestEqualsTheDefinition) {
  for (const int* shape : kShapes) {
    Blob<TypeParam> x(shape[0], shape[1], shape[2], shape[3]);
    Blob<TypeParam> y(x.shape());
    FillNoise(&x, false);
    FillNoise(&y, true);
    const TypeParam* const no_dy = NULL;
    ExpectMaps<TypeParam>(x, NULL, 1000, this->Run(x, no_dy).data());
    ExpectMaps(x, &y, 1000, this->Run(x, y.cpu_diff()).data());
  }
}

TYPED_TEST(L2NormalizationKernelTest, TestOrderOfThreads) {
  Blob<TypeParam> x(2, 65, 16, 16);
  FillNoise(&x, false);
  FillNoise(&x, true);
  const vector<TypeParam> ascending = this->Run(x, x.cpu_diff());
  emulation::settings().order = emulation::Settings::DESCENDING;
  EXPECT_TRUE(ascending == this->Run(x, x.cpu_diff()));
}

#endif  // CAFFE_CUDA_EMULATION

}  // namespace caffe
