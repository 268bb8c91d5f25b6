#ifndef CAFFE_ONEDNN_BFLOAT16_VECTORS_HPP_
#define CAFFE_ONEDNN_BFLOAT16_VECTORS_HPP_

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>

#define WITH_BFLOAT16 __attribute__((target("avx512f,avx512bw,avx512bf16")))

namespace caffe {

/// What the vector units of AVX512_BF16 do: all where there are no tiles.
namespace vectors {

/// Rounds two vectors and writes them side by side: the first's first value, the
/// second's first, the first's second, ..
WITH_BFLOAT16 inline __attribute__((always_inline)) void RoundSideBySide(
    __m512 first, __m512 second, void* to) {
  alignas(64) static const uint16_t kOrder[32] = {
      0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512bh both = _mm512_cvtne2ps_pbh(second, first);
  __m512i values;
  std::memcpy(&values, &both, sizeof(values));
  values = _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), values);
  std::memcpy(to, &values, sizeof(values));
}

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
