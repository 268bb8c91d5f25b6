#ifndef CAFFE_TEST_IMAGE_BOMBS_HPP_
#define CAFFE_TEST_IMAGE_BOMBS_HPP_

#include <glog/logging.h>

#include <cstdint>
#include <string>

#include "boost/crc.hpp"

namespace caffe {

/// A PNG whose header says that it is of this size.
inline std::string PngBomb(const std::string& png, uint32_t height, uint32_t width) {
  std::string bomb = png;
  const size_t kName = 12, kWidth = 16, kHeight = 20, kEnd = 29;  // of IHDR
  boost::crc_32_type crc;
  for (int i = 0; i < 4; ++i) {
    bomb[kWidth + i] = static_cast<char>(width >> (24 - 8 * i));
    bomb[kHeight + i] = static_cast<char>(height >> (24 - 8 * i));
  }
  crc.process_bytes(&bomb[kName], kEnd - kName);
  for (int i = 0; i < 4; ++i) {
    bomb[kEnd + i] = static_cast<char>(crc.checksum() >> (24 - 8 * i));
  }
  return bomb;
}

/// A JPEG whose header says that it is of this size.
inline std::string JpegBomb(const std::string& jpeg, uint16_t height, uint16_t width) {
  std::string bomb = jpeg;
  const size_t frame = bomb.find("\xff\xc0");
  CHECK_NE(frame, std::string::npos);
  bomb[frame + 5] = static_cast<char>(height >> 8);
  bomb[frame + 6] = static_cast<char>(height);
  bomb[frame + 7] = static_cast<char>(width >> 8);
  bomb[frame + 8] = static_cast<char>(width);
  return bomb;
}

}  // namespace caffe

#endif  // CAFFE_TEST_IMAGE_BOMBS_HPP_
