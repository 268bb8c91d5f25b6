#ifndef CAFFE_ONEDNN_SOFTMAX_LAYER_HPP_
#define CAFFE_ONEDNN_SOFTMAX_LAYER_HPP_

#include <vector>

#include "caffe/layers/softmax_layer.hpp"

namespace caffe {

/**
 * @brief SoftmaxLayer for the CPU in single precision, by all threads, each with
 *        some positions at a time whose values stay in its cache. The exponential
 *        is a polynomial, exact to 2e-7.
 */
class OneDNNSoftmaxLayer : public SoftmaxLayer<float> {
 public:
  explicit OneDNNSoftmaxLayer(const LayerParameter& param)
      : SoftmaxLayer<float>(param) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_SOFTMAX_LAYER_HPP_
