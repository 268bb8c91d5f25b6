#ifndef CAFFE_ONEDNN_ELTWISE_LAYER_HPP_
#define CAFFE_ONEDNN_ELTWISE_LAYER_HPP_

#include <vector>

#include "caffe/layers/eltwise_layer.hpp"
#include "caffe/util/layer_fusion.hpp"

namespace caffe {

/**
 * @brief EltwiseLayer's SUM and PROD for the CPU in single precision on maps as
 *        they lie, by all threads, and a ReLU in place behind it along; MAX as in
 *        Caffe. Where one bottom lies in blocks, all are read so.
 */
class OneDNNEltwiseLayer : public EltwiseLayer<float>,
    public FusingLayer {
 public:
  explicit OneDNNEltwiseLayer(const LayerParameter& param)
      : EltwiseLayer<float>(param) {}

  virtual bool CanFuse(const Followers& followers) const;

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_ELTWISE_LAYER_HPP_
