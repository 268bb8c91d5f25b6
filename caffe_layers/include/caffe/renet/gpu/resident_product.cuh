#ifndef CAFFE_RENET_GPU_RESIDENT_PRODUCT_CUH_
#define CAFFE_RENET_GPU_RESIDENT_PRODUCT_CUH_

#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/renet/cell.hpp"
#include "caffe/renet/gpu/scan.hpp"
#include "caffe/renet/sweep.hpp"

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
inline int ResidentThreads(int hidden) {
  return (hidden + kUnitsPerWarp - 1) / kUnitsPerWarp * kWarpLanes;
}
/// Blocks on a multiprocessor that registers must suffice for.
constexpr int ResidentBlocks(int units) { return units <= 64 ? 2 : 1; }

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

CUDA_INLINE void ClearShared(float* memory, int count) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) memory[i] = 0.f;
}

/// Peepholes of a unit: rows i, f, o, or zeros. Read where they are used, for
/// registers are short.
struct Peephole {
  float i, f, o;
  CUDA_INLINE Peephole(const float* weights, int unit, int hidden)
      : i(0.f), f(0.f), o(0.f) {
    if (weights != NULL) {
      i = weights[unit];
      f = weights[hidden + unit];
      o = weights[2 * hidden + unit];
    }
  }
};

// Sizes of dynamic shared memory, in floats: what a block needs whatever its
// tile, and what each pass adds.
struct ResidentMemory {
  int fixed;
  int pass;
};

/// @f$ c, h @f$ of an LSTM; see ReNetLSTMLayer for the equations.
template <int kUnits>
struct ResidentLstm {
  typedef StateProduct<4, (kUnits + 31) / 32> Forward;
  typedef GradientProduct<4, (kUnits + 31) / 32> Backward;

  static ResidentMemory ForwardMemory(int threads) {
    return {Forward::kShared * 4,
            2 * kPassLines * Forward::kWidth + threads};
  }
  static ResidentMemory BackwardMemory(int threads) {
    return {Backward::kShared * 4,
            2 * kPassLines * Backward::kWidth + threads};
  }
};

template <int kUnits>
__global__ void
__launch_bounds__(4 * kUnits, ResidentBlocks(kUnits))
LstmResidentForward(const ReNetScan<float> s, int passes) {
  typedef typename ResidentLstm<kUnits>::Forward Product;
  DYNAMIC_SHARED(float, memory);
  const int tile = passes * kPassLines * Product::kWidth;
  float* const states = memory + Product::kShared * 4;
  float* const cells = states + 2 * tile;  // passes x threads
  ResidentCell cell(s, passes, 0);
  const int d = s.hidden;
  Product product;
  product.Load(OfScan(s.recurrent_weights, cell.scan), 0, d,
      reinterpret_cast<float4*>(memory));
  ClearShared(states, 2 * tile + passes * blockDim.x);
  __syncthreads();
  CUDA_NO_UNROLL
  for (int step = 0; step < s.steps; ++step) {
    const float* const before = states + (step & 1) * tile;
    float* const after = states + ((step + 1) & 1) * tile;
    CUDA_NO_UNROLL
    for (int pass = 0; pass < passes; ++pass) {
      const bool in_map = cell.InMap(s);
      float* const gates = s.gates + cell.Gates(4);
      float sums[4] = {};
      if (in_map) {
        CUDA_UNROLL
        for (int gate = 0; gate < 4; ++gate) sums[gate] = gates[gate * d];
      }
      if (step > 0) {
        product.Add(before + pass * kPassLines * Product::kWidth, sums);
      }
      if (in_map) {
        float* const c_state = cells + pass * blockDim.x + threadIdx.x;
        const Peephole p(OfScan(s.peephole, cell.scan), cell.unit, d);
        float i, f, o, g, c, h;
        LstmForward(sums[0], sums[1], sums[2], sums[3], *c_state, p.i, p.f,
            p.o, &i, &f, &o, &g, &c, &h);
        *c_state = c;
        after[cell.Slot(pass) * Product::kWidth + cell.unit] = h;
        s.states[cell.at] = h;
        if (s.extra != NULL) s.extra[cell.at] = c;
        if (s.keep_gates) {
          gates[0] = i;
          gates[d] = f;
          gates[2 * d] = o;
          gates[3 * d] = g;
        }
      }
      cell.NextPass();
    }
    cell.NextStep(passes, 1);
    __syncthreads();
  }
}

