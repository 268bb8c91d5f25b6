#ifndef CAFFE_ONEDNN_SUB_IMAGES_HPP_
#define CAFFE_ONEDNN_SUB_IMAGES_HPP_

namespace caffe {

/**
 * @brief A map taken apart into the sub-images on which a dilated convolution is
 *        an ordinary one.
 *
 * With dilation d, a position (y, x) only meets positions of the same remainders
 * (y mod d, x mod d). So the map's d * d sub-images, each with every d-th row and
 * column, go through the undilated kernel as a batch:
 *
 *   map N x B x H x W x c  <->  N d d x B x ceil(H/d) x ceil(W/d) x c
 *
 * where B blocks of c channels lie as in onednn::BlockedOrder. Sub-images that
 * lack a last row or column get zeros there, which is what lies beyond the map.
 *
 * The blocks may be some of those of a map that has map_blocks of them. With
 * dilation 1 that is all there is to it.
 */
struct SubImages {
  int num, blocks, height, width, block_width, dilation, map_blocks;

  int rows() const { return (height + dilation - 1) / dilation; }
  int columns() const { return (width + dilation - 1) / dilation; }
  int count() const { return num * dilation * dilation; }

  /// Takes a map apart, from its first block that is taken on.
  void Split(const float* map, float* parts) const;
  /// Puts it together; what the sub-images have beyond the map is left out.
  void Join(const float* parts, float* map) const;
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_SUB_IMAGES_HPP_
