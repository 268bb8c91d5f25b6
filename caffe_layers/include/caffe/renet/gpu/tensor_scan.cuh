#ifndef CAFFE_RENET_GPU_TENSOR_SCAN_CUH_
#define CAFFE_RENET_GPU_TENSOR_SCAN_CUH_

#include <cstddef>
#include <cstdint>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/renet/cell.hpp"
#include "caffe/renet/gpu/scan.hpp"
#include "caffe/renet/sweep.hpp"
#include "caffe/gpu/tensor_core.cuh"

/**
 * The recurrence on tensor cores, for the options TF32 and BF16: operands of
 * the products with W_h are rounded (weights, states, gradients of the gates'
 * sums), everything else is float32, and so is all that reaches memory.
 *
 * A block holds one scan's W_h in its registers and, where these are too few,
 * partly in its shared memory, and carries `tiles` tiles of 8 lines through
 * all T steps; blocks never meet. A warp owns 16 units. In a product's result
 * (tensor_core.cuh) a lane has four sums: those of the units g and g + 8 at
 * the lines 2t and 2t + 1 of the tile. Every gate has a product of its own, so
 * the lane has all gates of these four cells and computes them without an
 * exchange; cell q is that of unit g + 8 (q / 2) and line 2t + q % 2.
 *
 * What the next product takes (the states; backward the gradients of the
 * gates' sums) lies rounded in shared memory, one row of words a line. Which
 * number stands at which depth of a product is free as long as both operands
 * agree: the words t and t + 4 of a fragment are those at 2t and 2t + 1 of the
 * row, so that a lane reads both at once. Rows are an odd multiple of 8 words
 * long: then the lanes that are served together never meet in a bank.
 *
 * Units beyond d and lines beyond L have zero weights and sums, hence zero
 * states and gradients, and are neither read nor written.
 */
namespace caffe {
namespace tensor_scan {

/// Operands in bf16: two in a word, 16 deep.
struct Bf16 {
  static constexpr int kPerWord = 2;
  /// Fragments of weights that a thread keeps in registers, 4 words each: the
  /// most for which ptxas spills nothing. Beyond 128 units a block has more
  /// threads, and each of them fewer registers.
  static constexpr int MostHeld(int units) { return units <= 128 ? 26 : 10; }

  CUDA_INLINE static void Mma(float d[4], const uint32_t a[4], uint2 b) {
    MmaBf16(d, a, b.x, b.y);
  }
  template <typename Element>
  CUDA_INLINE static uint32_t Word(int word, const Element& element) {
    return PackBf16(element(2 * word), element(2 * word + 1));
  }
  CUDA_INLINE static void Store(uint32_t* row, int k, float value) {
    typedef uint16_t __attribute__((may_alias)) Half;
    reinterpret_cast<Half*>(row)[k] = RoundToBf16(value);
  }
  /// To k and k + 1, k even.
  CUDA_INLINE static void Store2(uint32_t* row, int k, float v0, float v1) {
    row[k / 2] = PackBf16(v0, v1);
  }
  /// To k .. k + 3, k a multiple of 4.
  CUDA_INLINE static void Store4(uint32_t* row, int k, float v0, float v1,
      float v2, float v3) {
    *reinterpret_cast<uint2*>(row + k / 2) =
        make_uint2(PackBf16(v0, v1), PackBf16(v2, v3));
  }
};

/// Operands in tf32: one in a word, 8 deep.
struct Tf32 {
  static constexpr int kPerWord = 1;
  static constexpr int MostHeld(int /* units */) { return 33; }

  CUDA_INLINE static void Mma(float d[4], const uint32_t a[4], uint2 b) {
    MmaTf32(d, a, b.x, b.y);
  }
  template <typename Element>
  CUDA_INLINE static uint32_t Word(int word, const Element& element) {
    return RoundToTf32(element(word));
  }
  CUDA_INLINE static void Store(uint32_t* row, int k, float value) {
    row[k] = RoundToTf32(value);
  }
  CUDA_INLINE static void Store2(uint32_t* row, int k, float v0, float v1) {
    *reinterpret_cast<uint2*>(row + k) =
        make_uint2(RoundToTf32(v0), RoundToTf32(v1));
  }
  CUDA_INLINE static void Store4(uint32_t* row, int k, float v0, float v1,
      float v2, float v3) {
    *reinterpret_cast<uint4*>(row + k) = make_uint4(RoundToTf32(v0),
        RoundToTf32(v1), RoundToTf32(v2), RoundToTf32(v3));
  }
};

/// Threads for kUnits units, and blocks on a multiprocessor that registers
/// must suffice for.
constexpr int MaxThreads(int units) { return 2 * units; }
constexpr int MinBlocks(int units) { return units <= 64 ? 2 : 1; }

/**
 * @brief One matrix of kTiles * 16 rows (a warp's) and kDepth columns, cut into
 *        the fragments that this thread's lane contributes.
 *
 * The first kMostHeld fragments are in registers, the others in shared memory.
 */
template <class Operand, int kTiles, int kDepth, int kMostHeld>
class Matrix {
 public:
  static constexpr int kSteps = kDepth / (8 * Operand::kPerWord);
  static constexpr int kFragments = kSteps * kTiles;
  static constexpr int kHeld = kFragments < kMostHeld ? kFragments : kMostHeld;
  static constexpr int kArray = kHeld > 0 ? kHeld : 1;
  static constexpr int kShared = kFragments - kHeld;  // a thread
  static constexpr int kStride = 8 * kSteps + 8;      // words of an operand row
  static_assert(kStride % 16 == 8, "rows of operands must spread over banks");

