#ifdef USE_OPENCV
#include "caffe/data/bounded_image.hpp"

#include <glog/logging.h>

#include <climits>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <opencv2/imgcodecs/imgcodecs.hpp>
#include <string>

#include "boost/filesystem.hpp"

namespace caffe {

namespace {

// As many as the readers in Python take, whose limit is Pillow's.
const size_t MOST_PIXELS = 1024 * 1024 * 1024 / 4 / 3;

/// Whether bytes have these at a place.
bool BeginsWith(const std::string& bytes, const std::string& start, size_t at = 0) {
  return bytes.size() >= at + start.size() && bytes.compare(at, start.size(), start) == 0;
}

/**
 * @brief Whether bytes are in one of the formats that are read, by their first ones.
 *
 * OpenCV has readers of more, which its builds bring from libraries that are made
 * for files of one's own: that of DICOM ends the process on some.
 */
bool IsInKnownFormat(const std::string& bytes) {
  using std::literals::operator""s;
  for (const std::string& start : {
      "\xff\xd8\xff"s, "\x89PNG\r\n\x1a\n"s, "BM"s,           // JPEG, PNG, BMP
      "II*\0"s, "MM\0*"s, "II+\0"s, "MM\0+"s,                  // TIFF, BigTIFF
      "P1"s, "P2"s, "P3"s, "P4"s, "P5"s, "P6"s}) {              // PBM, PGM, PPM
    if (BeginsWith(bytes, start)) { return true; }
  }
  if (BeginsWith(bytes, "RIFF") && BeginsWith(bytes, "WEBP", 8)) { return true; }
  // OpenCV looks for DICOM's mark before it looks for JPEG 2000
  return (BeginsWith(bytes, "\0\0\0\x0cjP  \r\n\x87\n"s) || BeginsWith(bytes, "\xff\x4f\xff\x51"s)) &&
      !BeginsWith(bytes, "DICM", 128);
}

/**
 * @brief Memory for the pixels of one image. OpenCV asks for it when it has read
 *        the header alone, in any format: a small file that says that it is a
 *        huge image ends the program here, before it is decoded.
 */
class PixelMemory : public cv::MatAllocator {
 public:
  explicit PixelMemory(const std::string& what) : what_(what) {}

  cv::UMatData* allocate(int dims, const int* sizes, int type, void* data,
      size_t* step, cv::AccessFlag flags,
      cv::UMatUsageFlags usage) const override {
    size_t pixels = 1;
    for (int i = 0; i < dims; ++i) { pixels *= sizes[i]; }
    CHECK_LE(pixels, MOST_PIXELS) << what_ << " has height " << sizes[0] << " and width " << sizes[1]
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
  const std::string& what_;
};

}  // namespace

cv::Mat DecodeBounded(const std::string& bytes, int flags,
    const std::string& what) {
  if (bytes.empty()) { return cv::Mat(); }
  if (!IsInKnownFormat(bytes)) {
    LOG(ERROR) << what << " is in no format that is read; expected JPEG, PNG, "
        "TIFF, BMP, WebP, PPM or JPEG 2000";
    return cv::Mat();
  }
  CHECK_LE(bytes.size(), static_cast<size_t>(INT_MAX)) << what << " is too large";
  const PixelMemory memory(what);
  cv::Mat pixels;
  pixels.allocator = const_cast<PixelMemory*>(&memory);
  try {
    const cv::Mat encoded(1, static_cast<int>(bytes.size()), CV_8UC1,
        const_cast<char*>(bytes.data()));
    cv::imdecode(encoded, flags, &pixels);
  } catch (const cv::Exception& error) {
    LOG(FATAL) << what << " cannot be decoded: " << error.what();
  }
  pixels.allocator = NULL;  // which ends here; the pixels are the standard one's
  return pixels;
}

cv::Mat ReadBounded(const std::string& file, int flags) {
  boost::system::error_code unknown;
  if (!boost::filesystem::is_regular_file(file, unknown)) { return cv::Mat(); }
  CHECK_LE(boost::filesystem::file_size(file, unknown),
      static_cast<uintmax_t>(INT_MAX))
      << "'" << file << "' is too large for an image";
  std::ifstream stream(file.c_str(), std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(stream)),
      std::istreambuf_iterator<char>());
  return DecodeBounded(bytes, flags, "'" + file + "'");
}

}  // namespace caffe
#endif  // USE_OPENCV
