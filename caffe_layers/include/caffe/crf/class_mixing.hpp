#ifndef CAFFE_CRF_CLASS_MIXING_HPP_
#define CAFFE_CRF_CLASS_MIXING_HPP_

#include <cstddef>

#include "caffe/util/host_device.hpp"

namespace caffe {

/// The weights of a kernel, the C x C matrix W: one number on its diagonal, one
/// for each class there, or all of it.
template <typename Dtype>
struct KernelWeights {
  Dtype common;
  const Dtype* values;  // C, or with full C x C; NULL: common
  bool full;

  CAFFE_HOST_DEVICE Dtype At(int classes, int i, int j) const {
    if (full) { return values[i * classes + j]; }
    return i != j ? Dtype(0) : values == NULL ? common : values[i];
  }
};

/**
 * @brief What classes say to each other in a mean-field iteration,
 *        Q^{t+1} = softmax(s - mu sum_k W_k N_k Q^t)
 *                = softmax(s + sum_k G_k N_k Q^t), G_k = -mu W_k.
 *
 * Potts, mu = 1 - I: the sum over all classes is the same for each, and the
 * softmax does not see it, so G_k = W_k.
 *
 * The functions give single elements, for the CPU's loops and CUDA's threads.
 */
template <typename Dtype>
struct ClassMixing {
  int classes;
  KernelWeights<Dtype> weights[2];  // of the positional, the bilateral kernel
  const Dtype* compatibility;       // mu, C x C; NULL: Potts

  /// @brief Whether G_k is more than one number on the diagonal.
  CAFFE_HOST_DEVICE bool Learned() const {
    return weights[0].values != NULL || compatibility != NULL;
  }
  CAFFE_HOST_DEVICE bool Uses(int k) const {
    return weights[k].values != NULL || weights[k].common > 0;
  }

  CAFFE_HOST_DEVICE Dtype Gain(int k, int i, int j) const {
    const KernelWeights<Dtype>& w = weights[k];
    if (compatibility == NULL) { return w.At(classes, i, j); }
    const int begin = w.full ? 0 : j, end = w.full ? classes : j + 1;
    Dtype sum = 0;
    for (int l = begin; l < end; ++l) {
      sum -= compatibility[i * classes + l] * w.At(classes, l, j);
    }
    return sum;
  }
  /// @brief Of W_k's element from the gradient of G_k, C x C:
  ///        dW_k = -mu^T dG_k.
  CAFFE_HOST_DEVICE Dtype WeightDiff(int i, int j,
      const Dtype* gain_diff) const {
    if (compatibility == NULL) { return gain_diff[i * classes + j]; }
    Dtype sum = 0;
    for (int l = 0; l < classes; ++l) {
      sum -= compatibility[l * classes + i] * gain_diff[l * classes + j];
    }
    return sum;
  }
  /// @brief What kernel k adds to mu's element: dmu = -sum_k dG_k W_k^T.
  CAFFE_HOST_DEVICE Dtype CompatibilityDiff(int k, int i, int j,
      const Dtype* gain_diff) const {
    const KernelWeights<Dtype>& w = weights[k];
    const int begin = w.full ? 0 : j, end = w.full ? classes : j + 1;
    Dtype sum = 0;
    for (int l = begin; l < end; ++l) {
      sum -= gain_diff[i * classes + l] * w.At(classes, j, l);
    }
    return sum;
  }
};

}  // namespace caffe

#endif  // CAFFE_CRF_CLASS_MIXING_HPP_
