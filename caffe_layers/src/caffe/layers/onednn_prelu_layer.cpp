#include "caffe/layers/onednn_prelu_layer.hpp"

#include <vector>

#include "caffe/onednn/affine_pass.hpp"
#include "caffe/onednn/channel_order.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

void OneDNNPReLULayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  const vector<int>& shape = bottom[0]->shape();
  if (!onednn::HasChannels(shape)) {
    PReLULayer<float>::Forward_cpu(bottom, top);
    return;
  }
  const int channels = shape[1];
  if (bottom[0] == top[0]) {  // for backward
    onednn::AffinePass(vector<float>(channels, 1), vector<float>(channels, 0),
        Followers(), *bottom[0], &bottom_memory_);
  }
  const float* const slopes = this->blobs_[0]->cpu_data();
  vector<float> slope(channels, slopes[0]);
  if (!channel_shared_) { slope.assign(slopes, slopes + channels); }
  SyncedMemory* const map = bottom[0]->data().get();
  const int width = onednn::WidthOf(map, shape);
  const dnnl::memory::desc order = onednn::OrderOfWidth(shape, width);
  const float* const from =
      onednn::Values(onednn::Read(map, shape, order, WORK_SOURCE));
  onednn::Writer writer(top[0]->data().get(), shape, order);
  ScaleNegative(ChannelOrder(shape, width), from, slope,
      onednn::Values(writer.memory()));
  writer.Finish();
}

}  // namespace caffe