  /// element(tile, row, k): row 0 .. 15, zero outside of the matrix.
  template <typename Element>
  CUDA_INLINE void Load(uint4* shared, const Element& element) {
    shared_ = shared + threadIdx.x;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    CUDA_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      CUDA_UNROLL
      for (int tile = 0; tile < kTiles; ++tile) {
        const int fragment = step * kTiles + tile;
        // all reads at once would need more registers than there are
        if (fragment % 2 == 0) __syncwarp();
        uint32_t word[4];
        CUDA_UNROLL
        for (int i = 0; i < 4; ++i) {
          word[i] = Operand::Word(8 * step + 2 * t + i / 2,
              [&](int k) { return element(tile, g + 8 * (i % 2), k); });
        }
        if (fragment < kHeld) {
          CUDA_UNROLL
          for (int i = 0; i < 4; ++i) {
            held_[fragment % kArray][i] = word[i];
          }
        } else {
          shared_[(fragment - kHeld) * blockDim.x] =
              make_uint4(word[0], word[1], word[2], word[3]);
        }
      }
    }
  }

  /// sums[tile] += this tile times the tile of lines whose operands begin at
  /// `lines`. A tile's product is one chain of sums; with kChains > 1 it is
  /// several, which do not wait for each other.
  template <int kChains>
  CUDA_INLINE void Multiply(const uint32_t* lines, float sums[][4]) const {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const uint32_t* const row = lines + g * kStride + 2 * t;
    float chains[kTiles * kChains][4];
    CUDA_UNROLL
    for (int chain = 0; chain < kTiles * kChains; ++chain) {
      CUDA_UNROLL
      for (int q = 0; q < 4; ++q) {
        chains[chain][q] =
            chain % kChains ? 0.f : sums[chain / kChains][q];
      }
    }
    __syncwarp();  // lanes at the map's edge may have gone another way
    CUDA_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      const uint2 b = *reinterpret_cast<const uint2*>(row + 8 * step);
      CUDA_UNROLL
      for (int tile = 0; tile < kTiles; ++tile) {
        const int fragment = step * kTiles + tile;
        uint32_t a[4];
        if (fragment < kHeld) {
          CUDA_UNROLL
          for (int i = 0; i < 4; ++i) {
            a[i] = held_[fragment % kArray][i];
          }
        } else {
          const uint4 word = shared_[(fragment - kHeld) * blockDim.x];
          a[0] = word.x;
          a[1] = word.y;
          a[2] = word.z;
          a[3] = word.w;
        }
        Operand::Mma(chains[tile * kChains + step % kChains], a, b);
      }
    }
    CUDA_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      CUDA_UNROLL
      for (int q = 0; q < 4; ++q) {
        float sum = chains[tile * kChains][q];
        CUDA_UNROLL
        for (int chain = 1; chain < kChains; ++chain) {
          sum += chains[tile * kChains + chain][q];
        }
        sums[tile][q] = sum;
      }
    }
  }

 private:
  uint32_t held_[kArray][4];
  uint4* shared_;  // of this thread, blockDim.x apart
};

/// Where the four cells of a lane are in the maps; q and tile as above.
struct Cells {
  int hidden;
  int lines;
  int steps;
  int scan;
  int unit;  // of cell 0
  int line;  // of cell 0 in tile 0

  CUDA_INLINE Cells(const ReNetScan<float>& s, int tiles)
      : hidden(s.hidden), lines(s.lines), steps(s.steps), scan(blockIdx.y),
        unit(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4),
        line(blockIdx.x * tiles * 8 + threadIdx.x % 4 * 2) {}

  CUDA_INLINE bool InMap(int q, int tile) const {
    return unit + q / 2 * 8 < hidden && line + tile * 8 + q % 2 < lines;
  }
  /// Of the position visited as the `step`th, the row of this scan in a map.
  CUDA_INLINE size_t Row(int q, int tile, int step) const {
    const int row = scan == 0 ? step : steps - 1 - step;
    return (static_cast<size_t>(row) * lines + line + tile * 8 + q % 2) * 2
        + scan;
  }
  /// Column `gate` * d + unit of a map of `gates` * d columns; zeros outside.
  CUDA_INLINE void Read(const float* map, int gates, int gate, int tile,
      int step, float values[4]) const {
    CUDA_UNROLL
    for (int q = 0; q < 4; ++q) {
      values[q] = InMap(q, tile) ? map[Row(q, tile, step) * (gates * hidden)
          + gate * hidden + unit + q / 2 * 8] : 0.f;
    }
  }
  CUDA_INLINE void Write(float* map, int gates, int gate, int tile, int step,
      const float values[4]) const {
    CUDA_UNROLL
    for (int q = 0; q < 4; ++q) {
      if (InMap(q, tile)) {
        map[Row(q, tile, step) * (gates * hidden) + gate * hidden + unit
            + q / 2 * 8] = values[q];
      }
    }
  }
  /// The row of operands that cell q writes to, `lines` as for Multiply.
  CUDA_INLINE static uint32_t* Operands(uint32_t* lines, int stride, int q) {
    return lines + (threadIdx.x % 4 * 2 + q % 2) * stride;
  }
};

