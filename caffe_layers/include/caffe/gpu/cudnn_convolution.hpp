#ifndef CAFFE_GPU_CUDNN_CONVOLUTION_HPP_
#define CAFFE_GPU_CUDNN_CONVOLUTION_HPP_
#ifdef USE_CUDNN

#include <string>

#include "caffe/blob.hpp"
#include "caffe/onednn/convolution_plan.hpp"
#include "caffe/util/cudnn.hpp"

namespace caffe {

/// A shape's part that layers keep as `Blob<int>`s of (height, width).
inline ConvolutionShape MakeConvolutionShape(const Blob<int>& kernel,
    const Blob<int>& pad, const Blob<int>& stride, const Blob<int>& dilation,
    int group) {
  ConvolutionShape shape;
  shape.kernel_height = kernel.cpu_data()[0];
  shape.kernel_width = kernel.cpu_data()[1];
  shape.pad_height = pad.cpu_data()[0];
  shape.pad_width = pad.cpu_data()[1];
  shape.stride_height = stride.cpu_data()[0];
  shape.stride_width = stride.cpu_data()[1];
  shape.dilation_height = dilation.cpu_data()[0];
  shape.dilation_width = dilation.cpu_data()[1];
  shape.group = group;
  return shape;
}

/**
 * A convolution through cuDNN, for convolution and deconvolution layers alike.
 * Groups and dilation are cuDNN's own. Algorithms are chosen by cuDNN's
 * heuristics once for each shape and remembered (see ConvolutionPlanner);
 * float32 products stay float32 unless AllowTF32().
 *
 * Everything is issued to the default stream through one handle a thread and
 * device. Caffe once gave each group and each gradient a stream (and a
 * workspace) of its own, to fill a GPU with small kernels; a group's loop is
 * one launch now, a layer's kernels fill today's GPUs one after the other, and
 * in one stream they can share the workspace, and need no synchronisation with
 * the layers around them.
 *
 * A float pointer's shape is that of x, w or y in ConvolutionShape; b has
 * out_channels values, and a bias of a deconvolution in_channels.
 */
template <typename Dtype>
class CudnnConvolution {
 public:
  CudnnConvolution();
  ~CudnnConvolution();

  /// Takes a shape; costs nothing until it is used, and needs no GPU. who:
  /// what messages call the layer.
  void Reshape(const std::string& who, const ConvolutionShape& shape);

  /// y = x * w
  void Forward(const Dtype* x, const Dtype* w, Dtype* y);
  /// x = the gradient of x, from that of y: the transposed convolution
  void BackwardData(const Dtype* y, const Dtype* w, Dtype* x);
  /// w += the gradient of w, from x and the gradient of y
  void BackwardFilter(const Dtype* x, const Dtype* y, Dtype* w);

  /// y += b at every place
  void AddBias(const Dtype* b, Dtype* y);
  /// y = max(0, y + b) at every place; b: NULL for none
  void AddBiasAndRectify(const Dtype* b, Dtype* y);
  /// b += the sum of y over images and places
  void BackwardBias(const Dtype* y, Dtype* b);
  /// The same three for x, which is a deconvolution's top.
  void AddBiasToX(const Dtype* b, Dtype* x);
  void AddBiasAndRectifyX(const Dtype* b, Dtype* x);
  void BackwardBiasOfX(const Dtype* x, Dtype* b);

 private:
  // Brings the descriptors up to the shape.
  void Describe();

  CudnnConvolution(const CudnnConvolution&) = delete;
  CudnnConvolution& operator=(const CudnnConvolution&) = delete;

  std::string who_;
  ConvolutionShape shape_;
  bool allow_tf32_;
  bool described_;
  cudnnTensorDescriptor_t x_, y_, bias_of_x_, bias_of_y_;
  cudnnFilterDescriptor_t w_;
  cudnnConvolutionDescriptor_t convolution_;
};

}  // namespace caffe

#endif  // USE_CUDNN
#endif  // CAFFE_GPU_CUDNN_CONVOLUTION_HPP_
