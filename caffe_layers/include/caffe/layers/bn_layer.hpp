#ifndef CAFFE_BN_LAYER_HPP_
#define CAFFE_BN_LAYER_HPP_

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Batch normalization with a learned scale and shift, as forks of Caffe
 *        have it in one layer (Ioffe and Szegedy, "Batch Normalization:
 *        Accelerating Deep Network Training by Reducing Internal Covariate
 *        Shift").
 *
 * Bottom: @f$ x: (N \times C \times H \times W) @f$, or other axes after C. Top:
 * @f$ y = \gamma_c \hat x + \beta_c, \;
 *     \hat x = (x - \mu_c) / \sqrt{v_c + \epsilon} @f$, in place if asked.
 * The fields of bn_param say which of two forms it is:
 *
 *  - SegNet's and DeconvNet's (scale_filler, shift_filler, bn_mode). Blobs:
 *    @f$ \gamma, \beta @f$, 1 x C x 1 x 1 each. With LEARN @f$ \mu, v @f$ are
 *    the mean and the variance of the batch in every phase, @f$ \epsilon @f$ is
 *    1e-9, and two more tops may take @f$ \mu, v @f$ (1 x C x 1 x 1). With
 *    INFERENCE @f$ y = \gamma_c x + \beta_c @f$: the statistics of a training
 *    set were worked into the blobs.
 *  - PSPNet's (slope_filler, bias_filler, momentum, eps, frozen). Blobs:
 *    @f$ \gamma, \beta @f$ and the running @f$ \mu, v @f$, 1 x C x 1 x 1 each.
 *    In training the batch's statistics are taken, and of the running ones
 *    momentum stays: @f$ m \mu + (1 - m) \mu_{batch} @f$, likewise the variance
 *    (of N, not N - 1). Testing and `frozen` take the running ones. They start
 *    at 0 and 0 (frozen: 0 and 1) and have no learning rate; frozen, nothing has.
 *
 * @f$ \frac{\partial E}{\partial \gamma_c} = \sum \hat x
 *     \frac{\partial E}{\partial y}, \quad
 *     \frac{\partial E}{\partial \beta_c} = \sum \frac{\partial E}{\partial y},
 *     \quad \frac{\partial E}{\partial x} = \frac{\gamma_c}{\sqrt{v_c +
 *     \epsilon}} \left( \frac{\partial E}{\partial y} - \overline{\frac{\partial
 *     E}{\partial y}} - \hat x \overline{\hat x \frac{\partial E}{\partial y}}
 *     \right) @f$
 *
 * without the two means where the statistics are not the batch's. The further
 * tops have no gradient. Sums are of double precision, each in one order.
 *
 * In place the input is kept beside. A net of the TEST phase with fixed
 * statistics keeps none, and its parameters then get no gradient.
 */
template <typename Dtype>
class BNLayer : public Layer<Dtype> {
 public:
  explicit BNLayer(const LayerParameter& param) : Layer<Dtype>(param) {}

  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "BN"; }
  virtual inline int ExactNumBottomBlobs() const { return 1; }
  virtual inline int MinTopBlobs() const { return 1; }
  virtual inline int MaxTopBlobs() const { return 3; }

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
    return "BN layer '" + this->layer_param_.name() + "'";
  }
  void ReadForm();
  void FillBlobs(int channels);
  /// The rates of blobs that no gradient changes: 0.
  void HoldFrom(int first);
  /// Whether the statistics are the batch's.
  bool of_batch() const {
    return running_ ? this->phase_ == TRAIN && !frozen_ : learn_;
  }
  /// Whether a blob's gradient is asked for and can be had.
  bool learns(int blob) const {
    return !frozen_ && this->param_propagate_down_[blob] &&
        (!in_place_ || keeps_input());
  }
  bool keeps_input() const {
    return in_place_ && (of_batch() || (this->phase_ == TRAIN && !frozen_));
  }
  /// Keeps the input of a layer in place beside; whether a map has values.
  bool Begin(const vector<Blob<Dtype>*>& bottom);
  /// The input of the last Forward.
  const Blob<Dtype>& Input(const vector<Blob<Dtype>*>& bottom) const {
    return keeps_input() ? input_ : *bottom[0];
  }

  bool running_;  ///< PSPNet's form
  bool learn_;    ///< SegNet's LEARN
  bool frozen_;
  double momentum_, eps_;
  int num_, channels_, plane_;  ///< plane: the values of one channel's map
  bool in_place_;
  Blob<Dtype> input_;
  /// mean, 1 / deviation of the last Forward; on a GPU two rows more.
  Blob<double> statistics_;
  Blob<double> sums_;  ///< the GPU's
};

}  // namespace caffe

#endif  // CAFFE_BN_LAYER_HPP_
