#ifndef CAFFE_ONEDNN_BFLOAT16_CONVOLUTION_HPP_
#define CAFFE_ONEDNN_BFLOAT16_CONVOLUTION_HPP_

#include <cstddef>

namespace caffe {

/**
 * @brief Convolution whose factors are rounded to bfloat16 and whose sums are of
 *        float32, by the matrix tiles of Intel's AMX or the vectors of AVX512_BF16.
 *
 *   top(o, y, x) = bias(o) + sum over c, i, j of
 *       weights(o, c, i, j) * bottom(c, y s + i d - p, x s + j d - p)
 *
 * with stride s, dilation d, padding p. Maps lie in onednn::BlockedOrder with 16
 * channels to a block: 16 positions of a line times a block are a tile of the
 * top, and what a kernel's tap needs of 32 channels of the bottom, once they are
 * rounded, is a tile, too, whatever stride and dilation. So there is no
 * unfolding, and a sum takes its terms from tiles in the first cache.
 */
struct Bfloat16Convolution {
  int num, channels, height, width;  // of the bottom
  int out_channels, out_height, out_width;
  int kernel_height, kernel_width, stride_height, stride_width;
  int pad_height, pad_width, dilation_height, dilation_width;

  /// Whether this processor has one of the two, and the environment allows it
  /// (ChosenInstructionSet).
  static bool Available();
  /// Whether it has tiles, which multiply faster than anything in float32; vectors
  /// multiply at twice float32's speed.
  static bool HasTiles();

  /// Bytes of the weights as Pack() leaves them, and of the work area.
  size_t packed_bytes() const;
  size_t work_bytes() const;
  /// @param weights out_channels x channels x kernel_height x kernel_width.
  void Pack(const float* weights, void* packed) const;

  /// Whether Backward() is known: with a stride of 1, and a padding within the
  /// kernel's reach.
  bool HasBackward() const;
  /**
   * @brief The convolution by which the bottom's gradient comes from the top's:
   *
   *   bottom'(c, y, x) = sum over o, i, j of
   *       weights(o, c, i, j) * top'(o, y + p - i d, x + p - j d)
   */
  Bfloat16Convolution Backward() const;
  /// Packs for Backward(), which this is, the weights of the convolution that it is of.
  void PackTurned(const float* weights, void* packed) const;

  /// Whether AddWeightGradient() is known, and worth it: with a stride of 1, and lines
  /// that fill half of their tiles.
  bool HasWeightGradient() const;
  /// Bytes of its work area.
  size_t gradient_work_bytes() const;
  /**
   * @brief Adds to the weights' gradient
   *
   *   weights'(o, c, i, j) += sum over n, y, x of
   *       top'(n, o, y, x) * bottom(n, c, y + i d - p, x + j d - p)
   */
  void AddWeightGradient(const float* bottom, const float* top_diff,
      float* weights_diff, void* work) const;

  /**
   * @param bottom, top maps in onednn::BlockedOrder.
   * @param bias of out_channels; may be NULL.
   * @param rectify sets what is negative to 0; a NaN stays one.
   */
  void Forward(const float* bottom, const void* packed, const float* bias,
      bool rectify, float* top, void* work) const;
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_BFLOAT16_CONVOLUTION_HPP_
