#include <vector>

#include "caffe/gpu/default_stream.cuh"
#include "caffe/layers/permute_layer.hpp"
#include "caffe/util/permutation.cuh"

namespace caffe {

namespace {

template <typename Dtype>
void Launch(const string& who, int count, const Permutation& permutation,
    bool back, const Dtype* from, Dtype* to) {
  if (count == 0) { return; }
  DefaultStream(who).Launch(&PermutationKernel<Dtype>,
      dim3((count - 1) / kPermutationThreads + 1), dim3(kPermutationThreads), 0,
      count, permutation, back, from, to);
}

}  // namespace

// One read and one write of each value, of which one lies scattered.
template <typename Dtype>
void PermuteLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  Launch(Name(), top[0]->count(), permutation_, false, bottom[0]->gpu_data(),
      top[0]->mutable_gpu_data());
}

template <typename Dtype>
void PermuteLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) { return; }
  Launch(Name(), top[0]->count(), permutation_, true, top[0]->gpu_diff(),
      bottom[0]->mutable_gpu_diff());
}

INSTANTIATE_LAYER_GPU_FUNCS(PermuteLayer);

}  // namespace caffe
