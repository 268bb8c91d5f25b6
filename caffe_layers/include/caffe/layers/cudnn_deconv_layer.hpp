#ifndef CAFFE_CUDNN_DECONV_LAYER_HPP_
#define CAFFE_CUDNN_DECONV_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/deconv_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#ifdef USE_CUDNN
#include "caffe/gpu/cudnn_convolution.hpp"
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
class CuDNNDeconvolutionLayer : public DeconvolutionLayer<Dtype> {
 public:
  explicit CuDNNDeconvolutionLayer(const LayerParameter& param)
      : DeconvolutionLayer<Dtype>(param) {}
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

 protected:
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);

  CudnnConvolution<Dtype> convolution_;
};
#endif

}  // namespace caffe

#endif  // CAFFE_CUDNN_DECONV_LAYER_HPP_
