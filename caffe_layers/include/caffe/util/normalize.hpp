#ifndef CAFFE_UTIL_NORMALIZE_HPP_
#define CAFFE_UTIL_NORMALIZE_HPP_

#include "caffe/util/host_device.hpp"
#include "caffe/util/l2_normalization.hpp"

namespace caffe {

/// What NormalizeLayer works on: num x channels x area values, and how.
struct NormalizedShape {
  int num;
  int channels;
  int area;
  bool across;  // one norm for each of num, else for each position as well
  bool shared;  // one scale for all channels
  double eps;

  /// Positions of all maps.
  CAFFE_HOST_DEVICE int Positions() const { return num * area; }
  CAFFE_HOST_DEVICE int Count() const { return num * channels * area; }
  /// Of a position of all maps, the value of its first channel.
  CAFFE_HOST_DEVICE int First(int position) const {
    return position / area * channels * area + position % area;
  }
  /// Which scale a channel has.
  CAFFE_HOST_DEVICE int ScaleOf(int channel) const {
    return shared ? 0 : channel;
  }
  /// The factors at a position, without the scale, from the sums of x . x and
  /// of x . s dy: L2Normalization's, with eps among the squares.
  CAFFE_HOST_DEVICE L2Factors FactorsOf(const double* sums,
      int position) const {
    const double* const own =
        sums + 2 * (across ? position / area * area : position);
    return GetL2Factors(1, own[0] + eps, own[1]);
  }
};

}  // namespace caffe

#endif  // CAFFE_UTIL_NORMALIZE_HPP_