/// An element of a gate's d x d block of weights; zero outside.
CUDA_INLINE float Weight(const float* weights, int hidden, int gate, int row,
    int column) {
  return row < hidden && column < hidden
      ? weights[(gate * hidden + row) * hidden + column]
      : 0.f;
}

/**
 * @brief A float whose tanh takes the processor's own exponential: a fifth
 *        fewer instructions in an LSTM's step. Its error, a few units of 1e-7
 *        where tanh is small, too, is nothing beside that of rounded operands.
 */
struct Fast {
  float value;
  CUDA_INLINE Fast() {}
  CUDA_INLINE Fast(float x) : value(x) {}
};
CUDA_INLINE Fast operator+(Fast a, Fast b) { return a.value + b.value; }
CUDA_INLINE Fast operator-(Fast a, Fast b) { return a.value - b.value; }
CUDA_INLINE Fast operator*(Fast a, Fast b) { return a.value * b.value; }
CUDA_INLINE Fast& operator+=(Fast& a, Fast b) { return a = a + b; }
CUDA_INLINE Fast& operator*=(Fast& a, Fast b) { return a = a * b; }
CUDA_INLINE Fast Sigmoid(Fast x) { return renet::Sigmoid(x.value); }
/// 1 - 2 / (e^2x + 1), which is right at both ends: e^2x may be 0 or infinite.
CUDA_INLINE Fast Tanh(Fast x) {
  return 1.f - __fdividef(2.f, 1.f + __expf(2.f * x.value));
}

/// Row i, f or o of the peepholes for the two units of a lane, or zeros.
struct Peephole {
  float of_unit[2];
  CUDA_INLINE Peephole(const float* weights, int row, const Cells& cells) {
    CUDA_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int unit = cells.unit + 8 * i;
      of_unit[i] = weights != NULL && unit < cells.hidden
          ? weights[row * cells.hidden + unit] : 0.f;
    }
  }
};

/// Asks for the 32 bytes at an address that will be read soon.
CUDA_INLINE void Prefetch(const float* address) {
#ifdef __CUDA_ARCH__
  asm volatile("prefetch.L2 [%0];" : : "l"(address));
#else
  (void)*const_cast<const volatile float*>(address);  // it must be there
#endif
}

/**
 * @brief Prefetches what a warp reads in a backward step: each map's share is
 *        left to one group of 4 lanes, first the gates' (one group each), then
 *        those of `other` at the position of `other_step` and of states_diff.
 */
CUDA_INLINE void PrefetchStep(const ReNetScan<float>& s, const Cells& cells,
    int gates, const float* other, int other_step, int tile, int step) {
  const int group = threadIdx.x % 32 / 4;
  const float* const map = group < gates ? s.gates + group * cells.hidden
      : group == gates ? other : s.states_diff;
  const int width = group < gates ? gates * cells.hidden : cells.hidden;
  const int position = group == gates ? other_step : step;
  if (group > gates + 1 || position < 0) return;
  const int line = cells.line + tile * 8;
  const int first_unit = cells.unit - group;  // of the warp
  const float* const first =
      map + cells.Row(0, tile, position) * width + first_unit;
  CUDA_UNROLL
  for (int q = 0; q < 4; ++q) {
    if (first_unit + q / 2 * 8 < cells.hidden && line + q % 2 < cells.lines) {
      Prefetch(first + q % 2 * 2 * width + q / 2 * 8);
    }
  }
}

/// A thread's own four floats of each tile in shared memory: what it carries
/// from step to step.
CUDA_INLINE void ReadOwn(const float4* own, int tile, float values[4]) {
  const float4 four = own[tile * blockDim.x + threadIdx.x];
  values[0] = four.x;
  values[1] = four.y;
  values[2] = four.z;
  values[3] = four.w;
}
CUDA_INLINE void WriteOwn(float4* own, int tile, const float values[4]) {
  own[tile * blockDim.x + threadIdx.x] =
      make_float4(values[0], values[1], values[2], values[3]);
}

/// Clears `words` 32-bit words, a multiple of 4.
CUDA_INLINE void Clear(uint4* memory, int words) {
  for (int i = threadIdx.x; i < words / 4; i += blockDim.x) {
    memory[i] = make_uint4(0, 0, 0, 0);
  }
}

/// What a kernel asks for: fragments of weights in shared memory, words of
/// operands a line, floats of a thread's own a tile (in fours).
struct Memory {
  int fragments;
  int words;
  int own;
};

