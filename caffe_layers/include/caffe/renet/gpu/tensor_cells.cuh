#ifndef CAFFE_RENET_GPU_TENSOR_CELLS_CUH_
#define CAFFE_RENET_GPU_TENSOR_CELLS_CUH_

#include <cstddef>
#include <cstdint>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/renet/cell.hpp"
#include "caffe/renet/gpu/scan.hpp"
#include "caffe/renet/gpu/units.cuh"

/// The cells of a lane beside the products on tensor cores: where they are in
/// the maps, what they read and keep, and what they compute with.
namespace caffe {
namespace tensor_scan {

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
  /// values: column `gate` * d + unit of a map, T*L x 2 x `gates` * d, for each
  /// of the four cells; zeros outside.
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
  /// The row of operands that cell q writes to; lines: 8 x stride words.
  CUDA_INLINE static uint32_t* Operands(uint32_t* lines, int stride, int q) {
    return lines + (threadIdx.x % 4 * 2 + q % 2) * stride;
  }
};

/// An element of a gate's block of weights, G*d x d; zero outside.
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
CUDA_INLINE bool operator<(Fast a, Fast b) { return a.value < b.value; }
CUDA_INLINE bool operator>(Fast a, Fast b) { return a.value > b.value; }
CUDA_INLINE Fast& operator+=(Fast& a, Fast b) { return a = a + b; }
CUDA_INLINE Fast& operator*=(Fast& a, Fast b) { return a = a * b; }
CUDA_INLINE Fast Sigmoid(Fast x) { return renet::Sigmoid(x.value); }
/// 1 - 2 / (e^2x + 1), which is right at both ends: e^2x may be 0 or infinite.
CUDA_INLINE Fast Tanh(Fast x) {
  return 1.f - __fdividef(2.f, 1.f + __expf(2.f * x.value));
}

/// Those of a lane's two units.
struct Peepholes {
  renet::Peephole<Fast> of_unit[2];
};

/// The peepholes of the lane's unit i (0 or 1), or zeros.
template <class Unit>
CUDA_INLINE renet::Peephole<Fast> OfLane(const ReNetScan<float>& s,
    const Cells& cells, int i) {
  const int unit = cells.unit + 8 * i;
  const float* const weights = OfScan(s.peephole, cells.scan);
  const renet::Peephole<float> p = renet::ReadPeephole<Unit>(
      unit < cells.hidden ? weights : NULL, unit, cells.hidden);
  const renet::Peephole<Fast> fast = {p.i, p.f, p.o};
  return fast;
}

/// Asks for the 32 bytes at an address that will be read soon.
CUDA_INLINE void Prefetch(const float* address) {
#ifdef __CUDA_ARCH__
  asm volatile("prefetch.L2 [%0];" : : "l"(address));
#else
  (void)*const_cast<const volatile float*>(address);  // it must be there
#endif
}

/// Prefetches what a warp reads in a backward step: each map's share is left to
/// one group of 4 lanes, first the gates' (one group each), then those of the
/// state at the step before, and of states_diff.
template <class Unit>
CUDA_INLINE void PrefetchStep(const ReNetScan<float>& s, const Cells& cells,
    int tile, int step) {
  constexpr int kStateGroup = Unit::kReadsBefore ? Unit::kGates : -1;
  constexpr int kTopGroup = Unit::kGates + (Unit::kReadsBefore ? 1 : 0);
  const int group = threadIdx.x % 32 / 4;
  const float* const map = group < Unit::kGates
      ? Unit::KeptGates(s) + group * cells.hidden
      : group == kStateGroup ? Unit::KeptState(s) : s.states_diff;
  const int width =
      group < Unit::kGates ? Unit::kGates * cells.hidden : cells.hidden;
  const int position = group == kStateGroup ? step - 1 : step;
  if (group > kTopGroup || position < 0) return;
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

/// A thread's own four floats of each tile in shared memory, tiles x threads:
/// what it carries from step to step.
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

/// Clears `words` 32-bit words of memory, a multiple of 4.
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

}  // namespace tensor_scan
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_TENSOR_CELLS_CUH_
