#ifndef CAFFE_GPU_STABLE_SORT_CUH_
#define CAFFE_GPU_STABLE_SORT_CUH_

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/gpu/prefix_sum.cuh"

namespace caffe {

/// A pass of the sort goes by one digit of the keys. A block sorts kSortTile
/// items, each of its warps kSortRounds times 32 that follow each other.
const int kDigitBits = 8;
const int kDigits = 1 << kDigitBits;
const int kSortThreads = kDigits;
const int kSortWarps = kSortThreads / 32;
const int kSortRounds = 8;
const int kSortTile = kSortThreads * kSortRounds;

inline int SortTiles(int count) { return (count - 1) / kSortTile + 1; }

/// The lanes of this warp whose value is the same; all lanes must ask.
#ifdef CAFFE_CUDA_EMULATION
inline unsigned EqualLanes(int value) {
  struct Lane { int value; unsigned equal; } mine = {value, 0};
  emulation::WarpCollective(0xFFFFFFFFu, &mine, [](Lane* const* lanes) {
    for (int i = 0; i < 32; ++i) {
      for (int k = 0; k < 32; ++k) {
        if (lanes[i]->value == lanes[k]->value) { lanes[i]->equal |= 1u << k; }
      }
    }
  });
  return mine.equal;
}
inline int CountOf(unsigned lanes) { return __builtin_popcount(lanes); }
#elif defined(__CUDACC__)
CUDA_INLINE unsigned EqualLanes(int value) {
  return __match_any_sync(0xFFFFFFFFu, value);
}
CUDA_INLINE int CountOf(unsigned lanes) { return __popc(lanes); }
#endif

/// What is sorted: numbers, by the keys that they stand for.
struct SortPass {
  int count;
  const int* keys;   // of every number
  const int* from;   // NULL: 0, 1, 2 ...
  int* to;
  int shift;         // of the digit within a key

  CUDA_INLINE int Number(int i) const { return from == NULL ? i : from[i]; }
  CUDA_INLINE int Digit(int number) const {
    return keys[number] >> shift & (kDigits - 1);
  }
};

/// counts[digit * tiles + tile] = how often the digit is in the tile.
template <typename Unused>
__global__ void CountDigitsKernel(SortPass pass, int* counts) {
  __shared__ int mine[kDigits];
  mine[threadIdx.x] = 0;
  __syncthreads();
  const int begin = blockIdx.x * kSortTile;
  for (int i = begin + threadIdx.x; i < begin + kSortTile; i += kSortThreads) {
    if (i < pass.count) { atomicAdd(&mine[pass.Digit(pass.Number(i))], 1); }
  }
  __syncthreads();
  counts[threadIdx.x * gridDim.x + blockIdx.x] = mine[threadIdx.x];
}

/**
 * Brings every number to its place by this digit; numbers of equal digits stay
 * in their order.
 *
 * @param places kDigits x tiles: the prefix sum of what CountDigitsKernel
 *        counted
 */
template <typename Unused>
__global__ void SortByDigitKernel(SortPass pass, const int* places) {
  __shared__ int next[kSortWarps][kDigits];
  const int thread = threadIdx.x;
  const int warp = thread / 32, lane = thread % 32;
  for (int w = 0; w < kSortWarps; ++w) { next[w][thread] = 0; }
  __syncthreads();
  const int begin =
      blockIdx.x * kSortTile + warp * 32 * kSortRounds + lane;
  int number[kSortRounds], digit[kSortRounds];
  CUDA_UNROLL
  for (int round = 0; round < kSortRounds; ++round) {
    const int i = begin + 32 * round;
    number[round] = i < pass.count ? pass.Number(i) : 0;
    digit[round] = i < pass.count ? pass.Digit(number[round]) : kDigits;
    if (i < pass.count) { atomicAdd(&next[warp][digit[round]], 1); }
  }
  __syncthreads();
  // thread = digit: where the first one of each warp goes
  int place = places[thread * gridDim.x + blockIdx.x];
  for (int w = 0; w < kSortWarps; ++w) {
    const int count = next[w][thread];
    next[w][thread] = place;
    place += count;
  }
  __syncthreads();
  CUDA_UNROLL
  for (int round = 0; round < kSortRounds; ++round) {
    const unsigned equal = EqualLanes(digit[round]);
    const int before = CountOf(equal & ((1u << lane) - 1));
    const bool exists = digit[round] < kDigits;
    const int first = exists ? next[warp][digit[round]] : 0;
    __syncwarp();
    if (exists && before == 0) {
      next[warp][digit[round]] = first + CountOf(equal);
    }
    __syncwarp();
    if (exists) { pass.to[first + before] = number[round]; }
  }
}

/// Room that SortByKeys needs, in ints.
inline int SortCounts(int count) { return kDigits * SortTiles(count); }

/**
 * @brief The numbers 0 .. count - 1 in the order of their keys, and those of
 *        equal keys in their own, on a device: a radix sort.
 *
 * @param keys   of every number, 0 .. largest
 * @param sorted two buffers of count
 * @param counts SortCounts(count)
 * @param sums   SumTiles(SortCounts(count)) + 1
 * @return the buffer that has the result
 */
template <class Device>
int* SortByKeys(Device* device, int count, const int* keys, int largest,
    int* const* sorted, int* counts, int* sums) {
  SortPass pass = {count, keys, NULL, sorted[0], 0};
  const int tiles = SortTiles(count);
  while (true) {
    device->Launch(&CountDigitsKernel<void>, dim3(tiles), dim3(kSortThreads),
        0, pass, counts);
    const StoredNumbers numbers = {counts};
    LaunchPrefixSum(device, SortCounts(count), numbers, sums, counts);
    device->Launch(&SortByDigitKernel<void>, dim3(tiles), dim3(kSortThreads),
        0, pass, static_cast<const int*>(counts));
    pass.shift += kDigitBits;
    if (pass.shift > 30 || largest >> pass.shift == 0) { return pass.to; }
    pass.from = pass.to;
    pass.to = pass.to == sorted[0] ? sorted[1] : sorted[0];
  }
}

}  // namespace caffe

#endif  // CAFFE_GPU_STABLE_SORT_CUH_
