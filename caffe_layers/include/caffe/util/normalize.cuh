#ifndef CAFFE_UTIL_NORMALIZE_CUH_
#define CAFFE_UTIL_NORMALIZE_CUH_

#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/util/normalize.hpp"

namespace caffe {

const int kNormalizeThreads = 256;
/// Channels of a position that one thread writes.
const int kNormalizeChannels = 16;

/// What a thread of a block has; in the end thread 0 gets the sum of all.
CUDA_INLINE double SumOfBlock(double* shared, double value) {
  const int thread = threadIdx.x;
  shared[thread] = value;
  __syncthreads();
  for (int half = kNormalizeThreads / 2; half > 0; half /= 2) {
    if (thread < half) { shared[thread] += shared[thread + half]; }
    __syncthreads();
  }
  const double sum = shared[0];
  __syncthreads();
  return sum;
}

/**
 * sums[position * 2 + 0] = x . x over the channels, and [... + 1] x . s dy (0
 * where there is no dy). A thread for each position of all maps; neighbours
 * read neighbouring values.
 */
template <typename Dtype>
__global__ void NormalizeSumsKernel(NormalizedShape shape,
    const Dtype* __restrict__ scale, const Dtype* __restrict__ x,
    const Dtype* __restrict__ dy, double* __restrict__ sums) {
  const unsigned int thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= static_cast<unsigned int>(shape.Positions())) { return; }
  const int position = thread;
  size_t place = shape.First(position);
  double squares = 0, product = 0;
  for (int c = 0; c < shape.channels; ++c, place += shape.area) {
    const double value = x[place];
    squares += value * value;
    if (dy != NULL) {
      const double factor = scale[shape.ScaleOf(c)];
      product += value * (factor * dy[place]);
    }
  }
  sums[2 * static_cast<size_t>(position)] = squares;
  sums[2 * static_cast<size_t>(position) + 1] = product;
}

/// A map's first position gets the sums over all of its positions. A block for
/// each map.
template <typename Sum>
__global__ void NormalizeTotalsKernel(NormalizedShape shape, Sum* sums) {
  __shared__ double shared[kNormalizeThreads];
  Sum* const own = sums + 2 * static_cast<size_t>(blockIdx.x) * shape.area;
  double squares = 0, product = 0;
  for (int i = threadIdx.x; i < shape.area; i += kNormalizeThreads) {
    squares += own[2 * i];
    product += own[2 * i + 1];
  }
  squares = SumOfBlock(shared, squares);
  product = SumOfBlock(shared, product);
  if (threadIdx.x == 0) {
    own[0] = squares;
    own[1] = product;
  }
}

/// y from x where there is no dy, else dx. A thread for each position (x) and
/// kNormalizeChannels channels (y).
template <typename Dtype>
__global__ void NormalizeApplyKernel(NormalizedShape shape,
    const Dtype* __restrict__ scale, const double* __restrict__ sums,
    const Dtype* __restrict__ x, const Dtype* __restrict__ dy,
    Dtype* __restrict__ result) {
  const unsigned int thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= static_cast<unsigned int>(shape.Positions())) { return; }
  const int position = thread;
  const L2Factors factors = shape.FactorsOf(sums, position);
  const Dtype same = factors.same, along = factors.along;
  for (int first = blockIdx.y * kNormalizeChannels; first < shape.channels;
      first += gridDim.y * kNormalizeChannels) {
    const int end = min(first + kNormalizeChannels, shape.channels);
    for (int c = first; c < end; ++c) {
      const size_t place =
          shape.First(position) + static_cast<size_t>(c) * shape.area;
      const Dtype factor = scale[shape.ScaleOf(c)] * same;
      result[place] = dy == NULL ? factor * x[place] :
          factor * dy[place] - along * x[place];
    }
  }
}

/// channel_sums[c] = the sum of x dy / norm over the channel. A block for each
/// channel; each sum has one order.
template <typename Dtype>
__global__ void NormalizeChannelSumsKernel(NormalizedShape shape,
    const double* __restrict__ sums, const Dtype* __restrict__ x,
    const Dtype* __restrict__ dy, double* __restrict__ channel_sums) {
  __shared__ double shared[kNormalizeThreads];
  const int channel = blockIdx.x;
  double sum = 0;
  for (int position = threadIdx.x; position < shape.Positions();
      position += kNormalizeThreads) {
    const size_t place =
        shape.First(position) + static_cast<size_t>(channel) * shape.area;
    const double value = x[place];
    sum += shape.FactorsOf(sums, position).map * value * dy[place];
  }
  sum = SumOfBlock(shared, sum);
  if (threadIdx.x == 0) { channel_sums[channel] = sum; }
}

/// Adds the channels' sums to their scales' gradients, or all to the one
/// scale's. A thread for each channel, or one.
template <typename Dtype>
__global__ void NormalizeScaleKernel(NormalizedShape shape,
    const double* __restrict__ channel_sums, Dtype* __restrict__ scale_diff) {
  const int thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (thread >= (shape.shared ? 1 : shape.channels)) { return; }
  double sum = 0;
  const int end = shape.shared ? shape.channels : thread + 1;
  for (int c = thread; c < end; ++c) { sum += channel_sums[c]; }
  scale_diff[thread] += sum;
}

inline dim3 NormalizeBlocks(int count, int rows = 1) {
  return dim3((count - 1) / kNormalizeThreads + 1, rows);
}

/// Fills the sums, see NormalizeLayer.
template <class Device, typename Dtype>
void LaunchNormalizeSums(Device* device, const NormalizedShape& shape,
    const Dtype* scale, const Dtype* x, const Dtype* dy, double* sums) {
  const dim3 threads(kNormalizeThreads);
  device->Launch(&NormalizeSumsKernel<Dtype>,
      NormalizeBlocks(shape.Positions()), threads, 0, shape, scale, x, dy,
      sums);
  if (shape.across) {
    device->Launch(&NormalizeTotalsKernel<double>, dim3(shape.num), threads, 0, shape,
        sums);
  }
}

/// y from x, or (with dy) dx, after the sums.
template <class Device, typename Dtype>
void LaunchNormalizeApply(Device* device, const NormalizedShape& shape,
    const Dtype* scale, const double* sums, const Dtype* x, const Dtype* dy,
    Dtype* result) {
  const int groups = (shape.channels - 1) / kNormalizeChannels + 1;
  device->Launch(&NormalizeApplyKernel<Dtype>,
      NormalizeBlocks(shape.Positions(), groups < 1024 ? groups : 1024),
      dim3(kNormalizeThreads), 0, shape, scale, sums, x, dy, result);
}

/// Adds to the scale's gradient, after the sums; channel_sums: C.
template <class Device, typename Dtype>
void LaunchNormalizeScale(Device* device, const NormalizedShape& shape,
    const double* sums, const Dtype* x, const Dtype* dy, double* channel_sums,
    Dtype* scale_diff) {
  const dim3 threads(kNormalizeThreads);
  device->Launch(&NormalizeChannelSumsKernel<Dtype>, dim3(shape.channels),
      threads, 0, shape, sums, x, dy, channel_sums);
  device->Launch(&NormalizeScaleKernel<Dtype>, NormalizeBlocks(shape.channels),
      threads, 0, shape, static_cast<const double*>(channel_sums), scale_diff);
}

}  // namespace caffe

#endif  // CAFFE_UTIL_NORMALIZE_CUH_
