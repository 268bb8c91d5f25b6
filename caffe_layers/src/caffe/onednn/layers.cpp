// Which layers run on oneDNN. Caffe's factory asks here first, for every layer.

#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/absval_layer.hpp"
#include "caffe/layers/elu_layer.hpp"
#include "caffe/layers/onednn_batch_norm_layer.hpp"
#include "caffe/layers/onednn_concat_layer.hpp"
#include "caffe/layers/onednn_conv_layer.hpp"
#include "caffe/layers/onednn_deconv_layer.hpp"
#include "caffe/layers/onednn_eltwise_layer.hpp"
#include "caffe/layers/onednn_lrn_layer.hpp"
#include "caffe/layers/onednn_pointwise_layer.hpp"
#include "caffe/layers/onednn_pooling_layer.hpp"
#include "caffe/layers/onednn_prelu_layer.hpp"
#include "caffe/layers/onednn_relu_layer.hpp"
#include "caffe/layers/onednn_scale_layer.hpp"
#include "caffe/layers/onednn_softmax_layer.hpp"
#include "caffe/layers/onednn_split_layer.hpp"
#include "caffe/layers/power_layer.hpp"
#include "caffe/layers/sigmoid_layer.hpp"
#include "caffe/layers/tanh_layer.hpp"
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
  if (type == "Deconvolution"
      && param.convolution_param().engine() == ConvolutionParameter::DEFAULT) {
    return Made(new OneDNNDeconvolutionLayer(param));
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
  if (type == "PReLU") { return Made(new OneDNNPReLULayer(param)); }
  if (type == "LRN" && param.lrn_param().engine() == LRNParameter::DEFAULT) {
    return Made(new OneDNNLRNLayer(param));
  }
  if (type == "Softmax"
      && param.softmax_param().engine() == SoftmaxParameter::DEFAULT) {
    return Made(new OneDNNSoftmaxLayer(param));
  }
  if (type == "Sigmoid"
      && param.sigmoid_param().engine() == SigmoidParameter::DEFAULT) {
    return Made(new OneDNNPointwiseLayer<SigmoidLayer<float> >(param));
  }
  if (type == "TanH" && param.tanh_param().engine() == TanHParameter::DEFAULT) {
    return Made(new OneDNNPointwiseLayer<TanHLayer<float> >(param));
  }
  if (type == "ELU") {
    return Made(new OneDNNPointwiseLayer<ELULayer<float> >(param));
  }
  if (type == "AbsVal") {
    return Made(new OneDNNPointwiseLayer<AbsValLayer<float> >(param));
  }
  if (type == "Power") {
    return Made(new OneDNNPointwiseLayer<PowerLayer<float> >(param));
  }
  if (type == "Split") { return Made(new OneDNNSplitLayer(param)); }
  return Made();
}

}  // namespace caffe
