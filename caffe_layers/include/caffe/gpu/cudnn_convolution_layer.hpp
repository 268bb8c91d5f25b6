#ifndef CAFFE_GPU_CUDNN_CONVOLUTION_LAYER_HPP_
#define CAFFE_GPU_CUDNN_CONVOLUTION_LAYER_HPP_
#ifdef USE_CUDNN

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/gpu/cudnn_convolution.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/layer_fusion.hpp"

namespace caffe {

/**
 * @brief One of Caffe's layers of convolutions, its passes on a GPU through
 *        cuDNN.
 *
 * A convolution goes from bottom to top. kBackwards: it goes from top to
 * bottom and is read backwards, which makes a deconvolution. What runs is
 * CudnnConvolution's to decide; nothing is searched or allocated for a shape
 * that was met before. In a TEST net a ReLU in place on its top is done along
 * with the bias.
 */
template <typename Dtype, template <typename> class Base, bool kBackwards>
class CudnnConvolutionOf : public Base<Dtype>, public FusingLayer {
 public:
  explicit CudnnConvolutionOf(const LayerParameter& param)
      : Base<Dtype>(param) {}

  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top) {
    Base<Dtype>::Reshape(bottom, top);
    CHECK_EQ(2, this->num_spatial_axes_)
        << "Layer " << this->layer_param_.name() << ": cuDNN's "
        << (kBackwards ? "deconvolutions" : "convolutions") << " have "
        << "2 spatial axes (height and width); engine: CAFFE takes any number";
    const int axis = this->channel_axis_;
    const Blob<Dtype>& in = *(kBackwards ? top : bottom)[0];
    const Blob<Dtype>& out = *(kBackwards ? bottom : top)[0];
    ConvolutionShape shape = MakeConvolutionShape(this->kernel_shape_,
        this->pad_, this->stride_, this->dilation_, this->group_);
    shape.num = this->num_;
    shape.in_channels = kBackwards ? this->num_output_ : this->channels_;
    shape.in_height = in.shape(axis + 1);
    shape.in_width = in.shape(axis + 2);
    shape.out_channels = kBackwards ? this->channels_ : this->num_output_;
    shape.out_height = out.shape(axis + 1);
    shape.out_width = out.shape(axis + 2);
    convolution_.Reshape(string(this->type()) + " layer \"" +
        this->layer_param_.name() + "\"", shape);
  }

  virtual bool CanFuse(const Followers& followers) const {
    return !followers.affine && this->layer_param_.top_size() == 1;
  }
  virtual Caffe::Brew FusesIn() const { return Caffe::GPU; }

 protected:
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top) {
    const Dtype* weight = this->blobs_[0]->gpu_data();
    const bool rectifies = TakeFollowers().rectify;
    for (size_t i = 0; i < bottom.size(); ++i) {
      const Dtype* bottom_data = bottom[i]->gpu_data();
      Dtype* top_data = top[i]->mutable_gpu_data();
      if (kBackwards) {
        convolution_.BackwardData(bottom_data, weight, top_data);
      } else {
        convolution_.Forward(bottom_data, weight, top_data);
      }
      if (!this->bias_term_ && !rectifies) { continue; }
      const Dtype* bias = this->bias_term_ ? this->blobs_[1]->gpu_data() : NULL;
      if (rectifies && kBackwards) {
        convolution_.AddBiasAndRectifyX(bias, top_data);
      } else if (rectifies) {
        convolution_.AddBiasAndRectify(bias, top_data);
      } else if (kBackwards) {
        convolution_.AddBiasToX(bias, top_data);
      } else {
        convolution_.AddBias(bias, top_data);
      }
    }
  }

  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom) {
    for (size_t i = 0; i < top.size(); ++i) {
      const Dtype* top_diff = top[i]->gpu_diff();
      if (this->bias_term_ && this->param_propagate_down_[1]) {
        Dtype* bias_diff = this->blobs_[1]->mutable_gpu_diff();
        if (kBackwards) {
          convolution_.BackwardBiasOfX(top_diff, bias_diff);
        } else {
          convolution_.BackwardBias(top_diff, bias_diff);
        }
      }
      if (this->param_propagate_down_[0]) {
        const Dtype* bottom_data = bottom[i]->gpu_data();
        convolution_.BackwardFilter(kBackwards ? top_diff : bottom_data,
            kBackwards ? bottom_data : top_diff,
            this->blobs_[0]->mutable_gpu_diff());
      }
      if (!propagate_down[i]) { continue; }
      const Dtype* weight = this->blobs_[0]->gpu_data();
      Dtype* bottom_diff = bottom[i]->mutable_gpu_diff();
      if (kBackwards) {
        convolution_.Forward(top_diff, weight, bottom_diff);
      } else {
        convolution_.BackwardData(top_diff, weight, bottom_diff);
      }
    }
  }

 private:
  CudnnConvolution<Dtype> convolution_;
};

}  // namespace caffe

#endif  // USE_CUDNN
#endif  // CAFFE_GPU_CUDNN_CONVOLUTION_LAYER_HPP_
