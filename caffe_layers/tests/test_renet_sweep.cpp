#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/renet/cell.hpp"
#include "caffe/renet/sweep.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "renet_reference.hpp"
#include "renet_sweep_run.hpp"

namespace caffe {

namespace {

/// Shapes on both sides of every boundary of the kernels: vectors, tiles of
/// lines, blocks of steps, register tiles of rows.
vector<ReNetCase> BoundaryCases() {
  vector<ReNetCase> cases;
  for (const ReNetCase& unit : ReNetUnits()) {
    for (int vertical = 0; vertical < 2; ++vertical) {
      const ReNetCase c = unit.Direction(vertical);
      cases.push_back(c.Map(1, 1, 1, 1).Hidden(1));
      cases.push_back(c.Map(3, 2, 7, 9).Hidden(5).Patch(3, 2));
      cases.push_back(c.Map(1, 3, 19, 17).Hidden(9));
      cases.push_back(c.Map(2, 3, 35, 18).Hidden(20).Patch(1, 2));
      cases.push_back(c.Map(1, 5, 50, 51).Hidden(8).Patch(2, 1));
    }
  }
  return cases;
}

}  // namespace

template <typename Dtype>
class ReNetSweepTest : public CPUDeviceTest<Dtype> {};

TYPED_TEST_CASE(ReNetSweepTest, TestDtypes);

// Also a test of every instruction set's shuffles, register tiles and masks,
// whichever of them the layers choose on this processor.
TYPED_TEST(ReNetSweepTest, InstructionSetsAgree) {
  typedef TypeParam Dtype;
  const vector<ReNetKernels<Dtype> > available =
      AvailableReNetKernels<Dtype>();
  ASSERT_FALSE(available.empty());
  const ReNetKernels<double> generic = AvailableReNetKernels<double>().back();
  ASSERT_STREQ("generic", generic.name);
  for (const ReNetCase& c : BoundaryCases()) {
    SweepRun<double> expected(c);
    expected.Run(generic);
    const ReNetReference reference = expected.Reference();
    // Or a rounding could decide about the gradient.
    ASSERT_GT(reference.kink, 1e-6) << c;
    for (const ReNetKernels<Dtype>& kernels : available) {
      SCOPED_TRACE(::testing::Message() << kernels.name << ", " << c);
      SweepRun<Dtype> run(c);
      run.Run(kernels);
      ExpectEqualRuns(run, reference, expected, ForwardTolerance<Dtype>(),
          GradientTolerance<Dtype>());
    }
  }
}

TYPED_TEST(ReNetSweepTest, ChosenKernelsAreAvailable) {
  const std::string chosen = GetReNetKernels<TypeParam>().name;
  bool found = false;
  for (const ReNetKernels<TypeParam>& kernels :
       AvailableReNetKernels<TypeParam>()) {
    found = found || chosen == kernels.name;
  }
  EXPECT_TRUE(found) << chosen;
}

namespace {

/// The error in units in the last place of the nearest float.
double Ulps(float actual, double expected) {
  const float nearest = static_cast<float>(expected);
  const double unit = static_cast<double>(
      std::nextafter(std::abs(nearest), std::numeric_limits<float>::max()))
      - std::abs(nearest);
  return std::abs(actual - expected) / unit;
}

}  // namespace

TEST(ReNetCellTest, SigmoidIsAccurate) {
  double worst = 0, worst_at = 0;
  for (int i = -86000; i <= 86000; ++i) {
    const float x = i * 1e-3f;
    const double ulps =
        Ulps(renet::Sigmoid(x), 1 / (1 + std::exp(-static_cast<double>(x))));
    if (ulps > worst) {
      worst = ulps;
      worst_at = x;
    }
  }
  EXPECT_LE(worst, 4) << "at " << worst_at;
}

TEST(ReNetCellTest, TanhIsAccurate) {
  double worst = 0, worst_at = 0;
  for (int i = -30000; i <= 30000; ++i) {
    // Evenly from -15 to 15, and over all magnitudes.
    const float values[] = {i * 5e-4f,
        (i < 0 ? -1 : 1) * std::pow(10.f, std::abs(i) * 1e-3f - 29.f)};
    for (float x : values) {
      const double ulps =
          Ulps(renet::Tanh(x), std::tanh(static_cast<double>(x)));
      if (ulps > worst) {
        worst = ulps;
        worst_at = x;
      }
    }
  }
  EXPECT_LE(worst, 4) << "at " << worst_at;
}

TEST(ReNetCellTest, ExtremesSaturate) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float largest = std::numeric_limits<float>::max();
  for (float x : {infinity, largest, 1000.f, 100.f}) {
    EXPECT_EQ(1.f, renet::Sigmoid(x));
    EXPECT_EQ(1.f, renet::Tanh(x));
    EXPECT_EQ(-1.f, renet::Tanh(-x));
    EXPECT_GE(renet::Sigmoid(-x), 0.f);
    EXPECT_LT(renet::Sigmoid(-x), 1e-37f);
  }
  EXPECT_EQ(0.5f, renet::Sigmoid(0.f));
  EXPECT_EQ(0.f, renet::Tanh(0.f));
}

TEST(ReNetCellTest, NotANumberStaysSo) {
  for (float x : {NAN, -NAN}) {
    EXPECT_TRUE(std::isnan(renet::Sigmoid(x)));
    EXPECT_TRUE(std::isnan(renet::Tanh(x)));
    EXPECT_TRUE(std::isnan(renet::IrnnForward(x)));
  }
}

}  // namespace caffe
