// The CUDA code of the ReNet layers on the host: see cuda_emulation.hpp.
#include "cuda_emulation.hpp"
#ifdef CAFFE_CUDA_EMULATION

#include <vector>

#include "gtest/gtest.h"

#include "caffe/renet/gpu/device_sweep.cuh"

#include "caffe/test/test_caffe_main.hpp"
#include "emulated_device.hpp"
#include "renet_reference.hpp"
#include "renet_sweep_run.hpp"

namespace caffe {

namespace {

/// Offers a DeviceSweep on the emulation as ReNetKernels are offered.
template <typename Dtype>
class EmulatedKernels {
 public:
  explicit EmulatedKernels(EmulatedDevice* device) : device_(device) {}
  void plan(ReNetSweep<Dtype>* /* sweep */) const {}
  size_t history_size(const ReNetSweep<Dtype>& sweep) const {
    return Sweep(device_, sweep).HistorySize();
  }
  size_t workspace_size(const ReNetSweep<Dtype>& sweep, bool backward) const {
    return Sweep(device_, sweep).WorkspaceSize(backward);
  }
  void forward(const ReNetSweep<Dtype>& sweep) const {
    Sweep(device_, sweep).Forward();
  }
  void backward(const ReNetSweep<Dtype>& sweep) const {
    Sweep(device_, sweep).Backward();
  }

 private:
  typedef renet::DeviceSweep<Dtype, EmulatedDevice> Sweep;

