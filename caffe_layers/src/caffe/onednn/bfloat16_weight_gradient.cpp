#include <algorithm>
#include <cstdint>
#include <cstring>

#include "caffe/common.hpp"
#include "caffe/onednn/bfloat16_convolution.hpp"
#include "caffe/onednn/bfloat16_tiles.hpp"
#include "caffe/onednn/bfloat16_vectors.hpp"

namespace caffe {

using tiles::Groups;
using tiles::kDepth;
using tiles::kRows;

namespace {

// A tile is, of the top's gradient, 16 channels by 32 positions of a line; of the
// bottom 32 positions (two to a row) by 16 channels; and of the sums 16 channels of
// the top by 16 of the bottom, for one tap.
const int kPositions = kDepth;
const size_t kTileValues = tiles::kBytes / sizeof(float);

/// The convolution as the tiles see it, image by image.
struct Pieces {
  const Bfloat16Convolution& of;
  const int taps, out_blocks, blocks;
  const int chunks;  // of 32 positions, to a line of the top
  const int height;  // of the bottom with its padding
  const int pairs;   // of positions, to such a line, with what the last chunk reads
  // Taps that begin at an odd position need other pairs.
  const int parities;

  explicit Pieces(const Bfloat16Convolution& convolution)
      : of(convolution), taps(of.kernel_height * of.kernel_width),
        out_blocks(Groups(of.out_channels, kRows)),
        blocks(Groups(of.channels, kRows)),
        chunks(Groups(of.out_width, kPositions)),
        height(of.height + 2 * of.pad_height),
        pairs((chunks * kPositions + of.dilation_width * (of.kernel_width - 1)) / 2
            + 1),
        parities(of.kernel_width > 1 && of.dilation_width % 2 == 1 ? 2 : 1) {}

