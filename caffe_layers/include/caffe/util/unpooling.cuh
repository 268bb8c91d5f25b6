#ifndef CAFFE_UTIL_UNPOOLING_CUH_
#define CAFFE_UTIL_UNPOOLING_CUH_

#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/util/unpooling.hpp"

namespace caffe {

const int kUnpoolingThreads = 256;

/**
 * Which window each place of the maps gets its value from: the last one that
 * goes there. The order in which threads run decides nothing.
 *
 * @param count   windows of all maps
 * @param mask    of all windows; NULL: there is none
 * @param winners a window's number + 1 for each place of all maps; 0 before, and
 *                where no window goes
 * @param bad     the number + 1 of the last window whose mask is no place; 0
 *                before, and where there is none
 */
template <typename Dtype>
__global__ void UnpoolingWinnersKernel(int count, PoolingAxis rows,
    PoolingAxis columns, const Dtype* __restrict__ mask, int* winners,
    int* bad) {
  const unsigned int thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= static_cast<unsigned int>(count)) { return; }
  const int window = thread;
  const int map = window / (rows.windows * columns.windows);
  const int place = UnpooledPlace(rows, columns, mask, window);
  if (place < 0) {
    atomicMax(bad, window + 1);
  } else {
    atomicMax(winners + static_cast<size_t>(map) * rows.size * columns.size +
        place, window + 1);
  }
}

/// top = the winners' values, of `count` places.
template <typename Dtype>
__global__ void UnpoolingForwardKernel(int count,
    const int* __restrict__ winners, const Dtype* __restrict__ bottom,
    Dtype* __restrict__ top) {
  const unsigned int place = blockIdx.x * blockDim.x + threadIdx.x;
  if (place >= static_cast<unsigned int>(count)) { return; }
  top[place] = winners[place] > 0 ? bottom[winners[place] - 1] : Dtype(0);
}

/// A winner gets the gradient of its place, another window 0.
template <typename Dtype>
__global__ void UnpoolingBackwardKernel(int count, PoolingAxis rows,
    PoolingAxis columns, const Dtype* __restrict__ mask,
    const int* __restrict__ winners, const Dtype* __restrict__ top_diff,
    Dtype* __restrict__ bottom_diff) {
  const unsigned int thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= static_cast<unsigned int>(count)) { return; }
  const int window = thread;
  const int map = window / (rows.windows * columns.windows);
  const int place = UnpooledPlace(rows, columns, mask, window);
  const size_t there =
      static_cast<size_t>(map) * rows.size * columns.size + place;
  bottom_diff[window] = place >= 0 && winners[there] == window + 1 ?
      top_diff[there] : Dtype(0);
}

/// SpreadValue for `count` places of all maps.
template <typename Dtype>
__global__ void UnpoolingSpreadKernel(int count, PoolingAxis rows,
    PoolingAxis columns, bool average, const Dtype* __restrict__ bottom,
    Dtype* __restrict__ top) {
  const unsigned int place = blockIdx.x * blockDim.x + threadIdx.x;
  if (place >= static_cast<unsigned int>(count)) { return; }
  const int area = rows.size * columns.size;
  const int map = place / area;
  top[place] = SpreadValue(rows, columns, average,
      bottom + static_cast<size_t>(map) * rows.windows * columns.windows,
      static_cast<int>(place - map * area));
}

/// CollectValue for `count` windows of all maps.
template <typename Dtype>
__global__ void UnpoolingCollectKernel(int count, PoolingAxis rows,
    PoolingAxis columns, bool average, const Dtype* __restrict__ top_diff,
    Dtype* __restrict__ bottom_diff) {
  const unsigned int window = blockIdx.x * blockDim.x + threadIdx.x;
  if (window >= static_cast<unsigned int>(count)) { return; }
  const int windows = rows.windows * columns.windows;
  const int map = window / windows;
  bottom_diff[window] = CollectValue(rows, columns, average,
      top_diff + static_cast<size_t>(map) * rows.size * columns.size,
      static_cast<int>(window - map * windows));
}

}  // namespace caffe

#endif  // CAFFE_UTIL_UNPOOLING_CUH_
