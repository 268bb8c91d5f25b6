#ifndef CAFFE_UTIL_HARD_EXAMPLES_HPP_
#define CAFFE_UTIL_HARD_EXAMPLES_HPP_

#include <vector>

#include "caffe/util/host_device.hpp"

namespace caffe {

/**
 * @brief Which pixels are among the worst: those with a loss over the
 *        threshold, and of those with the threshold itself a share that brings
 *        their number to what was asked for, whatever the pixels' order.
 */
template <typename Dtype>
struct HardExamples {
  Dtype threshold;
  Dtype share;

  /// How much of a pixel with this loss (0 or more, or NaN) counts: 0 to 1.
  CAFFE_HOST_DEVICE Dtype Counts(Dtype loss) const {
    if (!(loss <= threshold)) { return 1; }  // NaN too: a loss must tell it
    return loss == threshold ? share : Dtype(0);
  }
};

/**
 * @brief Finds the pixels with the largest losses.
 *
 * @param losses of the pixels that count, 0 or more, or NaN; sorted partly
 * @param fraction of them that is wanted, 0 < fraction <= 1, rounded up
 */
template <typename Dtype>
HardExamples<Dtype> FindHardExamples(std::vector<Dtype>* losses,
    double fraction);

}  // namespace caffe

#endif  // CAFFE_UTIL_HARD_EXAMPLES_HPP_
