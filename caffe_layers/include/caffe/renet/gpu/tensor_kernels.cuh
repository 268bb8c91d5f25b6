#ifndef CAFFE_RENET_GPU_TENSOR_KERNELS_CUH_
#define CAFFE_RENET_GPU_TENSOR_KERNELS_CUH_

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/renet/gpu/scan.hpp"
#include "caffe/renet/gpu/tensor_cells.cuh"
#include "caffe/renet/gpu/tensor_product.cuh"
#include "caffe/renet/gpu/units.cuh"

/// The kernels on tensor cores (tensor_product.cuh), for every unit.
namespace caffe {
namespace tensor_scan {

/// Threads for kUnits units.
constexpr int MaxThreads(int units) { return 2 * units; }

/**
 * @brief W_h for the products of a unit's phases, and the two areas of their
 *        operands, tiles x 8 rows each.
 *
 * A phase reads one area and leaves the next phase's operands in the other. In
 * a unit of one phase the areas change places with each step. Forward, a tile
 * of a matrix is a gate and its depth the units; backward, depth
 * gates * unit + gate sums over the phase's gates.
 */
template <class Unit, class Operand, int kUnits, bool kBackward>
struct PhaseMatrices {
  template <int kGates, int kMostHeld>
  using MatrixOf = Matrix<Operand, kBackward ? 1 : kGates,
      kBackward ? kGates * kUnits : kUnits, kMostHeld>;
  struct None {
    static constexpr int kShared = 0;
  };

  static constexpr bool kTwo = Unit::kPhases > 1;
  static constexpr int kMostHeld = Operand::MostHeld(kUnits);
  typedef MatrixOf<Unit::GatesOf(0), kMostHeld> First;
  typedef typename std::conditional<kTwo,
      MatrixOf<Unit::GatesOf(Unit::kPhases - 1), kMostHeld - First::kHeld>,
      None>::type Second;
  template <int kPhase>
  using Of = typename std::conditional<kPhase == 0, First, Second>::type;
  static constexpr Memory kMemory = {First::kShared + Second::kShared,
      First::kStride + Of<Unit::kPhases - 1>::kStride,
      kBackward ? Unit::kDiffCarried
          : Unit::kCarried + (Unit::kUsesState ? 1 : 0)};

  /// weights: G*d x d; shared: kMemory.fragments x threads. The matrices are
  /// objects of their own: what holds an array is kept in memory until its
  /// loops are unrolled, and with it all that it is a part of.
  CUDA_INLINE static void Load(const float* weights, int hidden,
      uint4* shared, First* first, Second* second) {
    LoadPhase<0>(first, weights, hidden, shared);
    if constexpr (kTwo) {
      LoadPhase<1>(second, weights, hidden,
          shared + First::kShared * blockDim.x);
    } else {
      (void)second;
    }
  }
  /// Where one of the areas (0 or 1) begins, in words.
  CUDA_INLINE static int Area(int area, int tiles) {
    return area * tiles * 8 * First::kStride;
  }
  /// Which area a phase reads, and which it writes; `turn` counts steps.
  template <int kPhase>
  CUDA_INLINE static int AreaRead(int turn) {
    return kTwo ? kPhase : turn & 1;
  }
  template <int kPhase>
  CUDA_INLINE static int AreaWritten(int turn) {
    return kTwo ? 1 - kPhase : (turn + 1) & 1;
  }

 private:
  template <int kPhase>
  CUDA_INLINE static void LoadPhase(Of<kPhase>* matrix, const float* weights,
      int hidden, uint4* shared) {
    constexpr int kFirstGate = Unit::FirstGate(kPhase);
    constexpr int kGates = Unit::GatesOf(kPhase);
    const int first_row = threadIdx.x / 32 * 16;
    matrix->Load(shared, [&](int tile, int row, int k) {
      return kBackward
          ? Weight(weights, hidden, kFirstGate + k % kGates, k / kGates,
              first_row + row)
          : Weight(weights, hidden, kFirstGate + tile, first_row + row, k);
    });
  }
};

/// The parts of a block's dynamic shared memory, in this order.
template <class Matrices>
struct Layout {
  uint4* fragments;    // kMemory.fragments x threads
  float4* own;         // kMemory.own x tiles x threads
  uint32_t* operands;  // two areas of tiles x 8 rows

