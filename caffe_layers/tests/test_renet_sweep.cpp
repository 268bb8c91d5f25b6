#include <array>
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

/// Of bfloat16; all tests of it pass without a word where a processor has none.
class ReNetBfloat16Test : public CPUDeviceTest<float> {
 protected:
  ReNetBfloat16Test()
      : available_(AvailableReNetBfloat16Kernels<float>(
            SupportedInstructionSet())),
        generic_(AvailableReNetKernels<double>().back()) {}

  /// What docs/layers.md states: 1.5% of a gradient's norm.
  static void ExpectNearGradients(const SweepRun<float>& run,
      const SweepRun<double>& expected) {
    ExpectNearGradient(run.bottom(), expected.bottom());
    for (size_t i = 0; i < run.blobs().size(); ++i) {
      SCOPED_TRACE(::testing::Message() << "parameter blob " << i);
      ExpectNearGradient(*run.blobs()[i], *expected.blobs()[i]);
    }
  }

  const vector<ReNetKernels<float> > available_;
  const ReNetKernels<double> generic_;

 private:
  static void ExpectNearGradient(const Blob<float>& run,
      const Blob<double>& expected) {
    double error = 0, norm = 0;  // which is 0 for W_h where no step follows
    for (int i = 0; i < run.count(); ++i) {
      error = std::hypot(error, run.cpu_diff()[i] - expected.cpu_diff()[i]);
      norm = std::hypot(norm, expected.cpu_diff()[i]);
    }
    EXPECT_LE(error, 0.015 * norm);
  }
};

// Where rounding changes no factor, the sums are those of float32: one step of
// values that are bfloat16s. (The gate gradients of the other units are none.)
TEST_F(ReNetBfloat16Test, SumsAreExact) {
  for (ReNetCase c : ReNetUnits()) {
    // on both sides of tiles of 16 rows, of 32 values, of 48 lines
    for (const auto& shape : {std::array<int, 4>{1, 1, 1, 1}, {2, 3, 9, 5},
             {3, 17, 23, 16}, {1, 32, 48, 20}, {2, 35, 51, 33}}) {
      c = c.Direction(true).Map(shape[0], shape[1], 1, shape[2])
          .Hidden(shape[3]);
      SweepRun<double> expected(c);
      expected.RoundToBfloat16();
      expected.Run(generic_);
      for (const ReNetKernels<float>& kernels : available_) {
        SCOPED_TRACE(::testing::Message() << kernels.name << ", " << c);
        SweepRun<float> run(c);
        run.RoundToBfloat16();
        run.Run(kernels);
        const ReNetReference reference = expected.Reference();
        if (c.type == "ReNetIRNN") {
          ExpectEqualRuns(run, reference, expected, ForwardTolerance<float>(),
              GradientTolerance<float>());
        }
        EXPECT_LE(LargestError(run.top().count(), run.top().cpu_data(),
            reference.top.data()), ForwardTolerance<float>());
        ExpectNearGradients(run, expected);
      }
    }
  }
}

// By what docs/layers.md states of a state and of all gradients.
TEST_F(ReNetBfloat16Test, RoundedProductsKeepTheirErrors) {
  for (const ReNetCase& c : BoundaryCases()) {
    // A sum near the kink of an IRNN may be rounded to its other side, and a
    // gradient that is one number may nearly vanish.
    if (c.type == "ReNetIRNN" || c.hidden == 1) continue;
    SweepRun<double> expected(c);
    expected.Run(generic_);
    const vector<double> top = expected.Reference().top;
    for (const ReNetKernels<float>& kernels : available_) {
      SCOPED_TRACE(::testing::Message() << kernels.name << ", " << c);
      SweepRun<float> run(c), passing(c);
      run.Run(kernels);
      EXPECT_LE(LargestError(run.top().count(), run.top().cpu_data(),
          top.data()), 0.015);
      EXPECT_GT(NormError(run.top().count(), run.top().cpu_data(),
          top.data()), 1e-5);  // or it would be float32
      ExpectNearGradients(run, expected);
      passing.RunWithoutHistory(kernels);
      for (int i = 0; i < run.top().count(); ++i) {
        ASSERT_EQ(run.top().cpu_data()[i], passing.top().cpu_data()[i]);
      }
    }
  }
}

TEST_F(ReNetBfloat16Test, NotANumberStaysSo) {
  const ReNetCase c = ReNetUnits()[0].Map(1, 2, 3, 4).Hidden(5);
  for (const ReNetKernels<float>& kernels : available_) {
    SCOPED_TRACE(kernels.name);
    SweepRun<float> run(c);
    run.SpoilBottom();
    run.Run(kernels);
    EXPECT_TRUE(std::isnan(run.top().cpu_data()[0]));
  }
}

namespace {

/// Offers what a layer calls as ReNetKernels are offered.
template <typename Dtype>
class EngineKernels {
 public:
  EngineKernels() : engine_(NewReNetCpuEngine<Dtype>()) {}
  void plan(ReNetSweep<Dtype>* sweep) const { engine_->Plan(sweep); }
  size_t history_size(const ReNetSweep<Dtype>& sweep) const {
    return engine_->HistorySize(sweep);
  }
  size_t workspace_size(const ReNetSweep<Dtype>& sweep, bool backward) const {
    return engine_->WorkspaceSize(sweep, backward);
  }
  void forward(const ReNetSweep<Dtype>& sweep) const {
    engine_->Forward(sweep);
  }
  void backward(const ReNetSweep<Dtype>& sweep) const {
    engine_->Backward(sweep);
  }

 private:
  const shared_ptr<ReNetEngine<Dtype> > engine_;
};

}  // namespace

// The layer takes them where they are asked for, and float32 elsewhere.
TYPED_TEST(ReNetSweepTest, PrecisionChoosesTheSweeps) {
  typedef TypeParam Dtype;
  const ReNetCase c = ReNetUnits()[0].Map(2, 3, 5, 4).Hidden(20);
  vector<Dtype> tops[2];
  for (const bool rounds : {false, true}) {
    SweepRun<Dtype> run(c);
    run.set_precision(rounds ? RENET_BF16 : RENET_FLOAT32);
    run.Run(EngineKernels<Dtype>());
    tops[rounds].assign(run.top().cpu_data(),
        run.top().cpu_data() + run.top().count());
  }
  const bool can = !AvailableReNetBfloat16Kernels<Dtype>(
      ChosenInstructionSet()).empty();
  EXPECT_EQ(can, tops[0] != tops[1]);
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
