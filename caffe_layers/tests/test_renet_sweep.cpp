#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/util/renet_cell.hpp"
#include "caffe/util/renet_sweep.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "renet_reference.hpp"

namespace caffe {

namespace {

/// All memory of one sweep and its gradients, for calls of the kernels
/// themselves.
template <typename Dtype>
class SweepRun {
 public:
  explicit SweepRun(const ReNetCase& c)
      : case_(c), bottom_(c.num, c.channels, c.height, c.width),
        top_(c.num, 2 * c.hidden, c.rows(), c.columns()), sweep_() {
    const int d = c.hidden, rows = c.gates() * d;
    for (int scan = 0; scan < 2; ++scan) {
      blobs_.push_back(New(rows, c.inputs()));
      blobs_.push_back(New(rows, 1));
      blobs_.push_back(New(rows, d));
      if (c.peephole) blobs_.push_back(New(3, d));
    }
    FillParameters(c, 1, blobs_);
    FillUniform(1, -1, 1, bottom_.count(), bottom_.mutable_cpu_data());
    FillUniform(2, -1, 1, top_.count(), top_.mutable_cpu_diff());
    sweep_.unit = c.type == "ReNetLSTM" ? RENET_LSTM :
        c.type == "ReNetGRU" ? RENET_GRU : RENET_IRNN;
    sweep_.vertical = c.vertical;
    sweep_.patch_height = c.patch_height;
    sweep_.patch_width = c.patch_width;
    sweep_.num = c.num;
    sweep_.channels = c.channels;
    sweep_.height = c.height;
    sweep_.width = c.width;
    sweep_.hidden = d;
    sweep_.cell_output = c.cell_output;
    sweep_.bottom = bottom_.cpu_data();
    sweep_.bottom_diff = bottom_.mutable_cpu_diff();
    sweep_.top = top_.mutable_cpu_data();
    sweep_.top_diff = top_.cpu_diff();
    for (int scan = 0; scan < 2; ++scan) {
      const int first = scan * c.scan_blobs();
      sweep_.input_weights[scan] = blobs_[first]->cpu_data();
      sweep_.bias[scan] = blobs_[first + 1]->cpu_data();
      sweep_.recurrent_weights[scan] = blobs_[first + 2]->cpu_data();
      sweep_.input_weights_diff[scan] = blobs_[first]->mutable_cpu_diff();
      sweep_.bias_diff[scan] = blobs_[first + 1]->mutable_cpu_diff();
      sweep_.recurrent_weights_diff[scan] =
          blobs_[first + 2]->mutable_cpu_diff();
      if (c.peephole) {
        sweep_.peephole[scan] = blobs_[first + 3]->cpu_data();
        sweep_.peephole_diff[scan] = blobs_[first + 3]->mutable_cpu_diff();
      }
    }
  }

  /// Forward and Backward; memory that the kernels do not promise to keep
  /// clean holds NaN before.
  void Run(const ReNetKernels<Dtype>& kernels) {
    kernels.plan(&sweep_);
    history_.assign(kernels.history_size(sweep_), NAN);
    sweep_.history = history_.data();
    workspace_.assign(kernels.workspace_size(sweep_, false), NAN);
    sweep_.workspace = workspace_.data();
    kernels.forward(sweep_);
    workspace_.assign(kernels.workspace_size(sweep_, true), NAN);
    sweep_.workspace = workspace_.data();
    kernels.backward(sweep_);
  }

  ReNetReference Reference() const {
    return ReferenceForward(case_, bottom_, blobs_);
  }
  const Blob<Dtype>& bottom() const { return bottom_; }
  const Blob<Dtype>& top() const { return top_; }
  const vector<shared_ptr<Blob<Dtype> > >& blobs() const { return blobs_; }

 private:
  static shared_ptr<Blob<Dtype> > New(int rows, int columns) {
    vector<int> shape(2);
    shape[0] = rows;
    shape[1] = columns;
    return shared_ptr<Blob<Dtype> >(new Blob<Dtype>(shape));
  }

  const ReNetCase case_;
  Blob<Dtype> bottom_;
  Blob<Dtype> top_;
  vector<shared_ptr<Blob<Dtype> > > blobs_;
  vector<Dtype> history_;
  vector<Dtype> workspace_;
  ReNetSweep<Dtype> sweep_;
};

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

template <typename Dtype> double ForwardTolerance();
template <> double ForwardTolerance<float>() { return 2e-5; }
template <> double ForwardTolerance<double>() { return 1e-12; }
template <typename Dtype> double GradientTolerance();
template <> double GradientTolerance<float>() { return 2e-3; }
template <> double GradientTolerance<double>() { return 1e-10; }

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
      EXPECT_LE(LargestError(run.top().count(), run.top().cpu_data(),
          reference.top.data()), ForwardTolerance<Dtype>());
      EXPECT_LE(LargestGradientError(run.bottom().count(),
          run.bottom().cpu_diff(), expected.bottom().cpu_diff()),
          GradientTolerance<Dtype>());
      for (size_t i = 0; i < run.blobs().size(); ++i) {
        EXPECT_LE(LargestGradientError(run.blobs()[i]->count(),
            run.blobs()[i]->cpu_diff(), expected.blobs()[i]->cpu_diff()),
            GradientTolerance<Dtype>()) << "parameter blob " << i;
      }
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