  CUDA_INLINE Layout(unsigned char* memory, int tiles)
      : fragments(reinterpret_cast<uint4*>(memory)),
        own(reinterpret_cast<float4*>(fragments
            + Matrices::kMemory.fragments * blockDim.x)),
        operands(reinterpret_cast<uint32_t*>(own
            + Matrices::kMemory.own * tiles * blockDim.x)) {
    Clear(reinterpret_cast<uint4*>(own), tiles
        * (4 * Matrices::kMemory.own * static_cast<int>(blockDim.x)
            + 8 * Matrices::kMemory.words));
  }
};

/// Both scans forward; see ReNetScan.
template <class Unit, class Operand, int kMaxUnits>
class ForwardBody {
 public:
  static constexpr int kUnits = kMaxUnits;
  /// Blocks on a multiprocessor that registers must suffice for.
  static constexpr int kMinBlocks =
      kUnits > 64 ? 1 : Operand::kPerWord == 2 ? 3 : 2;
  typedef PhaseMatrices<Unit, Operand, kUnits, false> Matrices;
  static constexpr Memory kMemory = Matrices::kMemory;

  /// memory: SharedBytes() bytes.
  CUDA_INLINE ForwardBody(const ReNetScan<float>& s, int tiles,
      unsigned char* memory)
      : s_(s), tiles_(tiles), layout_(memory, tiles),
        cells_(s, tiles) {}

  CUDA_INLINE void Run() {
    typename Matrices::First first;
    typename Matrices::Second second;
    Matrices::Load(OfScan(s_.recurrent_weights, cells_.scan), s_.hidden,
        layout_.fragments, &first, &second);
    const Peepholes peepholes = {
        {OfLane<Unit>(s_, cells_, 0), OfLane<Unit>(s_, cells_, 1)}};
    float next[Unit::kGates][4];
    ReadSums<0, Unit::kGates>(0, 0, next);
    __syncthreads();
    CUDA_NO_UNROLL
    for (int step = 0; step < s_.steps; ++step) {
      Phase<0>(step, first, peepholes, next);
      if constexpr (Unit::kPhases > 1) Phase<1>(step, second, peepholes, next);
    }
  }

 private:
  /// A thread's own, tiles x threads: what it carries, and then its states.
  CUDA_INLINE float4* Own(int i) const {
    return layout_.own + i * tiles_ * blockDim.x;
  }
  template <int kFirst, int kCount>
  CUDA_INLINE void ReadSums(int tile, int step,
      float next[Unit::kGates][4]) const {
    CUDA_UNROLL
    for (int gate = kFirst; gate < kFirst + kCount; ++gate) {
      cells_.Read(s_.gates, Unit::kGates, gate, tile, step, next[gate]);
    }
  }

  /// next: the sums that come next, for the lane's four cells.
  template <int kPhase, class Weights>
  CUDA_INLINE void Phase(int step, const Weights& weights,
      const Peepholes& peepholes, float next[Unit::kGates][4]) const {
    constexpr int kFirst = Unit::FirstGate(kPhase);
    constexpr int kGates = Unit::GatesOf(kPhase);
    constexpr bool kLast = kPhase == Unit::kPhases - 1;
    const int tile_words = 8 * Weights::kStride;
    const uint32_t* const before = layout_.operands
        + Matrices::Area(Matrices::template AreaRead<kPhase>(step), tiles_);
    uint32_t* const after = layout_.operands
        + Matrices::Area(Matrices::template AreaWritten<kPhase>(step), tiles_);
    CUDA_NO_UNROLL
    for (int tile = 0; tile < tiles_; ++tile) {
      float sums[kGates][4];
      CUDA_UNROLL
      for (int gate = 0; gate < kGates; ++gate) {
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) sums[gate][q] = next[kFirst + gate][q];
      }
      const int next_tile = tile + 1 < tiles_ ? tile + 1 : 0;
      const int next_step = next_tile > 0 ? step : step + 1;
      if (next_step < s_.steps) {
        ReadSums<kFirst, kGates>(next_tile, next_step, next);
      }
      weights.template Multiply<4 / kGates>(before + tile * tile_words, sums);
      float carried[renet::ArrayOf(Unit::kCarried)][4], h[4];
      CUDA_UNROLL
      for (int i = 0; i < Unit::kCarried; ++i) {
        ReadOwn(Own(i), tile, carried[i]);
      }
      if constexpr (Unit::kUsesState) ReadOwn(Own(Unit::kCarried), tile, h);
      float result[4], extra[4];
      CUDA_UNROLL
      for (int q = 0; q < 4; ++q) {
        Fast gates[kGates], own[renet::ArrayOf(Unit::kCarried)], h_before = 0.f;
        CUDA_UNROLL
        for (int gate = 0; gate < kGates; ++gate) gates[gate] = sums[gate][q];
        CUDA_UNROLL
        for (int i = 0; i < Unit::kCarried; ++i) own[i] = carried[i][q];
        if constexpr (Unit::kUsesState) h_before = h[q];
        const Fast out = Unit::template Forward<kPhase>(gates, h_before, own,
            peepholes.of_unit[q / 2]);
        CUDA_UNROLL
        for (int gate = 0; gate < kGates; ++gate) {
          sums[gate][q] = gates[gate].value;
        }
        CUDA_UNROLL
        for (int i = 0; i < Unit::kCarried; ++i) carried[i][q] = own[i].value;
        result[q] = out.value;
        if constexpr (kPhase == Unit::kExtraPhase) {
          extra[q] = Unit::Extra(out, own).value;
        }
        Operand::Store(cells_.Operands(after + tile * tile_words,
            Weights::kStride, q), cells_.unit + q / 2 * 8, result[q]);
      }
      CUDA_UNROLL
      for (int i = 0; i < Unit::Changed(kPhase); ++i) {
        WriteOwn(Own(i), tile, carried[i]);
      }
      if constexpr (kLast) {
        if (Unit::kUsesState) WriteOwn(Own(Unit::kCarried), tile, result);
        cells_.Write(s_.states, 1, 0, tile, step, result);
      }
      if constexpr (kPhase == Unit::kExtraPhase) {
        if (s_.extra != NULL) cells_.Write(s_.extra, 1, 0, tile, step, extra);
      }
      if (Unit::kKeepsGates && s_.keep_gates) {
        CUDA_UNROLL
        for (int gate = 0; gate < kGates; ++gate) {
          cells_.Write(s_.gates, Unit::kGates, kFirst + gate, tile, step,
              sums[gate]);
        }
      }
    }
    __syncthreads();
  }