  size_t pair_line_bytes() const { return static_cast<size_t>(pairs) * 64; }
  size_t bottom_block_bytes() const { return height * pair_line_bytes(); }
  size_t bottom_bytes() const { return parities * blocks * bottom_block_bytes(); }
  size_t top_line_bytes() const { return chunks * tiles::kBytes; }
  size_t top_block_bytes() const { return of.out_height * top_line_bytes(); }
  size_t top_bytes() const { return out_blocks * top_block_bytes(); }
  int items() const { return Groups(out_blocks, 2) * Groups(blocks, 2); }
  /// Sums of an item: two blocks of the top's channels by two of the bottom's.
  size_t item_values() const { return taps * 4 * kTileValues; }
};

#if defined(__x86_64__)
using tiles::FinishWriting;

/// A line of a block of 16 channels, rounded, as pairs of positions, channel by
/// channel side by side, from position -pad + parity on.
WITH_BFLOAT16 void RoundPairs(const float* line, int width, int pad, int parity,
    int pairs, uint16_t* to) {
  const __m512 zero = _mm512_setzero_ps();
  for (int pair = 0; pair < pairs; ++pair, to += 32) {
    const int x = 2 * pair + parity - pad;
    const __m512 first = x >= 0 && x < width ? _mm512_loadu_ps(line + x * 16) : zero;
    const __m512 second =
        x + 1 >= 0 && x + 1 < width ? _mm512_loadu_ps(line + (x + 1) * 16) : zero;
    vectors::RoundSideBySide(first, second, to);
  }
}

/// Up to 32 positions of a block of 16 channels, rounded, channel after channel; zeros
/// behind the last.
WITH_BFLOAT16 void TurnTile(const float* from, int positions, uint16_t* to) {
  alignas(64) uint16_t rounded[kPositions * kRows];
  std::memset(rounded, 0, sizeof(rounded));
  for (int x = 0; x < positions; ++x) {
    const __m256bh values = _mm512_cvtneps_pbh(_mm512_loadu_ps(from + x * 16));
    std::memcpy(rounded + x * kRows, &values, sizeof(values));
  }
  for (int channel = 0; channel < kRows; ++channel) {
    for (int x = 0; x < kPositions; ++x) {
      to[channel * kPositions + x] = rounded[x * kRows + channel];
    }
  }
}

/// Adds an image to the sums of kA blocks of the top's channels and kB of the
/// bottom's; for the first image they begin at zero.
template <int kA, int kB>
WITH_TILES void MultiplyItemInTiles(const Pieces& pieces, const char* top,
    const char* bottom, bool first, float* sums) {
  const Bfloat16Convolution& of = pieces.of;
  const size_t other_top = pieces.top_block_bytes();
  const size_t other_bottom = pieces.bottom_block_bytes();
  for (int tap = 0; tap < pieces.taps; ++tap, sums += 4 * kTileValues) {
    const int row = tap / of.kernel_width * of.dilation_height;
    const int shift = tap % of.kernel_width * of.dilation_width;
    FinishWriting();
    if (first) {
      _tile_zero(0);
      if (kB > 1) { _tile_zero(1); }
      if (kA > 1) { _tile_zero(2); }
      if (kA > 1 && kB > 1) { _tile_zero(3); }
    } else {
      _tile_loadd(0, sums, 64);
      if (kB > 1) { _tile_loadd(1, sums + kTileValues, 64); }
      if (kA > 1) { _tile_loadd(2, sums + 2 * kTileValues, 64); }
      if (kA > 1 && kB > 1) { _tile_loadd(3, sums + 3 * kTileValues, 64); }
    }
    const char* const pairs = bottom
        + shift % 2 * pieces.blocks * pieces.bottom_block_bytes()
        + shift / 2 * size_t(64);
    for (int y = 0; y < of.out_height; ++y) {
      const char* a = top + y * pieces.top_line_bytes();
      const char* b = pairs + (y + row) * pieces.pair_line_bytes();
      for (int chunk = 0; chunk < pieces.chunks; ++chunk) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (kB > 1) {
          _tile_loadd(7, b + other_bottom, 64);
          _tile_dpbf16ps(1, 4, 7);
        }
        if (kA > 1) {
          _tile_loadd(5, a + other_top, 64);
          _tile_dpbf16ps(2, 5, 6);
          if (kB > 1) { _tile_dpbf16ps(3, 5, 7); }
        }
        a += tiles::kBytes;
        b += tiles::kBytes;
      }
    }
    _tile_stored(0, sums, 64);
    if (kB > 1) { _tile_stored(1, sums + kTileValues, 64); }
    if (kA > 1) { _tile_stored(2, sums + 2 * kTileValues, 64); }
    if (kA > 1 && kB > 1) { _tile_stored(3, sums + 3 * kTileValues, 64); }
    FinishWriting();
  }
}

/// The same without tiles, a few of the top's channels at a time.
template <int kA, int kB>
WITH_BFLOAT16 void MultiplyItemInVectors(const Pieces& pieces, const char* top,
    const char* bottom, bool first, float* sums) {
  const Bfloat16Convolution& of = pieces.of;
  const int kChannels = 8;
  const size_t a_row = kPositions * sizeof(uint16_t);
  for (int tap = 0; tap < pieces.taps; ++tap, sums += 4 * kTileValues) {
    const int row = tap / of.kernel_width * of.dilation_height;
    const int shift = tap % of.kernel_width * of.dilation_width;
    const char* const pairs = bottom
        + shift % 2 * pieces.blocks * pieces.bottom_block_bytes()
        + shift / 2 * size_t(64);
    for (int channel = 0; channel < kA * kRows; channel += kChannels) {
      float* const at = sums + channel / kRows * 2 * kTileValues
          + channel % kRows * kRows;
      __m512 of_channels[kChannels][kB];
#pragma GCC unroll 8
      for (int m = 0; m < kChannels; ++m) {
#pragma GCC unroll 2
        for (int n = 0; n < kB; ++n) {
          of_channels[m][n] = first ? _mm512_setzero_ps()
              : _mm512_loadu_ps(at + n * kTileValues + m * kRows);
        }
      }
      for (int y = 0; y < of.out_height; ++y) {
        const char* a = top + channel / kRows * pieces.top_block_bytes()
            + y * pieces.top_line_bytes() + channel % kRows * a_row;
        const char* b = pairs + (y + row) * pieces.pair_line_bytes();
        for (int chunk = 0; chunk < pieces.chunks; ++chunk) {
          vectors::AddProducts(
              of_channels, a, a_row, b, pieces.bottom_block_bytes());
          a += tiles::kBytes;
          b += tiles::kBytes;
        }
      }
#pragma GCC unroll 8
      for (int m = 0; m < kChannels; ++m) {
#pragma GCC unroll 2
        for (int n = 0; n < kB; ++n) {
          _mm512_storeu_ps(at + n * kTileValues + m * kRows, of_channels[m][n]);
        }
      }
    }
  }
}

template <int kA, int kB>
void MultiplyItem(const Pieces& pieces, const char* top, const char* bottom,
    bool first, float* sums) {
  (Bfloat16Convolution::HasTiles() ? MultiplyItemInTiles<kA, kB>
      : MultiplyItemInVectors<kA, kB>)(pieces, top, bottom, first, sums);
}

/// Adds an item's sums to the gradient, in Caffe's order.
void AddItem(const Pieces& pieces, const float* sums, int out_block, int block,
    float* gradient) {
  const Bfloat16Convolution& of = pieces.of;
  const int outputs = std::min(2 * kRows, of.out_channels - out_block * kRows);
  const int channels = std::min(2 * kRows, of.channels - block * kRows);
  for (int o = 0; o < outputs; ++o) {
    for (int c = 0; c < channels; ++c) {
      const float* const from = sums
          + (o / kRows * 2 + c / kRows) * kTileValues + o % kRows * 16 + c % kRows;
      float* const to = gradient + (static_cast<size_t>(out_block * kRows + o)
          * of.channels + block * kRows + c) * pieces.taps;
      for (int tap = 0; tap < pieces.taps; ++tap) {
        to[tap] += from[tap * 4 * kTileValues];
      }
    }
  }
}
#endif  // defined(__x86_64__)

}  // namespace

