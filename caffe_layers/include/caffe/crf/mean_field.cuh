#ifndef CAFFE_CRF_MEAN_FIELD_CUH_
#define CAFFE_CRF_MEAN_FIELD_CUH_

#include <cmath>
#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/crf/class_mixing.hpp"
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

/// w_1 N_1 q + w_2 N_2 q, where q has been splatted and blurred; or, with
/// weights of 1, where the blurred values have been mixed.
template <typename Dtype>
struct Messages {
  BlurredLattice<Dtype, 3> positional;
  BlurredLattice<Dtype, 6> bilateral;
  Dtype weight[2];

  CUDA_INLINE Dtype Of(int pixel, int stride, int c) const {
    Dtype sum = 0;
    if (positional.values != NULL) {
      sum += weight[0] * positional.Slice(pixel, stride, c);
    }
    if (bilateral.values != NULL) {
      sum += weight[1] * bilateral.Slice(pixel, stride, c);
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
  Messages<Dtype> gain;
  Dtype* logit;              // s + gain; or NULL
  Dtype* probability;        // or NULL
  Dtype* log_probability;    // or NULL
  /// pixels: the first most probable class, NaN where probabilities are not
  /// numbers; or NULL
  Dtype* label;
};

/**
 * Q = softmax(s + gain). A group of lanes for each pixel.
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
    const Dtype logit = step.scores[row + c] +
        step.gain.Of(own.pixel, step.stride, c);
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
    if (step.logit != NULL) { step.logit[row + c] = logits[c]; }
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
  const Dtype* diff;  // of Q, of its logarithm or of the logits themselves
  bool of_logarithm;
  bool of_logit;
  Dtype* logit_diff;
  Dtype* score_diff;  // the sum over the iterations; or NULL
  bool add;           // to score_diff
};

/**
 * The gradient of the logits from that of Q or of log Q,
 * @f$ Q_c (g_c - \sum_k Q_k g_k) @f$ or @f$ g_c - Q_c \sum_k g_k @f$:
 * logit_diff = gradient, score_diff (+)= gradient.
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
    const Dtype gradient = step.of_logit ? diff : step.of_logarithm ?
        diff - probability * sum : probability * (diff - sum);
    step.logit_diff[row + c] = gradient;
    if (step.score_diff != NULL) {
      step.score_diff[row + c] =
          (step.add ? step.score_diff[row + c] : Dtype(0)) + gradient;
    }
  }
}

// --- What is learned ---------------------------------------------------------

/// Threads of a block whose threads have an element each of a matrix.
const int kMatrixThreads = 128;
inline dim3 MatrixGrid(int classes) {
  return dim3((classes * classes - 1) / kMatrixThreads + 1);
}
CUDA_INLINE int MatrixElement() {
  return blockIdx.x * blockDim.x + threadIdx.x;
}

/// gain (classes x classes) = G_k.
template <typename Dtype>
__global__ void GainKernel(ClassMixing<Dtype> mixing, int k,
    Dtype* __restrict__ gain) {
  const int e = MatrixElement();
  if (e >= mixing.classes * mixing.classes) { return; }
  gain[e] = mixing.Gain(k, e / mixing.classes, e % mixing.classes);
}

/// weight_diff += the gradient of W_k, all of it or its diagonal, from that of
/// G_k.
template <typename Dtype>
__global__ void AddWeightDiffKernel(ClassMixing<Dtype> mixing, int k,
    const Dtype* __restrict__ gain_diff, Dtype* __restrict__ weight_diff) {
  const int e = MatrixElement();
  const bool full = mixing.weights[k].full;
  if (e >= mixing.classes * (full ? mixing.classes : 1)) { return; }
  weight_diff[e] += mixing.WeightDiff(full ? e / mixing.classes : e,
      full ? e % mixing.classes : e, gain_diff);
}

/// compatibility_diff += what kernel k gives, from the gradient of G_k.
template <typename Dtype>
__global__ void AddCompatibilityDiffKernel(ClassMixing<Dtype> mixing, int k,
    const Dtype* __restrict__ gain_diff,
    Dtype* __restrict__ compatibility_diff) {
  const int e = MatrixElement();
  if (e >= mixing.classes * mixing.classes) { return; }
  compatibility_diff[e] += mixing.CompatibilityDiff(k, e / mixing.classes,
      e % mixing.classes, gain_diff);
}

}  // namespace caffe

#endif  // CAFFE_CRF_MEAN_FIELD_CUH_
