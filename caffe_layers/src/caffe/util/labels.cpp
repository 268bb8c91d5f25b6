#include "caffe/util/labels.hpp"

#include <glog/logging.h>

#include <sstream>
#include <string>

namespace caffe {

namespace {

template <typename Dtype>
string Place(const Blob<Dtype>& labels, int index) {
  std::ostringstream place;
  if (labels.num_axes() == 4 && labels.shape(1) == 1) {
    const int width = labels.shape(3);
    const int row = index / width;
    place << "in image " << row / labels.shape(2) << " of the batch, row "
          << row % labels.shape(2) << ", column " << index % width;
  } else {
    place << "at position " << index << " of " << labels.count();
  }
  return place.str();
}

/// What lets pixels of a layer count nowhere, for those that can.
string Remedy(const LayerParameter& layer, int value, bool ignores) {
  const string parameter = layer.type() == "Accuracy" ? "accuracy_param" :
      layer.type() == "SoftmaxWithLoss" || layer.type() == "InfogainLoss" ?
      "loss_param" : "";
  std::ostringstream text;
  if (!parameter.empty() && !ignores && value >= 0) {
    text << "; to leave such pixels out, set " << parameter
         << " { ignore_label: " << value << " }";
  }
  return text.str();
}

}  // namespace

template <typename Dtype>
void CheckLabels(const LayerParameter& layer, const Blob<Dtype>& labels,
    int classes, const int* ignore_label) {
  const Dtype* values = labels.cpu_data();
  for (int i = 0; i < labels.count(); ++i) {
    const Dtype value = values[i];
    if (IsClass(value, classes) || (ignore_label != NULL && value == value &&
        static_cast<int>(value) == *ignore_label)) {
      continue;
    }
    std::ostringstream ignored;
    if (ignore_label != NULL) {
      ignored << ", or " << *ignore_label << ", which is ignored";
    }
    LOG(FATAL) << layer.type() << " layer '" << layer.name() << "': label "
        << value << ' ' << Place(labels, i) << " is no class: expected 0 to "
        << classes - 1 << " (" << classes << " classes)" << ignored.str()
        << Remedy(layer, static_cast<int>(value), ignore_label != NULL);
  }
}

template void CheckLabels(const LayerParameter& layer,
    const Blob<float>& labels, int classes, const int* ignore_label);
template void CheckLabels(const LayerParameter& layer,
    const Blob<double>& labels, int classes, const int* ignore_label);

}  // namespace caffe
