#ifndef CAFFE_NORMALIZE_LAYER_HPP_
#define CAFFE_NORMALIZE_LAYER_HPP_

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/normalize.hpp"

namespace caffe {

/**
 * @brief Brings the vector of channels at each position, or each image's whole
 *        map, to a learned scale (Liu, Rabinovich and Berg, "ParseNet: Looking
 *        Wider to See Better"), as Normalize of the forks of ParseNet and SSD.
 *
 * Bottom: @f$ x: (N \times C \times \dots) @f$, positions p behind the channels.
 * Top, of the same shape: @f$ y_{n,c,p} = s_c x_{n,c,p} / \|x\|_{n,p} @f$ with
 * @f$ \|x\|_{n,p}^2 = \epsilon + \sum_c x_{n,c,p}^2 @f$, or with across_spatial
 * (the default) the sum over all channels and positions.
 *
 * Parameter blob: s, one value without axes or (channel_shared: false) C values,
 * filled by scale_filler, else with 1; not learned with fix_scale.
 *
 * With @f$ g_{n,c,p} = s_c \, \partial E / \partial y_{n,c,p} @f$ and the sum over
 * what the norm is taken of,
 * @f$ \frac{\partial E}{\partial x} = \frac{1}{\|x\|} \left( g -
 *     \frac{x}{\|x\|^2} \sum x g \right), \;
 *     \frac{\partial E}{\partial s_c} = \sum_{n,p} \frac{x_{n,c,p}}{\|x\|_{n,p}}
 *     \frac{\partial E}{\partial y_{n,c,p}} @f$.
 *
 * Sums are of double precision and in one order: the result does not depend on
 * the number of threads. Backward takes the norms anew. Where the sum of squares
 * and eps are 0, so are the result and its gradients.
 */
template <typename Dtype>
class NormalizeLayer : public Layer<Dtype> {
 public:
  explicit NormalizeLayer(const LayerParameter& param) : Layer<Dtype>(param) {}

  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "Normalize"; }
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
    return "Normalize layer '" + this->layer_param_.name() + "'";
  }
  bool IsLearned() const {
    return this->param_propagate_down_[0] &&
        !this->layer_param_.norm_param().fix_scale();
  }
  /// Fills sums_.
  void Sum(const Dtype* x, const Dtype* dy);
  /// y from x, or (with dy) dx, after Sum.
  void Apply(const Dtype* x, const Dtype* dy, Dtype* result) const;
  /// Adds to the scale's gradient, after Sum.
  void AddScaleDiff(const Dtype* x, const Dtype* dy);

  NormalizedShape shape_;
  // Of x . x and x . s dy, at each position: N x positions x 2. Where a norm is
  // of a whole map, its first position has the map's.
  Blob<double> sums_;
  // On a GPU, of each channel: the gradient of its scale.
  Blob<double> channel_sums_;
};

}  // namespace caffe

#endif  // CAFFE_NORMALIZE_LAYER_HPP_
