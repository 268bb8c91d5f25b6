#ifndef CAFFE_UTIL_BATCH_STATISTICS_CUH_
#define CAFFE_UTIL_BATCH_STATISTICS_CUH_

#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"

namespace caffe {

/**
 * Kernels of BN. A map is num x channels x plane; statistics is 4 x channels, in
 * double: mean, 1 / deviation, and what Backward needs, the means of dy and of
 * dy * x^. sums is channels x tiles x 2. Every sum has one order, so that every
 * run gives the same bits.
 */
const int kBNThreads = 256;
/// Values of a channel that a block adds up: a power of two times the threads.
const int kBNTile = kBNThreads * 16;

/// What a map looks like.
struct BNShape {
  int num, channels, plane;

  CUDA_HOST_INLINE int values() const { return num * plane; }
  /// Blocks that add up a channel.
  CUDA_HOST_INLINE int tiles() const { return (values() - 1) / kBNTile + 1; }
  /// Where value i of a channel lies.
  CUDA_HOST_INLINE size_t place(int channel, int i) const {
    return (static_cast<size_t>(i / plane) * channels + channel) * plane +
        i % plane;
  }
};

/// Where a batch's statistics go beside `statistics`; NULL: nowhere.
template <typename Dtype>
struct BNOutputs {
  Dtype* mean;              // channels
  Dtype* variance;
  Dtype* running_mean;      // momentum * itself + (1 - momentum) * the batch's
  Dtype* running_variance;
  double momentum;
};

enum BNPass { BN_MEAN, BN_VARIANCE, BN_GRADIENT };

/// sums = the tiles' sums of x; of (x - mean)^2; of dy and dy * x^.
template <typename Dtype, int kPass>
__global__ void BNSumsKernel(BNShape shape, const Dtype* __restrict__ x,
    const Dtype* __restrict__ dy, const double* __restrict__ statistics,
    double* __restrict__ sums) {
  __shared__ double shared[2 * kBNThreads];
  const int thread = threadIdx.x;
  const int channel = blockIdx.x / shape.tiles();
  const int begin = blockIdx.x % shape.tiles() * kBNTile;
  const int end = begin + min(kBNTile, shape.values() - begin);
  const double mean = kPass == BN_MEAN ? 0 : statistics[channel];
  const double inverse =
      kPass == BN_GRADIENT ? statistics[shape.channels + channel] : 1;
  double first = 0, second = 0;
  for (int i = begin + thread; i < end; i += kBNThreads) {
    const size_t place = shape.place(channel, i);
    const double value = (x[place] - mean) * inverse;
    if (kPass == BN_MEAN) {
      first += value;
    } else if (kPass == BN_VARIANCE) {
      first += value * value;
    } else {
      first += dy[place];
      second += dy[place] * value;
    }
  }
  shared[thread] = first;
  shared[kBNThreads + thread] = second;
  __syncthreads();
  for (int half = kBNThreads / 2; half > 0; half /= 2) {
    if (thread < half) {
      shared[thread] += shared[thread + half];
      shared[kBNThreads + thread] += shared[kBNThreads + thread + half];
    }
    __syncthreads();
  }
  if (thread < 2) {
    sums[static_cast<size_t>(blockIdx.x) * 2 + thread] =
        shared[thread * kBNThreads];
  }
}

/// What BNSumsKernel is followed by: a thread for each channel. dscale, dshift
/// (channels, or NULL) are added to.
template <typename Dtype, int kPass>
__global__ void BNStatisticsKernel(BNShape shape, double eps,
    const double* __restrict__ sums, BNOutputs<Dtype> outputs,
    double* __restrict__ statistics, Dtype* __restrict__ dscale,
    Dtype* __restrict__ dshift) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= shape.channels) { return; }
  double first = 0, second = 0;
  for (int tile = 0; tile < shape.tiles(); ++tile) {
    const size_t place = (static_cast<size_t>(c) * shape.tiles() + tile) * 2;
    first += sums[place];
    second += sums[place + 1];
  }
  const double mean = first / shape.values();
  Dtype* const out = kPass == BN_MEAN ? outputs.mean : outputs.variance;
  Dtype* const running = kPass == BN_MEAN ? outputs.running_mean :
      outputs.running_variance;
  if (kPass == BN_GRADIENT) {
    statistics[2 * shape.channels + c] = mean;
    statistics[3 * shape.channels + c] = second / shape.values();
    if (dscale != NULL) { dscale[c] += second; }
    if (dshift != NULL) { dshift[c] += first; }
    return;
  }
  statistics[kPass == BN_MEAN ? c : shape.channels + c] =
      kPass == BN_MEAN ? mean : 1 / sqrt(mean + eps);
  if (out != NULL) { out[c] = mean; }
  if (running != NULL) {
    running[c] = outputs.momentum * running[c] + (1 - outputs.momentum) * mean;
  }
}