template <int kUnits>
__global__ void
__launch_bounds__(4 * kUnits, ResidentBlocks(kUnits))
LstmResidentBackward(const ReNetScan<float> s, int passes) {
  typedef typename ResidentLstm<kUnits>::Backward Product;
  DYNAMIC_SHARED(float, memory);
  const int tile = passes * kPassLines * Product::kWidth;
  float* const diffs = memory + Product::kShared * 4;
  float* const cell_diffs = diffs + 2 * tile;  // passes x threads
  ResidentCell cell(s, passes, s.steps - 1);
  const int d = s.hidden;
  Product product;
  product.Load(OfScan(s.recurrent_weights, cell.scan), 0, d,
      reinterpret_cast<float4*>(memory));
  ClearShared(diffs, 2 * tile + passes * blockDim.x);
  __syncthreads();
  CUDA_NO_UNROLL
  for (int step = s.steps - 1; step >= 0; --step) {
    const float* const later = diffs + ((step + 1) & 1) * tile;
    float* const now = diffs + (step & 1) * tile;
    CUDA_NO_UNROLL
    for (int pass = 0; pass < passes; ++pass) {
      const bool in_map = cell.InMap(s);
      float top_diff = 0.f, i = 0.f, f = 0.f, o = 0.f, g = 0.f;
      float c = 0.f, c_before = 0.f;
      if (in_map) {
        const float* const gates = s.gates + cell.Gates(4);
        i = gates[0];
        f = gates[d];
        o = gates[2 * d];
        g = gates[3 * d];
        top_diff = s.states_diff[cell.at];
        c = s.extra[cell.at];
        if (step > 0) {
          c_before = s.extra[cell.at - cell.step_stride];
        }
      }
      float h_diff = 0.f;
      if (step < s.steps - 1) {
        h_diff = product.Sum(later + pass * kPassLines * Product::kWidth);
      }
      if (in_map) {
        float* const cell_diff = cell_diffs + pass * blockDim.x + threadIdx.x;
        const Peephole p(OfScan(s.peephole, cell.scan), cell.unit, d);
        float c_diff = *cell_diff;
        (s.cell_output ? c_diff : h_diff) += top_diff;
        float4 sums;
        LstmBackward(h_diff, i, f, o, g, c, c_before, p.i, p.f, p.o, &c_diff,
            &sums.x, &sums.y, &sums.z, &sums.w);
        *cell_diff = c_diff;
        *reinterpret_cast<float4*>(
            now + cell.Slot(pass) * Product::kWidth + cell.unit * 4) = sums;
        float* const to = s.gates_diff + cell.Gates(4);
        to[0] = sums.x;
        to[d] = sums.y;
        to[2 * d] = sums.z;
        to[3 * d] = sums.w;
      }
      cell.NextPass();
    }
    cell.NextStep(passes, -1);
    __syncthreads();
  }
}

/// States of a GRU; the candidate's product waits for the reset states of all
/// units, so a step has two halves.
template <int kUnits>
struct ResidentGru {
  typedef StateProduct<2, (kUnits + 31) / 32> Gates;
  typedef StateProduct<1, (kUnits + 31) / 32> Candidate;
  typedef GradientProduct<2, (kUnits + 31) / 32> GatesDiff;
  typedef GradientProduct<1, (kUnits + 31) / 32> CandidateDiff;

  static ResidentMemory ForwardMemory(int threads) {
    return {(Gates::kShared + Candidate::kShared) * 4,
            2 * kPassLines * Gates::kWidth + threads};
  }
  static ResidentMemory BackwardMemory(int threads) {
    return {(GatesDiff::kShared + CandidateDiff::kShared) * 4,
            kPassLines * (GatesDiff::kWidth + CandidateDiff::kWidth) +
            2 * threads};
  }
};

