#include "caffe/layers/onednn_lrn_layer.hpp"

#include <string>
#include <vector>

namespace caffe {

using dnnl::memory;

const OneDNNLRNLayer::Plan& OneDNNLRNLayer::PlanFor(const vector<int>& shape) {
  Plan* const plan = plans_.Find(shape);
  if (plan->made) { return *plan; }
  plan->made = true;
  plan->order = onednn::BlockedOrder(shape);
  const LRNParameter& param = this->layer_param_.lrn_param();
  typedef dnnl::lrn_forward Forward;
  typedef dnnl::lrn_backward Backward;
  const dnnl::algorithm kAcross = dnnl::algorithm::lrn_across_channels;
  std::string codes;
  try {
    const Forward::primitive_desc inference(
        {dnnl::prop_kind::forward_inference, kAcross, plan->order,
         param.local_size(), param.alpha(), param.beta(), param.k()},
        onednn::Engine());
    const Forward::primitive_desc training(
        {dnnl::prop_kind::forward_training, kAcross, plan->order,
         param.local_size(), param.alpha(), param.beta(), param.k()},
        onednn::Engine());
    const Backward::primitive_desc backward({kAcross, plan->order, plan->order,
        param.local_size(), param.alpha(), param.beta(), param.k()},
        onednn::Engine(), training);
    codes = std::string(inference.impl_info_str()) + training.impl_info_str()
        + backward.impl_info_str();
    plan->sums = training.workspace_desc();
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

void OneDNNLRNLayer::ForwardKeepingSums(const Plan& plan, Blob<float>* bottom,
    const memory& top) {
  const size_t count = plan.sums.get_size() / sizeof(float) + 1;
  if (sums_.size() < count) { sums_.resize(count); }
  const memory map = onednn::Read(bottom->data().get(), bottom->shape(),
      plan.order, WORK_SOURCE);
  plan.training.execute(onednn::Stream(), {{DNNL_ARG_SRC, map},
      {DNNL_ARG_DST, top}, {DNNL_ARG_WORKSPACE,
          memory(plan.sums, onednn::Engine(), sums_.data())}});
  sums_are_kept_ = true;
}

void OneDNNLRNLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  const vector<int>& shape = bottom[0]->shape();
  on_onednn_ = this->layer_param_.lrn_param().norm_region()
      == LRNParameter_NormRegion_ACROSS_CHANNELS && bottom[0] != top[0]
      && onednn::WidthOf(bottom[0]->data().get(), shape) > 1
      && PlanFor(shape).available;
  if (!on_onednn_) {
    LRNLayer<float>::Forward_cpu(bottom, top);
    return;
  }
  const Plan& plan = PlanFor(shape);
  onednn::Writer writer(top[0]->data().get(), shape, plan.order);
  if (this->phase_ == TRAIN) {
    ForwardKeepingSums(plan, bottom[0], writer.memory());
  } else {
    plan.inference.execute(onednn::Stream(), {{DNNL_ARG_SRC, onednn::Read(
        bottom[0]->data().get(), shape, plan.order, WORK_SOURCE)},
        {DNNL_ARG_DST, writer.memory()}});
    sums_are_kept_ = false;
  }
  writer.Finish();
}

void OneDNNLRNLayer::Backward_cpu(const vector<Blob<float>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  if (!on_onednn_) {
    LRNLayer<float>::Backward_cpu(top, propagate_down, bottom);
    return;
  }
  if (!propagate_down[0]) { return; }
  const vector<int>& shape = bottom[0]->shape();
  const Plan& plan = PlanFor(shape);
  if (!sums_are_kept_) {  // in a TEST net, which seldom goes back
    ForwardKeepingSums(plan, bottom[0], memory(plan.order, onednn::Engine(),
        Work(WORK_TARGET, plan.order.get_size())));
  }
  const memory map = onednn::Read(bottom[0]->data().get(), shape, plan.order,
      WORK_SOURCE);
  const memory from = onednn::Read(top[0]->diff().get(), shape, plan.order,
      WORK_OTHER_SOURCE);
  onednn::Writer writer(bottom[0]->diff().get(), shape, plan.order);
  plan.backward.execute(onednn::Stream(), {{DNNL_ARG_SRC, map},
      {DNNL_ARG_DIFF_DST, from}, {DNNL_ARG_DIFF_SRC, writer.memory()},
      {DNNL_ARG_WORKSPACE,
          memory(plan.sums, onednn::Engine(), sums_.data())}});
  writer.Finish();
}

}  // namespace caffe
