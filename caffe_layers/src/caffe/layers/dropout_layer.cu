#include <vector>

#include "caffe/layers/dropout_layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

// Bound by memory: a map is read once and written once, and no mask is.
template <typename Dtype>
__global__ void DropoutKernel(int count, int size, DropoutMask mask,
    Dtype scale, const Dtype* in, Dtype* out) {
  CUDA_KERNEL_LOOP(index, count) {
    const int sample = index / size;
    const bool kept = mask.Keeps(mask.OfSample(sample), index - sample * size);
    out[index] = in[index] * (kept ? scale : Dtype(0));
  }
}

template <typename Dtype>
void DropoutLayer<Dtype>::ApplyOnGpu(const Blob<Dtype>& shape, const Dtype* in,
    Dtype* out) const {
  const int count = shape.count();
  const int size = shape.num_axes() == 0 ? 1 : count / shape.shape(0);
  // NOLINT_NEXT_LINE(whitespace/operators)
  DropoutKernel<Dtype><<<CAFFE_GET_BLOCKS(count), CAFFE_CUDA_NUM_THREADS>>>(
      count, size, mask_, scale_, in, out);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void DropoutLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  if (this->phase_ == TRAIN) {
    Draw(bottom[0]->num_axes() == 0 ? 1 : bottom[0]->shape(0));
    ApplyOnGpu(*bottom[0], bottom[0]->gpu_data(), top[0]->mutable_gpu_data());
  } else if (bottom[0] != top[0]) {
    caffe_copy(bottom[0]->count(), bottom[0]->gpu_data(),
        top[0]->mutable_gpu_data());
  }
}

template <typename Dtype>
void DropoutLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) { return; }
  if (this->phase_ == TRAIN) {
    ApplyOnGpu(*bottom[0], top[0]->gpu_diff(), bottom[0]->mutable_gpu_diff());
  } else if (bottom[0] != top[0]) {
    caffe_copy(top[0]->count(), top[0]->gpu_diff(),
        bottom[0]->mutable_gpu_diff());
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(DropoutLayer);

}  // namespace caffe
