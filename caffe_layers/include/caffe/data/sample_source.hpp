#ifndef CAFFE_DATA_SAMPLE_SOURCE_HPP_
#define CAFFE_DATA_SAMPLE_SOURCE_HPP_

#ifdef USE_OPENCV

#include <cstdint>
#include <opencv2/core/core.hpp>
#include <string>

namespace caffe {

/**
 * @brief Images and label maps by number, from any thread; what cannot be read
 *        ends the program with a message that names it.
 */
class SampleSource {
 public:
  virtual ~SampleSource() {}

  /// Items, at least one.
  virtual int64_t count() const = 0;
  /// What messages call the source's parts: "2 source(s)".
  virtual std::string name() const = 0;
  /// How a message about an item begins.
  virtual std::string Describe(int64_t item) const = 0;
  /// 8 bits, channels B, G, R or grey alone.
  virtual cv::Mat Image(int64_t item) const = 0;
  /// 8UC1 of the size of the item's image.
  virtual cv::Mat Label(int64_t item, cv::Size image) const = 0;
};

/**
 * @brief The one decoder: an encoded image's pixels, upright as they are stored.
 *
 * @param bytes    the encoded image
 * @param kind     "image" or "label", for messages
 * @param flags    OpenCV's
 * @param describe how a message begins
 */
cv::Mat DecodeImage(const std::string& bytes, const char* kind, int flags,
    const std::string& describe);

/// A label map's class numbers, 8UC1.
cv::Mat DecodeLabel(const std::string& bytes, const std::string& describe);

/// A colour image's B, G, R, 8UC3, or (`color` false) its grey, 8UC1.
cv::Mat DecodePixels(const std::string& bytes, bool color,
    const std::string& describe);

/// Ends the program where a label map has not its image's size.
void CheckLabelSize(cv::Size label, cv::Size image,
    const std::string& describe);

}  // namespace caffe

#endif  // USE_OPENCV

#endif  // CAFFE_DATA_SAMPLE_SOURCE_HPP_
