#include "cuda_emulation.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif

#include <limits>
#include <vector>

#include "layer_under_test.hpp"

#include "caffe/util/normalize.hpp"
#ifdef CAFFE_CUDA_EMULATION
#include "caffe/util/normalize.cuh"
#include "emulated_device.hpp"
#endif

namespace caffe {

namespace {

// Tiles, whole ones and not, without positions and with three axes of them.
const vector<int> kShapes[] = {
  {2, 3, 5, 7}, {1, 1, 1, 1}, {3, 20, 37, 23}, {1, 17, 16, 16}, {4, 6},
  {2, 40, 3, 2, 5},
};

string Text(bool across, bool shared, const string& more = "") {
  return string("name: 'norm' type: 'Normalize' norm_param { across_spatial: ")
      + (across ? "true" : "false") + " channel_shared: " +
      (shared ? "true" : "false") + " scale_filler { type: 'uniform' min: 5 "
      "max: 20 } " + more + " }";
}

// y, or with dy of y's the gradients of x and of the scale, by the definition.
template <typename Dtype>
void Expected(const Blob<Dtype>& x, const Dtype* dy, const Blob<Dtype>& scale,
    bool across, double eps, vector<double>* y, vector<double>* dx,
    vector<double>* scale_diff) {
  const int channels = x.shape(1), area = x.count(2);
  const bool shared = scale.count() == 1 && scale.num_axes() == 0;
  y->assign(x.count(), 0.);
  dx->assign(x.count(), 0.);
  scale_diff->assign(scale.count(), 0.);
  for (int n = 0; n < x.shape(0); ++n) {
    for (int p = 0; p < (across ? 1 : area); ++p) {
      vector<int> members;
      for (int i = 0; i < channels * area; ++i) {
        if (across || i % area == p) {
          members.push_back(n * channels * area + i);
        }
      }
      double squares = eps, product = 0;
      for (int i : members) {
        const double s = scale.cpu_data()[shared ? 0 : i / area % channels];
        squares += std::pow(static_cast<double>(x.cpu_data()[i]), 2);
        product += x.cpu_data()[i] * s * dy[i];
      }
      if (squares == 0) { continue; }
      for (int i : members) {
        const int own = shared ? 0 : i / area % channels;
        const double s = scale.cpu_data()[own], value = x.cpu_data()[i];
        (*y)[i] = s * value / std::sqrt(squares);
        (*dx)[i] = (s * dy[i] - value * product / squares) / std::sqrt(squares);
        (*scale_diff)[own] += value / std::sqrt(squares) * dy[i];
      }
    }
  }
}

template <typename Dtype>
void ExpectAll(const Blob<Dtype>& x, const Dtype* dy, const Blob<Dtype>& scale,
    bool across, double eps, double before, const Dtype* y, const Dtype* dx,
    const Dtype* scale_diff) {
  vector<double> expected_y, expected_dx, expected_scale;
  Expected(x, dy, scale, across, eps, &expected_y, &expected_dx,
      &expected_scale);
  for (double& value : expected_scale) { value += before; }
  const double tolerance = sizeof(Dtype) == 4 ? 3e-5 : 1e-11;
  ExpectNear(expected_y, y, tolerance);
  ExpectNear(expected_dx, dx, tolerance);
  ExpectNear(expected_scale, scale_diff, 10 * tolerance);
}

}  // namespace

template <typename TypeParam>
class NormalizeLayerTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(NormalizeLayerTest, TestDtypesAndDevices);

// One layer whose maps grow and shrink; gradients of the scale add up.
TYPED_TEST(NormalizeLayerTest, TestValuesAndGradients) {
  typedef typename TypeParam::Dtype Dtype;
  for (int mode = 0; mode < 4; ++mode) {
    const bool across = mode & 1, shared = mode & 2;
    for (const vector<int>& shape : kShapes) {
      LayerUnderTest<Dtype> run(Text(across, shared, "eps: 0.25"));
      run.Shape(shape);
      run.SetUp();
      Blob<Dtype>& scale = *run.layer()->blobs()[0];
      EXPECT_EQ(shared ? vector<int>() : vector<int>(1, shape[1]),
          scale.shape());
      for (int batch : {shape[0], 1, shape[0] + 2}) {
        vector<int> own = shape;
        own[0] = batch;
        run.Shape(own);
        caffe_set(scale.count(), Dtype(7), scale.mutable_cpu_diff());
        run.Forward();
        run.Backward();
        ExpectAll(run.bottom(), run.top().cpu_diff(), scale, across, 0.25, 7,
            run.top().cpu_data(), run.bottom().cpu_diff(), scale.cpu_diff());
      }
    }
  }
}

TYPED_TEST(NormalizeLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  for (int mode = 0; mode < 4; ++mode) {
    LayerUnderTest<Dtype> run(Text(mode & 1, mode & 2));
    run.Shape({2, 3, 2, 4});
    GradientChecker<Dtype> checker(3e-3, 5e-3);
    checker.CheckGradientExhaustive(run.layer(), run.bottom_vector(),
        run.top_vector());
  }
}

TYPED_TEST(NormalizeLayerTest, TestDefaults) {
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run("type: 'Normalize'");
  run.Shape({2, 3, 4, 5});
  run.SetUp();
  run.Forward();
  for (int n = 0; n < 2; ++n) {
    double squares = 0;
    for (int i = 0; i < 60; ++i) {
      squares += std::pow(run.top().cpu_data()[n * 60 + i], 2);
    }
    EXPECT_NEAR(1, squares, 1e-5);
  }
}

TYPED_TEST(NormalizeLayerTest, TestZerosStayZeroWithoutEpsilon) {
  typedef typename TypeParam::Dtype Dtype;
  for (bool across : {false, true}) {
    LayerUnderTest<Dtype> run(Text(across, false, "eps: 0"));
    run.Shape({1, 2, 3, 3});
    caffe_set(18, Dtype(0), run.bottom().mutable_cpu_data());
    run.SetUp();
    run.Forward();
    run.Backward();
    EXPECT_EQ(0, run.top().asum_data());
    EXPECT_EQ(0, run.bottom().asum_diff());
    EXPECT_EQ(0, run.layer()->blobs()[0]->asum_diff());
  }
}

TYPED_TEST(NormalizeLayerTest, TestFixedScale) {
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run(Text(false, false, "fix_scale: true"));
  run.Shape({1, 2, 3, 3});
  run.SetUp();
  run.layer()->set_param_propagate_down(0, true);  // as Net does
  run.Forward();
  run.Backward();
  EXPECT_EQ(0, run.layer()->blobs()[0]->asum_diff());
  EXPECT_EQ(0, run.layer()->layer_param().param(0).lr_mult());
}

#ifdef _OPENMP
TYPED_TEST(NormalizeLayerTest, TestThreadsChangeNoBit) {
  typedef typename TypeParam::Dtype Dtype;
  const int threads = omp_get_max_threads();
  LayerUnderTest<Dtype> run(Text(true, true));
  run.Shape(kShapes[2]);
  run.SetUp();
  LayerUnderTest<Dtype>::Fill(&run.top(), true);
  Blob<Dtype>& scale = *run.layer()->blobs()[0];
  vector<vector<Dtype> > results;
  for (int count : {1, 3}) {
    omp_set_num_threads(count);
    caffe_set(1, Dtype(0), scale.mutable_cpu_diff());
    run.Forward();
    run.layer()->Backward(run.top_vector(), vector<bool>(1, true),
        run.bottom_vector());
    vector<Dtype> all(run.top().cpu_data(),
        run.top().cpu_data() + run.top().count());
    all.insert(all.end(), run.bottom().cpu_diff(),
        run.bottom().cpu_diff() + run.bottom().count());
    all.push_back(scale.cpu_diff()[0]);
    results.push_back(all);
  }
  omp_set_num_threads(threads);
  EXPECT_TRUE(results[0] == results[1]);
}
#endif

TYPED_TEST(NormalizeLayerTest, TestBadParametersAreNamed) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  LayerUnderTest<Dtype> negative(Text(true, true, "eps: -1"));
  negative.Shape({1, 2, 3, 3});
  EXPECT_DEATH(negative.SetUp(),
      "Normalize layer 'norm': norm_param's eps must be 0 or more, not -1");
  LayerUnderTest<Dtype> run(Text(true, false));
  run.Shape({1, 2, 3, 3});
  EXPECT_DEATH(run.layer()->SetUp(run.bottom_vector(), run.bottom_vector()),
      "Normalize layer 'norm': cannot work in place");
  run.SetUp();
  run.Shape({1, 3, 3, 3});
  EXPECT_DEATH(run.Forward(), "Normalize layer 'norm': the input has shape "
      "1 3 3 3 .* with the C of the scale, 2");
}