/// The parts of a block's dynamic shared memory, in this order.
template <class Body>
struct Layout {
  uint4* fragments;
  float4* own;         // of each thing carried: tiles x threads
  uint32_t* operands;  // of each operand: tiles x 8 rows

  CUDA_INLINE explicit Layout(unsigned char* memory, int tiles)
      : fragments(reinterpret_cast<uint4*>(memory)),
        own(reinterpret_cast<float4*>(fragments
            + Body::kMemory.fragments * blockDim.x)),
        operands(reinterpret_cast<uint32_t*>(own
            + Body::kMemory.own * tiles * blockDim.x)) {
    Clear(reinterpret_cast<uint4*>(own), tiles
        * (4 * Body::kMemory.own * static_cast<int>(blockDim.x)
            + 8 * Body::kMemory.words));
  }
};

/// @f$ c, h @f$ of an LSTM; see ReNetLSTMLayer for the equations.
template <class Operand, int kMaxUnits>
struct LstmForwardBody {
  static constexpr int kUnits = kMaxUnits;
  typedef Matrix<Operand, 4, kUnits, Operand::MostHeld(kUnits)> Weights;
  static constexpr Memory kMemory = {
      Weights::kShared, 2 * Weights::kStride, 1};

  CUDA_INLINE static void Run(const ReNetScan<float>& s, int tiles,
      unsigned char* memory) {
    const Layout<LstmForwardBody> layout(memory, tiles);
    const Cells cells(s, tiles);
    const float* const w = OfScan(s.recurrent_weights, cells.scan);
    const int d = s.hidden, first_row = threadIdx.x / 32 * 16;
    Weights weights;
    weights.Load(layout.fragments, [&](int gate, int row, int k) {
      return Weight(w, d, gate, first_row + row, k);
    });
    const float* const peephole = OfScan(s.peephole, cells.scan);
    const Peephole p_i(peephole, 0, cells), p_f(peephole, 1, cells),
        p_o(peephole, 2, cells);
    const int tile_words = 8 * Weights::kStride;
    float next[4][4];
    ReadSums(s, cells, 0, 0, next);
    __syncthreads();
    CUDA_NO_UNROLL
    for (int step = 0; step < s.steps; ++step) {
      const uint32_t* const before =
          layout.operands + (step & 1) * tiles * tile_words;
      uint32_t* const after =
          layout.operands + ((step + 1) & 1) * tiles * tile_words;
      CUDA_NO_UNROLL
      for (int tile = 0; tile < tiles; ++tile) {
        float sums[4][4];
        CUDA_UNROLL
        for (int gate = 0; gate < 4; ++gate) {
          CUDA_UNROLL
          for (int q = 0; q < 4; ++q) sums[gate][q] = next[gate][q];
        }
        const int next_tile = tile + 1 < tiles ? tile + 1 : 0;
        const int next_step = next_tile > 0 ? step : step + 1;
        if (next_step < s.steps) {
          ReadSums(s, cells, next_tile, next_step, next);
        }
        weights.template Multiply<1>(before + tile * tile_words, sums);
        float c[4], h[4];
        ReadOwn(layout.own, tile, c);
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) {
          Fast i, f, o, g, cell, state;
          renet::LstmForward<Fast>(sums[0][q], sums[1][q], sums[2][q],
              sums[3][q], c[q], p_i.of_unit[q / 2], p_f.of_unit[q / 2],
              p_o.of_unit[q / 2], &i, &f, &o, &g, &cell, &state);
          sums[0][q] = i.value;
          sums[1][q] = f.value;
          sums[2][q] = o.value;
          sums[3][q] = g.value;
          c[q] = cell.value;
          h[q] = state.value;
          Operand::Store(cells.Operands(after + tile * tile_words,
              Weights::kStride, q), cells.unit + q / 2 * 8, h[q]);
        }
        WriteOwn(layout.own, tile, c);
        cells.Write(s.states, 1, 0, tile, step, h);
        if (s.extra != NULL) cells.Write(s.extra, 1, 0, tile, step, c);
        if (s.keep_gates) {
          CUDA_UNROLL
          for (int gate = 0; gate < 4; ++gate) {
            cells.Write(s.gates, 4, gate, tile, step, sums[gate]);
          }
        }
      }
      __syncthreads();
    }
  }

 private:
  CUDA_INLINE static void ReadSums(const ReNetScan<float>& s,
      const Cells& cells, int tile, int step, float sums[4][4]) {
    CUDA_UNROLL
    for (int gate = 0; gate < 4; ++gate) {
      cells.Read(s.gates, 4, gate, tile, step, sums[gate]);
    }
  }
};

/// Gradients of an LSTM's gates. Carried: the gradient of c.
template <class Operand, int kMaxUnits>
struct LstmBackwardBody {
  static constexpr int kUnits = kMaxUnits;
  // depth 4 * unit + gate
  typedef Matrix<Operand, 1, 4 * kUnits, Operand::MostHeld(kUnits)> Weights;
  static constexpr Memory kMemory = {
      Weights::kShared, 2 * Weights::kStride, 1};

