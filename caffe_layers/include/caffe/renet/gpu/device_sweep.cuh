#ifndef CAFFE_RENET_GPU_DEVICE_SWEEP_CUH_
#define CAFFE_RENET_GPU_DEVICE_SWEEP_CUH_

#include <cstddef>

#include "caffe/renet/gpu/patches.cuh"
#include "caffe/renet/gpu/peephole_diffs.cuh"
#include "caffe/renet/gpu/resident_scan.cuh"
#include "caffe/renet/gpu/scan.hpp"
#include "caffe/renet/gpu/stepwise_scan.cuh"
#include "caffe/renet/sweep.hpp"
#include "caffe/renet/gpu/tensor_scan.cuh"

namespace caffe {
namespace renet {

/// The recurrence in one launch, where the device's blocks hold the weights.
/// Rounding is a leave and no duty: what the tensor cores cannot take (a GPU has
/// none, or the weights do not fit) goes in float32 before it goes step by step.
template <class Device>
bool LaunchOneScan(Device* device, ReNetUnit unit, ReNetPrecision precision,
    bool backward, const ReNetScan<float>& scan) {
  if (precision != RENET_FLOAT32 && (backward ?
      LaunchTensorScanBackward(device, unit, precision, scan) :
      LaunchTensorScanForward(device, unit, precision, scan))) {
    return true;
  }
  return LaunchResidentScan(device, unit, backward, scan);
}
template <class Device>
bool LaunchOneScan(Device* /* device */, ReNetUnit /* unit */,
    ReNetPrecision /* precision */, bool /* backward */,
    const ReNetScan<double>& /* scan */) {
  return false;
}

/**
 * @brief A sweep on a device, both scans, forward and backward.
 *
 * Forward: the patches become rows (position-major, with a column of ones for
 * the bias); one product with W_x of both scans gives the sums of all gates at
 * all positions; the recurrence runs over them in place; the states become a
 * map again. Backward: the recurrence gives the gradients of all gates at all
 * positions, and one product each those of W_x and b of both scans, of W_h of a
 * scan, and of the patches.
 *
 * All pointers of the ReNetSweep are the device's. Device offers Launch,
 * Product, BatchedProduct, Copy, Repeat and its limits: CudaDevice, and the
 * tests' emulation.
 */
template <typename Dtype, class Device>
class DeviceSweep {
 public:
  DeviceSweep(Device* device, const ReNetSweep<Dtype>& sweep)
      : device_(device), sweep_(sweep), precision_(sweep.precision),
        gates_(StepwiseScan<Dtype, Device>::GatesOf(sweep.unit)),
        d_(sweep.hidden), map_(Map(sweep)), lines_(map_.lines()),
        steps_(sweep.vertical ? map_.rows() : map_.columns()),
        positions_(static_cast<size_t>(lines_) * steps_) {}

  /// Elements that Backward reads again.
  size_t HistorySize() const { return SetHistory(NULL).size; }
  size_t WorkspaceSize(bool backward) const {
    return SetWorkspace(NULL, backward, sweep_.history != NULL).size;
  }

  void Forward() {
    const Workspace areas =
        SetWorkspace(sweep_.workspace, false, sweep_.history != NULL);
    const History history =
        sweep_.history != NULL ? SetHistory(sweep_.history) : areas.passing;
    PackWeights(areas);
    Gather(map_, sweep_.bottom, areas.rows);
    device_->Product(false, true, positions_, GateRow(), map_.row_size,
        areas.rows, map_.row_size, areas.weights, map_.row_size, Dtype(0),
        history.gates, GateRow(), precision_);
    ReNetScan<Dtype> scan = Scan(history);
    if (!LaunchOneScan(device_, sweep_.unit, precision_, false, scan)) {
      StepwiseScan<Dtype, Device>(device_, sweep_.unit, precision_, scan,
          areas.stepwise).Forward();
    }
    if (sweep_.top != NULL) {
      Scatter(StateMap(), sweep_.cell_output ? history.extra : history.states,
          sweep_.top);
    }
  }

