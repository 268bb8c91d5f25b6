#ifndef CAFFE_CUDNN_CONV_LAYER_HPP_
#define CAFFE_CUDNN_CONV_LAYER_HPP_

#include "caffe/layers/conv_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#ifdef USE_CUDNN
#include "caffe/gpu/cudnn_convolution_layer.hpp"
#endif

namespace caffe {

#ifdef USE_CUDNN
/**
 * @brief ConvolutionLayer through cuDNN on a GPU; takes the place of Caffe's own
 *        class of this name, which cuDNN 8 and later have left behind.
 *
 * bottom N x C x H x W, top N x K x H' x W' with
 *   H' = (H + 2 pad - dilation (kernel - 1) - 1) / stride + 1, rounded down,
 * and W' likewise. Blobs: weights K x C/group x kernel x kernel, bias K.
 */
template <typename Dtype>
class CuDNNConvolutionLayer
    : public CudnnConvolutionOf<Dtype, ConvolutionLayer, false> {
 public:
  explicit CuDNNConvolutionLayer(const LayerParameter& param)
      : CudnnConvolutionOf<Dtype, ConvolutionLayer, false>(param) {}
};
#endif

}  // namespace caffe

#endif  // CAFFE_CUDNN_CONV_LAYER_HPP_
