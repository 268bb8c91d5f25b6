#ifndef CAFFE_UTIL_BILINEAR_INTERPOLATION_CUH_
#define CAFFE_UTIL_BILINEAR_INTERPOLATION_CUH_

#include <cstddef>

#include "caffe/util/bilinear_interpolation.hpp"
#include "caffe/gpu/cuda_block.hpp"

namespace caffe {

/// Each thread of the kernels below does the same place of this many maps, so
/// that the taps' divisions are shared out and that many loads are under way.
const int kBilinearGroup = 8;

/// Threads of a launch over `maps` maps of `places` places. With maps * places
/// at most INT_MAX it fits, rounded up to whole blocks, too.
inline unsigned int BilinearThreads(int maps, int places) {
  const unsigned int groups = (maps - 1) / kBilinearGroup + 1;
  return groups * places;
}

/**
 * Interpolates the rows x columns of each map to height x width.
 *
 * A thread for each output pixel and group of maps; neighbouring threads write
 * neighbouring pixels.
 *
 * @param input  maps x rows.length x columns.length
 * @param output maps x height x width
 */
template <typename Dtype>
__global__ void BilinearForwardKernel(int maps, BilinearWindow rows,
    BilinearWindow columns, int height, int width,
    const Dtype* __restrict__ input, Dtype* __restrict__ output) {
  const unsigned int area = static_cast<unsigned int>(height) * width;
  const unsigned int thread = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned int group = thread / area;
  const unsigned int first_map = group * kBilinearGroup;
  if (first_map >= static_cast<unsigned int>(maps)) { return; }
  const unsigned int pixel = thread - group * area;
  const int y = pixel / width;
  const int x = pixel - y * width;
  const BilinearTap<Dtype> row = GetBilinearTap<Dtype>(y, height, rows);
  const BilinearTap<Dtype> column = GetBilinearTap<Dtype>(x, width, columns);
  const size_t input_width = columns.length;
  const size_t input_area = rows.length * input_width;
  input += first_map * input_area;
  const Dtype* const low = input + row.low * input_width;
  const Dtype* const high = input + row.high * input_width;
  output += static_cast<size_t>(first_map) * area + pixel;
  const int count = min(maps - static_cast<int>(first_map), kBilinearGroup);
  CUDA_UNROLL
  for (int k = 0; k < kBilinearGroup; ++k) {
    if (k < count) {
      const size_t map = k * input_area;
      const Dtype above = (1 - column.weight) * low[map + column.low] +
          column.weight * low[map + column.high];
      const Dtype below = (1 - column.weight) * high[map + column.low] +
          column.weight * high[map + column.high];
      output[static_cast<size_t>(k) * area] =
          (1 - row.weight) * above + row.weight * below;
    }
  }
}

/**
 * The transpose of the interpolation along one axis,
 * @f$ dx_{a,i,b} = \sum_o w_{o,i} \, dy_{a,o,b} @f$, where @f$ w_{o,i} @f$ says
 * how much input i counts in output o; outside of the window it is 0.
 *
 * Each sum is one thread's, over the outputs that used the input, in their
 * order: nothing is added atomically, and every run gives the same bits.
 *
 * @param output_diff dy, maps x output_size x inner
 * @param input_diff  dx, maps x window.length x inner; overwritten
 */
template <typename Dtype>
__global__ void BilinearTransposeKernel(int maps, BilinearWindow window,
    int output_size, int inner, const Dtype* __restrict__ output_diff,
    Dtype* __restrict__ input_diff) {
  const unsigned int places = static_cast<unsigned int>(window.length) * inner;
  const unsigned int thread = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned int group = thread / places;
  const unsigned int first_map = group * kBilinearGroup;
  if (first_map >= static_cast<unsigned int>(maps)) { return; }
  const unsigned int place = thread - group * places;
  const int i = place / inner;
  const BilinearSpan span = GetBilinearSpan(i, window, output_size);
  const size_t output_places = static_cast<size_t>(output_size) * inner;
  output_diff += first_map * output_places + (place - i * inner);
  input_diff += static_cast<size_t>(first_map) * places + place;
  const int count = min(maps - static_cast<int>(first_map), kBilinearGroup);
  Dtype sums[kBilinearGroup];
  CUDA_UNROLL
  for (int k = 0; k < kBilinearGroup; ++k) { sums[k] = 0; }
  for (int o = span.begin; o < span.end; ++o) {
    const Dtype weight = GetBilinearWeight(
        GetBilinearTap<Dtype>(o, output_size, window), i);
    const Dtype* const source = output_diff + static_cast<size_t>(o) * inner;
    CUDA_UNROLL
    for (int k = 0; k < kBilinearGroup; ++k) {
      if (k < count) { sums[k] += weight * source[k * output_places]; }
    }
  }
  CUDA_UNROLL
  for (int k = 0; k < kBilinearGroup; ++k) {
    if (k < count) { input_diff[static_cast<size_t>(k) * places] = sums[k]; }
  }
}

/// One launch of BilinearTransposeKernel.
struct BilinearAxis {
  int maps;
  BilinearWindow window;
  int output_size;
  int inner;

  unsigned int Threads() const {
    return BilinearThreads(maps, window.length * inner);
  }
  /// Values that the launch writes.
  int Count() const { return maps * window.length * inner; }
};

/**
 * The transpose of BilinearForwardKernel along both axes: axes[0] brings
 * maps x height x width to an intermediate map, and axes[1] that one to
 * maps x rows.length x columns.length. The axis after which less is left comes
 * first: so the intermediate map is no larger than the larger one of the
 * others, also where one axis grows and the other one shrinks.
 */
inline void GetBilinearBackward(int maps, const BilinearWindow& rows,
    const BilinearWindow& columns, int height, int width,
    BilinearAxis axes[2]) {
  const bool rows_first = static_cast<size_t>(rows.length) * width <=
      static_cast<size_t>(height) * columns.length;
  const BilinearAxis down =
      { maps, rows, height, rows_first ? width : columns.length };
  const BilinearAxis across =
      { maps * (rows_first ? rows.length : height), columns, width, 1 };
  axes[0] = rows_first ? down : across;
  axes[1] = rows_first ? across : down;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_BILINEAR_INTERPOLATION_CUH_
