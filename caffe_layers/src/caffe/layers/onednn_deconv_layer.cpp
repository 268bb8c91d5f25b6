#include "caffe/layers/onednn_deconv_layer.hpp"

#include <algorithm>
#include <unordered_map>
#include <vector>

namespace caffe {

using dnnl::memory;

namespace {

// Winograd's computes tiles of 4 x 4 results, filled or not; smaller maps than
// this gain nothing.
const int kLeastForWinograd = 12;

}  // namespace

memory::desc OneDNNDeconvolutionLayer::PlainWeights() const {
  // bottom's channels x top's channels / group x height x width
  const vector<int>& shape = this->blobs_[0]->shape();
  const int group = this->group_;
  if (group == 1) {
    return memory::desc({shape[1], shape[0], shape[2], shape[3]},
        memory::data_type::f32, memory::format_tag::iohw);
  }
  return memory::desc({group, shape[1], shape[0] / group, shape[2], shape[3]},
      memory::data_type::f32, memory::format_tag::giohw);
}

const OneDNNDeconvolutionLayer::Plan& OneDNNDeconvolutionLayer::PlanFor(
    const Blob<float>& bottom, const Blob<float>& top) {
  Plan* const plan = plans_.Find(bottom.shape());
  if (plan->made) { return *plan; }
  plan->made = true;
  if (this->num_spatial_axes_ != 2 || this->channel_axis_ != 1
      || bottom.count() == 0 || top.count() == 0) {
    return *plan;
  }
  const int* const stride = this->stride_.cpu_data();
  const int* const pad = this->pad_.cpu_data();
  const int* const dilation = this->dilation_.cpu_data();
  const memory::desc source = onednn::BlockedOrder(bottom.shape());
  const memory::desc target = onednn::BlockedOrder(top.shape());
  const memory::desc weights(PlainWeights().dims(), memory::data_type::f32,
      memory::format_tag::any);
  const memory::desc bias = this->bias_term_
      ? onednn::PlainOrder(this->blobs_[1]->shape()) : memory::desc();
  const dnnl::prop_kind kind = this->phase_ == TEST
      ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training;
  typedef dnnl::deconvolution_forward Forward;
  const int* const kernel = this->kernel_shape_.cpu_data();
  const bool winograd = onednn::WinogradAllowed() && this->group_ == 1
      && kernel[0] == 3 && kernel[1] == 3 && stride[0] == 1 && stride[1] == 1
      && dilation[0] == 1 && dilation[1] == 1
      && std::min(top.shape(2), top.shape(3)) >= kLeastForWinograd;
  vector<dnnl::algorithm> methods;
  if (winograd) { methods.push_back(dnnl::algorithm::deconvolution_winograd); }
  methods.push_back(dnnl::algorithm::deconvolution_direct);
  for (size_t i = 0; i < methods.size() && !plan->available; ++i) {
    try {
      const Forward::primitive_desc description(
          {kind, methods[i], source, weights, bias, target,
           {stride[0], stride[1]}, {dilation[0] - 1, dilation[1] - 1},
           {pad[0], pad[1]}, {pad[0], pad[1]}}, onednn::Engine());
      plan->source = description.src_desc();
      plan->target = description.dst_desc();
      plan->weights = description.weights_desc();
      plan->primitive = Forward(description);
      plan->available = !onednn::IsReference(description.impl_info_str());
    } catch (const dnnl::error& error) {
      onednn::CheckOnlyMissing(error, this->layer_param_.name());
    }
  }
  return *plan;
}

void OneDNNDeconvolutionLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  const Plan& plan = PlanFor(*bottom[0], *top[0]);
  if (!plan.available) {
    DeconvolutionLayer<float>::Forward_cpu(bottom, top);
    return;
  }
  const memory weights = packed_.Get(this->blobs_[0]->data().get(),
      PlainWeights(), plan.weights, false);
  for (size_t i = 0; i < bottom.size(); ++i) {
    onednn::Writer writer(top[i]->data().get(), top[i]->shape(), plan.target);
    std::unordered_map<int, memory> arguments = {
        {DNNL_ARG_SRC, onednn::Read(bottom[i]->data().get(),
            bottom[i]->shape(), plan.source, WORK_SOURCE)},
        {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, writer.memory()}};
    if (this->bias_term_) {
      arguments[DNNL_ARG_BIAS] = memory(
          onednn::PlainOrder(this->blobs_[1]->shape()), onednn::Engine(),
          const_cast<float*>(this->blobs_[1]->cpu_data()));
    }
    plan.primitive.execute(onednn::Stream(), arguments);
    writer.Finish();
  }
}

}  // namespace caffe
