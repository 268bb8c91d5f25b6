#ifndef CAFFE_ONEDNN_SCALE_LAYER_HPP_
#define CAFFE_ONEDNN_SCALE_LAYER_HPP_

#include <vector>

#include "caffe/layers/scale_layer.hpp"
#include "caffe/util/layer_fusion.hpp"

namespace caffe {

/**
 * @brief ScaleLayer for the CPU in single precision on maps as they lie
 *        (ChannelOrder), by all threads, where it has a learnt factor for each
 *        channel; else as in Caffe. See OneDNNBatchNormLayer.
 *
 * In place, a TRAIN net's layer keeps a copy of its bottom for backward; behind
 * BatchNorm, which keeps the same and may go back for both, that is one copy for both.
 * In a TEST net, which seldom goes back, the bottom is computed from the top: the
 * factor's gradient is 0 where the factor is.
 */
class OneDNNScaleLayer : public ScaleLayer<float>,
    public AffineLayer, public FusingLayer {
 public:
  explicit OneDNNScaleLayer(const LayerParameter& param)
      : ScaleLayer<float>(param) {}

  virtual bool IsAffine(const vector<int>& shape) const;
  virtual void Append(vector<float>* a, vector<float>* b) const;
  virtual bool Learns() const { return true; }
  virtual void TakeBottom(const Blob<float>& bottom) {
    taken_bottom_ = bottom.data();
    temp_.data()->Release();
  }
  virtual bool HasTaken(const Blob<float>& bottom) const {
    return taken_bottom_ == bottom.data();
  }
  virtual void AddGradients(const vector<float>& sums, const vector<float>& products);
  virtual bool CanFuse(const Followers& followers) const;

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);

 private:
  // The bottom of the latest pass, where the layer before keeps it; else it is in temp_.
  shared_ptr<SyncedMemory> taken_bottom_;
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_SCALE_LAYER_HPP_
