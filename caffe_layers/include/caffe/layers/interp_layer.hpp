#ifndef CAFFE_INTERP_LAYER_HPP_
#define CAFFE_INTERP_LAYER_HPP_

#include <vector>

#include "caffe/layers/bilinear_interpolation_layer.hpp"

namespace caffe {

/**
 * @brief BilinearInterpolation with the fields of DeepLab's and PSPNet's Interp.
 *
 * Bottoms: the map @f$ (N \times C \times h \times w) @f$ and, where no field
 * says the size, a reference that has it. With pad_beg, pad_end (0 or less) the
 * map is its rows and columns from -pad_beg to before h + pad_end; the others
 * get no gradient. Let n be what is left of h.
 *
 * Top: @f$ (N \times C \times H \times W) @f$, with
 *  - H = height, or
 *  - H = (m - 1) zoom_factor + 1, where m = (n - 1) / shrink_factor + 1, rounded
 *    down, or
 *  - the reference's H,
 *
 * and W alike. Values and gradients are as in BilinearInterpolationLayer.
 */
template <typename Dtype>
class InterpLayer : public BilinearInterpolationLayer<Dtype> {
 public:
  explicit InterpLayer(const LayerParameter& param)
      : BilinearInterpolationLayer<Dtype>(param) {}

  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "Interp"; }
  virtual inline int ExactNumBottomBlobs() const { return -1; }
  virtual inline int MinBottomBlobs() const { return 1; }
  virtual inline int MaxBottomBlobs() const { return 2; }

 protected:
  virtual void ChooseSizes(const vector<Blob<Dtype>*>& bottom, int* height,
      int* width);
  /// What is left of an axis of bottom 0.
  BilinearWindow Window(int length) const;
  /// How long an axis gets by the factors.
  int Resized(int size) const;
};

}  // namespace caffe

#endif  // CAFFE_INTERP_LAYER_HPP_
