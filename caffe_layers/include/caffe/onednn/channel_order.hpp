#ifndef CAFFE_ONEDNN_CHANNEL_ORDER_HPP_
#define CAFFE_ONEDNN_CHANNEL_ORDER_HPP_

#include <cstddef>
#include <vector>

namespace caffe {

/**
 * @brief How the channels of a map N x C x ... lie in memory, for layers that do
 *        the same at every position: in Caffe's order or in onednn::BlockedOrder.
 *
 *   map  num x blocks x positions x width
 *
 * In Caffe's order a block is a channel (width 1). Channels that fill up the last
 * block are zero in every map, and stay so: their coefficients are zero, too.
 */
struct ChannelOrder {
  int num, channels, blocks, positions, width;

  /// Of a map of this shape (two axes or more); `width` 1: in Caffe's order.
  ChannelOrder(const std::vector<int>& shape, int width);
  /// Values in memory, those that fill up the last block among them.
  size_t count() const {
    return static_cast<size_t>(num) * blocks * positions * width;
  }
};

/// to = scale[c] * from + shift[c], then what is negative set to 0 if `rectify`
/// (a NaN stays one). `to` may be `from`.
/// @param scale, shift of the channels.
void ScaleAndShift(const ChannelOrder& order, const float* from,
    const std::vector<float>& scale, const std::vector<float>& shift,
    bool rectify, float* to);

/// kept = scale[c] * from + shift[c]; to = other_scale[c] * kept + other_shift[c], then
/// rectified as ReLULayer does it: -infinity becomes NaN. `to` may be `from`.
void ScaleAndShiftTwice(const ChannelOrder& order, const float* from,
    const std::vector<float>& scale, const std::vector<float>& shift, float* kept,
    const std::vector<float>& other_scale, const std::vector<float>& other_shift,
    bool rectify, float* to);

/// to = scale[c] * a + other_scale[c] * b + shift[c].
void ScaleSumAndShift(const ChannelOrder& order, const float* a,
    const std::vector<float>& scale, const float* b,
    const std::vector<float>& other_scale, const std::vector<float>& shift,
    float* to);

/// Sums over each channel's values of all images: of a, and of (a - center[c]) *
/// (b - other_center[c]).
void ChannelSums(const ChannelOrder& order, const float* a, const float* b,
    const std::vector<float>& center, const std::vector<float>& other_center,
    std::vector<float>* sums, std::vector<float>* products);

/// to = a * from + b * other, then rectified as above; `to` may be either.
void WeightedSum(size_t count, float a, const float* from, float b,
    const float* other, bool rectify, float* to);
/// to = from * other; `to` may be either.
void Product(size_t count, const float* from, const float* other, bool rectify,
    float* to);

/// What is negative becomes 0; a NaN stays one.
void Rectify(size_t count, float* values);

/// What is not positive is multiplied by slope[c]. `to` may be `from`.
void ScaleNegative(const ChannelOrder& order, const float* from,
    const std::vector<float>& slope, float* to);
/// Zeros where the last block is filled up.
void ClearFilling(const ChannelOrder& order, float* values);

/// A pooling's windows; those at the end may reach beyond the map.
struct PoolingWindows {
  int height, width, out_height, out_width;
  int kernel_height, kernel_width, stride_height, stride_width;
  int pad_height, pad_width;
};

/// Averages over windows as Caffe's AVE: what lies in the padding counts as 0,
/// what lies beyond it does not count.
/// @param order of the bottom.
void AverageWindows(const ChannelOrder& order, const PoolingWindows& windows,
    const float* bottom, float* top);
/// Its gradient.
void SpreadOverWindows(const ChannelOrder& order, const PoolingWindows& windows,
    const float* top_diff, float* bottom_diff);
/// The largest values of windows.
void LargestOfWindows(const ChannelOrder& order, const PoolingWindows& windows,
    const float* bottom, float* top);

}  // namespace caffe

#endif  // CAFFE_ONEDNN_CHANNEL_ORDER_HPP_