template <int kUnits>
__global__ void
__launch_bounds__(4 * kUnits, ResidentBlocks(kUnits))
GruResidentForward(const ReNetScan<float> s, int passes) {
  typedef typename ResidentGru<kUnits>::Gates Gates;
  typedef typename ResidentGru<kUnits>::Candidate Candidate;
  const int kWidth = Gates::kWidth;
  DYNAMIC_SHARED(float, memory);
  const int tile = passes * kPassLines * kWidth;
  float4* const shared = reinterpret_cast<float4*>(memory);
  float* const states =
      memory + (Gates::kShared + Candidate::kShared) * 4;
  float* const reset_states = states + tile;
  float* const updates = reset_states + tile;  // passes x threads
  ResidentCell cell(s, passes, 0);
  const int d = s.hidden;
  const float* const weights = OfScan(s.recurrent_weights, cell.scan);
  Gates gates_product;
  gates_product.Load(weights, 0, d, shared);
  Candidate candidate_product;
  candidate_product.Load(weights, 2, d, shared + Gates::kShared);
  ClearShared(states, 2 * tile + passes * blockDim.x);
  __syncthreads();
  CUDA_NO_UNROLL
  for (int step = 0; step < s.steps; ++step) {
    CUDA_NO_UNROLL
    for (int pass = 0; pass < passes; ++pass) {
      const bool in_map = cell.InMap(s);
      float* const gates = s.gates + cell.Gates(3);
      float sums[2] = {};
      if (in_map) {
        sums[0] = gates[0];
        sums[1] = gates[d];
      }
      if (step > 0) {
        gates_product.Add(states + pass * kPassLines * kWidth, sums);
      }
      if (in_map) {
        const int at =
            cell.Slot(pass) * kWidth + cell.unit;
        float z, r, reset_h;
        GruGatesForward(sums[0], sums[1], states[at], &z, &r, &reset_h);
        reset_states[at] = reset_h;
        updates[pass * blockDim.x + threadIdx.x] = z;
        if (s.extra != NULL) s.extra[cell.at] = reset_h;
        if (s.keep_gates) {
          gates[0] = z;
          gates[d] = r;
        }
      }
      cell.NextPass();
    }
    cell.NextStep(passes, 0);
    __syncthreads();
    CUDA_NO_UNROLL
    for (int pass = 0; pass < passes; ++pass) {
      const bool in_map = cell.InMap(s);
      float* const candidate = s.gates + cell.Gates(3) + 2 * d;
      float sum[1] = {};
      if (in_map) sum[0] = *candidate;
      if (step > 0) {
        candidate_product.Add(reset_states + pass * kPassLines * kWidth, sum);
      }
      if (in_map) {
        // Nobody else reads this state before the next barrier.
        float* const state = states +
            cell.Slot(pass) * kWidth + cell.unit;
        float n, h;
        GruStateForward(sum[0], updates[pass * blockDim.x + threadIdx.x],
            *state, &n, &h);
        *state = h;
        s.states[cell.at] = h;
        if (s.keep_gates) *candidate = n;
      }
      cell.NextPass();
    }
    cell.NextStep(passes, 1);
    __syncthreads();
  }
}

