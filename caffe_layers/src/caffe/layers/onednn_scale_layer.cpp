#include "caffe/layers/onednn_scale_layer.hpp"

#include <algorithm>
#include <vector>

#include "caffe/onednn/affine_pass.hpp"
#include "caffe/onednn/channel_order.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

bool OneDNNScaleLayer::IsAffine(const vector<int>& shape) const {
  return this->layer_param_.bottom_size() == 1 && axis_ == 1
      && this->blobs_[0]->num_axes() == 1 && onednn::HasChannels(shape);
}

bool OneDNNScaleLayer::CanFuse(const Followers& followers) const {
  return this->layer_param_.bottom_size() == 1 && axis_ == 1
      && this->blobs_[0]->num_axes() == 1 && (followers.affine || followers.rectify);
}

void OneDNNScaleLayer::Append(vector<float>* a, vector<float>* b) const {
  const float* const scale = this->blobs_[0]->cpu_data();
  const float* const bias =
      bias_layer_ ? this->blobs_[bias_param_id_]->cpu_data() : NULL;
  for (int c = 0; c < scale_dim_; ++c) {
    (*a)[c] *= scale[c];
    (*b)[c] = (*b)[c] * scale[c] + (bias != NULL ? bias[c] : 0);
  }
}

void OneDNNScaleLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  const vector<int>& shape = bottom[0]->shape();
  if (!IsAffine(shape)) {
    ScaleLayer<float>::Forward_cpu(bottom, top);
    return;
  }
  const vector<float> ones(scale_dim_, 1), zeros(scale_dim_, 0);
  if (bottom[0] == top[0] && this->phase_ == TRAIN) {
    taken_bottom_.reset();
    onednn::AffinePass(ones, zeros, Followers(), *bottom[0], &temp_);
  }
  vector<float> scale = ones, shift = zeros;
  Append(&scale, &shift);
  onednn::AffinePass(scale, shift, TakeFollowers(), *bottom[0], top[0]);
}

void OneDNNScaleLayer::AddGradients(const vector<float>& sums,
    const vector<float>& products) {
  const auto add = [this](int parameter, const vector<float>& values) {
    if (!this->param_propagate_down_[parameter]) { return; }
    float* const gradient = this->blobs_[parameter]->mutable_cpu_diff();
    for (int c = 0; c < scale_dim_; ++c) { gradient[c] += values[c]; }
  };
  add(0, products);
  if (bias_layer_) { add(bias_param_id_, sums); }
}

void OneDNNScaleLayer::Backward_cpu(const vector<Blob<float>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  const vector<int>& shape = bottom[0]->shape();
  if (!IsAffine(shape)) {
    ScaleLayer<float>::Backward_cpu(top, propagate_down, bottom);
    return;
  }
  const bool in_place = bottom[0] == top[0];
  const bool from_top = in_place && this->phase_ == TEST;
  SyncedMemory* const diff = top[0]->diff().get();
  SyncedMemory* const data = !in_place || from_top ? bottom[0]->data().get()
      : taken_bottom_ ? taken_bottom_.get() : temp_.data().get();
  const int width =
      std::max(onednn::WidthOf(diff, shape), onednn::WidthOf(data, shape));
  const dnnl::memory::desc lies = onednn::OrderOfWidth(shape, width);
  const ChannelOrder order(shape, width);
  const float* const from =
      onednn::Values(onednn::Read(diff, shape, lies, WORK_SOURCE));
  const float* const scale = this->blobs_[0]->cpu_data();
  const vector<float> zeros(scale_dim_, 0);
  if (this->param_propagate_down_[0]
      || (bias_layer_ && this->param_propagate_down_[bias_param_id_])) {
    const float* const x = onednn::Values(
        onednn::Read(data, shape, lies, WORK_OTHER_SOURCE));
    vector<float> sums, products;
    ChannelSums(order, from, x, zeros, zeros, &sums, &products);
    for (int c = 0; from_top && c < scale_dim_; ++c) {
      const float bias =
          bias_layer_ ? this->blobs_[bias_param_id_]->cpu_data()[c] : 0;
      products[c] = scale[c] != 0 ? (products[c] - bias * sums[c]) / scale[c] : 0;
    }
    AddGradients(sums, products);
  }
  if (propagate_down[0]) {
    onednn::Writer writer(bottom[0]->diff().get(), shape, lies);
    ScaleAndShift(order, from, vector<float>(scale, scale + scale_dim_), zeros,
        false, onednn::Values(writer.memory()));
    writer.Finish();
  }
}

}  // namespace caffe