  const ReNetScan<float>& s_;
  const int tiles_;
  const Layout<Matrices> layout_;
  const Cells cells_;
};

/// Operands k .. k + kCount - 1 of a row, k a multiple of kCount.
template <class Operand, int kCount>
CUDA_INLINE void StoreOperands(uint32_t* row, int k, const Fast* values) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4, "a vector's width");
  if constexpr (kCount == 4) {
    Operand::Store4(row, k, values[0].value, values[1].value, values[2].value,
        values[3].value);
  } else if constexpr (kCount == 2) {
    Operand::Store2(row, k, values[0].value, values[1].value);
  } else {
    Operand::Store(row, k, values[0].value);
  }
}

/// Both scans backward; see ReNetScan.
template <class Unit, class Operand, int kMaxUnits>
class BackwardBody {
 public:
  static constexpr int kUnits = kMaxUnits;
  /// Blocks on a multiprocessor that registers must suffice for.
  static constexpr int kMinBlocks = kUnits > 64 && Unit::kGates > 1 ? 1 : 2;
  typedef PhaseMatrices<Unit, Operand, kUnits, true> Matrices;
  static constexpr Memory kMemory = Matrices::kMemory;

  /// memory: SharedBytes() bytes.
  CUDA_INLINE BackwardBody(const ReNetScan<float>& s, int tiles,
      unsigned char* memory)
      : s_(s), tiles_(tiles), layout_(memory, tiles),
        cells_(s, tiles) {}

  CUDA_INLINE void Run() {
    typename Matrices::First first;
    typename Matrices::Second second;
    Matrices::Load(OfScan(s_.recurrent_weights, cells_.scan), s_.hidden,
        layout_.fragments, &first, &second);
    const Peepholes peepholes = {
        {OfLane<Unit>(s_, cells_, 0), OfLane<Unit>(s_, cells_, 1)}};
    __syncthreads();
    CUDA_NO_UNROLL
    for (int step = s_.steps - 1; step >= 0; --step) {
      Phase<0>(step, first, peepholes);
      if constexpr (Unit::kPhases > 1) Phase<1>(step, second, peepholes);
    }
  }

 private:
  /// A thread's own, tiles x threads: what it carries.
  CUDA_INLINE float4* Own(int i) const {
    return layout_.own + i * tiles_ * blockDim.x;
  }

