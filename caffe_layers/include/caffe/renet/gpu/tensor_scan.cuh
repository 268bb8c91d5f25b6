#ifndef CAFFE_RENET_GPU_TENSOR_SCAN_CUH_
#define CAFFE_RENET_GPU_TENSOR_SCAN_CUH_

#include <cstddef>

#include "caffe/renet/gpu/scan.hpp"
#include "caffe/renet/gpu/tensor_kernels.cuh"
#include "caffe/renet/gpu/units.cuh"
#include "caffe/renet/sweep.hpp"

/// Which kernel on tensor cores a sweep takes, and how it is launched.
namespace caffe {
namespace tensor_scan {

typedef void (*Kernel)(ReNetScan<float>, int);

/// A kernel and what it asks for; kernel NULL: there is none.
struct Choice {
  Kernel kernel;
  Memory memory;
};

template <template <class, class, int> class Body, class Unit, class Operand>
Choice ChooseSize(int hidden) {
  if (hidden <= 64) {
    typedef Body<Unit, Operand, 64> Fits;
    return {&TensorScan<Fits>, Fits::kMemory};
  }
  if (hidden <= 128) {
    typedef Body<Unit, Operand, 128> Fits;
    return {&TensorScan<Fits>, Fits::kMemory};
  }
  if (hidden <= 160 && Operand::kPerWord == 2) {  // tf32 would never fit
    typedef Body<Unit, Bf16, 160> Fits;
    return {&TensorScan<Fits>, Fits::kMemory};
  }
  return {NULL, {0, 0, 0}};
}

template <template <class, class, int> class Body, class Unit>
Choice ChooseOperand(ReNetPrecision precision, int hidden) {
  switch (precision) {
    case RENET_TF32: return ChooseSize<Body, Unit, Tf32>(hidden);
    case RENET_BF16: return ChooseSize<Body, Unit, Bf16>(hidden);
    default: return {NULL, {0, 0, 0}};
  }
}

inline Choice Choose(ReNetUnit unit, ReNetPrecision precision, int hidden,
    bool backward) {
  return renet::WithUnit(unit, [&](auto policy) {
    typedef decltype(policy) Unit;
    return backward ? ChooseOperand<BackwardBody, Unit>(precision, hidden)
        : ChooseOperand<ForwardBody, Unit>(precision, hidden);
  });
}

inline int Threads(int hidden) { return (hidden + 15) / 16 * 32; }

/// Bytes of dynamic shared memory for a block that carries `tiles` tiles.
inline size_t SharedBytes(const Memory& memory, int hidden, int tiles) {
  const size_t threads = Threads(hidden);
  return 16 * threads * memory.fragments
      + tiles * (16 * threads * memory.own + size_t(8) * 4 * memory.words);
}

/// Cycles of a step that do not depend on how many tiles a block has, and those
/// that each tile of each block on a multiprocessor adds: four schedulers share
/// d / 16 warps of 600 (LSTM), 530 or 200 instructions. Only ratios matter.
struct StepCost {
  double fixed;
  double tile;
};

inline StepCost CostOfStep(ReNetUnit unit, int hidden) {
  switch (unit) {
    case RENET_LSTM: return {600., hidden * 600. / 64};
    case RENET_GRU: return {1000., hidden * 530. / 64};
    default: return {500., hidden * 200. / 64};
  }
}

template <class Device>
bool Launch(Device* device, ReNetUnit unit, ReNetPrecision precision,
    const ReNetScan<float>& scan, bool backward) {
  if (device->compute_capability_major() < 8) return false;
  const Choice choice = Choose(unit, precision, scan.hidden, backward);
  if (choice.kernel == NULL) return false;
  const int threads = Threads(scan.hidden);
  const int all_tiles = (scan.lines + 7) / 8;
  const StepCost cost = CostOfStep(unit, scan.hidden);
  int best_tiles = 0;
  double best_cost = 0.;
  const int kTiles[] = {1, 2, 3, 4, 6, 8};
  for (int tiles : kTiles) {
    if (tiles > 1 && tiles > all_tiles) break;
    const size_t bytes = SharedBytes(choice.memory, scan.hidden, tiles);
    if (bytes > device->shared_memory_per_block()) break;
    const int resident =
        device->BlocksPerMultiprocessor(choice.kernel, threads, bytes);
    if (resident < 1) break;
    const double blocks = 2. * ((all_tiles + tiles - 1) / tiles);
    const double share = blocks / device->multiprocessors();
    // blocks that run beside each other on a multiprocessor, and how often
    const double together = share < 1. ? 1. : share < resident ? share
        : resident;
    double waves = static_cast<int>(share / resident);
    if (waves * resident < share) ++waves;
    const double total = waves * (cost.fixed + together * tiles * cost.tile);
    if (best_tiles == 0 || total < best_cost) {
      best_tiles = tiles;
      best_cost = total;
    }
  }
  if (best_tiles == 0) return false;
  device->Launch(choice.kernel,
      dim3((all_tiles + best_tiles - 1) / best_tiles, 2), dim3(threads),
      SharedBytes(choice.memory, scan.hidden, best_tiles), scan, best_tiles);
  return true;
}

}  // namespace tensor_scan

/// Whether there is a kernel for these sizes on a device with this compute
/// capability and this much shared memory for a block.
inline bool TensorScanFits(ReNetUnit unit, ReNetPrecision precision,
    int hidden, bool backward, int compute_capability_major,
    size_t shared_memory_per_block) {
  const tensor_scan::Choice choice =
      tensor_scan::Choose(unit, precision, hidden, backward);
  return compute_capability_major >= 8 && choice.kernel != NULL
      && tensor_scan::SharedBytes(choice.memory, hidden, 1)
          <= shared_memory_per_block;
}

/**
 * @brief The forward recurrence of a sweep with products of the precision
 *        RENET_TF32 or RENET_BF16 in one launch.
 *
 * Reads recurrent_weights, peephole and gates, writes states and, as the scan
 * asks for it, extra and gates. False, with nothing launched: there is no
 * kernel for this precision, for so many units or for this device.
 *
 * Device is how kernels are launched:
 *   int multiprocessors() const;
 *   int compute_capability_major() const;
 *   size_t shared_memory_per_block() const;  // bytes, the most that can be had
 *   template <typename... P, typename... A>
 *   void Launch(void (*kernel)(P...), dim3 grid, dim3 block,
 *       size_t shared_bytes, A... args);
 *   template <typename... P>
 *   int BlocksPerMultiprocessor(void (*kernel)(P...), int threads,
 *       size_t shared_bytes);
 */
template <class Device>
bool LaunchTensorScanForward(Device* device, ReNetUnit unit,
    ReNetPrecision precision, const ReNetScan<float>& scan) {
  return tensor_scan::Launch(device, unit, precision, scan, false);
}

/// The backward recurrence: reads what a forward pass with keep_gates and
/// (LSTM) extra wrote, and states_diff, writes gates_diff. See
/// LaunchTensorScanForward.
template <class Device>
bool LaunchTensorScanBackward(Device* device, ReNetUnit unit,
    ReNetPrecision precision, const ReNetScan<float>& scan) {
  return tensor_scan::Launch(device, unit, precision, scan, true);
}

}  // namespace caffe

#endif  // CAFFE_RENET_GPU_TENSOR_SCAN_CUH_
