#ifndef CAFFE_ONEDNN_PRELU_LAYER_HPP_
#define CAFFE_ONEDNN_PRELU_LAYER_HPP_

#include <vector>

#include "caffe/layers/prelu_layer.hpp"

namespace caffe {

/// @brief PReLULayer for the CPU in single precision whose forward pass takes maps
///        as they lie (ChannelOrder), by all threads.
class OneDNNPReLULayer : public PReLULayer<float> {
 public:
  explicit OneDNNPReLULayer(const LayerParameter& param)
      : PReLULayer<float>(param) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_PRELU_LAYER_HPP_
