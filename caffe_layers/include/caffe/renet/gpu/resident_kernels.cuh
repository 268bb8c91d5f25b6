#ifndef CAFFE_RENET_GPU_RESIDENT_KERNELS_CUH_
#define CAFFE_RENET_GPU_RESIDENT_KERNELS_CUH_

#include <cstddef>
#include <type_traits>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/renet/gpu/resident_product.cuh"
#include "caffe/renet/gpu/scan.hpp"
#include "caffe/renet/gpu/units.cuh"

/// The kernels with resident weights (resident_product.cuh), for every unit.
namespace caffe {
namespace renet {

/// Blocks on a multiprocessor that registers must suffice for.
constexpr int ResidentBlocks(int units, int gates) {
  return units <= 32 ? (gates == 4 ? 4 : 6) : units <= 64 ? 2 : 1;
}

/**
 * @brief The cell of a lane: where it is in the maps at a step and in a pass.
 *
 * Offsets are ints: a blob, of which the maps are parts, has no more elements.
 */
struct ResidentCell {
  int scan;
  int unit;
  int line;         // of the map; of the pass: line % kPassLines
  int at;           // in a map with d elements for each position and scan
  int step_stride;  // to the state of the next step
  int pass_stride;

  CUDA_INLINE ResidentCell(const ReNetScan<float>& s, int passes, int step)
      : scan(blockIdx.y), unit(threadIdx.x / 4),
        line(blockIdx.x * passes * kPassLines + threadIdx.x % kPassLines) {
    const int row = scan == 0 ? step : s.steps - 1 - step;
    at = ((row * s.lines + line) * 2 + scan) * s.hidden + unit;
    step_stride = (scan == 0 ? 2 : -2) * s.lines * s.hidden;
    pass_stride = 2 * kPassLines * s.hidden;
  }
  /// Where the first of so many gates of the cell lies in their map.
  CUDA_INLINE int Gates(int gates) const {
    return gates * at - (gates - 1) * unit;
  }
  /// Whether the map has this cell; lanes without one take part in the products
  /// alone.
  CUDA_INLINE bool InMap(const ReNetScan<float>& s) const {
    return unit < s.hidden && line < s.lines;
  }
  /// Its line among those of the block.
  CUDA_INLINE int Slot(int pass) const {
    return pass * kPassLines + line % kPassLines;
  }
  /// The same lane's cell in the next pass.
  CUDA_INLINE void NextPass() {
    line += kPassLines;
    at += pass_stride;
  }
  /// Back to the first of `passes` passes, `steps` steps on.
  CUDA_INLINE void NextStep(int passes, int steps) {
    line -= passes * kPassLines;
    at += steps * step_stride - passes * pass_stride;
  }
};

/// memory: count floats of the block's shared memory.
CUDA_INLINE void ClearShared(float* memory, int count) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) memory[i] = 0.f;
}

/// Sizes of dynamic shared memory, in floats: what a block needs whatever its
/// tile, and what each pass adds.
struct ResidentMemory {
  int fixed;
  int pass;
};

/**
 * @brief The products of a unit's phases, one Product each, and what they take
 *        of shared memory: their weights, and two areas of operands, each
 *        passes x kPassLines rows.
 *
 * A phase reads one area and leaves the next phase's operands in the other. In
 * a unit of one phase the areas change places with each step.
 */
template <class Unit, template <int, int> class Product, int kUnits>
struct PhaseProducts {
  struct None {
    static constexpr int kShared = 0;
  };

  static constexpr int kChunks = (kUnits + 31) / 32;
  static constexpr bool kTwo = Unit::kPhases > 1;
  typedef Product<Unit::GatesOf(0), kChunks> First;
  typedef typename std::conditional<kTwo,
      Product<Unit::GatesOf(Unit::kPhases - 1), kChunks>, None>::type Second;
  template <int kPhase>
  using Of = typename std::conditional<kPhase == 0, First, Second>::type;

  /// Of the weights, in float4s.
  static constexpr int kShared = First::kShared + Second::kShared;
  /// Floats that a line takes in both areas.
  static constexpr int kBothWidths =
      First::kWidth + Of<Unit::kPhases - 1>::kWidth;

  /// weights: G*d x d; shared: kShared float4s. The products are objects of
  /// their own: what holds an array is kept in memory until its loops are
  /// unrolled, and with it all that it is a part of.
  CUDA_INLINE static void Load(const float* weights, int hidden,
      float4* shared, First* first, Second* second) {
    first->Load(weights, Unit::FirstGate(0), hidden, shared);
    if constexpr (kTwo) {
      second->Load(weights, Unit::FirstGate(1), hidden,
          shared + First::kShared);
    } else {
      (void)second;
    }
  }
  /// Where one of the areas (0 or 1) begins behind the first.
  CUDA_INLINE static int Area(int area, int passes) {
    return area * passes * kPassLines * First::kWidth;
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
};

/// Both scans forward; see ReNetScan. Blocks: tiles of lines x scans.
template <class Unit, int kUnits>
class ResidentForwardScan {
 public:
  typedef PhaseProducts<Unit, StateProduct, kUnits> Products;
  static constexpr int kWidth = Products::First::kWidth;