#ifdef CAFFE_CUDA_EMULATION

template <typename Dtype>
class NormalizeKernelTest : public ::testing::Test {
 protected:
  virtual void TearDown() { emulation::settings() = emulation::Settings(); }
};

TYPED_TEST_CASE(NormalizeKernelTest, TestDtypes);

TYPED_TEST(NormalizeKernelTest, TestEqualsTheDefinition) {
  const TypeParam nothing = std::numeric_limits<TypeParam>::quiet_NaN();
  for (int mode = 0; mode < 4; ++mode) {
    const bool across = mode & 1, shared = mode & 2;
    for (const vector<int>& sizes : kShapes) {
      Blob<TypeParam> x(sizes), y(sizes);
      Blob<TypeParam> scale(vector<int>(shared ? 0 : 1, sizes[1]));
      LayerUnderTest<TypeParam>::Fill(&x);
      LayerUnderTest<TypeParam>::Fill(&y, true);
      LayerUnderTest<TypeParam>::Fill(&scale);
      const NormalizedShape shape = {sizes[0], sizes[1], x.count(2), across,
          shared, 0.25};
      EmulatedDevice device;
      vector<vector<TypeParam> > results;
      for (int order = 0; order < 2; ++order) {
        emulation::settings().order = order == 0 ?
            emulation::Settings::SHUFFLED : emulation::Settings::DESCENDING;
        vector<double> sums(2 * shape.Positions(), nothing);
        vector<double> channel_sums(shape.channels, nothing);
        vector<TypeParam> all(2 * x.count() + scale.count(), nothing);
        TypeParam* const dx = all.data() + x.count();
        TypeParam* const scale_diff = dx + x.count();
        std::fill(scale_diff, scale_diff + scale.count(), TypeParam(7));
        const TypeParam* const no_dy = NULL;
        LaunchNormalizeSums(&device, shape, scale.cpu_data(), x.cpu_data(),
            no_dy, sums.data());
        LaunchNormalizeApply(&device, shape, scale.cpu_data(), sums.data(),
            x.cpu_data(), no_dy, all.data());
        LaunchNormalizeSums(&device, shape, scale.cpu_data(), x.cpu_data(),
            y.cpu_diff(), sums.data());
        LaunchNormalizeScale(&device, shape, sums.data(), x.cpu_data(),
            y.cpu_diff(), channel_sums.data(), scale_diff);
        LaunchNormalizeApply(&device, shape, scale.cpu_data(), sums.data(),
            x.cpu_data(), y.cpu_diff(), dx);
        ExpectAll(x, y.cpu_diff(), scale, across, 0.25, 7, all.data(), dx,
            scale_diff);
        results.push_back(all);
      }
      EXPECT_TRUE(results[0] == results[1]);
    }
  }
}

#endif  // CAFFE_CUDA_EMULATION

}  // namespace caffe
