#ifndef CAFFE_RENET_GPU_STEPWISE_SCAN_CUH_
#define CAFFE_RENET_GPU_STEPWISE_SCAN_CUH_

#include <array>
#include <cstddef>
#include <cstdint>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/renet/gpu/scan.hpp"
#include "caffe/renet/gpu/units.cuh"
#include "caffe/renet/sweep.hpp"

/**
 * The recurrence of any size and type: a step is one batched product for both
 * scans and one kernel for the cells of all lines (for a GRU two of each). The
 * device records the steps of a sweep once and repeats them as one graph.
 */
namespace caffe {
namespace renet {

/// Equal keys: the same launches with the same arguments.
typedef std::array<uintptr_t, 16> RecordKey;

/// Work areas of the stepwise recurrence, each 2 scans x L lines x a width.
template <typename Dtype>
struct StepwiseAreas {
  Dtype* weights;   // 2 x G*d x d, the two scans' W_h
  Dtype* states;    // 2 x L x d: h; backward its gradient
  Dtype* cells;     // 2 x L x d: c or r * h; backward its gradient
  Dtype* products;  // 2 x L x G*d: W_h h; backward the gates' gradients

  static size_t Size(int gates, int lines, int hidden) {
    const size_t weights = static_cast<size_t>(2) * gates * hidden * hidden;
    return weights + static_cast<size_t>(2) * lines * hidden * (gates + 2);
  }
  StepwiseAreas(int gates, int lines, int hidden, Dtype* memory) {
    const size_t width = static_cast<size_t>(2) * lines * hidden;
    weights = memory;
    states = weights + static_cast<size_t>(2) * gates * hidden * hidden;
    cells = states + width;
    products = cells + width;
  }
};

/// One thread a cell: those of both scans, all lines and units of a step.
struct StepCell {
  int scan, line, unit;
  bool exists;

