#include "caffe/layers/renet_lstm_layer.hpp"

#include <vector>

#include "caffe/filler.hpp"

namespace caffe {

template <typename Dtype>
void ReNetLSTMLayer<Dtype>::FillParameters(int scan) {
  ReNetLayer<Dtype>::FillParameters(scan);
  Dtype* forget_bias =
      this->ScanBlob(scan, 1)->mutable_cpu_data() + this->hidden_;
  for (int i = 0; i < this->hidden_; ++i) {
    forget_bias[i] += this->layer_param_.renet_param().forget_bias();
  }
  if (this->peephole_) {
    shared_ptr<Filler<Dtype> > filler(
        GetFiller<Dtype>(this->WeightFiller()));
    filler->Fill(this->ScanBlob(scan, 3));
  }
}

INSTANTIATE_CLASS(ReNetLSTMLayer);
REGISTER_LAYER_CLASS(ReNetLSTM);

}  // namespace caffe
