#include "caffe/onednn/bfloat16_convolution.hpp"

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/onednn/bfloat16_tiles.hpp"
#include "caffe/onednn/bfloat16_vectors.hpp"
#include "caffe/util/instruction_set.hpp"

namespace caffe {

using tiles::Groups;
using tiles::kDepth;
using tiles::kRows;

bool Bfloat16Convolution::Available() {
  static const bool available = ChosenInstructionSet() >= AVX512_BF16;
  return available;
}

bool Bfloat16Convolution::HasTiles() {
  static const bool has_tiles = ChosenInstructionSet() >= AMX;
  return has_tiles;
}

namespace {

// A tile is, of the bottom, 16 positions of 32 channels; of the weights, 32 channels
// (two to a row) for 16 of the top.
const size_t kTile = tiles::kBytes;
// Of the weights for 32 channels of the top so many pairs of tiles stay in the second
// cache while a band of lines goes by, and as often its sums come and go: with 9,
// which the first cache would hold, those cost a tenth of the time.
const int kStepsInCache = 36;
// Sums of a band for 32 channels of the top, and all weights, that the second
// cache shall hold.
const size_t kBandBytes = 128 << 10, kWeightsInCache = 1 << 20;
const int kLeastPart = 64;  // of a line, in positions

/// The convolution as the tiles see it: lines of rounded values with the padding
/// around them.
struct Lines {
  const Bfloat16Convolution& of;
  const int depths, pairs, taps, height, width;

