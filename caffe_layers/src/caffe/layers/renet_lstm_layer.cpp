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

template <typename Dtype>
void ReNetLSTMLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  this->SweepForward(this->ON_CPU, bottom, top);
}

template <typename Dtype>
void ReNetLSTMLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  this->SweepBackward(this->ON_CPU, top, propagate_down, bottom);
}

#ifdef CPU_ONLY
STUB_GPU(ReNetLSTMLayer);
#endif

INSTANTIATE_CLASS(ReNetLSTMLayer);
REGISTER_LAYER_CLASS(ReNetLSTM);

}  // namespace caffe
