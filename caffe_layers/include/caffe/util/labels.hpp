#ifndef CAFFE_UTIL_LABELS_HPP_
#define CAFFE_UTIL_LABELS_HPP_

#include "caffe/blob.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/host_device.hpp"

namespace caffe {

/// Whether a label is one of the classes 0 .. classes - 1; NaN is none.
template <typename Dtype>
CAFFE_HOST_DEVICE inline bool IsClass(Dtype label, int classes) {
  return label >= 0 && label < classes;
}

/**
 * @brief Dies where a value is neither a class nor the ignored label, with one
 *        line that names the layer, the value, its place and the classes.
 *
 * @param layer the layer that indexes by the values
 * @param labels of any shape; looked at on the CPU
 * @param classes how many there are: 0 .. classes - 1
 * @param ignore_label a value that counts nowhere; NULL where there is none
 */
template <typename Dtype>
void CheckLabels(const LayerParameter& layer, const Blob<Dtype>& labels,
    int classes, const int* ignore_label = NULL);

}  // namespace caffe

#endif  // CAFFE_UTIL_LABELS_HPP_
