#include "caffe/layers/renet_gru_layer.hpp"

#include <vector>

namespace caffe {

template <typename Dtype>
void ReNetGRULayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  this->SweepForward(*bottom[0], top[0], this->phase_ == TRAIN);
}

template <typename Dtype>
void ReNetGRULayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  this->SweepBackward(top, propagate_down, bottom);
}

INSTANTIATE_CLASS(ReNetGRULayer);
REGISTER_LAYER_CLASS(ReNetGRU);

}  // namespace caffe
