// Which layers run on oneDNN. Caffe's factory asks here first, for every layer.

#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/onednn_batch_norm_layer.hpp"
#include "caffe/layers/onednn_concat_layer.hpp"
#include "caffe/layers/onednn_conv_layer.hpp"
#include "caffe/layers/onednn_eltwise_layer.hpp"
#include "caffe/layers/onednn_pooling_layer.hpp"
#include "caffe/layers/onednn_relu_layer.hpp"
#include "caffe/layers/onednn_scale_layer.hpp"
#include "caffe/layers/onednn_split_layer.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

template <>
shared_ptr<Layer<double> > OneDNNLayer<double>(const LayerParameter& /*param*/) {
  return shared_ptr<Layer<double> >();
}

template <>
shared_ptr<Layer<float> > OneDNNLayer<float>(const LayerParameter& param) {
  typedef shared_ptr<Layer<float> > Made;
  if (Caffe::mode() != Caffe::CPU || !onednn::Allowed()) { return Made(); }
  const std::string& type = param.type();
  if (type == "Convolution"
      && param.convolution_param().engine() == ConvolutionParameter::DEFAULT) {
    return Made(new OneDNNConvolutionLayer(param));
  }
  if (type == "Pooling"
      && param.pooling_param().engine() == PoolingParameter::DEFAULT
      && param.pooling_param().pool() != PoolingParameter::STOCHASTIC
      && param.top_size() == 1) {
    return Made(new OneDNNPoolingLayer(param));
  }
  if (type == "ReLU"
      && param.relu_param().engine() == ReLUParameter::DEFAULT) {
    return Made(new OneDNNReLULayer(param));
  }
  if (type == "BatchNorm") { return Made(new OneDNNBatchNormLayer(param)); }
  if (type == "Scale") { return Made(new OneDNNScaleLayer(param)); }
  if (type == "Eltwise") { return Made(new OneDNNEltwiseLayer(param)); }
  if (type == "Concat") { return Made(new OneDNNConcatLayer(param)); }
  if (type == "Split") { return Made(new OneDNNSplitLayer(param)); }
  return Made();
}

}  // namespace caffe
