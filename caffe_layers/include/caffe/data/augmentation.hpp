#ifndef CAFFE_DATA_AUGMENTATION_HPP_
#define CAFFE_DATA_AUGMENTATION_HPP_

#ifdef USE_OPENCV

#include <cstdint>
#include <opencv2/core/core.hpp>
#include <string>

#include "caffe/data/sample_order.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Changes training samples at random: scale, aspect and rotation, colour,
 *        blur, rectangles cut out; in this order, image and label alike.
 *
 * SegmentationDataParameter says the ranges. Each kind has draws of its own,
 * pure functions of (seed, sample number), so that one more kind leaves the
 * others' values as they were.
 *
 * An image that shrinks below two thirds is scaled by area, so that fine patterns
 * do not alias. All else, turning, moving and flipping included, is one bilinear
 * resampling of the crop's own pixels. The label takes the nearest pixel of what was decoded. A
 * crop that is only moved and flipped keeps its pixels' values.
 *
 * Colour is one affine map of (B, G, R), rounded and cut to 0 .. 255 once.
 *
 * Cut-out rectangles are the mean in the image, and ignored in the label unless
 * cutout_keeps_label is set.
 */
class Augmentation {
 public:
  /// What prepared splits give to pixels without a class.
  enum { IGNORED_LABEL = 255 };

  /// Ends the program with a message that begins with `layer` where a field lies
  /// outside its range.
  static void Check(const SegmentationDataParameter& param,
      const std::string& layer);

  /// Both must live as long as this does.
  Augmentation(const SegmentationDataParameter& param,
      const SampleOrder& order);

  /// Whether there is anything to apply.
  bool enabled() const { return warps_ || colours_ || blurs_ || cuts_; }

  /// The size at which this sample's image is cropped.
  cv::Size ScaledSize(int64_t sample, cv::Size image) const;

  /**
   * @brief Replaces image (8UC3) and label (8UC1; may be empty) by the sample's
   *        crop of them.
   *
   * @param sample number of the sample
   * @param scaled its ScaledSize
   * @param crop   of the scaled image; may go beyond it
   * @param flip   whether the crop is flipped left to right
   */
  void Apply(int64_t sample, cv::Size scaled, const cv::Rect& crop, bool flip,
      cv::Mat* image, cv::Mat* label) const;

 private:
  void Warp(int64_t sample, cv::Size scaled, const cv::Rect& crop, bool flip,
      cv::Mat* image, cv::Mat* label) const;
  void Colour(int64_t sample, cv::Mat* image) const;
  void Blur(int64_t sample, cv::Mat* image) const;
  void CutOut(int64_t sample, cv::Mat* image, cv::Mat* label) const;
  // Uniform in -range .. range.
  double AtMost(int64_t sample, SampleOrder::Purpose purpose,
      double range) const;

  const SegmentationDataParameter& param_;
  const SampleOrder& order_;
  const bool warps_;
  const bool colours_;
  const bool blurs_;
  const bool cuts_;
  cv::Scalar mean_;  // B, G, R in whole grey levels
};

}  // namespace caffe

#endif  // USE_OPENCV

#endif  // CAFFE_DATA_AUGMENTATION_HPP_
