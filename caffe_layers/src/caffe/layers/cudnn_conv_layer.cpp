#ifdef USE_CUDNN
#include "caffe/layers/cudnn_conv_layer.hpp"

#include <string>
#include <vector>

namespace caffe {

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::Reshape(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  ConvolutionLayer<Dtype>::Reshape(bottom, top);
  CHECK_EQ(2, this->num_spatial_axes_)
      << "Layer " << this->layer_param_.name() << ": cuDNN convolutions have "
      << "2 spatial axes (height and width); engine: CAFFE takes any number";
  const int axis = this->channel_axis_;
  ConvolutionShape shape = MakeConvolutionShape(this->kernel_shape_,
      this->pad_, this->stride_, this->dilation_, this->group_);
  shape.num = this->num_;
  shape.in_channels = this->channels_;
  shape.in_height = bottom[0]->shape(axis + 1);
  shape.in_width = bottom[0]->shape(axis + 2);
  shape.out_channels = this->num_output_;
  shape.out_height = top[0]->shape(axis + 1);
  shape.out_width = top[0]->shape(axis + 2);
  convolution_.Reshape(string(this->type()) + " layer \"" +
      this->layer_param_.name() + "\"", shape);
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::Forward_gpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Dtype* weight = this->blobs_[0]->gpu_data();
  for (size_t i = 0; i < bottom.size(); ++i) {
    Dtype* top_data = top[i]->mutable_gpu_data();
    convolution_.Forward(bottom[i]->gpu_data(), weight, top_data);
    if (this->bias_term_) {
      convolution_.AddBias(this->blobs_[1]->gpu_data(), top_data);
    }
  }
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::Backward_gpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  for (size_t i = 0; i < top.size(); ++i) {
    const Dtype* top_diff = top[i]->gpu_diff();
    if (this->bias_term_ && this->param_propagate_down_[1]) {
      convolution_.BackwardBias(top_diff, this->blobs_[1]->mutable_gpu_diff());
    }
    if (this->param_propagate_down_[0]) {
      convolution_.BackwardFilter(bottom[i]->gpu_data(), top_diff,
                                  this->blobs_[0]->mutable_gpu_diff());
    }
    if (propagate_down[i]) {
      convolution_.BackwardData(top_diff, this->blobs_[0]->gpu_data(),
                                bottom[i]->mutable_gpu_diff());
    }
  }
}

INSTANTIATE_CLASS(CuDNNConvolutionLayer);

}  // namespace caffe
#endif  // USE_CUDNN