  void Backward() {
    const Workspace areas = SetWorkspace(sweep_.workspace, true, true);
    const History history = SetHistory(sweep_.history);
    Gather(StateMap(), sweep_.top_diff, areas.states_diff);
    ReNetScan<Dtype> scan = Scan(history);
    scan.states_diff = areas.states_diff;
    scan.gates_diff = areas.gates_diff;
    if (!LaunchOneScan(device_, sweep_.unit, precision_, true, scan)) {
      StepwiseScan<Dtype, Device>(device_, sweep_.unit, precision_, scan,
          areas.stepwise).Backward();
    }
    InputWeightDiffs(areas);
    for (int i = 0; i < 2; ++i) {
      if (sweep_.recurrent_weights_diff[i] != NULL) {
        RecurrentWeightDiffs(i, history, areas.gates_diff);
      }
    }
    if (sweep_.peephole_diff[0] != NULL || sweep_.peephole_diff[1] != NULL) {
      PeepholeDiffs(scan, areas.peephole_parts);
    }
    if (sweep_.bottom_diff != NULL) {
      PackWeights(areas);
      device_->Product(false, false, positions_, map_.features(), GateRow(),
          areas.gates_diff, GateRow(), areas.weights, map_.row_size, Dtype(0),
          areas.rows, map_.row_size, precision_);
      Scatter(map_, areas.rows, sweep_.bottom_diff);
    }
  }

 private:
  struct History {
    Dtype* gates;   // positions x 2 x G*d; those of an IRNN are its states
    Dtype* states;  // positions x 2 x d
    Dtype* extra;   // positions x 2 x d: c of an LSTM, r * h of a GRU
    size_t size;
  };
  struct Workspace {
    Dtype* rows;            // positions x row_size: patches or their gradients
    Dtype* weights;         // 2 * G*d x row_size
    Dtype* stepwise;        // see StepwiseAreas
    Dtype* weights_diff;    // 2 * G*d x row_size
    Dtype* gates_diff;      // positions x 2 x G*d
    Dtype* states_diff;     // positions x 2 x d
    Dtype* peephole_parts;  // see SumPeepholeDiffs
    History passing;        // in place of a history that nobody wants
    size_t size;
  };

  /// Hands out parts of one memory, or counts them where it is NULL.
  class Memory {
   public:
    explicit Memory(Dtype* base) : base_(base), used_(0) {}
    Dtype* Take(size_t count) {
      const size_t kAlignment = 64;  // elements
      Dtype* const part = base_ == NULL ? NULL : base_ + used_;
      used_ += (count + kAlignment - 1) / kAlignment * kAlignment;
      return part;
    }
    size_t used() const { return used_; }

   private:
    Dtype* base_;
    size_t used_;
  };

  static Patches Map(const ReNetSweep<Dtype>& s) {
    Patches map = {s.num, s.channels, s.height, s.width, s.patch_height,
        s.patch_width, s.vertical, 0};
    // The bias is one more column; multiples of 4 are read 16 bytes at a time.
    map.row_size = (map.features() + 1 + 3) / 4 * 4;
    return map;
  }
  /// The map of the states of both scans, which is the top's.
  Patches StateMap() const {
    const Patches map = {map_.num, 2 * d_, map_.rows(), map_.columns(), 1, 1,
        map_.vertical, 2 * d_};
    return map;
  }
  int GateRow() const { return 2 * gates_ * d_; }

  History TakeHistory(Memory* memory, bool extra) const {
    History history = {};
    history.states = memory->Take(positions_ * 2 * d_);
    history.gates = sweep_.unit == RENET_IRNN ? history.states :
        memory->Take(positions_ * GateRow());
    if (extra) history.extra = memory->Take(positions_ * 2 * d_);
    return history;
  }
  History SetHistory(Dtype* base) const {
    Memory memory(base);
    History history = TakeHistory(&memory, sweep_.unit != RENET_IRNN);
    history.size = memory.used();
    return history;
  }
  Workspace SetWorkspace(Dtype* base, bool backward, bool has_history) const {
    Memory memory(base);
    Workspace areas = {};
    const size_t weights = static_cast<size_t>(GateRow()) * map_.row_size;
    areas.rows = memory.Take(positions_ * map_.row_size);
    areas.weights = memory.Take(weights);
    areas.stepwise =
        memory.Take(StepwiseAreas<Dtype>::Size(gates_, lines_, d_));
    if (backward) {
      areas.weights_diff = memory.Take(weights);
      areas.gates_diff = memory.Take(positions_ * GateRow());
      areas.states_diff = memory.Take(positions_ * 2 * d_);
      areas.peephole_parts = memory.Take(
          sweep_.peephole[0] == NULL ? 0 : kPeepholeParts * 6 * d_);
    } else if (!has_history) {
      areas.passing = TakeHistory(&memory, sweep_.cell_output);
    }
    areas.size = memory.used();
    return areas;
  }

  ReNetScan<Dtype> Scan(const History& history) const {
    ReNetScan<Dtype> scan = {};
    scan.steps = steps_;
    scan.lines = lines_;
    scan.hidden = d_;
    for (int i = 0; i < 2; ++i) {
      scan.recurrent_weights[i] = sweep_.recurrent_weights[i];
      scan.peephole[i] = sweep_.peephole[i];
    }
    scan.gates = history.gates;
    scan.keep_gates = sweep_.history != NULL;
    scan.states = history.states;
    scan.extra = history.extra;
    scan.cell_output = sweep_.cell_output;
    return scan;
  }

