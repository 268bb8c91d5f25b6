#ifndef CAFFE_DATA_BOUNDED_IMAGE_HPP_
#define CAFFE_DATA_BOUNDED_IMAGE_HPP_

#ifdef USE_OPENCV

#include <opencv2/core/core.hpp>
#include <string>

namespace caffe {

/**
 * @brief An encoded image's pixels, or none where it cannot be decoded or is in
 *        another format than those of the readers in Python. One whose header
 *        says that it is huge ends the program before it is decoded.
 *
 * @param bytes the encoded image
 * @param flags OpenCV's
 * @param what  how a message about it begins: "the image"
 */
cv::Mat DecodeBounded(const std::string& bytes, int flags,
    const std::string& what);

/// The same of a file; no pixels where it is none that can be read.
cv::Mat ReadBounded(const std::string& file, int flags);

}  // namespace caffe

#endif  // USE_OPENCV

#endif  // CAFFE_DATA_BOUNDED_IMAGE_HPP_
