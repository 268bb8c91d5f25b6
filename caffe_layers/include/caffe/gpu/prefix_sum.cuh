#ifndef CAFFE_GPU_PREFIX_SUM_CUH_
#define CAFFE_GPU_PREFIX_SUM_CUH_

#include "caffe/gpu/cuda_block.hpp"

namespace caffe {

/// A block of kSumThreads adds up a tile of kSumTile numbers, each thread
/// kSumItems that follow each other.
const int kSumThreads = 256;
const int kSumItems = 8;
const int kSumTile = kSumThreads * kSumItems;

inline int SumTiles(int count) { return (count - 1) / kSumTile + 1; }

/// Numbers in memory; the kernels take anything else that gives an int for an
/// index.
struct StoredNumbers {
  const int* numbers;
  CUDA_INLINE int operator()(int i) const { return numbers[i]; }
};

/**
 * The sum of `mine` of the threads before this one; `total` becomes that of
 * all. To be called by all threads of a block of kSumThreads.
 *
 * @param shared kSumThreads numbers, free again after the call
 */
CUDA_INLINE int SumOfThreadsBefore(int mine, int* shared, int* total) {
  const int thread = threadIdx.x;
  shared[thread] = mine;
  __syncthreads();
  for (int distance = 1; distance < kSumThreads; distance *= 2) {
    const int before = thread >= distance ? shared[thread - distance] : 0;
    __syncthreads();
    shared[thread] += before;
    __syncthreads();
  }
  *total = shared[kSumThreads - 1];
  const int inclusive = shared[thread];
  __syncthreads();
  return inclusive - mine;
}

/// sums[t] = the sum of tile t. One block for each tile.
template <class Numbers>
__global__ void SumTilesKernel(int count, Numbers numbers, int* sums) {
  __shared__ int shared[kSumThreads];
  const int begin = blockIdx.x * kSumTile + threadIdx.x * kSumItems;
  int sum = 0;
  CUDA_UNROLL
  for (int k = 0; k < kSumItems; ++k) {
    sum += begin + k < count ? numbers(begin + k) : 0;
  }
  int total;
  SumOfThreadsBefore(sum, shared, &total);
  if (threadIdx.x == 0) { sums[blockIdx.x] = total; }
}

/// sums[t] = the sum of all tiles before t; *total = that of all. One block.
/// (In a header a kernel is a template, be there a type or not.)
template <typename Unused>
__global__ void SumsBeforeTilesKernel(int tiles, int* sums, int* total) {
  __shared__ int shared[kSumThreads];
  int before = 0;
  for (int first = 0; first < tiles; first += kSumThreads) {
    const int tile = first + threadIdx.x;
    int sum_of_step;
    const int mine = SumOfThreadsBefore(tile < tiles ? sums[tile] : 0, shared,
        &sum_of_step);
    if (tile < tiles) { sums[tile] = before + mine; }
    before += sum_of_step;
  }
  if (threadIdx.x == 0) { *total = before; }
}

/// result[i] = the sum of all numbers before i; result may be the numbers'
/// place. One block for each tile.
template <class Numbers>
__global__ void SumsBeforeKernel(int count, Numbers numbers, const int* sums,
    int* result) {
  __shared__ int shared[kSumThreads];
  const int begin = blockIdx.x * kSumTile + threadIdx.x * kSumItems;
  int mine[kSumItems];
  int sum = 0;
  CUDA_UNROLL
  for (int k = 0; k < kSumItems; ++k) {
    mine[k] = begin + k < count ? numbers(begin + k) : 0;
    sum += mine[k];
  }
  int total;
  int before = sums[blockIdx.x] + SumOfThreadsBefore(sum, shared, &total);
  CUDA_UNROLL
  for (int k = 0; k < kSumItems; ++k) {
    if (begin + k < count) { result[begin + k] = before; }
    before += mine[k];
  }
}

/**
 * @brief result[i] = the sum of all numbers before i, on a device.
 *
 * @param sums SumTiles(count) + 1 numbers; the last one becomes the sum of all
 */
template <class Device, class Numbers>
void LaunchPrefixSum(Device* device, int count, const Numbers& numbers,
    int* sums, int* result) {
  const int tiles = SumTiles(count);
  device->Launch(&SumTilesKernel<Numbers>, dim3(tiles), dim3(kSumThreads), 0,
      count, numbers, sums);
  device->Launch(&SumsBeforeTilesKernel<void>, dim3(1), dim3(kSumThreads), 0,
      tiles, sums, sums + tiles);
  device->Launch(&SumsBeforeKernel<Numbers>, dim3(tiles), dim3(kSumThreads), 0,
      count, numbers, static_cast<const int*>(sums), result);
}

}  // namespace caffe

#endif  // CAFFE_GPU_PREFIX_SUM_CUH_
