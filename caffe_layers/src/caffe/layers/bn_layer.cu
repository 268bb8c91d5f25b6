#include <vector>

#include "caffe/layers/bn_layer.hpp"
#include "caffe/gpu/default_stream.cuh"
#include "caffe/util/batch_statistics.cuh"

namespace caffe {

// Bound by memory: a batch's statistics read the map twice, and y takes one
// reading and one writing.
template <typename Dtype>
void BNLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  if (!this->Begin(bottom)) { return; }
  const Dtype* const x = Input(bottom).gpu_data();
  const BNShape shape = { num_, channels_, plane_ };
  DefaultStream stream(Name());
  double* const statistics = statistics_.mutable_gpu_data();
  if (of_batch()) {
    sums_.Reshape(vector<int>(1, 2 * channels_ * shape.tiles()));
    const BNOutputs<Dtype> outputs = {
      top.size() > 1 ? top[1]->mutable_gpu_data() : NULL,
      top.size() > 2 ? top[2]->mutable_gpu_data() : NULL,
      running_ ? this->blobs_[2]->mutable_gpu_data() : NULL,
      running_ ? this->blobs_[3]->mutable_gpu_data() : NULL, momentum_ };
    LaunchBNStatistics(&stream, shape, eps_, x, outputs,
        sums_.mutable_gpu_data(), statistics);
  } else {
    const Dtype* const mean = running_ ? this->blobs_[2]->gpu_data() : NULL;
    const Dtype* const variance = running_ ? this->blobs_[3]->gpu_data() : NULL;
    stream.Launch(&BNFixedKernel<Dtype>, dim3(BNBlocks(channels_)),
        dim3(kBNThreads), 0, channels_, eps_, mean, variance, statistics);
  }
  const size_t count = bottom[0]->count();
  stream.Launch(&BNForwardKernel<Dtype>, dim3(BNBlocks(count)),
      dim3(kBNThreads), 0, count, channels_, plane_,
      static_cast<const double*>(statistics), this->blobs_[0]->gpu_data(),
      this->blobs_[1]->gpu_data(), x, top[0]->mutable_gpu_data());
}

template <typename Dtype>
void BNLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  const bool sums = (of_batch() && propagate_down[0]) || learns(0) || learns(1);
  if (bottom[0]->count() == 0 || (!sums && !propagate_down[0])) { return; }
  const Dtype* const x = Input(bottom).gpu_data();
  const Dtype* const dy = top[0]->gpu_diff();
  const BNShape shape = { num_, channels_, plane_ };
  DefaultStream stream(Name());
  double* const statistics = statistics_.mutable_gpu_data();
  if (sums) {
    sums_.Reshape(vector<int>(1, 2 * channels_ * shape.tiles()));
    Dtype* const dscale =
        learns(0) ? this->blobs_[0]->mutable_gpu_diff() : NULL;
    Dtype* const dshift =
        learns(1) ? this->blobs_[1]->mutable_gpu_diff() : NULL;
    LaunchBNGradientSums(&stream, shape, x, dy, sums_.mutable_gpu_data(),
        statistics, dscale, dshift);
  }
  if (propagate_down[0]) {
    const size_t count = bottom[0]->count();
    stream.Launch(&BNBackwardKernel<Dtype>, dim3(BNBlocks(count)),
        dim3(kBNThreads), 0, count, channels_, plane_, of_batch(),
        static_cast<const double*>(statistics), this->blobs_[0]->gpu_data(), x,
        dy, bottom[0]->mutable_gpu_diff());
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(BNLayer);

}  // namespace caffe
