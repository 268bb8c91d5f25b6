#ifndef CAFFE_CUDNN_DECONV_LAYER_HPP_
#define CAFFE_CUDNN_DECONV_LAYER_HPP_

#include "caffe/layers/deconv_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#ifdef USE_CUDNN
#include "caffe/gpu/cudnn_convolution_layer.hpp"
#endif

namespace caffe {

#ifdef USE_CUDNN
/**
 * @brief DeconvolutionLayer through cuDNN on a GPU: the convolution from top to
 *        bottom, read backwards; takes the place of Caffe's own class.
 *
 * bottom N x C x H x W, top N x K x H' x W' with
 *   H' = stride (H - 1) + dilation (kernel - 1) + 1 - 2 pad,
 * and W' likewise. Blobs: weights C x K/group x kernel x kernel, bias K.
 */
template <typename Dtype>
class CuDNNDeconvolutionLayer
    : public CudnnConvolutionOf<Dtype, DeconvolutionLayer, true> {
 public:
  explicit CuDNNDeconvolutionLayer(const LayerParameter& param)
      : CudnnConvolutionOf<Dtype, DeconvolutionLayer, true>(param) {}
};
#endif

}  // namespace caffe

#endif  // CAFFE_CUDNN_DECONV_LAYER_HPP_
