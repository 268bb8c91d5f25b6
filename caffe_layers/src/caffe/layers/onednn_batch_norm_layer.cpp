#include "caffe/layers/onednn_batch_norm_layer.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "caffe/distributed/batch_statistics.hpp"
#include "caffe/onednn/affine_pass.hpp"
#include "caffe/onednn/channel_order.hpp"
#include "caffe/onednn/onednn.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

bool OneDNNBatchNormLayer::IsAffine(const vector<int>& shape) const {
  return use_global_stats_ && onednn::HasChannels(shape);
}

void OneDNNBatchNormLayer::Append(vector<float>* a, vector<float>* b) const {
  const float count = this->blobs_[2]->cpu_data()[0];
  const float share = count == 0 ? 0 : 1 / count;
  const float* const mean = this->blobs_[0]->cpu_data();
  const float* const variance = this->blobs_[1]->cpu_data();
  for (int c = 0; c < channels_; ++c) {
    const float factor = 1 / std::sqrt(variance[c] * share + eps_);
    (*a)[c] *= factor;
    (*b)[c] = ((*b)[c] - mean[c] * share) * factor;
  }
}

void OneDNNBatchNormLayer::Measure(int width, const float* bottom,
    const vector<int>& shape) {
  const ChannelOrder order(shape, width);
  const vector<float> zeros(channels_, 0);
  const float count = static_cast<float>(order.num) * order.positions;
  vector<float> sums, squares;
  ChannelSums(order, bottom, bottom, zeros, zeros, &sums, &squares);
  for (float& sum : sums) { sum /= count; }
  batch_mean_ = sums;
  AverageOverBatch(this->layer_param_, channels_, batch_mean_.data());
  ChannelSums(order, bottom, bottom, batch_mean_, batch_mean_, &sums, &squares);
  for (float& square : squares) { square /= count; }
  AverageOverBatch(this->layer_param_, channels_, squares.data());
  AddToRunning(this->layer_param_, order.num * order.positions,
      batch_mean_.data(), squares.data(), this->blobs_);
  batch_factor_.resize(channels_);
  for (int c = 0; c < channels_; ++c) {
    batch_factor_[c] = 1 / std::sqrt(squares[c] + eps_);
  }
}

void OneDNNBatchNormLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  const vector<int>& shape = bottom[0]->shape();
  if (use_global_stats_ && IsAffine(shape)) {
    vector<float> scale(channels_, 1), shift(channels_, 0);
    Append(&scale, &shift);
    onednn::AffinePass(scale, shift, TakeFollowers(), *bottom[0], top[0]);
    return;
  }
  const Followers followers = TakeFollowers();
  scale_ = followers.learns;
  scales_backward_ = false;
  if (!onednn::HasChannels(shape)) {
    BatchNormLayer<float>::Forward_cpu(bottom, top);
    if (followers.rectify) { Rectify(top[0]->count(), top[0]->mutable_cpu_data()); }
    return;
  }
  SyncedMemory* const map = bottom[0]->data().get();
  const int width = onednn::WidthOf(map, shape);
  const dnnl::memory::desc lies = onednn::OrderOfWidth(shape, width);
  const float* const from =
      onednn::Values(onednn::Read(map, shape, lies, WORK_SOURCE));
  Measure(width, from, shape);
  vector<float> shift(channels_);
  for (int c = 0; c < channels_; ++c) { shift[c] = -batch_mean_[c] * batch_factor_[c]; }
  const ChannelOrder order(shape, width);
  // layers in place behind this one change the top before backward comes
  onednn::Writer kept(x_norm_.data().get(), shape, lies);
  onednn::Writer writer(top[0]->data().get(), shape, lies);
  const vector<float> ones(channels_, 1), zeros(channels_, 0);
  ScaleAndShiftTwice(order, from, batch_factor_, shift, onednn::Values(kept.memory()),
      followers.affine ? followers.scale : ones,
      followers.affine ? followers.shift : zeros, followers.rectify,
      onednn::Values(writer.memory()));
  kept.Finish();
  writer.Finish(followers.rectify);
  if (scale_ != NULL) { scale_->TakeBottom(x_norm_); }
}

void OneDNNBatchNormLayer::SumGradient(const Blob<float>& top) {
  const vector<int>& shape = top.shape();
  SyncedMemory* const diff = top.diff().get();
  SyncedMemory* const normalized = x_norm_.data().get();
  const int width =
      std::max(onednn::WidthOf(diff, shape), onednn::WidthOf(normalized, shape));
  const dnnl::memory::desc lies = onednn::OrderOfWidth(shape, width);
  const vector<float> zeros(channels_, 0);
  ChannelSums(ChannelOrder(shape, width),
      onednn::Values(onednn::Read(diff, shape, lies, WORK_SOURCE)),
      onednn::Values(onednn::Read(normalized, shape, lies, WORK_OTHER_SOURCE)), zeros,
      zeros, &sums_, &products_);
}

bool OneDNNBatchNormLayer::FuseBackward(AffineLayer* layer, const Blob<float>& top) {
  scales_backward_ = layer == scale_ && layer->HasTaken(x_norm_);
  if (scales_backward_) {
    SumGradient(top);
    layer->AddGradients(sums_, products_);
  }
  return scales_backward_;
}

void OneDNNBatchNormLayer::Backward_cpu(const vector<Blob<float>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  AffineLayer* const scale = scales_backward_ ? scale_ : NULL;
  scales_backward_ = false;
  const vector<int>& shape = bottom[0]->shape();
  if (!onednn::HasChannels(shape)) {
    BatchNormLayer<float>::Backward_cpu(top, propagate_down, bottom);
    return;
  }
  SyncedMemory* const diff = top[0]->diff().get();
  SyncedMemory* const normalized = x_norm_.data().get();
  const int width = std::max(onednn::WidthOf(diff, shape),
      use_global_stats_ ? 1 : onednn::WidthOf(normalized, shape));
  const dnnl::memory::desc lies = onednn::OrderOfWidth(shape, width);
  const ChannelOrder order(shape, width);
  const float* const from =
      onednn::Values(onednn::Read(diff, shape, lies, WORK_SOURCE));
  if (use_global_stats_) {
    vector<float> scale(channels_, 1), shift(channels_, 0);
    Append(&scale, &shift);
    onednn::Writer writer(bottom[0]->diff().get(), shape, lies);
    ScaleAndShift(order, from, scale, vector<float>(channels_, 0), false,
        onednn::Values(writer.memory()));
    writer.Finish();
    return;
  }
  // dx = (dy - mean(dy) - mean(dy y) y) / sqrt(variance + eps), where dy is the scale
  // times the gradient behind a Scale that is computed along
  const float* const y = onednn::Values(
      onednn::Read(normalized, shape, lies, WORK_OTHER_SOURCE));
  const vector<float> zeros(channels_, 0);
  vector<float> factor = batch_factor_, shift = zeros;
  if (scale != NULL) {
    scale->Append(&factor, &shift);
  } else {
    SumGradient(*top[0]);
  }
  vector<float> sums = sums_, products = products_;
  AverageOverBatch(this->layer_param_, channels_, products.data());
  AverageOverBatch(this->layer_param_, channels_, sums.data());
  const float count = static_cast<float>(order.num) * order.positions;
  for (int c = 0; c < channels_; ++c) {
    sums[c] *= -factor[c] / count;
    products[c] *= -factor[c] / count;
  }
  onednn::Writer writer(bottom[0]->diff().get(), shape, lies);
  ScaleSumAndShift(order, from, factor, y, products, sums,
      onednn::Values(writer.memory()));
  writer.Finish();
}

}  // namespace caffe
