#ifndef CAFFE_ONEDNN_RELU_LAYER_HPP_
#define CAFFE_ONEDNN_RELU_LAYER_HPP_

#include <vector>

#include "caffe/layers/relu_layer.hpp"

namespace caffe {

/**
 * @brief ReLULayer for the CPU in single precision on maps in any order
 *        (onednn::MapLayout), by all threads. A map that the layer before has
 *        rectified already is left as it is.
 */
class OneDNNReLULayer : public ReLULayer<float> {
 public:
  explicit OneDNNReLULayer(const LayerParameter& param)
      : ReLULayer<float>(param) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_RELU_LAYER_HPP_