  void Gather(const Patches& map, const Dtype* from, Dtype* rows) {
    device_->Launch(&GatherPatches<Dtype>, dim3(PatchTile::Blocks(map)),
        dim3(kTile, kTileRows), 0, map, from, rows);
  }
  void Scatter(const Patches& map, const Dtype* rows, Dtype* to) {
    device_->Launch(&ScatterPatches<Dtype>, dim3(PatchTile::Blocks(map)),
        dim3(kTile, kTileRows), 0, map, rows, to);
  }

  /// One thread for each element of the packed weights.
  dim3 WeightBlocks() const {
    return dim3((static_cast<size_t>(GateRow()) * map_.row_size +
        kWeightThreads - 1) / kWeightThreads);
  }
  void PackWeights(const Workspace& areas) {
    device_->Launch(&PackInputWeights<Dtype>, WeightBlocks(),
        dim3(kWeightThreads), 0, gates_ * d_, map_.features(), map_.row_size,
        sweep_.input_weights[0], sweep_.bias[0], sweep_.input_weights[1],
        sweep_.bias[1], areas.weights);
  }
  void InputWeightDiffs(const Workspace& areas) {
    bool wanted = false;
    for (int i = 0; i < 2; ++i) {
      wanted = wanted || sweep_.input_weights_diff[i] != NULL ||
          sweep_.bias_diff[i] != NULL;
    }
    if (!wanted) return;
    Gather(map_, sweep_.bottom, areas.rows);
    device_->Product(true, false, GateRow(), map_.row_size, positions_,
        areas.gates_diff, GateRow(), areas.rows, map_.row_size, Dtype(0),
        areas.weights_diff, map_.row_size, precision_);
    device_->Launch(&AddInputWeightDiffs<Dtype>, WeightBlocks(),
        dim3(kWeightThreads), 0, gates_ * d_, map_.features(), map_.row_size,
        static_cast<const Dtype*>(areas.weights_diff),
        sweep_.input_weights_diff[0], sweep_.bias_diff[0],
        sweep_.input_weights_diff[1], sweep_.bias_diff[1]);
  }

  /// @f$ \Delta W_h = \sum \delta h^T @f$ with h the state before: that of the
  /// row above or below. The candidate's rows of a GRU see r * h instead, which
  /// is kept at the position that it was used at.
  void RecurrentWeightDiffs(int scan, const History& history,
      const Dtype* gates_diff) {
    const bool gru = sweep_.unit == RENET_GRU;
    const Dtype* const diff = gates_diff + scan * gates_ * d_;
    Dtype* const to = sweep_.recurrent_weights_diff[scan];
    if (steps_ > 1) {
      const Dtype* const states = history.states + scan * d_;
      const size_t lines = lines_;
      device_->Product(true, false, (gru ? 2 : gates_) * d_, d_,
          positions_ - lines,
          diff + (scan == 0 ? lines * GateRow() : 0), GateRow(),
          states + (scan == 0 ? 0 : lines * 2 * d_), 2 * d_, Dtype(1), to, d_,
          precision_);
    }
    if (gru) {
      device_->Product(true, false, d_, d_, positions_, diff + 2 * d_,
          GateRow(), history.extra + scan * d_, 2 * d_, Dtype(1),
          to + static_cast<size_t>(2) * d_ * d_, d_, precision_);
    }
  }

  void PeepholeDiffs(const ReNetScan<Dtype>& scan, Dtype* parts) {
    const int kThreads = 128;
    device_->Launch(&SumPeepholeDiffs<Dtype>,
        dim3((d_ + kPeepholeUnits - 1) / kPeepholeUnits, 2, kPeepholeParts),
        dim3(kPeepholeUnits, kPeepholeRows), 0, scan, parts);
    device_->Launch(&AddPeepholeDiffs<Dtype>,
        dim3((6 * d_ + kThreads - 1) / kThreads), dim3(kThreads), 0, d_,
        static_cast<const Dtype*>(parts), sweep_.peephole_diff[0],
        sweep_.peephole_diff[1]);
  }

  static const int kWeightThreads = 256;

  Device* device_;
  const ReNetSweep<Dtype> sweep_;
  const ReNetPrecision precision_;
  const int gates_;
  const int d_;
  const Patches map_;
  const int lines_;
  const int steps_;
  const size_t positions_;
};

}  // namespace renet
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_DEVICE_SWEEP_CUH_
