#include "caffe/layers/onednn_eltwise_layer.hpp"

#include <algorithm>
#include <vector>

#include "caffe/onednn/channel_order.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

using dnnl::memory;

namespace {

const vector<int>::size_type kMostAxes = 5;  // that orders are known for

bool Known(const vector<int>& shape) {
  return !shape.empty() && shape.size() <= kMostAxes;
}

size_t Count(const memory::desc& order) {
  return order.get_size() / sizeof(float);
}

}  // namespace

bool OneDNNEltwiseLayer::CanFuse(const Followers& followers) const {
  return !followers.affine && op_ != EltwiseParameter_EltwiseOp_MAX;
}

void OneDNNEltwiseLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  const vector<int>& shape = bottom[0]->shape();
  const bool rectify = TakeFollowers().rectify;
  if (op_ == EltwiseParameter_EltwiseOp_MAX || !Known(shape)) {
    EltwiseLayer<float>::Forward_cpu(bottom, top);
    if (rectify) { Rectify(top[0]->count(), top[0]->mutable_cpu_data()); }
    return;
  }
  int width = 1;
  for (const Blob<float>* each : bottom) {
    width = std::max(width, onednn::WidthOf(each->data().get(), shape));
  }
  const memory::desc order = onednn::OrderOfWidth(shape, width);
  const auto read = [&](int i, WorkArea area) {
    return onednn::Values(
        onednn::Read(bottom[i]->data().get(), shape, order, area));
  };
  const float* first = read(0, WORK_SOURCE);
  onednn::Writer writer(top[0]->data().get(), shape, order);
  float* const to = onednn::Values(writer.memory());
  const int last = bottom.size() - 1;
  const bool sum = op_ == EltwiseParameter_EltwiseOp_SUM;
  for (int i = 1; i <= last; ++i) {
    const float* const other = read(i, WORK_OTHER_SOURCE);
    if (sum) {
      WeightedSum(Count(order), i == 1 ? coeffs_[0] : 1, first, coeffs_[i],
          other, rectify && i == last, to);
    } else {
      Product(Count(order), first, other, rectify && i == last, to);
    }
    first = to;
  }
  writer.Finish(rectify);
}

void OneDNNEltwiseLayer::Backward_cpu(const vector<Blob<float>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  const vector<int>& shape = bottom[0]->shape();
  if (op_ != EltwiseParameter_EltwiseOp_SUM || !Known(shape)) {
    EltwiseLayer<float>::Backward_cpu(top, propagate_down, bottom);
    return;
  }
  SyncedMemory* const diff = top[0]->diff().get();
  const int width = onednn::WidthOf(diff, shape);
  const memory::desc order = onednn::OrderOfWidth(shape, width);
  const float* const from =
      onednn::Values(onednn::Read(diff, shape, order, WORK_SOURCE));
  const vector<float> zeros(1, 0);
  const ChannelOrder line({1, 1, static_cast<int>(Count(order))}, 1);
  for (size_t i = 0; i < bottom.size(); ++i) {
    if (!propagate_down[i]) { continue; }
    onednn::Writer writer(bottom[i]->diff().get(), shape, order);
    ScaleAndShift(line, from, vector<float>(1, coeffs_[i]), zeros, false,
        onednn::Values(writer.memory()));
    writer.Finish();
  }
}

}  // namespace caffe
