#include "caffe/layers/onednn_pooling_layer.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace caffe {

using dnnl::memory;

const OneDNNPoolingLayer::Plan& OneDNNPoolingLayer::PlanFor(
    const Blob<float>& bottom, const Blob<float>& top) {
  Plan* const plan = plans_.Find(bottom.shape());
  if (plan->made) { return *plan; }
  plan->made = true;
  plan->bottom = onednn::BlockedOrder(bottom.shape());
  plan->top = onednn::BlockedOrder(top.shape());
  if (plan->bottom.get_size() != bottom.count() * sizeof(float)) {
    return *plan;  // channels do not fill the blocks
  }
  const memory::dims kernel = {this->kernel_h_, this->kernel_w_};
  const memory::dims strides = {this->stride_h_, this->stride_w_};
  const memory::dims before = {this->pad_h_, this->pad_w_};
  // Caffe's windows may reach beyond the map's end by more than the padding
  const memory::dims after = {
      std::max(0, (top.height() - 1) * this->stride_h_ + this->kernel_h_
          - bottom.height() - this->pad_h_),
      std::max(0, (top.width() - 1) * this->stride_w_ + this->kernel_w_
          - bottom.width() - this->pad_w_)};
  typedef dnnl::pooling_forward Forward;
  typedef dnnl::pooling_backward Backward;
  const dnnl::algorithm kMax = dnnl::algorithm::pooling_max;
  std::string codes;
  try {
    const Forward::primitive_desc inference(
        {dnnl::prop_kind::forward_inference, kMax, plan->bottom, plan->top,
         strides, kernel, before, after}, onednn::Engine());
    const Forward::primitive_desc training(
        {dnnl::prop_kind::forward_training, kMax, plan->bottom, plan->top,
         strides, kernel, before, after}, onednn::Engine());
    const Backward::primitive_desc backward({kMax, plan->bottom, plan->top,
        strides, kernel, before, after}, onednn::Engine(), training);
    codes = std::string(inference.impl_info_str()) + training.impl_info_str()
        + backward.impl_info_str();
    plan->winners = training.workspace_desc();
    plan->inference = Forward(inference);
    plan->training = Forward(training);
    plan->backward = Backward(backward);
  } catch (const dnnl::error& error) {
    onednn::CheckOnlyMissing(error, this->layer_param_.name());
    return *plan;
  }
  plan->available = !onednn::IsReference(codes);
  return *plan;
}

void OneDNNPoolingLayer::ForwardKeepingWinners(const Plan& plan,
    Blob<float>* bottom, const memory& top) {
  const size_t count = plan.winners.get_size() / sizeof(float) + 1;
  if (winners_.size() < count) { winners_.resize(count); }
  const memory map = onednn::Read(bottom->data().get(), bottom->shape(),
      plan.bottom, WORK_SOURCE);
  plan.training.execute(onednn::Stream(), {{DNNL_ARG_SRC, map},
      {DNNL_ARG_DST, top}, {DNNL_ARG_WORKSPACE,
          memory(plan.winners, onednn::Engine(), winners_.data())}});
  winners_are_kept_ = true;
}

PoolingWindows OneDNNPoolingLayer::Windows() const {
  return {this->height_, this->width_, this->pooled_height_,
      this->pooled_width_, this->kernel_h_, this->kernel_w_, this->stride_h_,
      this->stride_w_, this->pad_h_, this->pad_w_};
}

void OneDNNPoolingLayer::ForwardAsItLies(Blob<float>* bottom,
    Blob<float>* top) {
  SyncedMemory* const map = bottom->data().get();
  const int width = onednn::WidthOf(map, bottom->shape());
  const float* const from = onednn::Values(onednn::Read(map, bottom->shape(),
      onednn::OrderOfWidth(bottom->shape(), width), WORK_SOURCE));
  onednn::Writer writer(top->data().get(), top->shape(),
      onednn::OrderOfWidth(top->shape(), width));
  (IsAverage() ? AverageWindows : LargestOfWindows)(
      ChannelOrder(bottom->shape(), width), Windows(), from,
      onednn::Values(writer.memory()));
  writer.Finish();
}