  static ResidentMemory Memory(int threads) {
    return {Products::kShared * 4,
        kPassLines * Products::kBothWidths + Unit::kCarried * threads};
  }

  /// memory: Memory() floats.
  CUDA_INLINE ResidentForwardScan(const ReNetScan<float>& s, int passes,
      float* memory)
      : s_(s), passes_(passes), areas_(memory + Products::kShared * 4),
        carried_(areas_ + Products::Area(2, passes)), cell_(s, passes, 0) {}

  /// memory: as above.
  CUDA_INLINE void Run(float* memory) {
    typename Products::First first;
    typename Products::Second second;
    Products::Load(OfScan(s_.recurrent_weights, cell_.scan), s_.hidden,
        reinterpret_cast<float4*>(memory), &first, &second);
    ClearShared(areas_, Products::Area(2, passes_)
        + Unit::kCarried * passes_ * blockDim.x);
    __syncthreads();
    CUDA_NO_UNROLL
    for (int step = 0; step < s_.steps; ++step) {
      Phase<0>(step, first);
      if constexpr (Unit::kPhases > 1) Phase<1>(step, second);
    }
  }

 private:
  template <int kPhase, class Product>
  CUDA_INLINE void Phase(int step, const Product& product) {
    constexpr int kGates = Unit::GatesOf(kPhase);
    constexpr bool kLast = kPhase == Unit::kPhases - 1;
    const int d = s_.hidden;
    const float* const operands = areas_
        + Products::Area(Products::template AreaRead<kPhase>(step), passes_);
    float* const results = areas_
        + Products::Area(Products::template AreaWritten<kPhase>(step), passes_);
    CUDA_NO_UNROLL
    for (int pass = 0; pass < passes_; ++pass) {
      const bool in_map = cell_.InMap(s_);
      float* const gates = s_.gates + cell_.Gates(Unit::kGates)
          + Unit::FirstGate(kPhase) * d;
      float sums[kGates] = {};
      if (in_map) {
        CUDA_UNROLL
        for (int gate = 0; gate < kGates; ++gate) sums[gate] = gates[gate * d];
      }
      if (step > 0) {
        product.Add(operands + pass * kPassLines * kWidth, sums);
      }
      if (in_map) {
        float* const kept = carried_ + pass * blockDim.x + threadIdx.x;
        const Peephole<float> p = ReadPeephole<Unit>(
            OfScan(s_.peephole, cell_.scan), cell_.unit, d);
        // a unit that uses its state has it in the first area
        const float h_before = Unit::kUsesState ?
            areas_[cell_.Slot(pass) * kWidth + cell_.unit] : 0.f;
        float carried[ArrayOf(Unit::kCarried)];
        if (Unit::kCarried > 0) carried[0] = *kept;
        const float result =
            Unit::template Forward<kPhase>(sums, h_before, carried, p);
        if (Unit::Changed(kPhase) > 0) *kept = carried[0];
        results[cell_.Slot(pass) * kWidth + cell_.unit] = result;
        if (kLast) s_.states[cell_.at] = result;
        if constexpr (kPhase == Unit::kExtraPhase) {
          if (s_.extra != NULL) {
            s_.extra[cell_.at] = Unit::Extra(result, carried);
          }
        }
        if (Unit::kKeepsGates && s_.keep_gates) {
          CUDA_UNROLL
          for (int gate = 0; gate < kGates; ++gate) {
            gates[gate * d] = sums[gate];
          }
        }
      }
      cell_.NextPass();
    }
    cell_.NextStep(passes_, kLast ? 1 : 0);
    __syncthreads();
  }

  static_assert(Unit::kCarried <= 1, "a cell has room for one number");

  const ReNetScan<float>& s_;
  const int passes_;
  float* const areas_;    // 2 x passes * kPassLines x kWidth: h, or h and r * h
  float* const carried_;  // passes x threads
  ResidentCell cell_;
};

/// count neighbouring floats of shared memory, written at once.
template <int kCount>
CUDA_INLINE void WriteGates(const float* from, float* to) {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4, "a vector's width");
  if constexpr (kCount == 4) {
    *reinterpret_cast<float4*>(to) =
        make_float4(from[0], from[1], from[2], from[3]);
  } else if constexpr (kCount == 2) {
    *reinterpret_cast<float2*>(to) = make_float2(from[0], from[1]);
  } else {
    to[0] = from[0];
  }
}

/// Both scans backward; see ReNetScan. Blocks: tiles of lines x scans.
template <class Unit, int kUnits>
class ResidentBackwardScan {
 public:
  typedef PhaseProducts<Unit, GradientProduct, kUnits> Products;

  static ResidentMemory Memory(int threads) {
    return {Products::kShared * 4,
        kPassLines * Products::kBothWidths + Unit::kDiffCarried * threads};
  }

  /// memory: Memory() floats.
  CUDA_INLINE ResidentBackwardScan(const ReNetScan<float>& s, int passes,
      float* memory)
      : s_(s), passes_(passes), areas_(memory + Products::kShared * 4),
        carried_(areas_ + passes * kPassLines * Products::kBothWidths),
        cell_(s, passes, s.steps - 1) {}