  explicit Lines(const Bfloat16Convolution& convolution)
      : of(convolution), depths(Groups(of.channels, kDepth)),
        pairs(Groups(of.out_channels, 2 * kRows)),
        taps(of.kernel_height * of.kernel_width),
        height(of.height + 2 * of.pad_height),
        width(of.width + 2 * of.pad_width) {}
  /// Bytes of the lines of an image.
  size_t image_bytes() const {
    return static_cast<size_t>(depths) * height * width * kDepth * sizeof(uint16_t);
  }
  /// Beyond the last one a tile that is not full reads on.
  size_t slack() const {
    return static_cast<size_t>(kRows) * of.stride_width * kDepth * sizeof(uint16_t);
  }
};

#if defined(__x86_64__)
using tiles::FinishWriting;

/// A line of 32 channels rounded, of two blocks (the second may be NULL: zeros),
/// with the padding at its ends.
WITH_BFLOAT16 void RoundLine(const float* low, const float* high, int width, int pad,
    uint16_t* to) {
  const __m512 zero = _mm512_setzero_ps();
  std::memset(to, 0, pad * kDepth * sizeof(uint16_t));
  to += pad * kDepth;
  for (int x = 0; x < width; ++x, to += kDepth) {
    const __m512 second = high == NULL ? zero : _mm512_loadu_ps(high + x * 16);
    const __m512bh both =
        _mm512_cvtne2ps_pbh(second, _mm512_loadu_ps(low + x * 16));
    std::memcpy(to, &both, sizeof(both));
  }
  std::memset(to, 0, pad * kDepth * sizeof(uint16_t));
}

/// Where the tiles of a step lie.
struct Step {
  const char* bottom;   // the first position's channels
  const char* weights;  // two tiles for each tap and depth
  float* top[2];        // the sums of up to 32 positions, for two blocks
};

/// Adds the taps of some depths to the sums of kA times 16 positions and kB
/// blocks, which begin with the bias (or zero) where `first`.
template <int kA, int kB>
WITH_TILES inline __attribute__((always_inline)) void Multiply(const Lines& lines,
    const Step& step, int depths, const float* bias, bool first, bool rectify) {
  const Bfloat16Convolution& of = lines.of;
  const size_t cell = kDepth * sizeof(uint16_t);
  const size_t next = of.stride_width * cell, line = lines.width * cell;
  const size_t depth_bytes = lines.height * line;
  FinishWriting();
  if (first) {
    // a stride of 0: the same in all rows
    _tile_loadd(0, bias, 0);
    if (kA > 1) { _tile_loadd(2, bias, 0); }
    if (kB > 1) {
      _tile_loadd(1, bias + 16, 0);
      if (kA > 1) { _tile_loadd(3, bias + 16, 0); }
    }
  } else {
    _tile_loadd(0, step.top[0], 64);
    if (kA > 1) { _tile_loadd(2, step.top[0] + 256, 64); }
    if (kB > 1) {
      _tile_loadd(1, step.top[1], 64);
      if (kA > 1) { _tile_loadd(3, step.top[1] + 256, 64); }
    }
  }
  const char* weights = step.weights;
  for (int depth = 0; depth < depths; ++depth) {
    for (int i = 0; i < of.kernel_height; ++i) {
      const char* from =
          step.bottom + depth * depth_bytes + i * of.dilation_height * line;
      for (int j = 0; j < of.kernel_width; ++j) {
        _tile_loadd(4, from, next);
        if (kA > 1) { _tile_loadd(5, from + kRows * next, next); }
        _tile_loadd(6, weights, 64);
        if (kB > 1) { _tile_loadd(7, weights + kTile, 64); }
        _tile_dpbf16ps(0, 4, 6);
        if (kB > 1) { _tile_dpbf16ps(1, 4, 7); }
        if (kA > 1) {
          _tile_dpbf16ps(2, 5, 6);
          if (kB > 1) { _tile_dpbf16ps(3, 5, 7); }
        }
        weights += 2 * kTile;
        from += of.dilation_width * cell;
      }
    }
  }
  _tile_stored(0, step.top[0], 64);
  if (kA > 1) { _tile_stored(2, step.top[0] + 256, 64); }
  if (kB > 1) {
    _tile_stored(1, step.top[1], 64);
    if (kA > 1) { _tile_stored(3, step.top[1] + 256, 64); }
  }
  FinishWriting();
  if (!rectify) { return; }
  for (int b = 0; b < kB; ++b) {
    for (int i = 0; i < kA * 256; ++i) {
      const float sum = step.top[b][i];
      step.top[b][i] = sum < 0 ? 0 : sum;
    }
  }
}

/// The sums of `left` positions of a line of the top.
template <int kB>
WITH_TILES void MultiplyLineInTiles(const Lines& lines, Step step, int left,
    int depths, const float* bias, bool first, bool rectify) {
  const size_t next = lines.of.stride_width * kDepth * sizeof(uint16_t);
  for (; left >= 2 * kRows; left -= 2 * kRows) {
    Multiply<2, kB>(lines, step, depths, bias, first, rectify);
    step.bottom += 2 * kRows * next;
    for (int b = 0; b < kB; ++b) { step.top[b] += 2 * kRows * 16; }
  }
  if (left >= kRows) {
    Multiply<1, kB>(lines, step, depths, bias, first, rectify);
    step.bottom += kRows * next;
    for (int b = 0; b < kB; ++b) { step.top[b] += kRows * 16; }
    left -= kRows;
  }
  if (left == 0) { return; }
  // positions that fill up the last tile are computed, and left out
  alignas(64) float sums[2][256];
  Step rest = step;
  for (int b = 0; b < kB; ++b) {
    rest.top[b] = sums[b];
    if (!first) { std::memcpy(sums[b], step.top[b], left * 64); }
  }
  Multiply<1, kB>(lines, rest, depths, bias, first, rectify);
  for (int b = 0; b < kB; ++b) { std::memcpy(step.top[b], sums[b], left * 64); }
}

// Positions whose sums stay in registers, for two blocks.
const int kPositions = 14;

/// As Multiply(), kM positions and without tiles.
template <int kM, int kB>
WITH_BFLOAT16 void MultiplyPositions(const Lines& lines, const Step& step, int depths,
    const float* bias, bool first, bool rectify) {
  const Bfloat16Convolution& of = lines.of;
  const size_t cell = kDepth * sizeof(uint16_t);
  const size_t next = of.stride_width * cell, line = lines.width * cell;
  const size_t depth_bytes = lines.height * line;
  __m512 sums[kM][kB];
#pragma GCC unroll 16
  for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 2
    for (int b = 0; b < kB; ++b) {
      sums[m][b] = _mm512_loadu_ps(first ? bias + b * 16 : step.top[b] + m * 16);
    }
  }
  const char* weights = step.weights;
  for (int depth = 0; depth < depths; ++depth) {
    for (int i = 0; i < of.kernel_height; ++i) {
      const char* from =
          step.bottom + depth * depth_bytes + i * of.dilation_height * line;
      for (int j = 0; j < of.kernel_width; ++j) {
        vectors::AddProducts(sums, from, next, weights, kTile);
        weights += 2 * kTile;
        from += of.dilation_width * cell;
      }
    }
  }
  const __m512 zero = _mm512_setzero_ps();
#pragma GCC unroll 16
  for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 2
    for (int b = 0; b < kB; ++b) {
      // what is not below 0, such as a NaN
      const __mmask16 stay = rectify
          ? _mm512_cmp_ps_mask(sums[m][b], zero, _CMP_NLT_UQ) : 0xFFFF;
      _mm512_storeu_ps(step.top[b] + m * 16,
          _mm512_maskz_mov_ps(stay, sums[m][b]));
    }
  }
}

