#ifndef CAFFE_BILINEAR_INTERPOLATION_LAYER_HPP_
#define CAFFE_BILINEAR_INTERPOLATION_LAYER_HPP_

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/bilinear_interpolation.hpp"

namespace caffe {

/**
 * @brief Resizes each channel of a map to another blob's height and width.
 *
 * Bottoms:
 *  - map       @f$ x: (N \times C \times h \times w) @f$
 *  - reference @f$ (\cdot \times \cdot \times H \times W) @f$: gives H and W;
 *    its values are not read, and its gradient is 0.
 *
 * Top: @f$ y: (N \times C \times H \times W) @f$.
 *
 * Along each axis output pixel o lies at @f$ p = o (n - 1) / (O - 1) @f$ of the
 * n input pixels, so the corners are kept (p = 0 where O = 1), and
 * @f$ y = (1 - a) x_{\lfloor p \rfloor} + a x_{\lfloor p \rfloor + 1},
 *     \; a = p - \lfloor p \rfloor @f$.
 * Both axes together are @f$ y = A x B^T @f$ for each map; the backward pass
 * is the exact transpose, @f$ A^T (\partial E / \partial y) B @f$.
 *
 * On the CPU the maps are shared out to OpenMP threads; a map's sums have one
 * order, so the result does not depend on the number of threads. On a GPU the
 * backward pass goes along one axis after the other, and each sum is one
 * thread's: every run gives the same bits.
 */
template <typename Dtype>
class BilinearInterpolationLayer : public Layer<Dtype> {
 public:
  explicit BilinearInterpolationLayer(const LayerParameter& param)
      : Layer<Dtype>(param) {}

  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "BilinearInterpolation"; }
  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int ExactNumTopBlobs() const { return 1; }
  virtual inline bool AllowForceBackward(const int bottom_index) const {
    return bottom_index == 0;
  }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);

  /// What messages call the layer.
  string Name() const {
    return string(type()) + " layer '" + this->layer_param_.name() + "'";
  }
  /// Dies unless the bottom is N x C x H x W with H and W 1 or more.
  void CheckMap(const vector<Blob<Dtype>*>& bottom, int number) const;
  /// Gives H and W, and sets the windows: the part of bottom 0 that is
  /// interpolated.
  virtual void ChooseSizes(const vector<Blob<Dtype>*>& bottom, int* height,
      int* width);
  void ReserveRows(int threads);

  BilinearWindow row_window_, column_window_;
  vector<BilinearTap<Dtype> > row_taps_;     // H
  vector<BilinearTap<Dtype> > column_taps_;  // W
  // Each thread's two rows of W values, kept from one pass to the next.
  vector<Dtype> rows_;
  // On a GPU, the gradient between the two axes of the backward pass.
  Blob<Dtype> intermediate_;
};

}  // namespace caffe

#endif  // CAFFE_BILINEAR_INTERPOLATION_LAYER_HPP_