  template <int kPhase, class Weights>
  CUDA_INLINE void Phase(int step, const Weights& weights,
      const Peepholes& peepholes) const {
    constexpr int kNextPhase = (kPhase + 1) % Unit::kPhases;
    typedef typename Matrices::template Of<kNextPhase> NextWeights;
    constexpr int kOperands = Unit::GatesOf(kNextPhase);
    constexpr int kDiffs = Unit::DiffsOf(kPhase);
    constexpr renet::SumStart kFrom = Unit::SumFrom(kPhase);
    const uint32_t* const before = layout_.operands
        + Matrices::Area(Matrices::template AreaRead<kPhase>(step), tiles_);
    uint32_t* const after = layout_.operands
        + Matrices::Area(Matrices::template AreaWritten<kPhase>(step), tiles_);
    CUDA_NO_UNROLL
    for (int tile = 0; tile < tiles_; ++tile) {
      float gates[kDiffs][4], kept[4] = {}, kept_before[4] = {}, top[4] = {};
      CUDA_UNROLL
      for (int i = 0; i < kDiffs; ++i) {
        cells_.Read(Unit::KeptGates(s_), Unit::kGates,
            Unit::DiffGate(kPhase, i), tile, step, gates[i]);
      }
      if constexpr (kPhase == 0) {
        const int next_tile = tile + 1 < tiles_ ? tile + 1 : 0;
        const int next_step = next_tile > 0 ? step : step - 1;
        PrefetchStep<Unit>(s_, cells_, next_tile, next_step);
      }
      if constexpr (Unit::kReadsKept) {
        cells_.Read(Unit::KeptState(s_), 1, 0, tile, step, kept);
      }
      if constexpr (kPhase == 0) {
        cells_.Read(s_.states_diff, 1, 0, tile, step, top);
      }
      if constexpr (Unit::kReadsBefore) {
        if (step > 0) {
          cells_.Read(Unit::KeptState(s_), 1, 0, tile, step - 1, kept_before);
        }
      }
      float sum[1][4] = {};
      if constexpr (kFrom == renet::FROM_CARRIED) ReadOwn(Own(0), tile, sum[0]);
      if constexpr (kFrom == renet::FROM_TOP) {
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) sum[0][q] = top[q];
      }
      weights.template Multiply<4>(before + tile * 8 * Weights::kStride, sum);
      float carried[renet::ArrayOf(Unit::kDiffCarried)][4];
      CUDA_UNROLL
      for (int i = 0; i < Unit::kDiffCarried; ++i) {
        ReadOwn(Own(i), tile, carried[i]);
      }
      CUDA_UNROLL
      for (int q = 0; q < 4; ++q) {
        Fast diffs[kDiffs], own[renet::ArrayOf(Unit::kDiffCarried)];
        Fast operands[kOperands];
        CUDA_UNROLL
        for (int i = 0; i < kDiffs; ++i) diffs[i] = gates[i][q];
        CUDA_UNROLL
        for (int i = 0; i < Unit::kDiffCarried; ++i) own[i] = carried[i][q];
        const renet::CellDiff<Fast> cell = {sum[0][q], top[q], s_.cell_output,
            kept[q], kept_before[q]};
        Unit::template Backward<kPhase>(cell, peepholes.of_unit[q / 2], diffs,
            own, operands);
        CUDA_UNROLL
        for (int i = 0; i < kDiffs; ++i) gates[i][q] = diffs[i].value;
        CUDA_UNROLL
        for (int i = 0; i < Unit::kDiffCarried; ++i) {
          carried[i][q] = own[i].value;
        }
        StoreOperands<Operand, kOperands>(cells_.Operands(
            after + tile * 8 * NextWeights::kStride, NextWeights::kStride, q),
            kOperands * (cells_.unit + q / 2 * 8), operands);
      }
      CUDA_UNROLL
      for (int i = 0; i < Unit::DiffChanged(kPhase); ++i) {
        WriteOwn(Own(i), tile, carried[i]);
      }
      CUDA_UNROLL
      for (int i = 0; i < kDiffs; ++i) {
        cells_.Write(s_.gates_diff, Unit::kGates, Unit::DiffGate(kPhase, i),
            tile, step, gates[i]);
      }
    }
    __syncthreads();
  }

  const ReNetScan<float>& s_;
  const int tiles_;
  const Layout<Matrices> layout_;
  const Cells cells_;
};

/// Blocks: (groups of `tiles` tiles of lines) x scans.
template <class Body>
__global__ void
__launch_bounds__(MaxThreads(Body::kUnits), Body::kMinBlocks)
TensorScan(const ReNetScan<float> scan, int tiles) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  DYNAMIC_SHARED(unsigned char, memory);
  Body(scan, tiles, memory).Run();
#else
  __trap();  // the host never chooses this kernel here
#endif
}

}  // namespace tensor_scan
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_TENSOR_KERNELS_CUH_
