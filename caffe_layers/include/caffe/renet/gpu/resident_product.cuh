#ifndef CAFFE_RENET_GPU_RESIDENT_PRODUCT_CUH_
#define CAFFE_RENET_GPU_RESIDENT_PRODUCT_CUH_

#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"

/**
 * The recurrence in float32 with resident weights: a block holds the recurrent
 * weights of one scan in its registers (and, beyond 96 units, partly in its
 * shared memory) and carries a tile of lines through all T steps. Lines do not
 * depend on each other, so blocks never meet, and a sweep is one launch.
 *
 * A warp owns 8 units. A block works on its lines in passes of 4; at the end of
 * a pass each lane holds the sums of one cell, that of unit lane / 4 of the
 * warp and line lane % 4 of the pass, and computes it.
 *
 * Forward, a sum over the d states before runs over 8 lanes, which share two
 * units: each lane has a slice of the states and the rows of both units, so
 * that a float4 of states from shared memory serves 8 rows of an LSTM.
 * Backward, a sum over the gradients of all gates runs over the 32 lanes of the
 * warp, which share its 8 units: a float4, the four gates of one unit, serves 8
 * columns.
 * The sums of the lanes meet in an exchange that halves the number of sums with
 * each shuffle. Every lane counts units and lines from those of its own cell
 * (number xor its own), so that it always keeps the first half of what it has
 * and gives the second away: which is which is no choice at run time.
 */
namespace caffe {
namespace renet {

const int kWarpLanes = 32;
const int kUnitsPerWarp = 8;
const int kPassLines = 4;
const unsigned kAllLanes = 0xffffffffu;

/**
 * @brief kCount float4s of weights of one thread, as many as fit in its
 *        registers, the others in shared memory.
 *
 * Up to 96 units a block has three warps on each quarter of a multiprocessor,
 * and a thread up to 168 registers: they hold all weights (24 float4s for an
 * LSTM) beside 32 sums, 16 states and a cell. With 128 units it is four warps
 * and 128 registers. kMostHeld is what lets a backward pass of 4 lines and 128
 * units fit into 163 KB, the shared memory of sm_80, at the price of a few
 * registers spilt.
 */
template <int kCount, int kThreads>
struct ResidentWeights {
  static constexpr int kMostHeld = 14;
  static constexpr int kHeld = kCount <= 24 ? kCount : kMostHeld;
  static constexpr int kShared = kCount - kHeld;

  CUDA_INLINE void Set(int index, const float four[4]) {
    if (index < kHeld) {
      CUDA_UNROLL
      for (int i = 0; i < 4; ++i) held[index < kHeld ? index : 0][i] = four[i];
    } else {
      float4 value;
      value.x = four[0];
      value.y = four[1];
      value.z = four[2];
      value.w = four[3];
      shared[(index - kHeld) * kThreads] = value;
    }
  }
  CUDA_INLINE void Get(int index, float four[4]) const {
    if (index < kHeld) {
      CUDA_UNROLL
      for (int i = 0; i < 4; ++i) four[i] = held[index < kHeld ? index : 0][i];
    } else {
      const float4 value = shared[(index - kHeld) * kThreads];
      four[0] = value.x;
      four[1] = value.y;
      four[2] = value.z;
      four[3] = value.w;
    }
  }

  float held[kHeld][4];
  float4* shared;  // of this thread, kThreads apart
};

/// Of two sums the one that this lane keeps, with what its partner, the lane at
/// distance `mask`, gives to it; the other sum is given to the partner.
CUDA_INLINE float Exchange(float kept, float given, int mask) {
  return kept + __shfl_xor_sync(kAllLanes, given, mask);
}

/// Line 0 is that of the lane's own cell.
CUDA_INLINE int OwnFirst(int line) { return line ^ (threadIdx.x % kPassLines); }

CUDA_INLINE float ExchangeLines(const float line[kPassLines]) {
  return Exchange(Exchange(line[0], line[2], 2), Exchange(line[1], line[3], 2),
      1);
}

/**
 * @brief Sums over states: @f$ s_{g u l} = \sum_k W_{g u k} h_{l k} @f$ for the
 *        kGates gates of the cell of each lane.
 *
 * states: kPassLines x kChunks * 32 in shared memory.
 */
template <int kGates, int kChunks>
class StateProduct {
 public:
  static constexpr int kRows = 2 * kGates;
  static constexpr int kWidth = kChunks * 32;
  typedef ResidentWeights<kChunks * kRows, 128 * kChunks> Weights;
  /// Shared memory for the weights, in float4s.
  static constexpr int kShared = Weights::kShared * 128 * kChunks;

  /// weights: rows (first_gate + g) * hidden + unit of a G*d x d matrix.
  CUDA_INLINE void Load(const float* weights, int first_gate, int hidden,
      float4* shared) {
    weights_.shared = shared + threadIdx.x;
    CUDA_UNROLL
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      CUDA_UNROLL
      for (int row = 0; row < kRows; ++row) {
        // The unit of this lane's cell, and that of the other half of its 8.
        const int unit = (threadIdx.x / 4) ^ (row % 2);
        const int k = Slice(chunk);
        const float* from = weights +
            static_cast<size_t>((first_gate + row / 2) * hidden + unit) *
            hidden + k;
        float four[4];
        CUDA_UNROLL
        for (int i = 0; i < 4; ++i) {
          four[i] = unit < hidden && k + i < hidden ? from[i] : 0.f;
        }
        weights_.Set(chunk * kRows + row, four);
      }
    }
  }