  /// memory: as above.
  CUDA_INLINE void Run(float* memory) {
    typename Products::First first;
    typename Products::Second second;
    Products::Load(OfScan(s_.recurrent_weights, cell_.scan), s_.hidden,
        reinterpret_cast<float4*>(memory), &first, &second);
    ClearShared(areas_, passes_ * (kPassLines * Products::kBothWidths
        + Unit::kDiffCarried * static_cast<int>(blockDim.x)));
    __syncthreads();
    CUDA_NO_UNROLL
    for (int step = s_.steps - 1; step >= 0; --step) {
      Phase<0>(step, first);
      if constexpr (Unit::kPhases > 1) Phase<1>(step, second);
    }
  }

 private:
  template <int kPhase, class Product>
  CUDA_INLINE void Phase(int step, const Product& product) {
    constexpr int kNextPhase = (kPhase + 1) % Unit::kPhases;
    constexpr int kNextWidth = Products::template Of<kNextPhase>::kWidth;
    constexpr int kOperands = Unit::GatesOf(kNextPhase);
    constexpr int kDiffs = Unit::DiffsOf(kPhase);
    constexpr SumStart kFrom = Unit::SumFrom(kPhase);
    const int d = s_.hidden;
    const int turn = step + 1;
    const float* const operands = areas_
        + Products::Area(Products::template AreaRead<kPhase>(turn), passes_);
    float* const results = areas_
        + Products::Area(Products::template AreaWritten<kPhase>(turn), passes_);
    CUDA_NO_UNROLL
    for (int pass = 0; pass < passes_; ++pass) {
      const bool in_map = cell_.InMap(s_);
      float gates[kDiffs] = {};
      CellDiff<float> diff = {0.f, 0.f, s_.cell_output, 0.f, 0.f};
      if (in_map) {
        const float* const from =
            Unit::KeptGates(s_) + cell_.Gates(Unit::kGates);
        CUDA_UNROLL
        for (int i = 0; i < kDiffs; ++i) {
          gates[i] = from[Unit::DiffGate(kPhase, i) * d];
        }
        if (kPhase == 0) diff.top = s_.states_diff[cell_.at];
        if (Unit::kReadsKept) diff.kept = Unit::KeptState(s_)[cell_.at];
        if (Unit::kReadsBefore && step > 0) {
          diff.before = Unit::KeptState(s_)[cell_.at - cell_.step_stride];
        }
      }
      if (kPhase > 0 || step < s_.steps - 1) {
        diff.sum =
            product.Sum(operands + pass * kPassLines * Product::kWidth);
      }
      if (in_map) {
        float* const kept = carried_ + pass * blockDim.x + threadIdx.x;
        const Peephole<float> p = ReadPeephole<Unit>(
            OfScan(s_.peephole, cell_.scan), cell_.unit, d);
        float carried[ArrayOf(Unit::kDiffCarried)];
        CUDA_UNROLL
        for (int i = 0; i < Unit::kDiffCarried; ++i) {
          carried[i] = kept[i * passes_ * blockDim.x];
        }
        if (kFrom == FROM_CARRIED) diff.sum += carried[0];
        if (kFrom == FROM_TOP) diff.sum += diff.top;
        float next[kOperands];
        Unit::template Backward<kPhase>(diff, p, gates, carried, next);
        CUDA_UNROLL
        for (int i = 0; i < Unit::DiffChanged(kPhase); ++i) {
          kept[i * passes_ * blockDim.x] = carried[i];
        }
        WriteGates<kOperands>(next,
            results + cell_.Slot(pass) * kNextWidth + cell_.unit * kOperands);
        float* const to = s_.gates_diff + cell_.Gates(Unit::kGates);
        CUDA_UNROLL
        for (int i = 0; i < kDiffs; ++i) {
          to[Unit::DiffGate(kPhase, i) * d] = gates[i];
        }
      }
      cell_.NextPass();
    }
    cell_.NextStep(passes_, kNextPhase == 0 ? -1 : 0);
    __syncthreads();
  }

  const ReNetScan<float>& s_;
  const int passes_;
  float* const areas_;    // 2 x passes * kPassLines x units * gates
  float* const carried_;  // kDiffCarried x passes x threads
  ResidentCell cell_;
};

template <class Unit, int kUnits>
__global__ void
__launch_bounds__(4 * kUnits, ResidentBlocks(kUnits, Unit::kGates))
ResidentForward(const ReNetScan<float> s, int passes) {
  DYNAMIC_SHARED(float, memory);
  ResidentForwardScan<Unit, kUnits>(s, passes, memory).Run(memory);
}

template <class Unit, int kUnits>
__global__ void
__launch_bounds__(4 * kUnits, ResidentBlocks(kUnits, Unit::kGates))
ResidentBackward(const ReNetScan<float> s, int passes) {
  DYNAMIC_SHARED(float, memory);
  ResidentBackwardScan<Unit, kUnits>(s, passes, memory).Run(memory);
}

}  // namespace renet
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_RESIDENT_KERNELS_CUH_
