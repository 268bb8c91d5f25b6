#ifndef CAFFE_RENET_GPU_RESIDENT_SCAN_CUH_
#define CAFFE_RENET_GPU_RESIDENT_SCAN_CUH_

#include <cstddef>

#include "caffe/renet/gpu/resident_kernels.cuh"
#include "caffe/renet/gpu/scan.hpp"
#include "caffe/renet/gpu/units.cuh"
#include "caffe/renet/sweep.hpp"

/// Which kernel with resident weights a sweep takes, and how it is launched.
namespace caffe {
namespace renet {

inline int ResidentThreads(int hidden) {
  return (hidden + kUnitsPerWarp - 1) / kUnitsPerWarp * kWarpLanes;
}

/// How a device is given the lines of a sweep.
struct ResidentPlan {
  int passes;
  size_t shared_bytes;
};

/**
 * @brief The number of passes with which the sweep is expected to end first;
 *        false where the weights do not fit into the device's blocks.
 *
 * Blocks beyond what the device holds at a time wait for a wave of their own;
 * those that share a multiprocessor share its arithmetic, too. A step waits
 * once (barrier, exchange, cell); in a pass every warp has the multiply-adds of
 * 4 lines to issue and about 240 instructions more, one a clock and quarter of
 * the multiprocessor. In clocks. rows: of W_h, gates * d.
 */
template <class Device, typename Kernel>
bool PlanResident(Device* device, Kernel kernel, ResidentMemory memory,
    int rows, const ReNetScan<float>& s, ResidentPlan* plan) {
  const int kMostPasses = 8;
  const double kLatency = 250;
  const double kInstructions = 240;
  const int threads = ResidentThreads(s.hidden);
  const int width = (s.hidden + 31) / 32 * 32;
  const double pass_clocks =
      kInstructions + static_cast<double>(kPassLines) * rows * width / threads;
  double best = 0;
  plan->passes = 0;
  for (int passes = 1; passes <= kMostPasses; ++passes) {
    const size_t bytes = sizeof(float) *
        (memory.fixed + static_cast<size_t>(passes) * memory.pass);
    if (bytes > device->shared_memory_per_block()) break;
    const int resident =
        device->BlocksPerMultiprocessor(kernel, threads, bytes);
    if (resident == 0) break;
    const int tile = passes * kPassLines;
    const int blocks = 2 * ((s.lines + tile - 1) / tile);
    const int room = resident * device->multiprocessors();
    const int waves = (blocks + room - 1) / room;
    const int sharing = (blocks + device->multiprocessors() - 1) /
        device->multiprocessors();
    const int warps_of_quarter =
        ((sharing < resident ? sharing : resident) * threads + 127) / 128;
    const double clocks =
        waves * (kLatency + warps_of_quarter * passes * pass_clocks);
    if (plan->passes == 0 || clocks < best) {
      best = clocks;
      plan->passes = passes;
      plan->shared_bytes = bytes;
    }
  }
  return plan->passes > 0;
}

template <class Device>
bool LaunchResident(Device* device,
    void (*kernel)(const ReNetScan<float>, int), ResidentMemory memory,
    int rows, const ReNetScan<float>& s) {
  ResidentPlan plan;
  if (!PlanResident(device, kernel, memory, rows, s, &plan)) return false;
  const int tile = plan.passes * kPassLines;
  device->Launch(kernel, dim3((s.lines + tile - 1) / tile, 2),
      dim3(ResidentThreads(s.hidden)), plan.shared_bytes, s, plan.passes);
  return true;
}

template <class Unit, int kUnits, class Device>
bool LaunchResidentOf(Device* device, bool backward,
    const ReNetScan<float>& s) {
  const int threads = ResidentThreads(s.hidden), rows = Unit::kGates * s.hidden;
  return backward ?
      LaunchResident(device, &ResidentBackward<Unit, kUnits>,
          ResidentBackwardScan<Unit, kUnits>::Memory(threads), rows, s) :
      LaunchResident(device, &ResidentForward<Unit, kUnits>,
          ResidentForwardScan<Unit, kUnits>::Memory(threads), rows, s);
}

/// Runs one direction of a sweep's recurrence in one launch; false where the
/// device's blocks cannot hold the weights.
template <class Device>
bool LaunchResidentScan(Device* device, ReNetUnit unit, bool backward,
    const ReNetScan<float>& s) {
  return WithUnit(unit, [&](auto policy) {
    typedef decltype(policy) Unit;
    const int d = s.hidden;
    return d <= 32 ? LaunchResidentOf<Unit, 32>(device, backward, s)
        : d <= 64 ? LaunchResidentOf<Unit, 64>(device, backward, s)
        : d <= 96 ? LaunchResidentOf<Unit, 96>(device, backward, s)
        : d <= 128 ? LaunchResidentOf<Unit, 128>(device, backward, s)
        : false;
  });
}

}  // namespace renet
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_RESIDENT_SCAN_CUH_