template <int kUnits>
__global__ void
__launch_bounds__(4 * kUnits, ResidentBlocks(kUnits))
GruResidentBackward(const ReNetScan<float> s, int passes) {
  typedef typename ResidentGru<kUnits>::GatesDiff Gates;
  typedef typename ResidentGru<kUnits>::CandidateDiff Candidate;
  DYNAMIC_SHARED(float, memory);
  float4* const shared = reinterpret_cast<float4*>(memory);
  float* const gates_diffs =  // of z and r
      memory + (Gates::kShared + Candidate::kShared) * 4;
  float* const candidate_diffs =
      gates_diffs + passes * kPassLines * Gates::kWidth;
  float* const state_diffs =  // passes x threads, as all that follows
      candidate_diffs + passes * kPassLines * Candidate::kWidth;
  float* const update_diffs = state_diffs + passes * blockDim.x;
  ResidentCell cell(s, passes, s.steps - 1);
  const int d = s.hidden;
  const float* const weights = OfScan(s.recurrent_weights, cell.scan);
  Gates gates_product;
  gates_product.Load(weights, 0, d, shared);
  Candidate candidate_product;
  candidate_product.Load(weights, 2, d, shared + Gates::kShared);
  ClearShared(gates_diffs, passes * (kPassLines *
      (Gates::kWidth + Candidate::kWidth) + 2 * blockDim.x));
  __syncthreads();
  CUDA_NO_UNROLL
  for (int step = s.steps - 1; step >= 0; --step) {
    CUDA_NO_UNROLL
    for (int pass = 0; pass < passes; ++pass) {
      const bool in_map = cell.InMap(s);
      const int own = pass * blockDim.x + threadIdx.x;
      float top_diff = 0.f, z = 0.f, n = 0.f, h_before = 0.f;
      if (in_map) {
        const float* const gates = s.gates + cell.Gates(3);
        z = gates[0];
        n = gates[2 * d];
        top_diff = s.states_diff[cell.at];
        if (step > 0) {
          h_before = s.states[cell.at - cell.step_stride];
        }
      }
      float h_diff = 0.f;
      if (step < s.steps - 1) {
        h_diff = gates_product.Sum(
            gates_diffs + pass * kPassLines * Gates::kWidth);
      }
      if (in_map) {
        h_diff += top_diff + state_diffs[own];
        float z_diff, n_diff;
        GruStateBackward(z, n, h_before, &h_diff, &z_diff, &n_diff);
        state_diffs[own] = h_diff;
        update_diffs[own] = z_diff;
        candidate_diffs[cell.Slot(pass) * Candidate::kWidth + cell.unit] =
            n_diff;
        float* const to = s.gates_diff + cell.Gates(3);
        to[0] = z_diff;
        to[2 * d] = n_diff;
      }
      cell.NextPass();
    }
    cell.NextStep(passes, 0);
    __syncthreads();
    CUDA_NO_UNROLL
    for (int pass = 0; pass < passes; ++pass) {
      const bool in_map = cell.InMap(s);
      const int own = pass * blockDim.x + threadIdx.x;
      float r = 0.f, h_before = 0.f;
      if (in_map) {
        r = s.gates[cell.Gates(3) + d];
        if (step > 0) {
          h_before = s.states[cell.at - cell.step_stride];
        }
      }
      const float reset_diff = candidate_product.Sum(
          candidate_diffs + pass * kPassLines * Candidate::kWidth);
      if (in_map) {
        float r_diff;
        GruResetBackward(reset_diff, r, h_before, &state_diffs[own], &r_diff);
        float2 both;
        both.x = update_diffs[own];
        both.y = r_diff;
        *reinterpret_cast<float2*>(gates_diffs +
            cell.Slot(pass) * Gates::kWidth + cell.unit * 2) = both;
        s.gates_diff[cell.Gates(3) + d] = r_diff;
      }
      cell.NextPass();
    }
    cell.NextStep(passes, -1);
    __syncthreads();
  }
}

template <int kUnits>
struct ResidentIrnn {
  typedef StateProduct<1, (kUnits + 31) / 32> Forward;
  typedef GradientProduct<1, (kUnits + 31) / 32> Backward;

  static ResidentMemory ForwardMemory(int /* threads */) {
    return {Forward::kShared * 4, 2 * kPassLines * Forward::kWidth};
  }
  static ResidentMemory BackwardMemory(int /* threads */) {
    return {Backward::kShared * 4,
            2 * kPassLines * Backward::kWidth};
  }
};

template <int kUnits>
__global__ void
__launch_bounds__(4 * kUnits, ResidentBlocks(kUnits))
IrnnResidentForward(const ReNetScan<float> s, int passes) {
  typedef typename ResidentIrnn<kUnits>::Forward Product;
  DYNAMIC_SHARED(float, memory);
  const int tile = passes * kPassLines * Product::kWidth;
  float* const states = memory + Product::kShared * 4;
  ResidentCell cell(s, passes, 0);
  const int d = s.hidden;
  Product product;
  product.Load(OfScan(s.recurrent_weights, cell.scan), 0, d,
      reinterpret_cast<float4*>(memory));
  ClearShared(states, 2 * tile);
  __syncthreads();
  CUDA_NO_UNROLL
  for (int step = 0; step < s.steps; ++step) {
    const float* const before = states + (step & 1) * tile;
    float* const after = states + ((step + 1) & 1) * tile;
    CUDA_NO_UNROLL
    for (int pass = 0; pass < passes; ++pass) {
      const bool in_map = cell.InMap(s);
      float sum[1] = {};
      if (in_map) sum[0] = s.gates[cell.at];
      if (step > 0) {
        product.Add(before + pass * kPassLines * Product::kWidth, sum);
      }
      if (in_map) {
        const float h = IrnnForward(sum[0]);
        after[cell.Slot(pass) * Product::kWidth + cell.unit] = h;
        s.states[cell.at] = h;
      }
      cell.NextPass();
    }
    cell.NextStep(passes, 1);
    __syncthreads();
  }
}

