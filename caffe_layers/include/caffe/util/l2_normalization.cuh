#ifndef CAFFE_UTIL_L2_NORMALIZATION_CUH_
#define CAFFE_UTIL_L2_NORMALIZATION_CUH_

#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/util/l2_normalization.hpp"

namespace caffe {

const int kL2Threads = 256;
/// Values of a map that a block adds up: a power of two times the threads.
const int kL2Tile = kL2Threads * 64;

/// Blocks that add up a map of `size` values; each leaves two sums.
inline int L2Tiles(int size) { return (size - 1) / kL2Tile + 1; }

/**
 * sums[(map * tiles + tile) * 2 + 0] = the tile's part of x . x, and
 * sums[... + 1] that of x . dy (0 where there is no dy).
 *
 * A block for each tile (x) and map (y). Each sum has one order, so every run
 * gives the same bits.
 *
 * @param x    maps x size
 * @param dy   maps x size, or NULL
 * @param sums maps x tiles x 2
 */
template <typename Dtype>
__global__ void L2SumsKernel(int size, const Dtype* __restrict__ x,
    const Dtype* __restrict__ dy, double* __restrict__ sums) {
  __shared__ double shared[2 * kL2Threads];
  const int thread = threadIdx.x;
  const int begin = blockIdx.x * kL2Tile;
  const int end = begin + min(kL2Tile, size - begin);
  const size_t map = static_cast<size_t>(blockIdx.y) * size;
  double squares = 0, product = 0;
  for (int i = begin + thread; i < end; i += kL2Threads) {
    const double value = x[map + i];
    squares += value * value;
    if (dy != NULL) { product += value * dy[map + i]; }
  }
  shared[thread] = squares;
  shared[kL2Threads + thread] = product;
  __syncthreads();
  for (int half = kL2Threads / 2; half > 0; half /= 2) {
    if (thread < half) {
      shared[thread] += shared[thread + half];
      shared[kL2Threads + thread] += shared[kL2Threads + thread + half];
    }
    __syncthreads();
  }
  if (thread < 2) {
    sums[(static_cast<size_t>(blockIdx.y) * gridDim.x + blockIdx.x) * 2 +
        thread] = shared[thread * kL2Threads];
  }
}

/// The factors of one map, from its tiles' sums; the same in every thread.
CUDA_INLINE L2Factors L2FactorsOf(const double* sums, int tiles,
    double scale) {
  double squares = 0, product = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    squares += sums[2 * tile];
    product += sums[2 * tile + 1];
  }
  return GetL2Factors(scale, squares, product);
}

/**
 * What L2SumsKernel is followed by, with the same grid: y = map * x where there
 * is no dy, else dx = same * dy - along * x.
 */
template <typename Dtype>
__global__ void L2ApplyKernel(int size, double scale,
    const double* __restrict__ sums, const Dtype* __restrict__ x,
    const Dtype* __restrict__ dy, Dtype* __restrict__ result) {
  const int begin = blockIdx.x * kL2Tile;
  const int end = begin + min(kL2Tile, size - begin);
  const size_t map = static_cast<size_t>(blockIdx.y) * size;
  const L2Factors factors = L2FactorsOf(
      sums + static_cast<size_t>(blockIdx.y) * gridDim.x * 2, gridDim.x, scale);
  const Dtype of_x = dy == NULL ? factors.map : -factors.along;
  const Dtype of_dy = factors.same;
  for (int i = begin + threadIdx.x; i < end; i += kL2Threads) {
    const Dtype value = of_x * x[map + i];
    result[map + i] = dy == NULL ? value : of_dy * dy[map + i] + value;
  }
}

/// Maps that go into one launch: the y of a grid has 16 bits.
const int kL2MapsOfLaunch = 65535;

/**
 * @brief y = scale * x / |x| for each map, or (with dy) the gradient dx.
 *
 * @param sums maps x L2Tiles(size) x 2
 */
template <class Device, typename Dtype>
void LaunchL2Normalization(Device* device, int maps, int size, double scale,
    const Dtype* x, const Dtype* dy, double* sums, Dtype* result) {
  const int tiles = L2Tiles(size);
  for (int first = 0; first < maps; first += kL2MapsOfLaunch) {
    const int count =
        maps - first < kL2MapsOfLaunch ? maps - first : kL2MapsOfLaunch;
    const size_t offset = static_cast<size_t>(first) * size;
    double* const sums_here = sums + static_cast<size_t>(first) * tiles * 2;
    const Dtype* const dy_here = dy == NULL ? NULL : dy + offset;
    device->Launch(&L2SumsKernel<Dtype>, dim3(tiles, count), dim3(kL2Threads),
        0, size, x + offset, dy_here, sums_here);
    device->Launch(&L2ApplyKernel<Dtype>, dim3(tiles, count), dim3(kL2Threads),
        0, size, scale, static_cast<const double*>(sums_here), x + offset,
        dy_here, result + offset);
  }
}

}  // namespace caffe

#endif  // CAFFE_UTIL_L2_NORMALIZATION_CUH_
