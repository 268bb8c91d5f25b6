#ifndef CAFFE_CRF_MEAN_FIELD_CUH_
#define CAFFE_CRF_MEAN_FIELD_CUH_

#include <cmath>
#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/crf/permutohedral_filter.cuh"

namespace caffe {

// --- Planes and rows ---------------------------------------------------------

const int kTransposeTile = 32;
const int kTransposeRows = 8;  // a block is kTransposeTile x kTransposeRows

inline dim3 TransposeGrid(int pixels, int classes) {
  return dim3((pixels - 1) / kTransposeTile + 1,
      (classes - 1) / kTransposeTile + 1);
}

/// rows (pixels x stride) = the transpose of planes (classes x pixels), or with
/// kToPlanes the other way round.
template <typename Dtype, bool kToPlanes>
__global__ void TransposePlanesKernel(int pixels, int classes, int stride,
    const Dtype* __restrict__ from, Dtype* __restrict__ to) {
  __shared__ Dtype tile[kTransposeTile][kTransposeTile + 1];
  const int first_pixel = blockIdx.x * kTransposeTile;
  const int first_class = blockIdx.y * kTransposeTile;
  const int x = threadIdx.x;
  for (int y = threadIdx.y; y < kTransposeTile; y += kTransposeRows) {
    const int pixel = first_pixel + (kToPlanes ? y : x);
    const int c = first_class + (kToPlanes ? x : y);
    if (pixel < pixels && c < classes) {
      tile[y][x] = from[kToPlanes ? static_cast<size_t>(pixel) * stride + c :
          static_cast<size_t>(c) * pixels + pixel];
    }
  }
  __syncthreads();
  for (int y = threadIdx.y; y < kTransposeTile; y += kTransposeRows) {
    const int pixel = first_pixel + (kToPlanes ? x : y);
    const int c = first_class + (kToPlanes ? y : x);
    if (pixel < pixels && c < classes) {
      to[kToPlanes ? static_cast<size_t>(c) * pixels + pixel :
          static_cast<size_t>(pixel) * stride + c] = tile[x][y];
    }
  }
}

// --- Messages ----------------------------------------------------------------

/// The weight of a kernel: one for all classes, or one for each.
template <typename Dtype>
struct KernelWeight {
  Dtype common;
  const Dtype* of_class;  // classes; or NULL

  CUDA_INLINE Dtype Of(int c) const {
    return of_class == NULL ? common : of_class[c];
  }
};

/// m = w_1 N_1 q + w_2 N_2 q, where q has been splatted and blurred.
template <typename Dtype>
struct Messages {
  BlurredLattice<Dtype, 3> positional;
  BlurredLattice<Dtype, 6> bilateral;
  KernelWeight<Dtype> weight[2];

  CUDA_INLINE Dtype Of(int pixel, int stride, int c) const {
    Dtype sum = 0;
    if (positional.values != NULL) {
      sum += weight[0].Of(c) * positional.Slice(pixel, stride, c);
    }
    if (bilateral.values != NULL) {
      sum += weight[1].Of(c) * bilateral.Slice(pixel, stride, c);
    }
    return sum;
  }
};

/// message = m; pixels x stride. A thread for each.
template <typename Dtype>
__global__ void __launch_bounds__(kRowThreads, 2) MessageKernel(int pixels,
    int classes, int stride, Messages<Dtype> messages, Dtype* message) {
  const int pixel = BlockRow();
  if (pixel >= pixels) { return; }
  for (int c = threadIdx.x; c < classes; c += blockDim.x) {
    message[static_cast<size_t>(pixel) * stride + c] =
        messages.Of(pixel, stride, c);
  }
}

// --- Softmax -----------------------------------------------------------------

/// A pixel's classes are shared out to a group of lanes: a power of two.
const int kPixelThreads = 128;
inline int PixelLanes(int classes) {
  int lanes = 1;
  while (lanes < classes && lanes < 32) { lanes *= 2; }
  return lanes;
}
inline dim3 PixelGrid(int pixels, int lanes) {
  return dim3((pixels - 1) / (kPixelThreads / lanes) + 1);
}

/// One of the `lanes` that work together on a pixel. All threads of a warp go
/// the whole way, so that the lanes meet; beyond the last pixel they work on
/// that one and keep the result to themselves.
struct PixelLane {
  int pixel;
  int lane;
  bool exists;