template <int kUnits>
__global__ void
__launch_bounds__(4 * kUnits, ResidentBlocks(kUnits))
IrnnResidentBackward(const ReNetScan<float> s, int passes) {
  typedef typename ResidentIrnn<kUnits>::Backward Product;
  DYNAMIC_SHARED(float, memory);
  const int tile = passes * kPassLines * Product::kWidth;
  float* const diffs = memory + Product::kShared * 4;
  ResidentCell cell(s, passes, s.steps - 1);
  const int d = s.hidden;
  Product product;
  product.Load(OfScan(s.recurrent_weights, cell.scan), 0, d,
      reinterpret_cast<float4*>(memory));
  ClearShared(diffs, 2 * tile);
  __syncthreads();
  CUDA_NO_UNROLL
  for (int step = s.steps - 1; step >= 0; --step) {
    const float* const later = diffs + ((step + 1) & 1) * tile;
    float* const now = diffs + (step & 1) * tile;
    CUDA_NO_UNROLL
    for (int pass = 0; pass < passes; ++pass) {
      const bool in_map = cell.InMap(s);
      float h = 0.f, h_diff = 0.f;
      if (in_map) {
        h = s.states[cell.at];
        h_diff = s.states_diff[cell.at];
      }
      if (step < s.steps - 1) {
        h_diff += product.Sum(later + pass * kPassLines * Product::kWidth);
      }
      if (in_map) {
        const float diff = IrnnBackward(h_diff, h);
        now[cell.Slot(pass) * Product::kWidth + cell.unit] = diff;
        s.gates_diff[cell.at] = diff;
      }
      cell.NextPass();
    }
    cell.NextStep(passes, -1);
    __syncthreads();
  }
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
 * the multiprocessor. In clocks.
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

template <int kUnits, class Device>
bool LaunchResidentOf(Device* device, ReNetUnit unit, bool backward,
    const ReNetScan<float>& s) {
  const int threads = ResidentThreads(s.hidden);
  switch (unit) {
  case RENET_LSTM:
    return backward ?
        LaunchResident(device, &LstmResidentBackward<kUnits>,
            ResidentLstm<kUnits>::BackwardMemory(threads), 4 * s.hidden, s) :
        LaunchResident(device, &LstmResidentForward<kUnits>,
            ResidentLstm<kUnits>::ForwardMemory(threads), 4 * s.hidden, s);
  case RENET_GRU:
    return backward ?
        LaunchResident(device, &GruResidentBackward<kUnits>,
            ResidentGru<kUnits>::BackwardMemory(threads), 3 * s.hidden, s) :
        LaunchResident(device, &GruResidentForward<kUnits>,
            ResidentGru<kUnits>::ForwardMemory(threads), 3 * s.hidden, s);
  case RENET_IRNN:
    return backward ?
        LaunchResident(device, &IrnnResidentBackward<kUnits>,
            ResidentIrnn<kUnits>::BackwardMemory(threads), s.hidden, s) :
        LaunchResident(device, &IrnnResidentForward<kUnits>,
            ResidentIrnn<kUnits>::ForwardMemory(threads), s.hidden, s);
  }
  return false;
}

/// Runs one direction of a sweep's recurrence in one launch; false where the
/// device's blocks cannot hold the weights.
template <class Device>
bool LaunchResidentScan(Device* device, ReNetUnit unit, bool backward,
    const ReNetScan<float>& s) {
  if (s.hidden <= 32) return LaunchResidentOf<32>(device, unit, backward, s);
  if (s.hidden <= 64) return LaunchResidentOf<64>(device, unit, backward, s);
  if (s.hidden <= 96) return LaunchResidentOf<96>(device, unit, backward, s);
  if (s.hidden <= 128) return LaunchResidentOf<128>(device, unit, backward, s);
  return false;
}

}  // namespace renet
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_RESIDENT_PRODUCT_CUH_