template <int kB>
void MultiplyLineInVectors(const Lines& lines, Step step, int left, int depths,
    const float* bias, bool first, bool rectify) {
  typedef void (*Kernel)(const Lines&, const Step&, int, const float*, bool, bool);
  static const Kernel kKernels[kPositions] = {
      MultiplyPositions<1, kB>, MultiplyPositions<2, kB>, MultiplyPositions<3, kB>,
      MultiplyPositions<4, kB>, MultiplyPositions<5, kB>, MultiplyPositions<6, kB>,
      MultiplyPositions<7, kB>, MultiplyPositions<8, kB>, MultiplyPositions<9, kB>,
      MultiplyPositions<10, kB>, MultiplyPositions<11, kB>, MultiplyPositions<12, kB>,
      MultiplyPositions<13, kB>, MultiplyPositions<14, kB>};
  const size_t next = lines.of.stride_width * kDepth * sizeof(uint16_t);
  for (int pieces = Groups(left, kPositions); pieces > 0; --pieces) {
    const int positions = Groups(left, pieces);
    kKernels[positions - 1](lines, step, depths, bias, first, rectify);
    step.bottom += positions * next;
    for (int b = 0; b < kB; ++b) { step.top[b] += positions * 16; }
    left -= positions;
  }
}

/// Lines [from, to) of the top of an image, and of those positions [left, right), for
/// a pair of its blocks.
void MultiplyBand(const Lines& lines, const char* image,
    const char* packed, const float* bias, bool rectify, int pair, int from, int to,
    int left, int right, float* top) {
  const Bfloat16Convolution& of = lines.of;
  const size_t line = lines.width * kDepth * sizeof(uint16_t);
  const size_t next = of.stride_width * kDepth * sizeof(uint16_t);
  const size_t map = static_cast<size_t>(of.out_height) * of.out_width * 16;
  const bool both = 2 * pair + 1 < Groups(of.out_channels, kRows);
  const auto multiply_line = Bfloat16Convolution::HasTiles()
      ? (both ? MultiplyLineInTiles<2> : MultiplyLineInTiles<1>)
      : (both ? MultiplyLineInVectors<2> : MultiplyLineInVectors<1>);
  const int at_once = std::max(1, kStepsInCache / lines.taps);
  const char* const weights =
      packed + static_cast<size_t>(pair) * lines.depths * lines.taps * 2 * kTile;
  for (int depth = 0; depth < lines.depths; depth += at_once) {
    const int depths = std::min(at_once, lines.depths - depth);
    const bool last = depth + depths == lines.depths;
    for (int y = from; y < to; ++y) {
      float* const sums = top + 2 * pair * map
          + (static_cast<size_t>(y) * of.out_width + left) * 16;
      const Step step = {image + (static_cast<size_t>(depth) * lines.height
          + y * of.stride_height) * line + left * next,
          weights + static_cast<size_t>(depth) * lines.taps * 2 * kTile,
          {sums, sums + map}};
      multiply_line(lines, step, right - left, depths, bias + pair * 2 * kRows, depth == 0,
          rectify && last);
    }
  }
}
#endif  // defined(__x86_64__)

}  // namespace