  CUDA_INLINE PixelLane(int pixels, int lanes) {
    const int place = blockIdx.x * (kPixelThreads / lanes) +
        static_cast<int>(threadIdx.x) / lanes;
    exists = place < pixels;
    pixel = exists ? place : pixels - 1;
    lane = threadIdx.x % lanes;
  }
};

template <typename Dtype>
CUDA_INLINE Dtype SumOfLanes(Dtype sum, int lanes) {
  for (int bits = lanes / 2; bits > 0; bits /= 2) {
    sum += __shfl_xor_sync(0xFFFFFFFFu, sum, bits);
  }
  return sum;
}

/// What one iteration reads and writes; maps are pixels x stride.
template <typename Dtype>
struct MeanFieldStep {
  int pixels;
  int classes;
  int stride;
  int lanes;  // PixelLanes(classes)
  const Dtype* scores;
  /// Potts: what all classes send is the same for each, so that a class's own
  /// message counts as a gain.
  Messages<Dtype> gain;
  const Dtype* penalty;      // mu m; or NULL
  Dtype* probability;        // or NULL
  Dtype* log_probability;    // or NULL
  /// pixels: the first most probable class, NaN where probabilities are not
  /// numbers; or NULL
  Dtype* label;
};

/**
 * Q = softmax(s + gain - penalty). A group of lanes for each pixel.
 *
 * Dynamic shared memory: kPixelThreads / lanes x classes, of which each lane
 * uses its own classes alone.
 */
template <typename Dtype>
__global__ void __launch_bounds__(kPixelThreads, 8) MeanFieldStepKernel(
    MeanFieldStep<Dtype> step) {
  DYNAMIC_SHARED(Dtype, shared);
  const PixelLane own(step.pixels, step.lanes);
  Dtype* const logits = shared + threadIdx.x / step.lanes * step.classes;
  const size_t row = static_cast<size_t>(own.pixel) * step.stride;
  Dtype largest = 0;
  int best = -1;
  for (int c = own.lane; c < step.classes; c += step.lanes) {
    Dtype logit = step.scores[row + c] +
        step.gain.Of(own.pixel, step.stride, c);
    if (step.penalty != NULL) { logit -= step.penalty[row + c]; }
    logits[c] = logit;
    if (best < 0 || logit > largest) {
      largest = logit;
      best = c;
    }
  }
  for (int bits = step.lanes / 2; bits > 0; bits /= 2) {
    const Dtype other = __shfl_xor_sync(0xFFFFFFFFu, largest, bits);
    const int place = __shfl_xor_sync(0xFFFFFFFFu, best, bits);
    if (place >= 0 && (best < 0 || other > largest ||
        (other == largest && place < best))) {
      largest = other;
      best = place;
    }
  }
  Dtype sum = 0;
  for (int c = own.lane; c < step.classes; c += step.lanes) {
    sum += exp(logits[c] - largest);
  }
  sum = SumOfLanes(sum, step.lanes);
  if (!own.exists) { return; }
  if (step.label != NULL && own.lane == 0) {
    step.label[own.pixel] = sum > 0 ? Dtype(best) : Dtype(NAN);
  }
  const Dtype log_sum = step.log_probability == NULL ? Dtype(0) : log(sum);
  const Dtype inverse = 1 / sum;
  for (int c = own.lane; c < step.classes; c += step.lanes) {
    const Dtype logit = logits[c] - largest;
    if (step.probability != NULL) {
      step.probability[row + c] = exp(logit) * inverse;
    }
    if (step.log_probability != NULL) {
      step.log_probability[row + c] = logit - log_sum;
    }
  }
}

/// What goes through one softmax backwards; maps are pixels x stride.
template <typename Dtype>
struct SoftmaxDiff {
  int pixels;
  int classes;
  int stride;
  int lanes;
  const Dtype* probability;
  const Dtype* diff;  // of Q, or of its logarithm
  bool of_logarithm;
  Dtype sign;         // of what goes to message_diff
  Dtype* message_diff;
  Dtype* score_diff;
  bool add;           // to score_diff
};

/**
 * The gradient of the logits from that of Q or of log Q,
 * @f$ Q_c (g_c - \sum_k Q_k g_k) @f$ or @f$ g_c - Q_c \sum_k g_k @f$:
 * score_diff (+)= gradient, message_diff = sign * gradient.
 */
template <typename Dtype>
__global__ void __launch_bounds__(kPixelThreads, 8) SoftmaxDiffKernel(
    SoftmaxDiff<Dtype> step) {
  const PixelLane own(step.pixels, step.lanes);
  const size_t row = static_cast<size_t>(own.pixel) * step.stride;
  Dtype sum = 0;
  for (int c = own.lane; c < step.classes; c += step.lanes) {
    const Dtype diff = step.diff[row + c];
    sum += step.of_logarithm ? diff : diff * step.probability[row + c];
  }
  sum = SumOfLanes(sum, step.lanes);
  if (!own.exists) { return; }
  for (int c = own.lane; c < step.classes; c += step.lanes) {
    const Dtype diff = step.diff[row + c];
    const Dtype probability = step.probability[row + c];
    const Dtype gradient = step.of_logarithm ? diff - probability * sum :
        probability * (diff - sum);
    step.message_diff[row + c] = step.sign * gradient;
    step.score_diff[row + c] =
        (step.add ? step.score_diff[row + c] : Dtype(0)) + gradient;
  }
}

// --- Gradients of the kernels' weights ---------------------------------------

/// Sums that are added up in a second step, always in the same order.
const int kWeightDiffParts = 1024;

/// parts (kWeightDiffParts x stride): sums over pixels of
/// message_diff * N q. A thread for each.
template <typename Dtype, int kCorners>
__global__ void __launch_bounds__(kRowThreads, 2) WeightDiffPartsKernel(
    int pixels, int classes, int stride, const Dtype* __restrict__ message_diff,
    BlurredLattice<Dtype, kCorners> blurred, Dtype* __restrict__ parts) {
  const int part = BlockRow();
  if (part >= kWeightDiffParts) { return; }
  for (int c = threadIdx.x; c < classes; c += blockDim.x) {
    Dtype sum = 0;
    for (int pixel = part; pixel < pixels; pixel += kWeightDiffParts) {
      sum += message_diff[static_cast<size_t>(pixel) * stride + c] *
          blurred.Slice(pixel, stride, c);
    }
    parts[static_cast<size_t>(part) * stride + c] = sum;
  }
}

/// weight_diff (classes) += the sums of the parts. A block for each class.
template <typename Dtype>
__global__ void AddWeightDiffKernel(int stride,
    const Dtype* __restrict__ parts, Dtype* weight_diff) {
  const int lane = threadIdx.x;  // of one warp
  Dtype sum = 0;
  for (int part = lane; part < kWeightDiffParts; part += 32) {
    sum += parts[static_cast<size_t>(part) * stride + blockIdx.x];
  }
  sum = SumOfLanes(sum, 32);
  if (lane == 0) { weight_diff[blockIdx.x] += sum; }
}

}  // namespace caffe

#endif  // CAFFE_CRF_MEAN_FIELD_CUH_
