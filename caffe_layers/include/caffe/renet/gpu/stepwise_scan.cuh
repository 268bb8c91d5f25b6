#ifndef CAFFE_RENET_GPU_STEPWISE_SCAN_CUH_
#define CAFFE_RENET_GPU_STEPWISE_SCAN_CUH_

#include <array>
#include <cstddef>
#include <cstdint>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/renet/cell.hpp"
#include "caffe/renet/gpu/scan.hpp"
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

template <typename Dtype>
__global__ void LstmStepForward(const ReNetScan<Dtype> s,
    const StepwiseAreas<Dtype> areas, int step) {
  const StepCell cell(s);
  if (!cell.exists) return;
  const int d = s.hidden;
  const size_t row = cell.Row(s, step), area = cell.Area(s);
  Dtype* const gates = s.gates + row * 4 * d + cell.unit;
  const Dtype* const products = areas.products + area * 4 * d + cell.unit;
  const Dtype* const weights = OfScan(s.peephole, cell.scan);
  const Dtype* const p = weights == NULL ? NULL : weights + cell.unit;
  Dtype sums[4];
  CUDA_UNROLL
  for (int gate = 0; gate < 4; ++gate) {
    sums[gate] = gates[gate * d] + (step > 0 ? products[gate * d] : Dtype(0));
  }
  const Dtype c_before =
      step > 0 ? areas.cells[area * d + cell.unit] : Dtype(0);
  Dtype i, f, o, g, c, h;
  LstmForward(sums[0], sums[1], sums[2], sums[3], c_before,
      p ? p[0] : Dtype(0), p ? p[d] : Dtype(0), p ? p[2 * d] : Dtype(0), &i,
      &f, &o, &g, &c, &h);
  areas.cells[area * d + cell.unit] = c;
  areas.states[area * d + cell.unit] = h;
  s.states[row * d + cell.unit] = h;
  if (s.extra != NULL) s.extra[row * d + cell.unit] = c;
  if (s.keep_gates) {
    gates[0] = i;
    gates[d] = f;
    gates[2 * d] = o;
    gates[3 * d] = g;
  }
}

template <typename Dtype>
__global__ void LstmStepBackward(const ReNetScan<Dtype> s,
    const StepwiseAreas<Dtype> areas, int step) {
  const StepCell cell(s);
  if (!cell.exists) return;
  const int d = s.hidden;
  const bool last = step == s.steps - 1;
  const size_t row = cell.Row(s, step);
  const size_t at = cell.Area(s) * d + cell.unit;
  const Dtype* const gates = s.gates + row * 4 * d + cell.unit;
  const Dtype* const weights = OfScan(s.peephole, cell.scan);
  const Dtype* const p = weights == NULL ? NULL : weights + cell.unit;
  const Dtype top_diff = s.states_diff[row * d + cell.unit];
  Dtype h_diff = last ? Dtype(0) : areas.states[at];
  Dtype c_diff = last ? Dtype(0) : areas.cells[at];
  (s.cell_output ? c_diff : h_diff) += top_diff;
  const Dtype c_before = step > 0 ?
      s.extra[cell.Row(s, step - 1) * d + cell.unit] : Dtype(0);
  Dtype sums[4];
  LstmBackward(h_diff, gates[0], gates[d], gates[2 * d], gates[3 * d],
      s.extra[row * d + cell.unit], c_before, p ? p[0] : Dtype(0),
      p ? p[d] : Dtype(0), p ? p[2 * d] : Dtype(0), &c_diff, &sums[0],
      &sums[1], &sums[2], &sums[3]);
  areas.cells[at] = c_diff;
  CUDA_UNROLL
  for (int gate = 0; gate < 4; ++gate) {
    areas.products[(cell.Area(s) * 4 + gate) * d + cell.unit] = sums[gate];
    s.gates_diff[(row * 4 + gate) * d + cell.unit] = sums[gate];
  }
}

template <typename Dtype>
__global__ void GruGatesStepForward(const ReNetScan<Dtype> s,
    const StepwiseAreas<Dtype> areas, int step) {
  const StepCell cell(s);
  if (!cell.exists) return;
  const int d = s.hidden;
  const size_t row = cell.Row(s, step), area = cell.Area(s);
  Dtype* const gates = s.gates + row * 3 * d + cell.unit;
  Dtype* const products = areas.products + area * 3 * d + cell.unit;
  const bool first = step == 0;
  Dtype z, r, reset_h;
  GruGatesForward(gates[0] + (first ? Dtype(0) : products[0]),
      gates[d] + (first ? Dtype(0) : products[d]),
      first ? Dtype(0) : areas.states[area * d + cell.unit], &z, &r, &reset_h);
  products[0] = z;  // for the second half of the step
  areas.cells[area * d + cell.unit] = reset_h;
  if (s.extra != NULL) s.extra[row * d + cell.unit] = reset_h;
  if (s.keep_gates) {
    gates[0] = z;
    gates[d] = r;
  }
}

template <typename Dtype>
__global__ void GruStateStepForward(const ReNetScan<Dtype> s,
    const StepwiseAreas<Dtype> areas, int step) {
  const StepCell cell(s);
  if (!cell.exists) return;
  const int d = s.hidden;
  const size_t row = cell.Row(s, step), area = cell.Area(s);
  Dtype* const candidate = s.gates + (row * 3 + 2) * d + cell.unit;
  const Dtype* const products = areas.products + area * 3 * d + cell.unit;
  const bool first = step == 0;
  Dtype* const state = areas.states + area * d + cell.unit;
  Dtype n, h;
  GruStateForward(*candidate + (first ? Dtype(0) : products[2 * d]),
      products[0], first ? Dtype(0) : *state, &n, &h);
  *state = h;
  s.states[row * d + cell.unit] = h;
  if (s.keep_gates) *candidate = n;
}

