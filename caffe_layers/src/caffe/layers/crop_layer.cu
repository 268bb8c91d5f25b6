#include <string>
#include <vector>

#include "caffe/gpu/default_stream.cuh"
#include "caffe/layers/crop_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/permutation.cuh"

namespace caffe {

namespace {

template <typename Dtype>
void Launch(const LayerParameter& param, const Blob<Dtype>& whole,
    const Blob<Dtype>& part, bool back, const Dtype* from, Dtype* to) {
  if (part.count() == 0) { return; }
  DefaultStream("Crop layer '" + param.name() + "'").Launch(
      &PermutationKernel<Dtype>,
      dim3((part.count() - 1) / kPermutationThreads + 1),
      dim3(kPermutationThreads), 0, part.count(),
      GetCrop(whole.shape(), part.shape()), back, from, to);
}

}  // namespace

/// Where the part begins goes along with the launch: Caffe's own kernel reads it
/// out of three blobs, each of which is copied to the GPU, and waited for, in each
/// pass.
template <typename Dtype>
void CropLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  const vector<int> begin(offsets.cpu_data(), offsets.cpu_data() + offsets.count());
  Launch(this->layer_param_, *bottom[0], *top[0], false,
      bottom[0]->gpu_data() + bottom[0]->offset(begin),
      top[0]->mutable_gpu_data());
}

template <typename Dtype>
void CropLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) { return; }
  const vector<int> begin(offsets.cpu_data(), offsets.cpu_data() + offsets.count());
  Dtype* const to = bottom[0]->mutable_gpu_diff();
  caffe_gpu_set(bottom[0]->count(), Dtype(0), to);
  Launch(this->layer_param_, *bottom[0], *top[0], true, top[0]->gpu_diff(),
      to + bottom[0]->offset(begin));
}

INSTANTIATE_LAYER_GPU_FUNCS(CropLayer);

}  // namespace caffe
