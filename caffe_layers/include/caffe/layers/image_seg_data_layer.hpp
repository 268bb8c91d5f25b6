#ifndef CAFFE_IMAGE_SEG_DATA_LAYER_HPP_
#define CAFFE_IMAGE_SEG_DATA_LAYER_HPP_

#ifdef USE_OPENCV
#ifdef USE_LMDB

#include "caffe/layers/segmentation_data_layer.hpp"

namespace caffe {

/**
 * @brief Images and labels of a list of files, with the fields of DeepLab's and
 *        PSPNet's forks; everything behind the list is SegmentationData's.
 *
 * Tops:
 *  - data @f$ (N \times 3 \times H \times W) @f$ (N x 1 with is_color: false):
 *    (pixel - mean_value) * scale, channels B, G, R;
 *  - label @f$ (N \times 1 \times H \times W) @f$, may be left out;
 *  - data_dim @f$ (N \times 1 \times 1 \times 2) @f$, may be left out: height and
 *    width of each image within H x W, without what was added around it.
 *
 * With image_data_param
 *  - source: the list; a line has an image's file and, as label_type says, its
 *    label's file (PIXEL), a class number for all pixels (IMAGE, the forks'
 *    default), or nothing (NONE: ignore_label everywhere). root_folder comes
 *    before each file's name.
 *  - new_height, new_width: the size that images and labels are brought to.
 *  - batch_size, shuffle, rand_skip, is_color, ignore_label. Labels of 255 come
 *    as ignore_label.
 * and transform_param: crop_size (a random crop in training, else the middle
 * one; an image that is smaller gets the mean, and ignore_label, at the bottom
 * and the right), mirror, mean_value, scale.
 *
 * Without a crop and new_height a batch over 1 takes images of one size. Which
 * sample comes next follows from the solver's random_seed, as in
 * SegmentationData.
 */
template <typename Dtype>
class ImageSegDataLayer : public SegmentationDataLayer<Dtype> {
 public:
  explicit ImageSegDataLayer(const LayerParameter& param)
      : SegmentationDataLayer<Dtype>(param) {}

  virtual inline const char* type() const { return "ImageSegData"; }
  virtual inline int MaxTopBlobs() const { return 3; }

 protected:
  typedef typename SegmentationDataLayer<Dtype>::Settings Settings;

  virtual Settings ReadSettings() const;
};

}  // namespace caffe

#endif  // USE_LMDB
#endif  // USE_OPENCV

#endif  // CAFFE_IMAGE_SEG_DATA_LAYER_HPP_
