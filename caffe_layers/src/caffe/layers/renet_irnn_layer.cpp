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

INSTANTIATE_CLASS(ReNetIRNNLayer);
REGISTER_LAYER_CLASS(ReNetIRNN);

}  // namespace caffe