/// Statistics that do not come from the batch: those given, or (NULL) none.
template <typename Dtype>
__global__ void BNFixedKernel(int channels, double eps,
    const Dtype* __restrict__ mean, const Dtype* __restrict__ variance,
    double* __restrict__ statistics) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= channels) { return; }
  statistics[c] = mean == NULL ? 0 : mean[c];
  statistics[channels + c] = mean == NULL ? 1 : 1 / sqrt(variance[c] + eps);
}

/// y = scale * (x - mean) / deviation + shift.
template <typename Dtype>
__global__ void BNForwardKernel(size_t count, int channels, int plane,
    const double* __restrict__ statistics, const Dtype* __restrict__ scale,
    const Dtype* __restrict__ shift, const Dtype* x, Dtype* y) {
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < count; i += step) {
    const int c = i / plane % channels;
    const Dtype mean = statistics[c];
    const Dtype factor = scale[c] * statistics[channels + c];
    y[i] = factor * (x[i] - mean) + shift[c];
  }
}

/// dx from dy; x is read only where the statistics are the batch's.
template <typename Dtype>
__global__ void BNBackwardKernel(size_t count, int channels, int plane,
    bool of_batch, const double* __restrict__ statistics,
    const Dtype* __restrict__ scale, const Dtype* x, const Dtype* dy,
    Dtype* dx) {
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < count; i += step) {
    const int c = i / plane % channels;
    const Dtype factor = scale[c] * statistics[channels + c];
    Dtype own = dy[i];
    if (of_batch) {
      const Dtype normalized =
          (x[i] - Dtype(statistics[c])) * Dtype(statistics[channels + c]);
      own -= Dtype(statistics[2 * channels + c]) +
          normalized * Dtype(statistics[3 * channels + c]);
    }
    dx[i] = factor * own;
  }
}

/// Blocks of kBNThreads for so many values, a thread for one or more.
inline unsigned int BNBlocks(size_t count) {
  const size_t blocks = (count - 1) / kBNThreads + 1;
  return blocks < 65536 ? blocks : 65536;
}

/// The statistics of a batch into `statistics` and the outputs.
template <class Device, typename Dtype>
void LaunchBNStatistics(Device* device, BNShape shape, double eps,
    const Dtype* x, BNOutputs<Dtype> outputs, double* sums,
    double* statistics) {
  Dtype* const none = NULL;
  const Dtype* const no_dy = NULL;
  const double* const read = statistics;
  const double* const added = sums;
  const dim3 tiles(shape.channels * shape.tiles()), block(kBNThreads);
  const dim3 channels(BNBlocks(shape.channels));
  device->Launch(&BNSumsKernel<Dtype, BN_MEAN>, tiles, block, 0, shape, x,
      no_dy, read, sums);
  device->Launch(&BNStatisticsKernel<Dtype, BN_MEAN>, channels, block, 0,
      shape, eps, added, outputs, statistics, none, none);
  device->Launch(&BNSumsKernel<Dtype, BN_VARIANCE>, tiles, block, 0, shape, x,
      no_dy, read, sums);
  device->Launch(&BNStatisticsKernel<Dtype, BN_VARIANCE>, channels, block, 0,
      shape, eps, added, outputs, statistics, none, none);
}

/// The means of dy and dy * x^ into `statistics`, the gradients of the
/// parameters (or NULL) added.
template <class Device, typename Dtype>
void LaunchBNGradientSums(Device* device, BNShape shape, const Dtype* x,
    const Dtype* dy, double* sums, double* statistics, Dtype* dscale,
    Dtype* dshift) {
  const BNOutputs<Dtype> nowhere = { NULL, NULL, NULL, NULL, 0 };
  const double* const read = statistics;
  const double* const added = sums;
  device->Launch(&BNSumsKernel<Dtype, BN_GRADIENT>,
      dim3(shape.channels * shape.tiles()), dim3(kBNThreads), 0, shape, x, dy,
      read, sums);
  device->Launch(&BNStatisticsKernel<Dtype, BN_GRADIENT>,
      dim3(BNBlocks(shape.channels)), dim3(kBNThreads), 0, shape, 0., added,
      nowhere, statistics, dscale, dshift);
}

}  // namespace caffe

#endif  // CAFFE_UTIL_BATCH_STATISTICS_CUH_
