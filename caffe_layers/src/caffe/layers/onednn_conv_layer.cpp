#include "caffe/layers/onednn_conv_layer.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

namespace caffe {

using dnnl::algorithm;
using dnnl::memory;

namespace {

// Winograd's weights, transformed once, are four times as large as they were.
// Above this size they are transformed anew in each pass, which costs a few
// percent of its time.
const size_t kLargestTransformed = 16 << 20;

// Winograd's takes tiles of 4 x 4 results, filled or not, with a quarter of the
// products; above this share of results to positions it gains nothing.
const double kTilesWaste = 2;
// Sub-images hold the map and what fills up their last rows and columns.
const double kPartsWaste = 1.5;

int BlockWidth(const memory::desc& order) {
  return static_cast<int>(order.data.format_desc.blocking.inner_blks[0]);
}

/// The sub-images of a map in onednn::BlockedOrder.
SubImages PartsOf(const vector<int>& shape, int dilation) {
  const int width = BlockWidth(onednn::BlockedOrder(shape));
  const SubImages parts = {shape[0], (shape[1] + width - 1) / width, shape[2],
      shape[3], width, dilation};
  return parts;
}

vector<int> PartShape(const vector<int>& shape, int dilation) {
  const SubImages parts = PartsOf(shape, dilation);
  return vector<int>{parts.count(), shape[1], parts.rows(), parts.columns()};
}

/// Results that Winograd's computes for each position of a map.
double TilesWaste(const vector<int>& shape, int dilation) {
  const SubImages parts = PartsOf(shape, dilation);
  return 16. * dilation * dilation * ((parts.rows() + 3) / 4)
      * ((parts.columns() + 3) / 4) / (double(shape[2]) * shape[3]);
}

double PartsWaste(const vector<int>& shape, int dilation) {
  const SubImages parts = PartsOf(shape, dilation);
  return double(dilation) * dilation * parts.rows() * parts.columns()
      / (double(shape[2]) * shape[3]);
}

/// What the primitive is to read: the map as it is, or its sub-images.
memory SourceOf(const memory& map, const memory::desc& order,
    const SubImages& parts, onednn::WorkArea area) {
  if (parts.dilation == 1) { return map; }
  const memory source(order, onednn::Engine(),
      onednn::Work(area, order.get_size()));
  parts.Split(static_cast<const float*>(map.get_data_handle()),
      static_cast<float*>(source.get_data_handle()));
  return source;
}

}  // namespace

memory::desc OneDNNConvolutionLayer::PlainWeights() const {
  const vector<int>& shape = this->blobs_[0]->shape();
  if (this->group_ == 1) { return onednn::PlainOrder(shape); }
  return onednn::PlainOrder(vector<int>{this->group_, shape[0] / this->group_,
      shape[1], shape[2], shape[3]});
}

vector<OneDNNConvolutionLayer::Method> OneDNNConvolutionLayer::Methods(
    const vector<int>& shape) const {
  const int* const kernel = this->kernel_shape_.cpu_data();
  const int* const stride = this->stride_.cpu_data();
  const int* const pad = this->pad_.cpu_data();
  const int* const dilation = this->dilation_.cpu_data();
  const bool square = kernel[0] == 3 && kernel[1] == 3 && stride[0] == 1
      && stride[1] == 1 && dilation[0] == dilation[1];
  // then the sub-images have a padding of 1
  const bool parts = square && dilation[0] > 1 && pad[0] == dilation[0]
      && pad[1] == dilation[0];
  const Method kWinograd = {algorithm::convolution_winograd, 1, true};
  const Method kWinogradOnParts =
      {algorithm::convolution_winograd, dilation[0], true};
  const Method kDirect = {algorithm::convolution_direct, 1, true};
  const Method kDirectOnParts =
      {algorithm::convolution_direct, dilation[0], true};
  const Method kAny = {algorithm::convolution_direct, 1, false};
  vector<Method> methods;
  if (onednn::WinogradAllowed() && square && this->group_ == 1
      && (dilation[0] == 1 || parts)
      && TilesWaste(shape, dilation[0]) <= kTilesWaste) {
    methods.push_back(parts ? kWinogradOnParts : kWinograd);
  }
  methods.push_back(kDirect);
  if (parts && PartsWaste(shape, dilation[0]) <= kPartsWaste) {
    methods.push_back(kDirectOnParts);
  }
  methods.push_back(kAny);
  return methods;
}

bool OneDNNConvolutionLayer::Try(Pass pass, const vector<int>& shape,
    const Method& method, Plan* plan) const {
  const int d = method.dilation;
  const int* const stride = this->stride_.cpu_data();
  const int* const pad = this->pad_.cpu_data();
  const int* const dilation = this->dilation_.cpu_data();
  const int* const kernel = this->kernel_shape_.cpu_data();
  vector<int> top_shape(shape);
  top_shape[1] = this->num_output_;
  for (int i = 0; i < 2; ++i) {
    top_shape[2 + i] = (shape[2 + i] + 2 * pad[i]
        - (dilation[i] * (kernel[i] - 1) + 1)) / stride[i] + 1;
  }
  const vector<int> source_shape = d == 1 ? shape : PartShape(shape, d);
  const vector<int> target_shape = d == 1 ? top_shape : PartShape(top_shape, d);

  memory::desc source = onednn::PlainOrder(source_shape);
  memory::desc target = onednn::PlainOrder(target_shape);
  memory::desc weights = PlainWeights();
  const memory::desc bias = this->bias_term_
      ? onednn::PlainOrder(this->blobs_[1]->shape()) : memory::desc();
  const memory::data_type type = memory::data_type::f32;
  weights = memory::desc(weights.dims(), type, memory::format_tag::any);
  if (method.blocked) {
    // an image's few channels stay as they are
    if (shape[1] > 4) { source = onednn::BlockedOrder(source_shape); }
    target = onednn::BlockedOrder(target_shape);
  } else {
    source = memory::desc(source.dims(), type, memory::format_tag::any);
    target = memory::desc(target.dims(), type, memory::format_tag::any);
  }
  const memory::dims strides = {stride[0], stride[1]};
  const memory::dims dilates = {dilation[0] / d - 1, dilation[1] / d - 1};
  const memory::dims pads = {pad[0] / d, pad[1] / d};

  dnnl::primitive_attr attributes;
  if (pass == FORWARD_RECTIFIED) {
    dnnl::post_ops rectify;
    rectify.append_eltwise(1, algorithm::eltwise_relu, 0, 0);
    attributes.set_post_ops(rectify);
  }
  const bool forward = pass == FORWARD || pass == FORWARD_RECTIFIED;
  typedef dnnl::convolution_forward Forward;
  std::string code;
  try {
    dnnl::prop_kind kind = forward && this->phase_ == TEST
        ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training;
    Forward::primitive_desc description({kind, method.algorithm, source,
        weights, bias, target, strides, dilates, pads, pads}, attributes,
        onednn::Engine());
    if (kind == dnnl::prop_kind::forward_inference
        && method.algorithm == algorithm::convolution_winograd
        && description.weights_desc().get_size() > kLargestTransformed) {
      description = Forward::primitive_desc({dnnl::prop_kind::forward_training,
          method.algorithm, source, weights, bias, target, strides, dilates,
          pads, pads}, attributes, onednn::Engine());
    }
    if (forward) {
      code = description.impl_info_str();
      plan->primitive = Forward(description);
      plan->source = description.src_desc();
      plan->target = description.dst_desc();
      plan->weights = description.weights_desc();
    } else if (pass == BACKWARD_DATA) {
      const dnnl::convolution_backward_data::primitive_desc backward(
          {method.algorithm, source, weights, target, strides, dilates, pads,
           pads}, onednn::Engine(), description);
      code = backward.impl_info_str();
      plan->primitive = dnnl::convolution_backward_data(backward);
      plan->source = backward.diff_src_desc();
      plan->target = backward.diff_dst_desc();
      plan->weights = backward.weights_desc();
    } else {
      const dnnl::convolution_backward_weights::primitive_desc backward(
          {method.algorithm, source, weights, bias, target, strides, dilates,
           pads, pads}, onednn::Engine(), description);
      code = backward.impl_info_str();
      plan->primitive = dnnl::convolution_backward_weights(backward);
      plan->source = backward.src_desc();
      plan->target = backward.diff_dst_desc();
      plan->weights = backward.diff_weights_desc();
    }
  } catch (const dnnl::error& error) {
    onednn::CheckOnlyMissing(error, this->layer_param_.name());
    return false;
  }
  if (onednn::IsReference(code)) { return false; }
  plan->available = true;
  plan->method = method;
  plan->bias = bias;
  plan->bottom = d == 1 ? plan->source : onednn::BlockedOrder(shape);
  plan->top = d == 1 ? plan->target : onednn::BlockedOrder(top_shape);
  plan->bottom_parts = PartsOf(shape, d);
  plan->top_parts = PartsOf(top_shape, d);
  return true;
}

const OneDNNConvolutionLayer::Plan& OneDNNConvolutionLayer::PlanFor(Pass pass,
    const vector<int>& shape) {
  Plan* const plan = &plans_.Find(shape)->passes[pass];
  if (plan->made) { return *plan; }
  plan->made = true;
  if (this->num_spatial_axes_ != 2 || this->channel_axis_ != 1
      || *std::min_element(shape.begin(), shape.end()) == 0) {
    return *plan;
  }
  if (pass == FORWARD_RECTIFIED) {
    // Never a slower method for the ReLU's sake. oneDNN's direct code makes 0
    // of a NaN, and so would hide that a training has diverged.
    const Plan& unrectified = PlanFor(FORWARD, shape);
    if (unrectified.available && unrectified.method.algorithm
        == algorithm::convolution_winograd) {
      Try(pass, shape, unrectified.method, plan);
    }
    return *plan;
  }
  const vector<Method> methods = Methods(shape);
  for (size_t i = 0; i < methods.size() && !plan->available; ++i) {
    Try(pass, shape, methods[i], plan);
  }
  return *plan;
}

std::string OneDNNConvolutionLayer::Describe(Pass pass,
    const vector<int>& bottom_shape) {
  const Plan& plan = PlanFor(pass, bottom_shape);
  if (!plan.available) { return "as in Caffe"; }
  const bool winograd =
      plan.method.algorithm == algorithm::convolution_winograd;
  return std::string(winograd ? "Winograd" : "direct")
      + (plan.method.dilation > 1 ? " on sub-images" : "");
}

void OneDNNConvolutionLayer::ForwardPlan(const Plan& plan, bool rectified,
    Blob<float>* bottom, Blob<float>* top) {
  const memory map = onednn::Read(bottom->data().get(), bottom->shape(),
      plan.bottom, onednn::WORK_SOURCE);
  const memory source = SourceOf(map, plan.source, plan.bottom_parts,
      onednn::WORK_PARTS);
  onednn::Writer writer(top->data().get(), top->shape(), plan.top);
  memory target = writer.memory();
  if (plan.method.dilation > 1) {
    target = memory(plan.target, onednn::Engine(),
        onednn::Work(onednn::WORK_TARGET, plan.target.get_size()));
  }
  std::unordered_map<int, memory> arguments = {
      {DNNL_ARG_SRC, source}, {DNNL_ARG_DST, target},
      {DNNL_ARG_WEIGHTS, packed_.Get(this->blobs_[0]->data().get(),
          PlainWeights(), plan.weights)}};
  if (this->bias_term_) {
    arguments[DNNL_ARG_BIAS] = memory(plan.bias, onednn::Engine(),
        const_cast<float*>(this->blobs_[1]->cpu_data()));
  }
  plan.primitive.execute(onednn::Stream(), arguments);
  if (plan.method.dilation > 1) {
    plan.top_parts.Join(static_cast<const float*>(target.get_data_handle()),
        static_cast<float*>(writer.memory().get_data_handle()));
  }
  writer.Finish(rectified);
}

void OneDNNConvolutionLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  // Caffe's ReLU makes NaN of -infinity, by which a training that overflows is
  // told; the one that is computed along makes 0 of it.
  const bool rectified = rectifier_follows_ && this->phase_ == TEST
      && PlanFor(FORWARD_RECTIFIED, bottom[0]->shape()).available;
  const Plan& plan = PlanFor(rectified ? FORWARD_RECTIFIED : FORWARD,
      bottom[0]->shape());
  if (!plan.available) {
    ConvolutionLayer<float>::Forward_cpu(bottom, top);
    return;
  }
  for (size_t i = 0; i < bottom.size(); ++i) {
    ForwardPlan(plan, rectified, bottom[i], top[i]);
  }
}

