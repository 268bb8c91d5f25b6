#ifndef ONEDNN_UNDER_TEST_HPP_
#define ONEDNN_UNDER_TEST_HPP_

#include <type_traits>

#include "caffe/layers/onednn_batch_norm_layer.hpp"
#include "caffe/layers/onednn_concat_layer.hpp"
#include "caffe/layers/onednn_conv_layer.hpp"
#include "caffe/layers/onednn_eltwise_layer.hpp"
#include "caffe/layers/onednn_pooling_layer.hpp"
#include "caffe/layers/onednn_relu_layer.hpp"
#include "caffe/layers/onednn_scale_layer.hpp"

namespace caffe {

// What Caffe's own tests of a layer are run on once more (see CMakeLists.txt).
template <typename Dtype, typename Float, typename Other>
using FloatOrOther = typename std::conditional<
    std::is_same<Dtype, float>::value, Float, Other>::type;

template <typename Dtype>
using OneDNNTestedConvolutionLayer =
    FloatOrOther<Dtype, OneDNNConvolutionLayer, ConvolutionLayer<Dtype> >;
template <typename Dtype>
using OneDNNTestedPoolingLayer =
    FloatOrOther<Dtype, OneDNNPoolingLayer, PoolingLayer<Dtype> >;
template <typename Dtype>
using OneDNNTestedReLULayer =
    FloatOrOther<Dtype, OneDNNReLULayer, ReLULayer<Dtype> >;
template <typename Dtype>
using OneDNNTestedBatchNormLayer =
    FloatOrOther<Dtype, OneDNNBatchNormLayer, BatchNormLayer<Dtype> >;
template <typename Dtype>
using OneDNNTestedScaleLayer =
    FloatOrOther<Dtype, OneDNNScaleLayer, ScaleLayer<Dtype> >;
template <typename Dtype>
using OneDNNTestedEltwiseLayer =
    FloatOrOther<Dtype, OneDNNEltwiseLayer, EltwiseLayer<Dtype> >;
template <typename Dtype>
using OneDNNTestedConcatLayer =
    FloatOrOther<Dtype, OneDNNConcatLayer, ConcatLayer<Dtype> >;

}  // namespace caffe

#endif  // ONEDNN_UNDER_TEST_HPP_