size_t Bfloat16Convolution::packed_bytes() const {
  const Lines lines(*this);
  return static_cast<size_t>(lines.pairs) * lines.depths * lines.taps * 2 * kTile;
}

size_t Bfloat16Convolution::work_bytes() const {
  const Lines lines(*this);
  return lines.image_bytes() + lines.slack();
}

namespace {

/// Weights as they lie in float32: that of output o, channel c and a tap is value
/// o * of_output + c * of_channel + tap.
struct PlainWeights {
  const float* values;
  size_t of_output, of_channel;
};

#if defined(__x86_64__)
/// 16 values `stride` apart, zeros from the `count`-th on.
WITH_BFLOAT16 inline __attribute__((always_inline)) __m512 Take(const float* from,
    size_t stride, int count) {
  const __mmask16 there = count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1 << count) - 1;
  if (stride == 1) { return _mm512_maskz_loadu_ps(there, from); }
  const __m512i places = _mm512_mullo_epi32(_mm512_set1_epi32(static_cast<int>(stride)),
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, places, from, 4);
}

/// Packs the tile of a tap for `outputs` and `channels` that there are, reading along
/// what lies closer together.
WITH_BFLOAT16 void PackTile(const PlainWeights& weights, int outputs, int channels,
    char* tile) {
  const float* const from = weights.values;
  if (weights.of_output < weights.of_channel) {
    // a row of the tile: two channels of each output
    for (int c = 0; c < kDepth; c += 2, tile += 64) {
      vectors::RoundSideBySide(
          Take(from + c * weights.of_channel, weights.of_output,
              c < channels ? outputs : 0),
          Take(from + (c + 1) * weights.of_channel, weights.of_output,
              c + 1 < channels ? outputs : 0), tile);
    }
    return;
  }
  // a column: all channels of an output
  for (int o = 0; o < kRows; ++o) {
    const float* const of_output = from + o * weights.of_output;
    const int count = o < outputs ? channels : 0;
    const __m512bh all = _mm512_cvtne2ps_pbh(
        Take(of_output + 16 * weights.of_channel, weights.of_channel, count - 16),
        Take(of_output, weights.of_channel, count));
    uint32_t pairs[16];
    std::memcpy(pairs, &all, sizeof(pairs));
    for (int k = 0; k < 16; ++k) {
      std::memcpy(tile + k * 64 + o * 4, &pairs[k], sizeof(pairs[k]));
    }
  }
}
#endif  // defined(__x86_64__)

/// Packs weights, the taps in their order or the other way round.
void PackTiles(const Lines& lines, const PlainWeights& weights, bool reverses,
    void* packed) {
#if defined(__x86_64__)
  const int blocks = 2 * lines.pairs, taps = lines.taps;
#pragma omp parallel for collapse(2)
  for (int block = 0; block < blocks; ++block) {
    for (int depth = 0; depth < lines.depths; ++depth) {
      // the tiles of a block's taps lie two apart
      char* const tiles = static_cast<char*>(packed)
          + ((static_cast<size_t>(block / 2) * lines.depths + depth) * taps * 2
          + block % 2) * kTile;
      const int outputs = lines.of.out_channels - block * kRows;
      const int channels = lines.of.channels - depth * kDepth;
      PlainWeights of_tile = weights;
      of_tile.values += block * kRows * weights.of_output
          + depth * kDepth * weights.of_channel;
      for (int tap = 0; tap < taps; ++tap, ++of_tile.values) {
        PackTile(of_tile, outputs, channels,
            tiles + (reverses ? taps - 1 - tap : tap) * 2 * kTile);
      }
    }
  }
#else
  LOG(FATAL) << "no products of bfloat16 on this processor";
#endif
}

}  // namespace

