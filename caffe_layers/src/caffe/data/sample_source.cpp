#ifdef USE_OPENCV
#include "caffe/data/sample_source.hpp"

#include <glog/logging.h>

#include <opencv2/imgcodecs/imgcodecs.hpp>
#include <string>

namespace caffe {

namespace {

// As many as the readers in Python take, whose limit is Pillow's.
const size_t MOST_PIXELS = 1024 * 1024 * 1024 / 4 / 3;

/**
 * @brief Memory for the pixels of one image. OpenCV asks for it when it has read
 *        the header alone, in any format: a small file that says that it is a
 *        huge image ends the program here, before it is decoded.
 */
class PixelMemory : public cv::MatAllocator {
 public:
  PixelMemory(const char* kind, const std::string& describe)
      : kind_(kind), describe_(describe) {}

  cv::UMatData* allocate(int dims, const int* sizes, int type, void* data,
      size_t* step, cv::AccessFlag flags,
      cv::UMatUsageFlags usage) const override {
    size_t pixels = 1;
    for (int i = 0; i < dims; ++i) { pixels *= sizes[i]; }
    CHECK_LE(pixels, MOST_PIXELS) << describe_ << "the " << kind_
        << " has height " << sizes[0] << " and width " << sizes[1]
        << "; expected at most " << MOST_PIXELS << " pixels";
    return cv::Mat::getStdAllocator()->allocate(dims, sizes, type, data, step,
        flags, usage);
  }
  bool allocate(cv::UMatData* data, cv::AccessFlag flags,
      cv::UMatUsageFlags usage) const override {
    return cv::Mat::getStdAllocator()->allocate(data, flags, usage);
  }
  void deallocate(cv::UMatData* data) const override {
    cv::Mat::getStdAllocator()->deallocate(data);
  }

 private:
  const char* const kind_;
  const std::string& describe_;
};

}  // namespace

cv::Mat DecodeImage(const std::string& bytes, const char* kind, int flags,
    const std::string& describe) {
  const PixelMemory memory(kind, describe);
  cv::Mat pixels;
  pixels.allocator = const_cast<PixelMemory*>(&memory);
  try {
    const cv::Mat encoded(1, static_cast<int>(bytes.size()), CV_8UC1,
        const_cast<char*>(bytes.data()));
    cv::imdecode(encoded, flags, &pixels);
  } catch (const cv::Exception& error) {
    LOG(FATAL) << describe << "the " << kind << " cannot be decoded: "
        << error.what();
  }
  CHECK(!pixels.empty()) << describe << "the " << kind
      << " cannot be decoded";
  pixels.allocator = NULL;  // which ends here; the pixels are the standard one's
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
