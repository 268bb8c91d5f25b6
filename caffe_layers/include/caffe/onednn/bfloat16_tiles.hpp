#ifndef CAFFE_ONEDNN_BFLOAT16_TILES_HPP_
#define CAFFE_ONEDNN_BFLOAT16_TILES_HPP_

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace caffe {

/**
 * What code for the matrix tiles of Intel's AMX shares. A tile has 16 rows of 64
 * bytes: 16 sums of float32, or 32 factors of bfloat16. _tile_dpbf16ps(c, a, b)
 * adds to c(m, n) the products of a(m, k) and b(k, n), k up to 32; b has two k to a
 * row, side by side for each n.
 */
namespace tiles {

const int kRows = 16, kDepth = 32;
const size_t kBytes = 1024;

inline int Groups(int count, int size) { return (count + size - 1) / size; }

#if defined(__x86_64__)
#define WITH_TILES \
  __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512bf16")))

/// The compiler does not know what tiles read and write.
inline void FinishWriting() { __asm__ volatile("" ::: "memory"); }

/// Sets up eight whole tiles for this thread, until EndTiles().
WITH_TILES inline void BeginTiles() {
  struct alignas(64) {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } shapes = {};
  shapes.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    shapes.row_bytes[tile] = 64;
    shapes.rows[tile] = kRows;
  }
  FinishWriting();
  _tile_loadconfig(&shapes);
}

WITH_TILES inline void EndTiles() { _tile_release(); }
#endif  // defined(__x86_64__)

}  // namespace tiles
}  // namespace caffe

#endif  // CAFFE_ONEDNN_BFLOAT16_TILES_HPP_
