#ifndef CAFFE_GPU_BIAS_AND_RELU_CUH_
#define CAFFE_GPU_BIAS_AND_RELU_CUH_

#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"

namespace caffe {

/// Places that each thread of a block does, one block's width apart.
const int kBiasAndReluPlaces = 4;

/// Blocks of a launch, over one map each.
inline unsigned int BiasAndReluBlocks(int area, int threads) {
  const int places = threads * kBiasAndReluPlaces;
  return (area - 1) / places + 1;
}

/**
 * Adds a bias to each map and makes 0 of what is negative then; NaN stays.
 *
 * A block for a piece of a map, blockIdx.x, and a row of blocks, blockIdx.y, for
 * some maps one after another: a grid has fewer rows than a batch may have maps.
 *
 * @param maps     images times channels
 * @param bias     of each channel, or null
 * @param y        maps x area, changed in place
 */
template <typename Dtype>
__global__ void BiasAndReluKernel(int maps, int channels, int area,
    const Dtype* __restrict__ bias, Dtype* __restrict__ y) {
  const unsigned int first =
      blockIdx.x * blockDim.x * kBiasAndReluPlaces + threadIdx.x;
  for (int map = blockIdx.y; map < maps; map += gridDim.y) {
    const Dtype added = bias == nullptr ? Dtype(0) : bias[map % channels];
    Dtype* const values = y + static_cast<size_t>(map) * area;
    CUDA_UNROLL
    for (int k = 0; k < kBiasAndReluPlaces; ++k) {
      const unsigned int place = first + k * blockDim.x;
      if (place < static_cast<unsigned int>(area)) {
        const Dtype value = values[place] + added;
        values[place] = value <= 0 ? Dtype(0) : value;
      }
    }
  }
}

}  // namespace caffe

#endif  // CAFFE_GPU_BIAS_AND_RELU_CUH_
