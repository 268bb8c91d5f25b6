#ifndef CAFFE_L2_NORMALIZATION_LAYER_HPP_
#define CAFFE_L2_NORMALIZATION_LAYER_HPP_

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Brings each image's whole map to one L2 norm ("Combining the Best of
 *        Convolutional Layers and Recurrent Layers", section 4.2).
 *
 * Bottom: @f$ x: (N \times C \times H \times W) @f$. Top:
 * @f$ y: (N \times C \times H \times W), \;
 *     y_n = \lambda x_n / \|x_n\|_2 @f$ with one norm over all of C, H and W,
 * and @f$ \lambda @f$ = l2_normalization_param.scale. A map of zeros stays so.
 *
 * @f$ \frac{\partial E}{\partial x_n} = \frac{\lambda}{\|x_n\|_2} \left(
 *     \frac{\partial E}{\partial y_n} - \frac{x_n}{\|x_n\|_2^2}
 *     \left( x_n \cdot \frac{\partial E}{\partial y_n} \right) \right) @f$
 *
 * Norms are summed in double precision, piece by piece in one order: the result
 * does not depend on the number of threads. Backward takes the norm anew, so it
 * needs nothing from Forward.
 */
template <typename Dtype>
class L2NormalizationLayer : public Layer<Dtype> {
 public:
  explicit L2NormalizationLayer(const LayerParameter& param)
      : Layer<Dtype>(param) {}

  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "L2Normalization"; }
  virtual inline int ExactNumBottomBlobs() const { return 1; }
  virtual inline int ExactNumTopBlobs() const { return 1; }

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
    return "L2Normalization layer '" + this->layer_param_.name() + "'";
  }
  /// y from x, or (with dy) dx: on the CPU.
  void Run(const Dtype* x, const Dtype* dy, Dtype* result);

  int num_;
  int size_;  // C * H * W
  double scale_;
  // The pieces' sums of x . x and x . dy: pieces x 2.
  Blob<double> sums_;
};

}  // namespace caffe

#endif  // CAFFE_L2_NORMALIZATION_LAYER_HPP_