  CUDA_INLINE static void Run(const ReNetScan<float>& s, int tiles,
      unsigned char* memory) {
    const Layout<LstmBackwardBody> layout(memory, tiles);
    const Cells cells(s, tiles);
    const float* const w = OfScan(s.recurrent_weights, cells.scan);
    const int d = s.hidden, first_row = threadIdx.x / 32 * 16;
    Weights weights;
    weights.Load(layout.fragments, [&](int, int row, int k) {
      return Weight(w, d, k % 4, k / 4, first_row + row);
    });
    const float* const peephole = OfScan(s.peephole, cells.scan);
    const Peephole p_i(peephole, 0, cells), p_f(peephole, 1, cells),
        p_o(peephole, 2, cells);
    const int tile_words = 8 * Weights::kStride;
    __syncthreads();
    CUDA_NO_UNROLL
    for (int step = s.steps - 1; step >= 0; --step) {
      const uint32_t* const before =
          layout.operands + (step & 1) * tiles * tile_words;
      uint32_t* const after =
          layout.operands + ((step + 1) & 1) * tiles * tile_words;
      CUDA_NO_UNROLL
      for (int tile = 0; tile < tiles; ++tile) {
        float gates[4][4], c[4], c_before[4], diff[4];
        CUDA_UNROLL
        for (int gate = 0; gate < 4; ++gate) {
          cells.Read(s.gates, 4, gate, tile, step, gates[gate]);
        }
        const int next_tile = tile + 1 < tiles ? tile + 1 : 0;
        const int next_step = next_tile > 0 ? step : step - 1;
        PrefetchStep(s, cells, 4, s.extra, next_step - 1, next_tile, next_step);
        cells.Read(s.extra, 1, 0, tile, step, c);
        cells.Read(s.states_diff, 1, 0, tile, step, diff);
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) c_before[q] = 0.f;
        if (step > 0) cells.Read(s.extra, 1, 0, tile, step - 1, c_before);
        float h_diff[1][4] = {};
        weights.template Multiply<4>(before + tile * tile_words, h_diff);
        float c_diff[4];
        ReadOwn(layout.own, tile, c_diff);
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) {
          if (s.cell_output) {
            c_diff[q] += diff[q];
          } else {
            h_diff[0][q] += diff[q];
          }
          Fast carried = c_diff[q], i, f, o, g;
          renet::LstmBackward<Fast>(h_diff[0][q], gates[0][q], gates[1][q],
              gates[2][q], gates[3][q], c[q], c_before[q],
              p_i.of_unit[q / 2], p_f.of_unit[q / 2], p_o.of_unit[q / 2],
              &carried, &i, &f, &o, &g);
          c_diff[q] = carried.value;
          gates[0][q] = i.value;
          gates[1][q] = f.value;
          gates[2][q] = o.value;
          gates[3][q] = g.value;
          Operand::Store4(cells.Operands(after + tile * tile_words,
              Weights::kStride, q), 4 * (cells.unit + q / 2 * 8), i.value,
              f.value, o.value, g.value);
        }
        WriteOwn(layout.own, tile, c_diff);
        CUDA_UNROLL
        for (int gate = 0; gate < 4; ++gate) {
          cells.Write(s.gates_diff, 4, gate, tile, step, gates[gate]);
        }
      }
      __syncthreads();
    }
  }
};

/// @f$ h @f$ of a GRU; see ReNetGRULayer for the equations. Two products and
/// two barriers a step: the candidate's takes r * h. Carried: h, z.
template <class Operand, int kMaxUnits>
struct GruForwardBody {
  static constexpr int kUnits = kMaxUnits;
  static constexpr int kMostHeld = Operand::MostHeld(kUnits);
  typedef Matrix<Operand, 2, kUnits, kMostHeld> GateWeights;  // z, r
  typedef Matrix<Operand, 1, kUnits, kMostHeld - GateWeights::kHeld>
      CandidateWeights;
  static constexpr Memory kMemory = {
      GateWeights::kShared + CandidateWeights::kShared,
      2 * GateWeights::kStride, 2};

