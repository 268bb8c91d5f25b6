#ifndef CAFFE_ONEDNN_BFLOAT16_VECTORS_HPP_
#define CAFFE_ONEDNN_BFLOAT16_VECTORS_HPP_

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>

#define WITH_BFLOAT16 __attribute__((target("avx512f,avx512bw,avx512bf16")))

namespace caffe {

/// What the vector units of AVX512_BF16 do where there are no tiles.
namespace vectors {

/**
 * @brief sums(m, n) += sum over k of a(m, k) b(k, n), with factors as tiles have
 *        them: 32 k to a row of a, and 16 rows of b with two k each.
 *
 * @param sums kM rows of kB vectors, which stay in registers if all that is around
 *        this is inlined: kM kB + kB + 1 of 32.
 * @param a_row, b_block bytes from a row of a to the next, from a tile of b to the
 *        next.
 */
template <int kM, int kB>
WITH_BFLOAT16 inline __attribute__((always_inline)) void AddProducts(
    __m512 (&sums)[kM][kB], const char* a, size_t a_row, const char* b,
    size_t b_block) {
  for (int pair = 0; pair < 16; ++pair, a += 4, b += 64) {
    __m512bh of_b[kB];
#pragma GCC unroll 2
    for (int n = 0; n < kB; ++n) { std::memcpy(&of_b[n], b + n * b_block, 64); }
    const char* row = a;
#pragma GCC unroll 16
    for (int m = 0; m < kM; ++m, row += a_row) {
      int32_t two;
      std::memcpy(&two, row, sizeof(two));
      const __m512i all = _mm512_set1_epi32(two);
      __m512bh of_a;
      std::memcpy(&of_a, &all, sizeof(of_a));
#pragma GCC unroll 2
      for (int n = 0; n < kB; ++n) {
        sums[m][n] = _mm512_dpbf16_ps(sums[m][n], of_a, of_b[n]);
      }
    }
  }
}

}  // namespace vectors
}  // namespace caffe
#endif  // defined(__x86_64__)

#endif  // CAFFE_ONEDNN_BFLOAT16_VECTORS_HPP_
