#include <vector>

#include "caffe/layers/renet_layer.hpp"

namespace caffe {

template <typename Dtype>
void ReNetLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  SweepForward(ON_GPU, bottom, top);
}

template <typename Dtype>
void ReNetLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  SweepBackward(ON_GPU, top, propagate_down, bottom);
}

INSTANTIATE_LAYER_GPU_FUNCS(ReNetLayer);

}  // namespace caffe
