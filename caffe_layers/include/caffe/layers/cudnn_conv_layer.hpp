#ifndef CAFFE_CUDNN_CONV_LAYER_HPP_
#define CAFFE_CUDNN_CONV_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/conv_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#ifdef USE_CUDNN
#include "caffe/gpu/cudnn_convolution.hpp"
#endif

namespace caffe {

#ifdef USE_CUDNN
/**
 * @brief ConvolutionLayer through cuDNN on a GPU; takes the place of Caffe's own
 *        class of this name, which cuDNN 8 and later have left behind.
 *
 * bottom N x C x H x W, top N x K x H' x W' with
 *   H' = (H + 2 pad - dilation (kernel - 1) - 1) / stride + 1, rounded down,
 * and W' likewise. Blobs: weights K x C/group x kernel x kernel, bias K. What
 * runs is CudnnConvolution's to decide; nothing is searched or allocated for a
 * shape that was met before.
 */
template <typename Dtype>
class CuDNNConvolutionLayer : public ConvolutionLayer<Dtype> {
 public:
  explicit CuDNNConvolutionLayer(const LayerParameter& param)
      : ConvolutionLayer<Dtype>(param) {}
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

#endif  // CAFFE_CUDNN_CONV_LAYER_HPP_
