#ifndef CAFFE_CRF_MEAN_FIELD_HPP_
#define CAFFE_CRF_MEAN_FIELD_HPP_

#include <cstddef>
#include <vector>

#include "caffe/crf/permutohedral_lattice.hpp"

namespace caffe {

/// Values of all classes of one pixel or vertex lie together, in a row that is
/// padded to whole vectors of this many bytes.
const int kMeanFieldRowBytes = 32;

/// @brief Values of a row: the classes and their padding.
template <typename Dtype>
inline int MeanFieldStride(int classes) {
  const int lanes = kMeanFieldRowBytes / sizeof(Dtype);
  return (classes + lanes - 1) / lanes * lanes;
}

/// One Gaussian kernel's part of a message, blurred and waiting for the slice.
template <typename Dtype>
struct BlurredKernel {
  PermutohedralFilterPlan plan;
  const Dtype* values;  // (vertices + 1) x stride
  const Dtype* weight;  // stride: the kernel's weight for each class
};

/**
 * @brief The steps of a mean-field iteration, on rows of stride values.
 *
 * They are compiled for several instruction sets, of which the processor's best
 * runs. All of them share their work out over OpenMP's threads; the answer does
 * not depend on how many there are.
 */
template <typename Dtype>
struct MeanFieldKernels {
  const char* name;

  /**
   * @brief Splat and blur.
   *
   * @param from   count x stride
   * @param values (vertices + 1) x stride
   */
  void (*splat_and_blur)(const PermutohedralFilterPlan& plan, int stride,
      const Dtype* from, Dtype* values);

  /// @brief The sum over the kernels of weight times slice; count x stride.
  void (*slice)(const BlurredKernel<Dtype>* kernels, int kernel_count,
      int count, int stride, Dtype* message);

  /// @brief probability = softmax(scores + the sum of slice), and its logits
  ///        where they are asked for; all count x stride.
  void (*slice_and_softmax)(const BlurredKernel<Dtype>* kernels,
      int kernel_count, int count, int stride, const Dtype* scores,
      Dtype* logits, Dtype* probability);

  /// @brief probability = softmax(logits); both count x stride.
  void (*softmax)(const Dtype* logits, int count, int stride,
      Dtype* probability);
};

/// @brief For every instruction set that this processor has, the best first.
template <typename Dtype>
std::vector<MeanFieldKernels<Dtype> > AvailableMeanFieldKernels();

/// @brief The best of them that RENET_INSTRUCTION_SET allows.
template <typename Dtype>
const MeanFieldKernels<Dtype>& GetMeanFieldKernels();

}  // namespace caffe

#endif  // CAFFE_CRF_MEAN_FIELD_HPP_