  CUDA_INLINE static void Run(const ReNetScan<float>& s, int tiles,
      unsigned char* memory) {
    const Layout<GruForwardBody> layout(memory, tiles);
    const Cells cells(s, tiles);
    const float* const w = OfScan(s.recurrent_weights, cells.scan);
    const int d = s.hidden, first_row = threadIdx.x / 32 * 16;
    GateWeights gate_weights;
    gate_weights.Load(layout.fragments, [&](int gate, int row, int k) {
      return Weight(w, d, gate, first_row + row, k);
    });
    CandidateWeights candidate_weights;
    candidate_weights.Load(
        layout.fragments + GateWeights::kShared * blockDim.x,
        [&](int, int row, int k) {
          return Weight(w, d, 2, first_row + row, k);
        });
    const int stride = GateWeights::kStride, tile_words = 8 * stride;
    uint32_t* const h_operands = layout.operands;
    uint32_t* const reset_operands = layout.operands + tiles * tile_words;
    float4* const own_h = layout.own;
    float4* const own_z = layout.own + tiles * blockDim.x;
    float next[2][4], next_n[4];
    cells.Read(s.gates, 3, 0, 0, 0, next[0]);
    cells.Read(s.gates, 3, 1, 0, 0, next[1]);
    cells.Read(s.gates, 3, 2, 0, 0, next_n);
    __syncthreads();
    CUDA_NO_UNROLL
    for (int step = 0; step < s.steps; ++step) {
      CUDA_NO_UNROLL
      for (int tile = 0; tile < tiles; ++tile) {
        float sums[2][4];
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) {
          sums[0][q] = next[0][q];
          sums[1][q] = next[1][q];
        }
        const int next_tile = tile + 1 < tiles ? tile + 1 : 0;
        const int next_step = next_tile > 0 ? step : step + 1;
        if (next_step < s.steps) {
          cells.Read(s.gates, 3, 0, next_tile, next_step, next[0]);
          cells.Read(s.gates, 3, 1, next_tile, next_step, next[1]);
        }
        gate_weights.template Multiply<2>(h_operands + tile * tile_words,
            sums);
        float h[4], z[4], r[4], reset_h[4];
        ReadOwn(own_h, tile, h);
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) {
          Fast update, reset, product;
          renet::GruGatesForward<Fast>(sums[0][q], sums[1][q], h[q], &update,
              &reset, &product);
          z[q] = update.value;
          r[q] = reset.value;
          reset_h[q] = product.value;
          Operand::Store(cells.Operands(reset_operands + tile * tile_words,
              stride, q), cells.unit + q / 2 * 8, reset_h[q]);
        }
        WriteOwn(own_z, tile, z);
        if (s.extra != NULL) cells.Write(s.extra, 1, 0, tile, step, reset_h);
        if (s.keep_gates) {
          cells.Write(s.gates, 3, 0, tile, step, z);
          cells.Write(s.gates, 3, 1, tile, step, r);
        }
      }
      __syncthreads();
      CUDA_NO_UNROLL
      for (int tile = 0; tile < tiles; ++tile) {
        float sums[1][4];
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) sums[0][q] = next_n[q];
        const int next_tile = tile + 1 < tiles ? tile + 1 : 0;
        const int next_step = next_tile > 0 ? step : step + 1;
        if (next_step < s.steps) {
          cells.Read(s.gates, 3, 2, next_tile, next_step, next_n);
        }
        candidate_weights.template Multiply<4>(
            reset_operands + tile * tile_words, sums);
        float h[4], z[4], n[4];
        ReadOwn(own_h, tile, h);
        ReadOwn(own_z, tile, z);
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) {
          Fast candidate, state;
          renet::GruStateForward<Fast>(sums[0][q], z[q], h[q], &candidate,
              &state);
          n[q] = candidate.value;
          h[q] = state.value;
          Operand::Store(cells.Operands(h_operands + tile * tile_words, stride,
              q), cells.unit + q / 2 * 8, h[q]);
        }
        WriteOwn(own_h, tile, h);
        cells.Write(s.states, 1, 0, tile, step, h);
        if (s.keep_gates) cells.Write(s.gates, 3, 2, tile, step, n);
      }
      __syncthreads();
    }
  }
};

/// Gradients of a GRU's gates, again in two halves of a step: first the update
/// gate and the candidate, then what went through r * h. Carried: the gradient
/// of h, that of z's sum.
template <class Operand, int kMaxUnits>
struct GruBackwardBody {
  static constexpr int kUnits = kMaxUnits;
  static constexpr int kMostHeld = Operand::MostHeld(kUnits);
  // depth 2 * unit + gate
  typedef Matrix<Operand, 1, 2 * kUnits, kMostHeld> GateWeights;
  typedef Matrix<Operand, 1, kUnits, kMostHeld - GateWeights::kHeld>
      CandidateWeights;
  static constexpr Memory kMemory = {
      GateWeights::kShared + CandidateWeights::kShared,
      GateWeights::kStride + CandidateWeights::kStride, 2};

