#include "caffe/layers/renet_irnn_layer.hpp"

#include <vector>

#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
void ReNetIRNNLayer<Dtype>::FillParameters(int scan) {
  ReNetLayer<Dtype>::FillParameters(scan);
  Blob<Dtype>* recurrent_weights = this->ScanBlob(scan, 2);
  Dtype* weights = recurrent_weights->mutable_cpu_data();
  caffe_set(recurrent_weights->count(), Dtype(0), weights);
  for (int i = 0; i < this->hidden_; ++i) {
    weights[i * this->hidden_ + i] = 1;
  }
}

template <typename Dtype>
void ReNetIRNNLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  this->SweepForward(this->ON_CPU, bottom, top);
}

template <typename Dtype>
void ReNetIRNNLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  this->SweepBackward(this->ON_CPU, top, propagate_down, bottom);
}

#ifdef CPU_ONLY
STUB_GPU(ReNetIRNNLayer);
#endif

INSTANTIATE_CLASS(ReNetIRNNLayer);
REGISTER_LAYER_CLASS(ReNetIRNN);

}  // namespace caffe