  template <typename Scan>
  CUDA_INLINE explicit StepCell(const Scan& s) {
    const size_t index =
        static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    unit = index % s.hidden;
    const size_t rest = index / s.hidden;
    exists = rest < static_cast<size_t>(2) * s.lines;
    line = rest % s.lines;
    scan = rest / s.lines;
  }
  /// The row of the position and scan in the maps after `step` steps.
  template <typename Scan>
  CUDA_INLINE size_t Row(const Scan& s, int step) const {
    const int row = scan == 0 ? step : s.steps - 1 - step;
    return (static_cast<size_t>(row) * s.lines + line) * 2 + scan;
  }
  /// The row in a work area.
  template <typename Scan>
  CUDA_INLINE size_t Area(const Scan& s) const {
    return static_cast<size_t>(scan) * s.lines + line;
  }
};

/// One phase of a step for all cells: the sums of its gates are in s.gates and,
/// from the second step on, in areas.products.
template <class Unit, int kPhase, typename Dtype>
__global__ void StepForward(const ReNetScan<Dtype> s,
    const StepwiseAreas<Dtype> areas, int step) {
  constexpr int kGates = Unit::GatesOf(kPhase);
  constexpr bool kLast = kPhase == Unit::kPhases - 1;
  const StepCell cell(s);
  if (!cell.exists) return;
  const int d = s.hidden;
  const size_t row = cell.Row(s, step), area = cell.Area(s);
  const size_t at = row * d + cell.unit, area_at = area * d + cell.unit;
  Dtype* const gates =
      s.gates + (row * Unit::kGates + Unit::FirstGate(kPhase)) * d + cell.unit;
  Dtype* const products = areas.products + area * Unit::kGates * d + cell.unit;
  Dtype sums[kGates];
  CUDA_UNROLL
  for (int gate = 0; gate < kGates; ++gate) {
    sums[gate] = gates[gate * d] + (step > 0 ?
        products[(Unit::FirstGate(kPhase) + gate) * d] : Dtype(0));
  }
  // Between two phases it is where the first gate's sum was.
  Dtype* const kept = Unit::kPhases > 1 ? products : areas.cells + area_at;
  Dtype carried[ArrayOf(Unit::kCarried)];
  if (Unit::kCarried > 0) {
    carried[0] = kPhase > 0 || step > 0 ? *kept : Dtype(0);
  }
  const Dtype h_before =
      Unit::kUsesState && step > 0 ? areas.states[area_at] : Dtype(0);
  const Dtype result = Unit::template Forward<kPhase>(sums, h_before, carried,
      ReadPeephole<Unit>(OfScan(s.peephole, cell.scan), cell.unit, d));
  if (Unit::Changed(kPhase) > 0) *kept = carried[0];
  (kLast ? areas.states : areas.cells)[area_at] = result;
  if (kLast) s.states[at] = result;
  if constexpr (kPhase == Unit::kExtraPhase) {
    if (s.extra != NULL) s.extra[at] = Unit::Extra(result, carried);
  }
  if (Unit::kKeepsGates && s.keep_gates) {
    CUDA_UNROLL
    for (int gate = 0; gate < kGates; ++gate) gates[gate * d] = sums[gate];
  }
}

/// One phase of a step back for all cells: the sum of its product is in
/// areas.states or, in a second phase, in areas.cells.
template <class Unit, int kPhase, typename Dtype>
__global__ void StepBackward(const ReNetScan<Dtype> s,
    const StepwiseAreas<Dtype> areas, int step) {
  constexpr int kDiffs = Unit::DiffsOf(kPhase);
  const StepCell cell(s);
  if (!cell.exists) return;
  const int d = s.hidden;
  const bool last = step == s.steps - 1;
  const size_t row = cell.Row(s, step), area = cell.Area(s);
  const size_t at = row * d + cell.unit, area_at = area * d + cell.unit;
  CellDiff<Dtype> diff = {};
  diff.cell_output = s.cell_output;
  if (kPhase == 0) diff.top = s.states_diff[at];
  if (Unit::kReadsKept) diff.kept = Unit::KeptState(s)[at];
  if (Unit::kReadsBefore && step > 0) {
    diff.before = Unit::KeptState(s)[cell.Row(s, step - 1) * d + cell.unit];
  }
  if (kPhase > 0) {
    diff.sum = areas.cells[area_at];
  } else if (!last) {
    diff.sum = areas.states[area_at];  // on top of what it starts from
  }
  if (Unit::SumFrom(kPhase) == FROM_TOP) diff.sum += diff.top;
  // A second number is among the products already.
  Dtype* const kept =
      (Unit::kPhases > 1 ? areas.states : areas.cells) + area_at;
  Dtype carried[ArrayOf(Unit::kDiffCarried)] = {};
  if (Unit::kDiffCarried > 0 && (kPhase > 0 || !last)) carried[0] = *kept;
  const Dtype* const from =
      Unit::KeptGates(s) + row * Unit::kGates * d + cell.unit;
  Dtype gates[kDiffs];
  CUDA_UNROLL
  for (int i = 0; i < kDiffs; ++i) {
    gates[i] = from[Unit::DiffGate(kPhase, i) * d];
  }
  Dtype operands[Unit::GatesOf((kPhase + 1) % Unit::kPhases)];
  Unit::template Backward<kPhase>(diff,
      ReadPeephole<Unit>(OfScan(s.peephole, cell.scan), cell.unit, d), gates,
      carried, operands);
  if (Unit::kDiffCarried > 0) *kept = carried[0];
  CUDA_UNROLL
  for (int i = 0; i < kDiffs; ++i) {
    const int gate = Unit::DiffGate(kPhase, i);
    areas.products[(area * Unit::kGates + gate) * d + cell.unit] = gates[i];
    s.gates_diff[(row * Unit::kGates + gate) * d + cell.unit] = gates[i];
  }
}

/**
 * @brief Both directions of the recurrence, step by step.
 *
 * Device, beside what the resident scan asks of it: BatchedProduct
 * (C = op(A) op(B) + beta C for both scans), Copy, and Repeat, which runs what
 * a key stands for, by a recording of it where there is one.
 */
template <typename Dtype, class Device>
class StepwiseScan {
 public:
  StepwiseScan(Device* device, ReNetUnit unit, ReNetPrecision precision,
      const ReNetScan<Dtype>& scan, Dtype* workspace)
      : device_(device), unit_(unit), precision_(precision), s_(scan),
        gates_(GatesOf(unit)),
        areas_(gates_, scan.lines, scan.hidden, workspace) {}

  static int GatesOf(ReNetUnit unit) {
    return WithUnit(unit, [](auto policy) { return decltype(policy)::kGates; });
  }

