#include <vector>

#include "caffe/gpu/default_stream.cuh"
#include "caffe/layers/unpooling_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/unpooling.cuh"

namespace caffe {

namespace {

dim3 Blocks(int count) { return dim3((count - 1) / kUnpoolingThreads + 1); }

}  // namespace

// Bound by memory: N maps of 64 x 360 x 480 in float from 180 x 240 are N * 22 MB
// of values and mask read and N * 44 MB written; the winners, as many numbers,
// are set, compared and read once more: N * 45 us at 4.3 TB/s.
template <typename Dtype>
void UnpoolingLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  const int count = bottom[0]->count();
  if (count == 0) { return; }
  DefaultStream stream(Name());
  if (method_ != UnpoolingParameter::MAX) {
    stream.Launch(&UnpoolingSpreadKernel<Dtype>, Blocks(top[0]->count()),
        dim3(kUnpoolingThreads), 0, top[0]->count(), rows_, columns_,
        method_ == UnpoolingParameter::AVE, bottom[0]->gpu_data(),
        top[0]->mutable_gpu_data());
    return;
  }
  winners_.Reshape(top[0]->shape());
  bad_.Reshape(vector<int>(1, 1));
  caffe_gpu_set(winners_.count(), 0, winners_.mutable_gpu_data());
  caffe_gpu_set(1, 0, bad_.mutable_gpu_data());
  const Dtype* const mask = bottom.size() > 1 ? bottom[1]->gpu_data() : NULL;
  stream.Launch(&UnpoolingWinnersKernel<Dtype>, Blocks(count),
      dim3(kUnpoolingThreads), 0, count, rows_, columns_, mask,
      winners_.mutable_gpu_data(), bad_.mutable_gpu_data());
  stream.Launch(&UnpoolingForwardKernel<Dtype>, Blocks(top[0]->count()),
      dim3(kUnpoolingThreads), 0, top[0]->count(), winners_.gpu_data(),
      bottom[0]->gpu_data(), top[0]->mutable_gpu_data());
  if (mask != NULL) { CheckMask(bad_.cpu_data()[0], bottom); }
}

// With the winners of Forward.
template <typename Dtype>
void UnpoolingLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  const int count = bottom[0]->count();
  if (!propagate_down[0] || count == 0) { return; }
  DefaultStream stream(Name());
  if (method_ != UnpoolingParameter::MAX) {
    stream.Launch(&UnpoolingCollectKernel<Dtype>, Blocks(count),
        dim3(kUnpoolingThreads), 0, count, rows_, columns_,
        method_ == UnpoolingParameter::AVE, top[0]->gpu_diff(),
        bottom[0]->mutable_gpu_diff());
    return;
  }
  stream.Launch(&UnpoolingBackwardKernel<Dtype>, Blocks(count),
      dim3(kUnpoolingThreads), 0, count, rows_, columns_,
      bottom.size() > 1 ? bottom[1]->gpu_data() : NULL, winners_.gpu_data(),
      top[0]->gpu_diff(), bottom[0]->mutable_gpu_diff());
}

INSTANTIATE_LAYER_GPU_FUNCS(UnpoolingLayer);

}  // namespace caffe