  EmulatedDevice* device_;
};

/// All orders in which the threads of a block may run.
struct Order {
  emulation::Settings::Order order;
  unsigned seed;
};
const Order kOrders[] = {{emulation::Settings::ASCENDING, 1},
    {emulation::Settings::DESCENDING, 1}, {emulation::Settings::SHUFFLED, 7}};

void Choose(const Order& order) {
  emulation::settings().order = order.order;
  emulation::settings().seed = order.seed;
}

/// Every unit with every option; shapes on both sides of the kernels'
/// boundaries: passes of 4 lines, tiles, warps of 8 units, chunks of 32.
vector<ReNetCase> DeviceCases() {
  vector<ReNetCase> cases;
  for (const ReNetCase& unit : ReNetUnits()) {
    for (int vertical = 0; vertical < 2; ++vertical) {
      const ReNetCase c = unit.Direction(vertical);
      cases.push_back(c.Map(1, 1, 1, 1).Hidden(1));
      cases.push_back(c.Map(3, 2, 7, 9).Hidden(5).Patch(3, 2));
      cases.push_back(c.Map(2, 3, 4, 6).Hidden(32));
      cases.push_back(c.Map(1, 33, 3, 35).Hidden(40).Patch(1, 2));
    }
  }
  return cases;
}

template <typename Dtype>
void ExpectRight(const ReNetCase& c, EmulatedDevice* device) {
  SCOPED_TRACE(::testing::Message() << c);
  SweepRun<double> expected(c);
  expected.Run(AvailableReNetKernels<double>().back());
  const ReNetReference reference = expected.Reference();
  ASSERT_GT(reference.kink, 1e-6) << c;
  const EmulatedKernels<Dtype> kernels(device);
  SweepRun<Dtype> run(c);
  run.Run(kernels);
  ExpectEqualRuns(run, reference, expected, ForwardTolerance<Dtype>(),
      GradientTolerance<Dtype>());
  SweepRun<Dtype> passing(c);
  passing.RunWithoutHistory(kernels);
  EXPECT_EQ(0, LargestError(run.top().count(), passing.top().cpu_data(),
      run.top().cpu_data()));
}

}  // namespace

class ReNetDeviceSweepTest : public ::testing::Test {
 protected:
  virtual void SetUp() { settings_ = emulation::settings(); }
  virtual void TearDown() { emulation::settings() = settings_; }
  emulation::Settings settings_;
};

TEST_F(ReNetDeviceSweepTest, ResidentScanIsRightInEveryOrder) {
  for (const Order& order : kOrders) {
    Choose(order);
    for (const ReNetCase& c : DeviceCases()) {
      EmulatedDevice device;
      ExpectRight<float>(c, &device);
      EXPECT_EQ(0, device.repeats()) << c;
    }
  }
}

// With one multiprocessor there are fewer blocks than lines ask for, and a
// block works in several passes.
TEST_F(ReNetDeviceSweepTest, ResidentScanInSeveralPasses) {
  for (const ReNetCase& unit : ReNetUnits()) {
    for (const Order& order : kOrders) {
      Choose(order);
      EmulatedDevice device;
      device.set_multiprocessors(1);
      ExpectRight<float>(unit.Map(1, 2, 3, 37).Hidden(24), &device);
      EXPECT_EQ(0, device.repeats());
    }
  }
}

// The sizes that a thread's registers do not hold alone.
TEST_F(ReNetDeviceSweepTest, ResidentScanOfManyUnits) {
  const int hidden[] = {64, 96, 120, 128};
  for (const ReNetCase& unit : ReNetUnits()) {
    for (int d : hidden) {
      Choose(kOrders[d % 3]);
      EmulatedDevice device;
      ExpectRight<float>(unit.Map(1, 3, 4, 5).Hidden(d), &device);
      EXPECT_EQ(0, device.repeats());
    }
  }
}

TEST_F(ReNetDeviceSweepTest, StepwiseScanTakesWhatDoesNotFit) {
  for (const ReNetCase& unit : ReNetUnits()) {
    EmulatedDevice device;
    ExpectRight<float>(unit.Map(1, 3, 4, 5).Hidden(130), &device);
    EXPECT_GT(device.repeats(), 0);
    EmulatedDevice small;
    small.set_shared_memory(1000);
    ExpectRight<float>(unit.Map(2, 3, 4, 5).Hidden(12), &small);
    EXPECT_GT(small.repeats(), 0);
  }
}

TEST_F(ReNetDeviceSweepTest, StepwiseScanTakesDoubles) {
  for (const ReNetCase& c : DeviceCases()) {
    EmulatedDevice device;
    ExpectRight<double>(c, &device);
    EXPECT_GT(device.repeats(), 0);
  }
}

// Well within the errors that docs/layers.md states, of a layer's output
// and of all its gradients.
TEST_F(ReNetDeviceSweepTest, RoundedProductsKeepTheirErrors) {
  struct {
    ReNetPrecision precision;
    double error, gradient_error;
  } const kStated[] = {{RENET_TF32, 4e-4, 1e-3}, {RENET_BF16, 4e-3, 1e-2}};
  for (const ReNetCase& unit : ReNetUnits()) {
    // A sum near the kink of an IRNN may be rounded to its other side.
    if (unit.type == "ReNetIRNN") continue;
    const ReNetCase c = unit.Map(2, 5, 6, 9).Hidden(40).Patch(1, 2);
    SweepRun<double> expected(c);
    expected.Run(AvailableReNetKernels<double>().back());
    const vector<double> top = expected.Reference().top;
    for (const auto& stated : kStated) {
      SCOPED_TRACE(::testing::Message() << c << ", " << stated.precision);
      EmulatedDevice device;
      SweepRun<float> run(c);
      run.set_precision(stated.precision);
      run.Run(EmulatedKernels<float>(&device));
      EXPECT_EQ(0, device.repeats());
      const double error =
          NormError(run.top().count(), run.top().cpu_data(), top.data());
      EXPECT_LE(error, stated.error);
      EXPECT_GT(error, stated.error / 20);  // or it would be float32
      EXPECT_LE(NormError(run.bottom().count(), run.bottom().cpu_diff(),
          expected.bottom().cpu_diff()), stated.gradient_error);
      for (size_t i = 0; i < run.blobs().size(); ++i) {
        EXPECT_LE(NormError(run.blobs()[i]->count(),
            run.blobs()[i]->cpu_diff(), expected.blobs()[i]->cpu_diff()),
            stated.gradient_error) << "parameter blob " << i;
      }
    }
  }
}

TEST_F(ReNetDeviceSweepTest, WithoutTensorCoresTheRecurrenceIsFloat32) {
  const ReNetCase c = ReNetUnits()[0].Map(2, 3, 5, 4).Hidden(20);
  vector<vector<float> > tops;
  for (int major : {7, 9}) {
    EmulatedDevice device;
    device.set_compute_capability_major(major);
    SweepRun<float> run(c);
    run.set_precision(RENET_BF16);
    run.Run(EmulatedKernels<float>(&device));
    EXPECT_EQ(0, device.repeats()) << major;
    tops.push_back(vector<float>(run.top().cpu_data(),
        run.top().cpu_data() + run.top().count()));
  }
  EXPECT_NE(tops[0], tops[1]);
}

// A sweep is few launches: one for the recurrence, however many steps.
TEST_F(ReNetDeviceSweepTest, LaunchesDoNotGrowWithSteps) {
  const ReNetCase lstm = ReNetUnits()[0];
  int launches[2];
  for (int i = 0; i < 2; ++i) {
    const ReNetCase c = lstm.Map(1, 2, 5 + 20 * i, 3).Hidden(8);
    EmulatedDevice device;
    SweepRun<float> run(c);
    run.Run(EmulatedKernels<float>(&device));
    launches[i] = device.launches();
  }
  EXPECT_EQ(launches[0], launches[1]);
}

}  // namespace caffe

#endif  // CAFFE_CUDA_EMULATION