  CUDA_INLINE static void Run(const ReNetScan<float>& s, int tiles,
      unsigned char* memory) {
    const Layout<GruBackwardBody> layout(memory, tiles);
    const Cells cells(s, tiles);
    const float* const w = OfScan(s.recurrent_weights, cells.scan);
    const int d = s.hidden, first_row = threadIdx.x / 32 * 16;
    GateWeights gate_weights;
    gate_weights.Load(layout.fragments, [&](int, int row, int k) {
      return Weight(w, d, k % 2, k / 2, first_row + row);
    });
    CandidateWeights candidate_weights;
    candidate_weights.Load(
        layout.fragments + GateWeights::kShared * blockDim.x,
        [&](int, int row, int k) {
          return Weight(w, d, 2, k, first_row + row);
        });
    const int gate_words = 8 * GateWeights::kStride;
    const int candidate_words = 8 * CandidateWeights::kStride;
    uint32_t* const gate_operands = layout.operands;
    uint32_t* const candidate_operands = layout.operands + tiles * gate_words;
    float4* const own_h_diff = layout.own;
    float4* const own_z_diff = layout.own + tiles * blockDim.x;
    __syncthreads();
    CUDA_NO_UNROLL
    for (int step = s.steps - 1; step >= 0; --step) {
      CUDA_NO_UNROLL
      for (int tile = 0; tile < tiles; ++tile) {
        float z[4], n[4], h_before[4], diff[4];
        cells.Read(s.gates, 3, 0, tile, step, z);
        cells.Read(s.gates, 3, 2, tile, step, n);
        ReadStateBefore(s, cells, tile, step, h_before);
        cells.Read(s.states_diff, 1, 0, tile, step, diff);
        const int next_tile = tile + 1 < tiles ? tile + 1 : 0;
        const int next_step = next_tile > 0 ? step : step - 1;
        PrefetchStep(s, cells, 3, s.states, next_step - 1, next_tile,
            next_step);
        float h_diff[1][4];
        ReadOwn(own_h_diff, tile, h_diff[0]);
        gate_weights.template Multiply<4>(gate_operands + tile * gate_words,
            h_diff);
        float z_diff[4], n_diff[4];
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) {
          h_diff[0][q] += diff[q];
          renet::GruStateBackward(z[q], n[q], h_before[q], &h_diff[0][q],
              &z_diff[q], &n_diff[q]);
          Operand::Store(cells.Operands(
              candidate_operands + tile * candidate_words,
              CandidateWeights::kStride, q), cells.unit + q / 2 * 8,
              n_diff[q]);
        }
        WriteOwn(own_h_diff, tile, h_diff[0]);
        WriteOwn(own_z_diff, tile, z_diff);
        cells.Write(s.gates_diff, 3, 0, tile, step, z_diff);
        cells.Write(s.gates_diff, 3, 2, tile, step, n_diff);
      }
      __syncthreads();
      CUDA_NO_UNROLL
      for (int tile = 0; tile < tiles; ++tile) {
        float r[4], h_before[4];
        cells.Read(s.gates, 3, 1, tile, step, r);
        ReadStateBefore(s, cells, tile, step, h_before);
        float reset_h_diff[1][4] = {};
        candidate_weights.template Multiply<4>(
            candidate_operands + tile * candidate_words, reset_h_diff);
        float h_diff[4], z_diff[4], r_diff[4];
        ReadOwn(own_h_diff, tile, h_diff);
        ReadOwn(own_z_diff, tile, z_diff);
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) {
          renet::GruResetBackward(reset_h_diff[0][q], r[q], h_before[q],
              &h_diff[q], &r_diff[q]);
          Operand::Store2(cells.Operands(gate_operands + tile * gate_words,
              GateWeights::kStride, q), 2 * (cells.unit + q / 2 * 8),
              z_diff[q], r_diff[q]);
        }
        WriteOwn(own_h_diff, tile, h_diff);
        cells.Write(s.gates_diff, 3, 1, tile, step, r_diff);
      }
      __syncthreads();
    }
  }

 private:
  CUDA_INLINE static void ReadStateBefore(const ReNetScan<float>& s,
      const Cells& cells, int tile, int step, float h[4]) {
    CUDA_UNROLL
    for (int q = 0; q < 4; ++q) h[q] = 0.f;
    if (step > 0) cells.Read(s.states, 1, 0, tile, step - 1, h);
  }
};

/// @f$ h @f$ of an IRNN; see ReNetIRNNLayer for the equations.
template <class Operand, int kMaxUnits>
struct IrnnForwardBody {
  static constexpr int kUnits = kMaxUnits;
  typedef Matrix<Operand, 1, kUnits, Operand::MostHeld(kUnits)> Weights;
  static constexpr Memory kMemory = {
      Weights::kShared, 2 * Weights::kStride, 0};

  CUDA_INLINE static void Run(const ReNetScan<float>& s, int tiles,
      unsigned char* memory) {
    const Layout<IrnnForwardBody> layout(memory, tiles);
    const Cells cells(s, tiles);
    const float* const w = OfScan(s.recurrent_weights, cells.scan);
    const int d = s.hidden, first_row = threadIdx.x / 32 * 16;
    Weights weights;
    weights.Load(layout.fragments, [&](int, int row, int k) {
      return Weight(w, d, 0, first_row + row, k);
    });
    const int tile_words = 8 * Weights::kStride;
    float next[4];
    cells.Read(s.gates, 1, 0, 0, 0, next);
    __syncthreads();
    CUDA_NO_UNROLL
    for (int step = 0; step < s.steps; ++step) {
      const uint32_t* const before =
          layout.operands + (step & 1) * tiles * tile_words;
      uint32_t* const after =
          layout.operands + ((step + 1) & 1) * tiles * tile_words;
      CUDA_NO_UNROLL
      for (int tile = 0; tile < tiles; ++tile) {
        float h[1][4];
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) h[0][q] = next[q];
        const int next_tile = tile + 1 < tiles ? tile + 1 : 0;
        const int next_step = next_tile > 0 ? step : step + 1;
        if (next_step < s.steps) {
          cells.Read(s.gates, 1, 0, next_tile, next_step, next);
        }
        weights.template Multiply<4>(before + tile * tile_words, h);
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) {
          h[0][q] = renet::IrnnForward(h[0][q]);
          Operand::Store(cells.Operands(after + tile * tile_words,
              Weights::kStride, q), cells.unit + q / 2 * 8, h[0][q]);
        }
        cells.Write(s.states, 1, 0, tile, step, h[0]);
      }
      __syncthreads();
    }
  }
};

