#ifndef CAFFE_UPSAMPLE_LAYER_HPP_
#define CAFFE_UPSAMPLE_LAYER_HPP_

#include <string>
#include <vector>

#include "caffe/layers/unpooling_layer.hpp"

namespace caffe {

/**
 * @brief Unpooling with the fields of SegNet's Upsample (Badrinarayanan, Kendall
 *        and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder
 *        Architecture for Image Segmentation").
 *
 * Bottoms: values @f$ x: (N \times C \times h \times w) @f$ and, of the same
 * shape, the mask of a Pooling of MAX. Without a mask, as in the forks for YOLO,
 * each value goes to all of its scale x scale places.
 *
 * Top: @f$ y: (N \times C \times H \times W) @f$ with H, W = upsample_h,
 * upsample_w, or scale h, scale w, each one less with pad_out_h, pad_out_w.
 *
 * @f$ y_m = x_i @f$ for the last i whose mask is m, else 0; see UnpoolingLayer.
 */
template <typename Dtype>
class UpsampleLayer : public UnpoolingLayer<Dtype> {
 public:
  explicit UpsampleLayer(const LayerParameter& param)
      : UnpoolingLayer<Dtype>(param) {}

  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "Upsample"; }

 protected:
  virtual void ChooseSizes(int* height, int* width) const;
  virtual string SizeFields() const;
  virtual bool KnowsPooling() const;
};

}  // namespace caffe

#endif  // CAFFE_UPSAMPLE_LAYER_HPP_
