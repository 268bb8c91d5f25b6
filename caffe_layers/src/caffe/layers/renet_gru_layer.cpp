#include "caffe/layers/renet_gru_layer.hpp"

#include <vector>

namespace caffe {

template <typename Dtype>
void ReNetGRULayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  this->SweepForward(this->ON_CPU, bottom, top);
}

template <typename Dtype>
void ReNetGRULayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  this->SweepBackward(this->ON_CPU, top, propagate_down, bottom);
}

#ifdef CPU_ONLY
STUB_GPU(ReNetGRULayer);
#endif

INSTANTIATE_CLASS(ReNetGRULayer);
REGISTER_LAYER_CLASS(ReNetGRU);

}  // namespace caffe