/// Gradients of an IRNN's sums.
template <class Operand, int kMaxUnits>
struct IrnnBackwardBody {
  static constexpr int kUnits = kMaxUnits;
  typedef Matrix<Operand, 1, kUnits, Operand::MostHeld(kUnits)> Weights;
  static constexpr Memory kMemory = {
      Weights::kShared, 2 * Weights::kStride, 0};

  CUDA_INLINE static void Run(const ReNetScan<float>& s, int tiles,
      unsigned char* memory) {
    const Layout<IrnnBackwardBody> layout(memory, tiles);
    const Cells cells(s, tiles);
    const float* const w = OfScan(s.recurrent_weights, cells.scan);
    const int d = s.hidden, first_row = threadIdx.x / 32 * 16;
    Weights weights;
    weights.Load(layout.fragments, [&](int, int row, int k) {
      return Weight(w, d, 0, k, first_row + row);
    });
    const int tile_words = 8 * Weights::kStride;
    __syncthreads();
    CUDA_NO_UNROLL
    for (int step = s.steps - 1; step >= 0; --step) {
      const uint32_t* const before =
          layout.operands + (step & 1) * tiles * tile_words;
      uint32_t* const after =
          layout.operands + ((step + 1) & 1) * tiles * tile_words;
      CUDA_NO_UNROLL
      for (int tile = 0; tile < tiles; ++tile) {
        float h[4], diff[1][4];
        cells.Read(s.states, 1, 0, tile, step, h);
        cells.Read(s.states_diff, 1, 0, tile, step, diff[0]);
        const int next_tile = tile + 1 < tiles ? tile + 1 : 0;
        const int next_step = next_tile > 0 ? step : step - 1;
        PrefetchStep(s, cells, 0, s.states, next_step, next_tile, next_step);
        weights.template Multiply<4>(before + tile * tile_words, diff);
        CUDA_UNROLL
        for (int q = 0; q < 4; ++q) {
          diff[0][q] = renet::IrnnBackward(diff[0][q], h[q]);
          Operand::Store(cells.Operands(after + tile * tile_words,
              Weights::kStride, q), cells.unit + q / 2 * 8, diff[0][q]);
        }
        cells.Write(s.gates_diff, 1, 0, tile, step, diff[0]);
      }
      __syncthreads();
    }
  }
};

/// Blocks: (groups of `tiles` tiles of lines) x scans.
template <class Body>
__global__ void
__launch_bounds__(MaxThreads(Body::kUnits), MinBlocks(Body::kUnits))
TensorScan(const ReNetScan<float> scan, int tiles) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  DYNAMIC_SHARED(unsigned char, memory);
  Body::Run(scan, tiles, memory);
#else
  __trap();  // the host never chooses this kernel here
#endif
}

// --- The host's side -------------------------------------------------------

typedef void (*Kernel)(ReNetScan<float>, int);

/// A kernel and what it asks for; kernel NULL: there is none.
struct Choice {
  Kernel kernel;
  Memory memory;
};

template <template <class, int> class Body, class Operand>
Choice ChooseSize(int hidden) {
  if (hidden <= 64) {
    return {&TensorScan<Body<Operand, 64> >, Body<Operand, 64>::kMemory};
  }
  if (hidden <= 128) {
    return {&TensorScan<Body<Operand, 128> >, Body<Operand, 128>::kMemory};
  }
  if (hidden <= 160 && Operand::kPerWord == 2) {  // tf32 would never fit
    return {&TensorScan<Body<Bf16, 160> >, Body<Bf16, 160>::kMemory};
  }
  return {NULL, {0, 0, 0}};
}

template <template <class, int> class Body>
Choice ChooseOperand(ReNetPrecision precision, int hidden) {
  switch (precision) {
    case RENET_TF32: return ChooseSize<Body, Tf32>(hidden);
    case RENET_BF16: return ChooseSize<Body, Bf16>(hidden);
    default: return {NULL, {0, 0, 0}};
  }
}

inline Choice Choose(ReNetUnit unit, ReNetPrecision precision, int hidden,
    bool backward) {
  switch (unit) {
    case RENET_LSTM:
      return backward ? ChooseOperand<LstmBackwardBody>(precision, hidden)
          : ChooseOperand<LstmForwardBody>(precision, hidden);
    case RENET_GRU:
      return backward ? ChooseOperand<GruBackwardBody>(precision, hidden)
          : ChooseOperand<GruForwardBody>(precision, hidden);
    default:
      return backward ? ChooseOperand<IrnnBackwardBody>(precision, hidden)
          : ChooseOperand<IrnnForwardBody>(precision, hidden);
  }
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
