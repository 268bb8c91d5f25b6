#include "caffe/layers/onednn_split_layer.hpp"

#include <algorithm>
#include <vector>

#include "caffe/onednn/channel_order.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

void OneDNNSplitLayer::Backward_cpu(const vector<Blob<float>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  const vector<int>& shape = bottom[0]->shape();
  int width = 1;
  for (const Blob<float>* each : top) {
    width = std::max(width, onednn::WidthOf(each->diff().get(), shape));
  }
  if (!propagate_down[0] || top.size() == 1 || width == 1) {
    SplitLayer<float>::Backward_cpu(top, propagate_down, bottom);
    return;
  }
  const dnnl::memory::desc order = onednn::BlockedOrder(shape);
  const auto read = [&](int i, WorkArea area) {
    return onednn::Values(
        onednn::Read(top[i]->diff().get(), shape, order, area));
  };
  const float* sum = read(0, WORK_SOURCE);
  onednn::Writer writer(bottom[0]->diff().get(), shape, order);
  float* const to = onednn::Values(writer.memory());
  for (size_t i = 1; i < top.size(); ++i) {
    WeightedSum(order.get_size() / sizeof(float), 1, sum, 1,
        read(i, WORK_OTHER_SOURCE), false, to);
    sum = to;
  }
  writer.Finish();
}

}  // namespace caffe