void OneDNNPoolingLayer::BackwardAverage(int width, Blob<float>* top,
    Blob<float>* bottom) {
  SyncedMemory* const diff = top->diff().get();
  const float* const from = onednn::Values(onednn::Read(diff, top->shape(),
      onednn::OrderOfWidth(top->shape(), width), WORK_SOURCE));
  onednn::Writer writer(bottom->diff().get(), bottom->shape(),
      onednn::OrderOfWidth(bottom->shape(), width));
  SpreadOverWindows(ChannelOrder(bottom->shape(), width), Windows(), from,
      onednn::Values(writer.memory()));
  writer.Finish();
}

void OneDNNPoolingLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  if (IsAverage()) {
    if (onednn::WidthOf(bottom[0]->data().get(), bottom[0]->shape()) == 1) {
      PoolingLayer<float>::Forward_cpu(bottom, top);
    } else {
      ForwardAsItLies(bottom[0], top[0]);
    }
    return;
  }
  const Plan& plan = PlanFor(*bottom[0], *top[0]);
  if (!plan.available) {
    mask_is_kept_ = this->phase_ == TRAIN || onednn::WidthOf(
        bottom[0]->data().get(), bottom[0]->shape()) == 1;
    if (mask_is_kept_) {
      PoolingLayer<float>::Forward_cpu(bottom, top);
    } else {
      ForwardAsItLies(bottom[0], top[0]);
    }
    return;
  }
  const onednn::MapLayout* const layout =
      onednn::LayoutOf(bottom[0]->data().get());
  const bool rectified = layout != NULL && layout->rectified();
  onednn::Writer writer(top[0]->data().get(), top[0]->shape(), plan.top);
  if (this->phase_ == TRAIN) {
    ForwardKeepingWinners(plan, bottom[0], writer.memory());
  } else {
    const memory map = onednn::Read(bottom[0]->data().get(),
        bottom[0]->shape(), plan.bottom, WORK_SOURCE);
    plan.inference.execute(onednn::Stream(),
        {{DNNL_ARG_SRC, map}, {DNNL_ARG_DST, writer.memory()}});
    winners_are_kept_ = false;
  }
  writer.Finish(rectified);
}

void OneDNNPoolingLayer::Backward_cpu(const vector<Blob<float>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  if (!propagate_down[0]) { return; }
  if (IsAverage()) {
    const int width = std::max(
        onednn::WidthOf(top[0]->diff().get(), top[0]->shape()),
        onednn::WidthOf(bottom[0]->data().get(), bottom[0]->shape()));
    if (width == 1) {
      PoolingLayer<float>::Backward_cpu(top, propagate_down, bottom);
    } else {
      BackwardAverage(width, top[0], bottom[0]);
    }
    return;
  }
  const Plan& plan = PlanFor(*bottom[0], *top[0]);
  if (!plan.available) {
    if (!mask_is_kept_) {  // in a TEST net, which seldom goes back
      PoolingLayer<float>::Forward_cpu(bottom, top);
      mask_is_kept_ = true;
    }
    PoolingLayer<float>::Backward_cpu(top, propagate_down, bottom);
    return;
  }
  if (!winners_are_kept_) {  // in a TEST net, which seldom goes back
    ForwardKeepingWinners(plan, bottom[0], memory(plan.top, onednn::Engine(),
        Work(WORK_TARGET, plan.top.get_size())));
  }
  const memory from = onednn::Read(top[0]->diff().get(), top[0]->shape(),
      plan.top, WORK_SOURCE);
  onednn::Writer writer(bottom[0]->diff().get(), bottom[0]->shape(),
      plan.bottom);
  plan.backward.execute(onednn::Stream(), {{DNNL_ARG_DIFF_DST, from},
      {DNNL_ARG_DIFF_SRC, writer.memory()}, {DNNL_ARG_WORKSPACE,
          memory(plan.winners, onednn::Engine(), winners_.data())}});
  writer.Finish();
}

}  // namespace caffe
