#include <vector>

#include "caffe/layers/renet_lstm_layer.hpp"

namespace caffe {

template <typename Dtype>
void ReNetLSTMLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  this->SweepForward(this->ON_GPU, bottom, top);
}

template <typename Dtype>
void ReNetLSTMLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  this->SweepBackward(this->ON_GPU, top, propagate_down, bottom);
}

INSTANTIATE_LAYER_GPU_FUNCS(ReNetLSTMLayer);

}  // namespace caffe
