#ifndef CAFFE_PERMUTE_LAYER_HPP_
#define CAFFE_PERMUTE_LAYER_HPP_

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/permutation.hpp"

namespace caffe {

/**
 * @brief Brings the axes of an array into another order, as Permute of SSD's
 *        fork.
 *
 * Bottom: an array of any shape @f$ (d_0 \times d_1 \times \dots) @f$. Top:
 * @f$ (d_{o_0} \times d_{o_1} \times \dots) @f$ with o the axes of
 * permute_param.order and behind them the others, as they are:
 * @f$ y[i_{o_0}, i_{o_1}, \dots] = x[i_0, i_1, \dots] @f$.
 */
template <typename Dtype>
class PermuteLayer : public Layer<Dtype> {
 public:
  explicit PermuteLayer(const LayerParameter& param) : Layer<Dtype>(param) {}

  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "Permute"; }
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
    return "Permute layer '" + this->layer_param_.name() + "'";
  }
  /// to = from in the other order, or (back) in the order that it had.
  void Run(int count, bool back, const Dtype* from, Dtype* to) const;

  Permutation permutation_;
};

}  // namespace caffe

#endif  // CAFFE_PERMUTE_LAYER_HPP_