void Bfloat16Convolution::Pack(const float* weights, void* packed) const {
  const Lines lines(*this);
  const size_t taps = lines.taps;
  PackTiles(lines, {weights, channels * taps, taps}, false, packed);
}

void Bfloat16Convolution::PackTurned(const float* weights, void* packed) const {
  const Lines lines(*this);
  const size_t taps = lines.taps;
  PackTiles(lines, {weights, taps, out_channels * taps}, true, packed);
}

bool Bfloat16Convolution::HasBackward() const {
  return stride_height == 1 && stride_width == 1
      && pad_height <= dilation_height * (kernel_height - 1)
      && pad_width <= dilation_width * (kernel_width - 1);
}

Bfloat16Convolution Bfloat16Convolution::Backward() const {
  Bfloat16Convolution turned = *this;
  std::swap(turned.channels, turned.out_channels);
  std::swap(turned.height, turned.out_height);
  std::swap(turned.width, turned.out_width);
  turned.pad_height = dilation_height * (kernel_height - 1) - pad_height;
  turned.pad_width = dilation_width * (kernel_width - 1) - pad_width;
  return turned;
}

void Bfloat16Convolution::Forward(const float* bottom, const void* packed,
    const float* bias, bool rectify, float* top, void* work) const {
#if defined(__x86_64__)
  const Lines lines(*this);
  const int blocks = Groups(channels, kRows);
  const size_t map = static_cast<size_t>(height) * width * kRows;
  const size_t top_map = static_cast<size_t>(out_height) * out_width * kRows;
  const size_t line = static_cast<size_t>(lines.width) * kDepth;
  std::vector<float> biases(lines.pairs * 2 * kRows, 0);
  if (bias != NULL) { std::copy(bias, bias + out_channels, biases.begin()); }
  int band = static_cast<int>(
      kBandBytes / (sizeof(float) * 2 * kRows * out_width));
  band = std::max(1, std::min(band, out_height));
  const int bands = Groups(out_height, band);
  // where bands and pairs are few for the threads, lines go in parts
  const int wanted = Groups(2 * omp_get_max_threads(), bands * lines.pairs);
  const int part =
      std::max(kLeastPart, Groups(Groups(out_width, wanted), kDepth) * kDepth);
  const int parts = Groups(out_width, part);
  const bool pairs_first = packed_bytes() <= kWeightsInCache;
  uint16_t* const image = static_cast<uint16_t*>(work);
  for (int n = 0; n < num; ++n) {
    const float* const from = bottom + n * blocks * map;
    float* const to = top + n * Groups(out_channels, kRows) * top_map;
#pragma omp parallel
    {
#pragma omp for collapse(2)
      for (int depth = 0; depth < lines.depths; ++depth) {
        for (int y = 0; y < lines.height; ++y) {
          uint16_t* const at =
              image + (static_cast<size_t>(depth) * lines.height + y) * line;
          const int row = y - pad_height;
          if (row < 0 || row >= height) {
            std::memset(at, 0, line * sizeof(uint16_t));
            continue;
          }
          const float* const low =
              from + 2 * depth * map + static_cast<size_t>(row) * width * kRows;
          RoundLine(low, 2 * depth + 1 < blocks ? low + map : NULL, width,
              pad_width, at);
        }
      }
      if (HasTiles()) { tiles::BeginTiles(); }
#pragma omp for
      for (int item = 0; item < bands * parts * lines.pairs; ++item) {
        const int places = bands * parts;
        const int pair = pairs_first ? item % lines.pairs : item / places;
        const int place = pairs_first ? item / lines.pairs : item % places;
        const int first = place / parts * band, left = place % parts * part;
        MultiplyBand(lines, reinterpret_cast<const char*>(image),
            static_cast<const char*>(packed), biases.data(), rectify, pair, first,
            std::min(first + band, out_height), left,
            std::min(left + part, out_width), to);
      }
      if (HasTiles()) { tiles::EndTiles(); }
    }
  }
#else
  LOG(FATAL) << "no products of bfloat16 on this processor";
#endif
}

}  // namespace caffe
