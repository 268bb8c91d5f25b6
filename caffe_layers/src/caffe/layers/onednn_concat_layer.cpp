#include "caffe/layers/onednn_concat_layer.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "caffe/onednn/channel_order.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

namespace {

/// Floats of an image's blocks.
size_t ImageOf(const Blob<float>& map, int width) {
  const ChannelOrder order(map.shape(), width);
  return order.count() / order.num;
}

}  // namespace

bool OneDNNConcatLayer::Fits(const vector<Blob<float>*>& bottom,
    int width) const {
  if (width == 1 || concat_axis_ != 1 || bottom[0]->num_axes() != 4) {
    return false;
  }
  for (size_t i = 0; i + 1 < bottom.size(); ++i) {
    if (bottom[i]->shape(1) % width != 0) { return false; }
  }
  return true;
}

void OneDNNConcatLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  int width = 1;
  for (const Blob<float>* each : bottom) {
    width = std::max(width, onednn::WidthOf(each->data().get(), each->shape()));
  }
  if (!Fits(bottom, width)) {
    ConcatLayer<float>::Forward_cpu(bottom, top);
    return;
  }
  onednn::Writer writer(top[0]->data().get(), top[0]->shape(),
      onednn::BlockedOrder(top[0]->shape()));
  float* to = onednn::Values(writer.memory());
  const size_t image = ImageOf(*top[0], width);
  for (const Blob<float>* each : bottom) {
    const float* const from = onednn::Values(onednn::Read(each->data().get(),
        each->shape(), onednn::BlockedOrder(each->shape()), WORK_SOURCE));
    const ChannelOrder order(each->shape(), width);
    const size_t line = static_cast<size_t>(order.positions) * width;
#pragma omp parallel for collapse(2)
    for (int n = 0; n < order.num; ++n) {
      for (int block = 0; block < order.blocks; ++block) {
        std::memcpy(to + n * image + block * line,
            from + (static_cast<size_t>(n) * order.blocks + block) * line,
            line * sizeof(float));
      }
    }
    to += order.blocks * line;
  }
  writer.Finish();
}

void OneDNNConcatLayer::Backward_cpu(const vector<Blob<float>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  SyncedMemory* const diff = top[0]->diff().get();
  const int width = onednn::WidthOf(diff, top[0]->shape());
  if (!Fits(bottom, width)) {
    ConcatLayer<float>::Backward_cpu(top, propagate_down, bottom);
    return;
  }
  const float* from = onednn::Values(onednn::Read(diff, top[0]->shape(),
      onednn::BlockedOrder(top[0]->shape()), WORK_SOURCE));
  const size_t image = ImageOf(*top[0], width);
  for (size_t i = 0; i < bottom.size(); ++i) {
    const ChannelOrder order(bottom[i]->shape(), width);
    const size_t line = static_cast<size_t>(order.positions) * width;
    if (propagate_down[i]) {
      onednn::Writer writer(bottom[i]->diff().get(), bottom[i]->shape(),
          onednn::BlockedOrder(bottom[i]->shape()));
      float* const to = onednn::Values(writer.memory());
#pragma omp parallel for collapse(2)
      for (int n = 0; n < order.num; ++n) {
        for (int block = 0; block < order.blocks; ++block) {
          std::memcpy(to + (static_cast<size_t>(n) * order.blocks + block) * line,
              from + n * image + block * line, line * sizeof(float));
        }
      }
      writer.Finish();
    }
    from += order.blocks * line;
  }
}

}  // namespace caffe
