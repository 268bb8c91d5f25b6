#ifdef USE_OPENCV
#include "caffe/data/sample_source.hpp"

#include <glog/logging.h>

#include <opencv2/imgcodecs/imgcodecs.hpp>
#include <string>

#include "caffe/data/bounded_image.hpp"

namespace caffe {

cv::Mat DecodeImage(const std::string& bytes, const char* kind, int flags,
    const std::string& describe) {
  const std::string what = describe + "the " + kind;
  const cv::Mat pixels = DecodeBounded(bytes, flags, what);
  CHECK(!pixels.empty()) << what << " cannot be decoded";
  return pixels;
}

cv::Mat DecodeLabel(const std::string& bytes, const std::string& describe) {
  const cv::Mat pixels =
      DecodeImage(bytes, "label", cv::IMREAD_UNCHANGED, describe);
  CHECK(pixels.type() == CV_8UC1) << describe << "the label has "
      << pixels.channels() << " channel(s) of " << 8 * pixels.elemSize1()
      << " bits; expected 1 channel of 8 bits";
  return pixels;
}

cv::Mat DecodePixels(const std::string& bytes, bool color,
    const std::string& describe) {
  return DecodeImage(bytes, "image", cv::IMREAD_IGNORE_ORIENTATION |
      (color ? cv::IMREAD_COLOR : cv::IMREAD_GRAYSCALE), describe);
}

void CheckLabelSize(cv::Size label, cv::Size image,
    const std::string& describe) {
  CHECK(label == image) << describe << "the label has height " << label.height
      << " and width " << label.width << "; expected the image's "
      << image.height << " and " << image.width;
}

}  // namespace caffe
#endif  // USE_OPENCV