  CUDA_INLINE void Add(const float* states, float sums[kGates]) const {
    float part[kRows][kPassLines];
    CUDA_UNROLL
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      float4 h[kPassLines];
      CUDA_UNROLL
      for (int line = 0; line < kPassLines; ++line) {
        // Lines are a multiple of 32 floats apart: no two lanes of a quarter of
        // the warp meet in a bank, though their lines differ.
        h[line] = *reinterpret_cast<const float4*>(
            states + OwnFirst(line) * kWidth + Slice(chunk));
      }
      CUDA_UNROLL
      for (int row = 0; row < kRows; ++row) {
        float w[4];
        weights_.Get(chunk * kRows + row, w);
        CUDA_UNROLL
        for (int line = 0; line < kPassLines; ++line) {
          part[row][line] = chunk == 0 ? w[0] * h[line].x :
              part[row][line] + w[0] * h[line].x;
          part[row][line] += w[1] * h[line].y;
          part[row][line] += w[2] * h[line].z;
          part[row][line] += w[3] * h[line].w;
        }
      }
    }
    CUDA_UNROLL
    for (int gate = 0; gate < kGates; ++gate) {
      float line[kPassLines];
      CUDA_UNROLL
      for (int l = 0; l < kPassLines; ++l) {
        line[l] = Exchange(part[2 * gate][l], part[2 * gate + 1][l], 4);
      }
      sums[gate] += ExchangeLines(line);
    }
  }

 private:
  /// The first of the four states of this lane in a chunk: neighbouring lanes
  /// read neighbouring float4s, so that no two meet in a bank.
  CUDA_INLINE static int Slice(int chunk) {
    return 32 * chunk + 4 * (threadIdx.x % 8);
  }

  Weights weights_;
};

/// kGates neighbouring floats of shared memory, read at once.
template <int kGates>
CUDA_INLINE void ReadGates(const float* from, float to[kGates]) {
  if (kGates == 4) {
    const float4 four = *reinterpret_cast<const float4*>(from);
    to[0] = four.x;
    to[kGates > 1 ? 1 : 0] = four.y;
    to[kGates > 2 ? 2 : 0] = four.z;
    to[kGates > 3 ? 3 : 0] = four.w;
  } else if (kGates == 2) {
    const float2 two = *reinterpret_cast<const float2*>(from);
    to[0] = two.x;
    to[kGates > 1 ? 1 : 0] = two.y;
  } else {
    to[0] = from[0];
  }
}

/**
 * @brief Sums over gradients of gates: @f$ s_{u l} = \sum_{g j} W_{g j u}
 *        \delta_{l j g} @f$ for the cell of each lane.
 *
 * diffs: kPassLines x kChunks * 32 units x kGates in shared memory.
 */
template <int kGates, int kChunks>
class GradientProduct {
 public:
  static constexpr int kWidth = kChunks * 32 * kGates;
  typedef ResidentWeights<kChunks * kGates * 2, 128 * kChunks> Weights;
  /// Shared memory for the weights, in float4s.
  static constexpr int kShared = Weights::kShared * 128 * kChunks;

  CUDA_INLINE void Load(const float* weights, int first_gate, int hidden,
      float4* shared) {
    weights_.shared = shared + threadIdx.x;
    CUDA_UNROLL
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      CUDA_UNROLL
      for (int gate = 0; gate < kGates; ++gate) {
        CUDA_UNROLL
        for (int half = 0; half < 2; ++half) {
          const int source = 32 * chunk + threadIdx.x % kWarpLanes;
          const float* from = weights +
              static_cast<size_t>((first_gate + gate) * hidden + source) *
              hidden;
          float four[4];
          CUDA_UNROLL
          for (int i = 0; i < 4; ++i) {
            const int unit = (threadIdx.x / 4) ^ (4 * half + i);
            four[i] = source < hidden && unit < hidden ? from[unit] : 0.f;
          }
          weights_.Set((chunk * kGates + gate) * 2 + half, four);
        }
      }
    }
  }

  CUDA_INLINE float Sum(const float* diffs) const {
    float part[kUnitsPerWarp][kPassLines];
    const float* const own = diffs + threadIdx.x % kWarpLanes * kGates;
    CUDA_UNROLL
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      float diff[kPassLines][kGates];
      CUDA_UNROLL
      for (int line = 0; line < kPassLines; ++line) {
        ReadGates<kGates>(own + OwnFirst(line) * kWidth + chunk * 32 * kGates,
            diff[line]);
      }
      CUDA_UNROLL
      for (int gate = 0; gate < kGates; ++gate) {
        CUDA_UNROLL
        for (int half = 0; half < 2; ++half) {
          float w[4];
          weights_.Get((chunk * kGates + gate) * 2 + half, w);
          CUDA_UNROLL
          for (int i = 0; i < 4; ++i) {
            CUDA_UNROLL
            for (int line = 0; line < kPassLines; ++line) {
              float* const sum = &part[4 * half + i][line];
              *sum = chunk == 0 && gate == 0 ? w[i] * diff[line][gate] :
                  *sum + w[i] * diff[line][gate];
            }
          }
        }
      }
    }
    float line[kPassLines];
    CUDA_UNROLL
    for (int l = 0; l < kPassLines; ++l) {
      float four[4];
      CUDA_UNROLL
      for (int unit = 0; unit < 4; ++unit) {
        four[unit] = Exchange(part[unit][l], part[unit + 4][l], 16);
      }
      line[l] = Exchange(Exchange(four[0], four[2], 8),
          Exchange(four[1], four[3], 8), 4);
    }
    return ExchangeLines(line);
  }

 private:
  Weights weights_;
};

}  // namespace renet
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_RESIDENT_PRODUCT_CUH_