  void Forward() {
    PackWeights();
    device_->Repeat(Key(false), [this] {
      WithUnit(unit_, [this](auto policy) {
        typedef decltype(policy) Unit;
        for (int step = 0; step < s_.steps; ++step) {
          ForwardPhase<Unit, 0>(step);
          if constexpr (Unit::kPhases > 1) ForwardPhase<Unit, 1>(step);
        }
      });
    });
  }
  void Backward() {
    PackWeights();
    device_->Repeat(Key(true), [this] {
      WithUnit(unit_, [this](auto policy) {
        typedef decltype(policy) Unit;
        for (int step = s_.steps - 1; step >= 0; --step) {
          BackwardPhase<Unit, 0>(step);
          if constexpr (Unit::kPhases > 1) BackwardPhase<Unit, 1>(step);
        }
      });
    });
  }

 private:
  /// All that the recorded steps depend on.
  RecordKey Key(bool backward) const {
    const RecordKey key = {{
        Number(s_.steps), Number(s_.lines), Number(s_.hidden), Number(unit_),
        Number(precision_), Number(backward), Number(s_.keep_gates),
        Number(s_.cell_output), Address(s_.peephole[0]),
        Address(s_.peephole[1]), Address(s_.gates), Address(s_.states),
        Address(s_.extra), Address(s_.states_diff), Address(s_.gates_diff),
        Address(areas_.weights)}};
    return key;
  }
  static uintptr_t Number(int value) { return value; }
  static uintptr_t Address(const Dtype* pointer) {
    return reinterpret_cast<uintptr_t>(pointer);
  }

  void PackWeights() {
    const size_t count = static_cast<size_t>(gates_) * s_.hidden * s_.hidden;
    for (int scan = 0; scan < 2; ++scan) {
      device_->Copy(count, s_.recurrent_weights[scan],
          areas_.weights + scan * count);
    }
  }

  /// products[gates first ..] = states W_h^T of these gates, for both scans.
  void StateProduct(const Dtype* states, int first, int count) {
    const int d = s_.hidden, all = gates_ * d;
    device_->BatchedProduct(false, true, s_.lines, count * d, d, states, d,
        static_cast<ptrdiff_t>(s_.lines) * d, areas_.weights + first * d * d,
        d, static_cast<ptrdiff_t>(all) * d, Dtype(0),
        areas_.products + first * d, all,
        static_cast<ptrdiff_t>(s_.lines) * all, 2, precision_);
  }
  /// to = products[gates first ..] W_h of these gates + beta to.
  void GradientProduct(int first, int count, Dtype beta, Dtype* to) {
    const int d = s_.hidden, all = gates_ * d;
    device_->BatchedProduct(false, false, s_.lines, d, count * d,
        areas_.products + first * d, all,
        static_cast<ptrdiff_t>(s_.lines) * all, areas_.weights + first * d * d,
        d, static_cast<ptrdiff_t>(all) * d, beta, to, d,
        static_cast<ptrdiff_t>(s_.lines) * d, 2, precision_);
  }

  void Cells(void (*kernel)(const ReNetScan<Dtype>,
      const StepwiseAreas<Dtype>, int), int step) {
    const int kThreads = 256;
    const size_t cells = static_cast<size_t>(2) * s_.lines * s_.hidden;
    device_->Launch(kernel, dim3((cells + kThreads - 1) / kThreads),
        dim3(kThreads), 0, s_, areas_, step);
  }

  template <class Unit, int kPhase>
  void ForwardPhase(int step) {
    if (step > 0) {
      StateProduct(kPhase == 0 ? areas_.states : areas_.cells,
          Unit::FirstGate(kPhase), Unit::GatesOf(kPhase));
    }
    Cells(&StepForward<Unit, kPhase, Dtype>, step);
  }
  template <class Unit, int kPhase>
  void BackwardPhase(int step) {
    const int next = (kPhase + 1) % Unit::kPhases;
    const bool from_carried = Unit::SumFrom(next) == FROM_CARRIED;
    Cells(&StepBackward<Unit, kPhase, Dtype>, step);
    if (next > 0 || step > 0) {
      GradientProduct(Unit::FirstGate(next), Unit::GatesOf(next),
          from_carried ? 1 : 0, next == 0 ? areas_.states : areas_.cells);
    }
  }

  Device* device_;
  const ReNetUnit unit_;
  const ReNetPrecision precision_;
  const ReNetScan<Dtype> s_;
  const int gates_;
  const StepwiseAreas<Dtype> areas_;
};

}  // namespace renet
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_STEPWISE_SCAN_CUH_