template <typename Dtype>
__global__ void GruStateStepBackward(const ReNetScan<Dtype> s,
    const StepwiseAreas<Dtype> areas, int step) {
  const StepCell cell(s);
  if (!cell.exists) return;
  const int d = s.hidden;
  const size_t row = cell.Row(s, step), area = cell.Area(s);
  const Dtype* const gates = s.gates + row * 3 * d + cell.unit;
  Dtype* const products = areas.products + area * 3 * d + cell.unit;
  Dtype* const state_diff = areas.states + area * d + cell.unit;
  Dtype h_diff = s.states_diff[row * d + cell.unit] +
      (step == s.steps - 1 ? Dtype(0) : *state_diff);
  const Dtype h_before = step > 0 ?
      s.states[cell.Row(s, step - 1) * d + cell.unit] : Dtype(0);
  Dtype z_diff, n_diff;
  GruStateBackward(gates[0], gates[2 * d], h_before, &h_diff, &z_diff,
      &n_diff);
  *state_diff = h_diff;
  products[0] = z_diff;
  products[2 * d] = n_diff;
  Dtype* const to = s.gates_diff + row * 3 * d + cell.unit;
  to[0] = z_diff;
  to[2 * d] = n_diff;
}

template <typename Dtype>
__global__ void GruResetStepBackward(const ReNetScan<Dtype> s,
    const StepwiseAreas<Dtype> areas, int step) {
  const StepCell cell(s);
  if (!cell.exists) return;
  const int d = s.hidden;
  const size_t row = cell.Row(s, step), area = cell.Area(s);
  const Dtype h_before = step > 0 ?
      s.states[cell.Row(s, step - 1) * d + cell.unit] : Dtype(0);
  Dtype r_diff;
  GruResetBackward(areas.cells[area * d + cell.unit],
      s.gates[(row * 3 + 1) * d + cell.unit], h_before,
      &areas.states[area * d + cell.unit], &r_diff);
  areas.products[(area * 3 + 1) * d + cell.unit] = r_diff;
  s.gates_diff[(row * 3 + 1) * d + cell.unit] = r_diff;
}

template <typename Dtype>
__global__ void IrnnStepForward(const ReNetScan<Dtype> s,
    const StepwiseAreas<Dtype> areas, int step) {
  const StepCell cell(s);
  if (!cell.exists) return;
  const size_t at = cell.Row(s, step) * s.hidden + cell.unit;
  const size_t area = cell.Area(s) * s.hidden + cell.unit;
  const Dtype h = IrnnForward(
      s.gates[at] + (step > 0 ? areas.products[area] : Dtype(0)));
  areas.states[area] = h;
  s.states[at] = h;
}

template <typename Dtype>
__global__ void IrnnStepBackward(const ReNetScan<Dtype> s,
    const StepwiseAreas<Dtype> areas, int step) {
  const StepCell cell(s);
  if (!cell.exists) return;
  const size_t at = cell.Row(s, step) * s.hidden + cell.unit;
  const size_t area = cell.Area(s) * s.hidden + cell.unit;
  const Dtype h_diff = s.states_diff[at] +
      (step == s.steps - 1 ? Dtype(0) : areas.states[area]);
  const Dtype diff = IrnnBackward(h_diff, s.states[at]);
  areas.products[area] = diff;
  s.gates_diff[at] = diff;
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
    return unit == RENET_LSTM ? 4 : unit == RENET_GRU ? 3 : 1;
  }

  void Forward() {
    PackWeights();
    device_->Repeat(Key(false), [this] {
      for (int step = 0; step < s_.steps; ++step) ForwardStep(step);
    });
  }
  void Backward() {
    PackWeights();
    device_->Repeat(Key(true), [this] {
      for (int step = s_.steps - 1; step >= 0; --step) BackwardStep(step);
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

  void ForwardStep(int step) {
    switch (unit_) {
    case RENET_LSTM:
      if (step > 0) StateProduct(areas_.states, 0, 4);
      Cells(&LstmStepForward<Dtype>, step);
      break;
    case RENET_GRU:
      if (step > 0) StateProduct(areas_.states, 0, 2);
      Cells(&GruGatesStepForward<Dtype>, step);
      if (step > 0) StateProduct(areas_.cells, 2, 1);
      Cells(&GruStateStepForward<Dtype>, step);
      break;
    case RENET_IRNN:
      if (step > 0) StateProduct(areas_.states, 0, 1);
      Cells(&IrnnStepForward<Dtype>, step);
      break;
    }
  }
  void BackwardStep(int step) {
    switch (unit_) {
    case RENET_LSTM:
      Cells(&LstmStepBackward<Dtype>, step);
      if (step > 0) GradientProduct(0, 4, 0, areas_.states);
      break;
    case RENET_GRU:
      Cells(&GruStateStepBackward<Dtype>, step);
      GradientProduct(2, 1, 0, areas_.cells);
      Cells(&GruResetStepBackward<Dtype>, step);
      if (step > 0) GradientProduct(0, 2, 1, areas_.states);
      break;
    case RENET_IRNN:
      Cells(&IrnnStepBackward<Dtype>, step);
      if (step > 0) GradientProduct(0, 1, 0, areas_.states);
      break;
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