bool Bfloat16Convolution::HasWeightGradient() const {
  return stride_height == 1 && stride_width == 1
      && 2 * out_width >= Groups(out_width, kPositions) * kPositions;
}

size_t Bfloat16Convolution::gradient_work_bytes() const {
  const Pieces pieces(*this);
  return pieces.bottom_bytes() + pieces.top_bytes()
      + pieces.items() * pieces.item_values() * sizeof(float);
}

void Bfloat16Convolution::AddWeightGradient(const float* bottom,
    const float* top_diff, float* weights_diff, void* work) const {
#if defined(__x86_64__)
  const Pieces pieces(*this);
  const size_t map = static_cast<size_t>(height) * width * kRows;
  const size_t top_map = static_cast<size_t>(out_height) * out_width * kRows;
  char* const rounded_bottom = static_cast<char*>(work);
  char* const rounded_top = rounded_bottom + pieces.bottom_bytes();
  float* const sums =
      reinterpret_cast<float*>(rounded_top + pieces.top_bytes());
  const int across = Groups(pieces.blocks, 2);
  for (int n = 0; n < num; ++n) {
    const float* const from = bottom + n * pieces.blocks * map;
    const float* const top_from = top_diff + n * pieces.out_blocks * top_map;
#pragma omp parallel
    {
#pragma omp for collapse(2)
      for (int block = 0; block < pieces.parities * pieces.blocks; ++block) {
        for (int y = 0; y < pieces.height; ++y) {
          char* const to = rounded_bottom + block * pieces.bottom_block_bytes()
              + y * pieces.pair_line_bytes();
          const int row = y - pad_height;
          if (row < 0 || row >= height) {
            std::memset(to, 0, pieces.pair_line_bytes());
          } else {
            RoundPairs(from + block % pieces.blocks * map
                + static_cast<size_t>(row) * width * kRows, width, pad_width,
                block / pieces.blocks, pieces.pairs,
                reinterpret_cast<uint16_t*>(to));
          }
        }
      }
#pragma omp for collapse(2)
      for (int block = 0; block < pieces.out_blocks; ++block) {
        for (int y = 0; y < out_height; ++y) {
          for (int chunk = 0; chunk < pieces.chunks; ++chunk) {
            const int x = chunk * kPositions;
            TurnTile(top_from + block * top_map
                + (static_cast<size_t>(y) * out_width + x) * kRows,
                std::min(kPositions, out_width - x),
                reinterpret_cast<uint16_t*>(rounded_top
                    + block * pieces.top_block_bytes()
                    + y * pieces.top_line_bytes() + chunk * tiles::kBytes));
          }
        }
      }
      if (HasTiles()) { tiles::BeginTiles(); }
#pragma omp for
      for (int item = 0; item < pieces.items(); ++item) {
        const int out_block = 2 * (item / across), block = 2 * (item % across);
        const bool two_above = out_block + 1 < pieces.out_blocks;
        const bool two_below = block + 1 < pieces.blocks;
        (two_above ? (two_below ? MultiplyItem<2, 2> : MultiplyItem<2, 1>)
            : (two_below ? MultiplyItem<1, 2> : MultiplyItem<1, 1>))(pieces,
            rounded_top + out_block * pieces.top_block_bytes(),
            rounded_bottom + block * pieces.bottom_block_bytes(), n == 0,
            sums + item * pieces.item_values());
      }
      if (HasTiles()) { tiles::EndTiles(); }
    }
  }
#pragma omp parallel for
  for (int item = 0; item < pieces.items(); ++item) {
    AddItem(pieces, sums + item * pieces.item_values(), 2 * (item / across),
        2 * (item % across), weights_diff);
  }
#else
  LOG(FATAL) << "no products of bfloat16 on this processor";
#endif
}

}  // namespace caffe
