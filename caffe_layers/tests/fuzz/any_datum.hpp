#ifndef CAFFE_TEST_FUZZ_ANY_DATUM_HPP_
#define CAFFE_TEST_FUZZ_ANY_DATUM_HPP_

#include <opencv2/core/core.hpp>
#include <string>

#include "caffe/data/augmentation.hpp"
#include "caffe/data/sample_source.hpp"
#include "caffe/data/split_source.hpp"

#include "fuzz_input.hpp"

namespace caffe {

/// Reads a value of a split's LMDBs as an image's and as its label's, a whole
/// Datum or what is encoded in one, and augments them.
inline void ReadAnyDatum(FuzzInput* input) {
  SegmentationDataParameter param;
  param.set_scale_min(input->Below(2) == 0 ? 1 : 0.1f);
  param.set_scale_max(input->Below(2) == 0 ? 1 : 3);
  param.set_rotation(input->Below(180));
  param.set_blur(input->Below(20));
  param.set_cutout(input->Below(4));
  const int height = 1 + input->Below(40), width = 1 + input->Below(40);
  const bool same = input->Below(2) == 0;
  const bool whole = input->Below(2) == 0;
  const std::string value = input->Rest();
  Datum datum;
  datum.set_encoded(true);
  datum.set_data(value);
  CHECK(!whole || datum.ParseFromString(value));
  const std::string bytes = EncodedImage(datum, "image", "item: ");
  const cv::Mat decoded = DecodePixels(bytes, true, "item: ");
  cv::Mat image = decoded.clone(), label;
  if (same) { label = DecodeLabel(bytes, "item: "); }
  if (!same) { label = cv::Mat(image.size(), CV_8UC1, cv::Scalar(1)); }
  CheckLabelSize(label.size(), image.size(), "item: ");
  const SampleOrder order(3, 7, true);
  const Augmentation augmentation(param, order);
  for (int64_t sample = 0; sample < 3; ++sample) {
    cv::Mat picture = image.clone(), classes = label.clone();
    const cv::Size scaled = augmentation.ScaledSize(sample, picture.size());
    try {
      augmentation.Apply(sample, scaled, cv::Rect(0, 0, width, height), sample % 2 == 1, &picture, &classes);
    } catch (const cv::Exception&) {  // as the layer does
      LOG(FATAL) << "cannot be augmented";
    }
  }
}

}  // namespace caffe

#endif  // CAFFE_TEST_FUZZ_ANY_DATUM_HPP_