void OneDNNConvolutionLayer::BackwardData(const Plan& plan, Blob<float>* top,
    Blob<float>* bottom) {
  const memory map = onednn::Read(top->diff().get(), top->shape(), plan.top,
      onednn::WORK_SOURCE);
  const memory target = SourceOf(map, plan.target, plan.top_parts,
      onednn::WORK_PARTS);
  onednn::Writer writer(bottom->diff().get(), bottom->shape(), plan.bottom);
  memory source = writer.memory();
  if (plan.method.dilation > 1) {
    source = memory(plan.source, onednn::Engine(),
        onednn::Work(onednn::WORK_TARGET, plan.source.get_size()));
  }
  plan.primitive.execute(onednn::Stream(), {
      {DNNL_ARG_DIFF_SRC, source}, {DNNL_ARG_DIFF_DST, target},
      {DNNL_ARG_WEIGHTS, packed_.Get(this->blobs_[0]->data().get(),
          PlainWeights(), plan.weights)}});
  if (plan.method.dilation > 1) {
    plan.bottom_parts.Join(static_cast<const float*>(source.get_data_handle()),
        static_cast<float*>(writer.memory().get_data_handle()));
  }
  writer.Finish();
}

void OneDNNConvolutionLayer::BackwardWeights(const Plan& plan,
    Blob<float>* top, Blob<float>* bottom) {
  // each map through work areas of its own, as the primitive reads both
  const memory bottom_map = onednn::Read(bottom->data().get(), bottom->shape(),
      plan.bottom, onednn::WORK_SOURCE);
  const memory source = SourceOf(bottom_map, plan.source, plan.bottom_parts,
      onednn::WORK_PARTS);
  const memory top_map = onednn::Read(top->diff().get(), top->shape(), plan.top,
      onednn::WORK_OTHER_SOURCE);
  const memory target = SourceOf(top_map, plan.target, plan.top_parts,
      onednn::WORK_TARGET);
  // primitives overwrite, and Caffe's layers add to what is there
  const memory weights(plan.weights, onednn::Engine(),
      onednn::Work(onednn::WORK_WEIGHTS, plan.weights.get_size()));
  std::unordered_map<int, memory> arguments = {{DNNL_ARG_SRC, source},
      {DNNL_ARG_DIFF_DST, target}, {DNNL_ARG_DIFF_WEIGHTS, weights}};
  memory bias;
  if (this->bias_term_) {
    bias = memory(plan.bias, onednn::Engine(),
        onednn::Work(onednn::WORK_BIAS, plan.bias.get_size()));
    arguments[DNNL_ARG_DIFF_BIAS] = bias;
  }
  plan.primitive.execute(onednn::Stream(), arguments);
  if (this->param_propagate_down_[0]) {
    onednn::Accumulate(weights, memory(PlainWeights(), onednn::Engine(),
        this->blobs_[0]->mutable_cpu_diff()));
  }
  if (this->bias_term_ && this->param_propagate_down_[1]) {
    onednn::Accumulate(bias, memory(plan.bias, onednn::Engine(),
        this->blobs_[1]->mutable_cpu_diff()));
  }
}

void OneDNNConvolutionLayer::Backward_cpu(const vector<Blob<float>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  const vector<int>& shape = bottom[0]->shape();
  const bool to_weights = this->param_propagate_down_[0]
      || (this->bias_term_ && this->param_propagate_down_[1]);
  const bool to_bottom = std::find(propagate_down.begin(),
      propagate_down.end(), true) != propagate_down.end();
  if ((to_weights && !PlanFor(BACKWARD_WEIGHTS, shape).available)
      || (to_bottom && !PlanFor(BACKWARD_DATA, shape).available)) {
    ConvolutionLayer<float>::Backward_cpu(top, propagate_down, bottom);
    return;
  }
  for (size_t i = 0; i < top.size(); ++i) {
    if (to_weights) {
      BackwardWeights(PlanFor(BACKWARD_WEIGHTS, shape), top[i], bottom[i]);
    }
    if (propagate_down[i]) {
      BackwardData(PlanFor(BACKWARD_DATA, shape), top[i], bottom[i]);
    }
  }
}

}  // namespace caffe
