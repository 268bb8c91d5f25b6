#ifndef CAFFE_RENET_GPU_TENSOR_PRODUCT_CUH_
#define CAFFE_RENET_GPU_TENSOR_PRODUCT_CUH_

#include <cstdint>

#include "caffe/gpu/cuda_block.hpp"
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

}  // namespace tensor_scan
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_TENSOR_PRODUCT_CUH_
