#ifndef CAFFE_DENSE_IMAGE_DATA_LAYER_HPP_
#define CAFFE_DENSE_IMAGE_DATA_LAYER_HPP_

#ifdef USE_OPENCV
#ifdef USE_LMDB

#include "caffe/layers/segmentation_data_layer.hpp"

namespace caffe {

/**
 * @brief Images and label maps of a list of files, with the fields of SegNet's
 *        fork; everything behind the list is SegmentationData's.
 *
 * Tops: data @f$ (N \times 3 \times H \times W) @f$ (N x 1 with is_color: false)
 * and label @f$ (N \times 1 \times H \times W) @f$.
 *
 * With dense_image_data_param
 *  - source: the list; a line has an image's file and its label's. root_folder
 *    comes before each file's name.
 *  - new_height, new_width: the size that images and labels are brought to.
 *  - crop_height, crop_width: a random crop, in every phase.
 *  - batch_size, shuffle, mirror, rand_skip, is_color.
 * and transform_param: mean_value, scale. Its mirror and crop_size are those of
 * the image alone in the fork, and are refused.
 *
 * Without a crop and new_height a batch over 1 takes images of one size. Which
 * sample comes next follows from the solver's random_seed, as in
 * SegmentationData.
 */
template <typename Dtype>
class DenseImageDataLayer : public SegmentationDataLayer<Dtype> {
 public:
  explicit DenseImageDataLayer(const LayerParameter& param)
      : SegmentationDataLayer<Dtype>(param) {}

  virtual inline const char* type() const { return "DenseImageData"; }
  virtual inline int MinTopBlobs() const { return 2; }

 protected:
  typedef typename SegmentationDataLayer<Dtype>::Settings Settings;

  virtual Settings ReadSettings() const;
};

}  // namespace caffe

#endif  // USE_LMDB
#endif  // USE_OPENCV

#endif  // CAFFE_DENSE_IMAGE_DATA_LAYER_HPP_
