#ifndef CAFFE_ONEDNN_BATCH_NORM_LAYER_HPP_
#define CAFFE_ONEDNN_BATCH_NORM_LAYER_HPP_

#include <vector>

#include "caffe/layers/batch_norm_layer.hpp"
#include "caffe/util/layer_fusion.hpp"

namespace caffe {

/**
 * @brief BatchNormLayer for the CPU in single precision on maps as they lie
 *        (ChannelOrder), by all threads. With given statistics, which a TEST net
 *        has, the layer before it may do its work (FusingLayer). It does that of
 *        layers in place behind it; of the batch's statistics, in training, that of
 *        a Scale and a ReLU: the Scale then has no copy of its own, and what both
 *        need of the gradient is summed up once (FuseBackward()).
 */
class OneDNNBatchNormLayer : public BatchNormLayer<float>,
    public AffineLayer, public FusingLayer {
 public:
  explicit OneDNNBatchNormLayer(const LayerParameter& param)
      : BatchNormLayer<float>(param), scale_(NULL), scales_backward_(false) {}

  virtual bool IsAffine(const vector<int>& shape) const;
  virtual void Append(vector<float>* a, vector<float>* b) const;
  virtual bool CanFuse(const Followers& /*followers*/) const {
    return use_global_stats_ || FusesInTraining();
  }
  virtual bool FusesInTraining() const {
    return this->phase_ == TRAIN && !use_global_stats_;
  }
  virtual bool FuseBackward(AffineLayer* layer, const Blob<float>& top);

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);

 private:
  /// Sums over the top's gradient, and over its products with what was normalised.
  void SumGradient(const Blob<float>& top);
  /// Statistics of the batch, and what is kept of all.
  void Measure(int width, const float* bottom, const vector<int>& shape);

  AffineLayer* scale_;  // that the latest forward pass has computed along; else NULL
  bool scales_backward_;  // whether the next backward pass does its
  vector<float> sums_, products_;
  vector<float> batch_mean_, batch_factor_;  // factor: 1 / sqrt(variance + eps)
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_BATCH_NORM_LAYER_HPP_
