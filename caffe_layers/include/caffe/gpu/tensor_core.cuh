#ifndef CAFFE_GPU_TENSOR_CORE_CUH_
#define CAFFE_GPU_TENSOR_CORE_CUH_

#include <cstdint>
#include <cstring>

/**
 * Matrix products by a warp as a whole, for the sm_80 generation and later:
 * D (16 x 8) += A (16 x K) B (K x 8) with float32 sums. Operands are 32-bit
 * words: one tf32 number, or two bf16 numbers of which the lower half comes
 * first.
 *
 * Fragments, the same for both types when counted in words, eight of which are
 * one product's depth: with g = lane / 4 and t = lane % 4, a lane holds
 *
 *   A  a[0] (g, t)   a[1] (g + 8, t)   a[2] (g, t + 4)   a[3] (g + 8, t + 4)
 *   B  b0 (t, g)     b1 (t + 4, g)
 *   D  d[0] (g, 2t)  d[1] (g, 2t + 1)  d[2] (g + 8, 2t)  d[3] (g + 8, 2t + 1)
 *
 * Below sm_80 the functions compile and must not be called. The tests' host
 * emulation of a block has its own, written by elements of the matrices.
 */
#ifdef __CUDACC__
#define TENSOR_CORE_FUNCTION __host__ __device__ __forceinline__
#else
#define TENSOR_CORE_FUNCTION inline
#endif

namespace caffe {

/// The bits of x rounded to tf32 (10 bits of mantissa): to the nearest, ties
/// away from zero; NaN becomes 0x7FFFFFFF.
TENSOR_CORE_FUNCTION uint32_t RoundToTf32(float x) {
  uint32_t bits;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  // the lower 13 bits are left undefined, and the product ignores them
  return bits;
#else
  memcpy(&bits, &x, sizeof(bits));
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FFFFFFF;
  return (bits + 0x1000) & ~0x1FFFu;
#endif
}

/// The upper half of x's bits after rounding to bf16 (7 bits of mantissa): to
/// the nearest, ties to even; NaN becomes 0x7FFF.
TENSOR_CORE_FUNCTION uint16_t RoundToBf16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint16_t half;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(x));
  return half;
#else
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FFF;
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
#endif
}

/// Two numbers as bf16 in one word.
TENSOR_CORE_FUNCTION uint32_t PackBf16(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return static_cast<uint32_t>(RoundToBf16(high)) << 16 | RoundToBf16(low);
#endif
}

#if defined(__CUDACC__)

/// D += A B with K = 8 tf32 numbers.
__device__ __forceinline__ void MmaTf32(float d[4], const uint32_t a[4],
    uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  __trap();
#endif
}

/// D += A B with K = 16 bf16 numbers.
__device__ __forceinline__ void MmaBf16(float d[4], const uint32_t a[4],
    uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  __trap();
#endif
}

#elif defined(CAFFE_CUDA_EMULATION)

namespace emulation {

/// What a lane brings to a product.
struct MmaLane {
  float* d;
  const uint32_t* a;
  uint32_t b[2];
};

inline float Tf32Element(uint32_t word, int) {
  return BitCast<float>(word & ~0x1FFFu);
}

inline float Bf16Element(uint32_t word, int i) {
  return BitCast<float>(i ? word & 0xFFFF0000u : word << 16);
}

/// Element i of lane's register words, by the formulas of the PTX manual's
/// tables: for every element its row and column in the matrix.
template <int kDepth>
inline void Mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1,
    float (*element)(uint32_t, int), const char* file, int line) {
  constexpr int kPerWord = kDepth / 8;
  MmaLane mine = {d, a, {b0, b1}};
  WarpCollective(0xFFFFFFFFu, &mine, [=](MmaLane* const* lanes) {
    double sum[16][8], left[16][kDepth], right[kDepth][8];
    for (int lane = 0; lane < 32; ++lane) {
      if (!lanes[lane]) throw Error("a matrix product needs a whole warp");
      const int group = lane >> 2, in_group = lane % 4;
      for (int i = 0; i < 4 * kPerWord; ++i) {
        int row, column;
        if (kPerWord == 1) {
          row = i == 0 || i == 2 ? group : group + 8;
          column = i == 0 || i == 1 ? in_group : in_group + 4;
        } else {
          row = i < 2 || (4 <= i && i < 6) ? group : group + 8;
          column = in_group * 2 + (i & 1) + (i < 4 ? 0 : 8);
        }
        left[row][column] = element(lanes[lane]->a[i / kPerWord], i % kPerWord);
      }
      for (int i = 0; i < 2 * kPerWord; ++i) {
        const int row = kPerWord == 1 ? in_group + 4 * i
            : in_group * 2 + (i & 1) + (i < 2 ? 0 : 8);
        right[row][group] =
            element(lanes[lane]->b[i / kPerWord], i % kPerWord);
      }
      for (int i = 0; i < 4; ++i) {
        sum[i < 2 ? group : group + 8][in_group * 2 + (i & 1)] =
            lanes[lane]->d[i];
      }
    }
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < kDepth; ++k) {
        for (int column = 0; column < 8; ++column) {
          sum[row][column] += left[row][k] * right[k][column];
        }
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        lanes[lane]->d[i] = static_cast<float>(
            sum[i < 2 ? lane >> 2 : (lane >> 2) + 8][lane % 4 * 2 + (i & 1)]);
      }
    }
  }, file, line);
}

}  // namespace emulation

inline void MmaTf32(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1,
    const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::Mma<8>(d, a, b0, b1, &emulation::Tf32Element, file, line);
}

inline void MmaBf16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1,
    const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::Mma<16>(d, a, b0, b1, &emulation::Bf16Element, file, line);
}

#endif

}  // namespace caffe

#endif  // CAFFE_GPU_TENSOR_CORE_CUH_
