#include "caffe/layers/onednn_conv_layer.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "caffe/onednn/affine_pass.hpp"
#include "caffe/onednn/channel_order.hpp"

namespace caffe {

using dnnl::algorithm;
using dnnl::memory;

namespace {

// Winograd's weights, transformed once, are four times as large as they were.
// Above this size they are transformed anew in each pass, which costs a few
// percent of its time.
const size_t kLargestTransformed = 16 << 20;
// Above this one, too, where that is no more than such a part of the time, and does not
// take more than kLargestScratch by halves of the channels: FCN has 23 MB less then, and
// takes 1% longer on 240 x 320, on larger images nothing that shows.
const size_t kSmallTransformed = 4 << 20;
const double kSmallPart = 0.07;

// Winograd's passes keep a map's tiles, and large weights, transformed at once, and
// sum up the weights' gradients in each thread: up to 485 MB with two threads in the
// networks here. Passes of a training, and of a TEST net that is to save memory, go
// in pieces where they take more than this: below it, FCN on 375 x 500 gets slower.
const size_t kLargestScratch = 112 << 20;
// A map of few positions has most of its time from the weights, which pieces do not
// transform twice: with a third less memory FCN on 240 x 320 takes 1 to 2% longer.
const int kFewPositions = 1500;
const size_t kLargestScratchOfFew = 64 << 20;

// What Winograd's takes, in positions of direct convolution, measured for 128 to
// 512 channels: for a tile of 4 x 4 results, filled or not, and for the weights.
// Those that are kept transformed are more to be read; all others are transformed in
// each pass, and in a training their gradients back.
const double kOfTile = 8, kOfKeptWeights = 25, kOfWeights = 180;
// Sub-images hold the map and what fills up their last rows and columns.
const double kPartsWaste = 1.5;

// oneDNN scales a map's values slowly while it writes them: up to seven times as long
// as without. With at least so many weights to a value that is some percent, and
// saves a folded copy of them.
const int kScales = 8;

// Of channels, by BlockedOrder().
const int kWidestBlock = 16;

// Channels of a tile that rounds to bfloat16; below as many it would be empty for
// the most part.
const int kTileRows = 16;
const int kVectorDepth = 32;  // products that vectors sum up at a time
// A small map's positions go to such tiles as one line, where the kernel is 1x1.
const int kOneLine = 1024;

bool IsForward(OneDNNConvolutionLayer::Pass pass) {
  return pass < OneDNNConvolutionLayer::BACKWARD_DATA;
}

int BlockWidth(const memory::desc& order) {
  return static_cast<int>(order.data.format_desc.blocking.inner_blks[0]);
}

/// The sub-images of a map in onednn::BlockedOrder.
SubImages PartsOf(const vector<int>& shape, int dilation) {
  const int width = BlockWidth(onednn::BlockedOrder(shape));
  const int blocks = (shape[1] + width - 1) / width;
  const SubImages parts =
      {shape[0], blocks, shape[2], shape[3], width, dilation, blocks};
  return parts;
}

vector<int> PartShape(const vector<int>& shape, int dilation) {
  const SubImages parts = PartsOf(shape, dilation);
  return vector<int>{parts.count(), shape[1], parts.rows(), parts.columns()};
}

/// Tiles of 4 x 4 results in a top of this shape.
double TilesOf(const vector<int>& shape, int dilation) {
  const SubImages parts = PartsOf(shape, dilation);
  return double(parts.count()) * ((parts.rows() + 3) / 4)
      * ((parts.columns() + 3) / 4);
}

/// Whether Winograd's is faster than direct convolution with a map of as many
/// positions as a top of this shape.
bool WinogradPays(const vector<int>& shape, int dilation, bool keeps_weights) {
  return kOfTile * TilesOf(shape, dilation)
      + (keeps_weights ? kOfKeptWeights : kOfWeights)
      <= double(shape[0]) * shape[2] * shape[3];
}

/// Whether a pass that transforms the weights takes hardly longer than one that has
/// them from the pass before.
bool TransformIsCheap(const vector<int>& shape, int dilation) {
  return kOfWeights - kOfKeptWeights
      <= kSmallPart * kOfTile * TilesOf(shape, dilation);
}

double PartsWaste(const vector<int>& shape, int dilation) {
  const SubImages parts = PartsOf(shape, dilation);
  return double(dilation) * dilation * parts.rows() * parts.columns()
      / (double(shape[2]) * shape[3]);
}

/// Where the channels of a map from `channel` on begin.
float* AtChannel(const memory& map, const SubImages& parts, int channel) {
  return onednn::Values(map)
      + static_cast<size_t>(channel) * parts.height * parts.width;
}

size_t LargestScratch(const vector<int>& shape) {
  const double positions = double(shape[0]) * shape[2] * shape[3];
  return positions <= kFewPositions ? kLargestScratchOfFew : kLargestScratch;
}

/// Whether what is taken of a map lies there as a primitive is to have it.
bool LiesInMap(const SubImages& parts) {
  return parts.dilation == 1
      && (parts.blocks == parts.map_blocks || parts.num == 1);
}

/// Where a primitive is to write the channels of a map from `channel` on, or their
/// sub-images; Put() then brings them to the map.
memory PlaceFor(const memory& map, const memory::desc& order,
    const SubImages& parts, int channel, WorkArea area) {
  return memory(order, onednn::Engine(), LiesInMap(parts)
      ? AtChannel(map, parts, channel) : Work(area, order.get_size()));
}

void Put(const memory& piece, const SubImages& parts, int channel,
    const memory& map) {
  if (LiesInMap(parts)) { return; }
  parts.Join(onednn::Values(piece), AtChannel(map, parts, channel));
}

/// What a primitive is to read: the channels of a map from `channel` on, or their
/// sub-images.
memory Take(const memory& map, const memory::desc& order, const SubImages& parts,
    int channel, WorkArea area) {
  const memory piece = PlaceFor(map, order, parts, channel, area);
  if (!LiesInMap(parts)) {
    parts.Split(AtChannel(map, parts, channel), onednn::Values(piece));
  }
  return piece;
}

/// Whether vectors of bfloat16, which multiply twice as much as those of float32 but no
/// more than Winograd's saves, are full for the most part with so many products to sum.
bool FillsVectors(int products) {
  const int of_vectors = (products + kVectorDepth - 1) / kVectorDepth * kVectorDepth;
  return 4 * products >= 3 * of_vectors;
}

/// The same convolution on its positions side by side, where that is the same: tiles
/// are fuller then.
Bfloat16Convolution InOneLine(Bfloat16Convolution convolution) {
  const int positions = convolution.height * convolution.width;
  if (convolution.kernel_height == 1 && convolution.kernel_width == 1
      && convolution.stride_height == 1 && convolution.stride_width == 1
      && convolution.pad_height == 0 && convolution.pad_width == 0
      && positions <= kOneLine) {
    convolution.height = convolution.out_height = 1;
    convolution.width = convolution.out_width = positions;
  }
  return convolution;
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
      && (dilation[0] == 1 || parts)) {
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
  const bool forward = IsForward(pass);
  // a TEST net's always has one, as what is folded into the weights brings one;
  // what scales adds it thereafter
  const bool has_bias = pass != FORWARD_SCALED
      && (this->bias_term_ || (forward && this->phase_ == TEST));
  const memory::desc bias = has_bias
      ? onednn::PlainOrder(vector<int>(1, this->num_output_)) : memory::desc();
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
  } else if (pass == FORWARD_SCALED) {
    dnnl::post_ops scale_and_shift;
    for (algorithm each : {algorithm::binary_mul, algorithm::binary_add}) {
      scale_and_shift.append_binary(each, OfChannels());
    }
    attributes.set_post_ops(scale_and_shift);
  }
  const bool winograd = method.algorithm == algorithm::convolution_winograd;
  const bool saves_memory = forward && saves_memory_;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  typedef dnnl::convolution_forward Forward;
  typedef dnnl::convolution_backward_data BackwardData;
  typedef dnnl::convolution_backward_weights BackwardWeights;
  dnnl::prop_kind kind = forward && this->phase_ == TEST
      ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training;
  // what the primitive takes; all of it at first
  memory::desc piece_source = source, piece_target = target;
  memory::desc piece_weights = weights, piece_bias = bias;
  memory::dims piece_pads = pads;
  const auto describe = [&]() {
    return Forward::primitive_desc({kind, method.algorithm, piece_source,
        piece_weights, piece_bias, piece_target, strides, dilates, piece_pads,
        piece_pads}, attributes, onednn::Engine());
  };
  // leaves so many of the channels: of the bottom, or of the top
  const auto take_channels = [&](int channels, bool of_bottom) {
    plan->channels = channels;
    vector<int> shape(of_bottom ? source_shape : target_shape);
    shape[1] = channels;
    (of_bottom ? piece_source : piece_target) = onednn::BlockedOrder(shape);
    memory::dims filters = weights.dims();
    filters[of_bottom ? 1 : 0] = channels;
    piece_weights = memory::desc(filters, type, memory::format_tag::any);
    if (has_bias && !of_bottom) {
      piece_bias = onednn::PlainOrder(vector<int>(1, channels));
    }
  };
  const bool may_cut = winograd && (this->phase_ == TRAIN || saves_memory);
  const size_t largest_scratch = LargestScratch(top_shape);
  const auto halves = [&](const memory::desc& scratch) {
    return may_cut && scratch.get_size() > largest_scratch
        && plan->channels % 128 == 0;
  };
  std::string code;
  try {
    plan->channels = this->num_output_;
    plan->images = shape[0];
    plan->rows = target_shape[2];
    Forward::primitive_desc description = describe();
    const size_t weights_size = description.weights_desc().get_size();
    bool keeps_weights = kind == dnnl::prop_kind::forward_inference
        && weights_size <= kLargestTransformed;
    if (winograd && keeps_weights && weights_size > kSmallTransformed
        && TransformIsCheap(top_shape, d)) {
      kind = dnnl::prop_kind::forward_training;
      description = describe();
      while (description.scratchpad_desc().get_size() > largest_scratch
          && plan->channels % 128 == 0) {
        take_channels(plan->channels / 2, false);
        description = describe();
      }
      // else in bands of rows, each of which would transform them
      keeps_weights = description.scratchpad_desc().get_size() > largest_scratch;
      kind = dnnl::prop_kind::forward_inference;
      plan->channels = this->num_output_;
      piece_target = target;
      piece_weights = weights;
      piece_bias = bias;
      description = describe();
    }
    if (winograd && !WinogradPays(top_shape, d, keeps_weights)) { return false; }
    if (forward) {
      if (winograd && !keeps_weights) {
        kind = dnnl::prop_kind::forward_training;
        description = describe();
      }
      plan->source = description.src_desc();
      plan->target = description.dst_desc();
      plan->weights = description.weights_desc();
      // Weights that each pass transforms are halved with the channels of the
      // top; with bands of rows they would be transformed for each.
      const bool by_channels = plan->weights.data.format_kind == dnnl_blocked;
      while (by_channels && halves(description.scratchpad_desc())) {
        take_channels(plan->channels / 2, false);
        description = describe();
      }
      const std::string code_of_all = description.impl_info_str();
      while (!by_channels && saves_memory && winograd && d == 1
          && description.scratchpad_desc().get_size() > largest_scratch
          && (plan->images > 1 || plan->rows > 16)) {
        const Forward::primitive_desc before = description;
        const int images = plan->images, rows = plan->rows;
        vector<int> source_piece(source_shape), target_piece(target_shape);
        if (plan->images > 1) {
          do { --plan->images; } while (shape[0] % plan->images != 0);
        } else {
          plan->rows = plan->rows > 64 ? 64 : plan->rows / 2;
          source_piece[2] = plan->rows + 2;
          target_piece[2] = plan->rows;
          piece_pads[0] = 0;
        }
        source_piece[0] = target_piece[0] = plan->images;
        piece_source = onednn::BlockedOrder(source_piece);
        piece_target = onednn::BlockedOrder(target_piece);
        description = describe();
        // F(2x2) in the place of F(4x4), or the other way round, has other bits
        if (description.impl_info_str() != code_of_all) {
          description = before;
          plan->images = images;
          plan->rows = rows;
          break;
        }
      }
      if (!by_channels) { plan->weights = description.weights_desc(); }
      code = description.impl_info_str();
      plan->primitive = Forward(description);
      plan->scratch = description.scratchpad_desc();
      plan->piece_source = description.src_desc();
      plan->piece_target = description.dst_desc();
      plan->piece_weights = description.weights_desc();
    } else if (pass == BACKWARD_DATA) {
      plan->channels = shape[1];
      const auto describe_backward = [&]() {
        return BackwardData::primitive_desc({method.algorithm, piece_source,
            piece_weights, piece_target, strides, dilates, pads, pads},
            attributes, onednn::Engine(), describe());
      };
      BackwardData::primitive_desc backward = describe_backward();
      plan->source = backward.diff_src_desc();
      plan->target = backward.diff_dst_desc();
      plan->weights = backward.weights_desc();
      while (halves(backward.scratchpad_desc())) {
        take_channels(plan->channels / 2, true);
        backward = describe_backward();
      }
      code = backward.impl_info_str();
      plan->primitive = BackwardData(backward);
      plan->scratch = backward.scratchpad_desc();
      plan->piece_source = backward.diff_src_desc();
      plan->piece_target = backward.diff_dst_desc();
      plan->piece_weights = backward.weights_desc();
    } else {
      const auto describe_backward = [&]() {
        return BackwardWeights::primitive_desc({method.algorithm, piece_source,
            piece_weights, piece_bias, piece_target, strides, dilates, pads, pads},
            attributes, onednn::Engine(), describe());
      };
      BackwardWeights::primitive_desc backward = describe_backward();
      plan->source = backward.src_desc();
      plan->target = backward.diff_dst_desc();
      plan->weights = backward.diff_weights_desc();
      while (halves(backward.scratchpad_desc())) {
        take_channels(plan->channels / 2, false);
        backward = describe_backward();
      }
      code = backward.impl_info_str();
      plan->primitive = BackwardWeights(backward);
      plan->scratch = backward.scratchpad_desc();
      plan->piece_source = backward.src_desc();
      plan->piece_target = backward.diff_dst_desc();
      plan->piece_weights = backward.diff_weights_desc();
    }
  } catch (const dnnl::error& error) {
    onednn::CheckOnlyMissing(error, this->layer_param_.name());
    return false;
  }
  if (onednn::IsReference(code)) { return false; }
  plan->available = true;
  plan->pass = pass;
  plan->method = method;
  plan->bias = piece_bias;
  plan->bottom = d == 1 ? plan->source : onednn::BlockedOrder(shape);
  plan->top = d == 1 ? plan->target : onednn::BlockedOrder(top_shape);
  plan->bottom_parts = PartsOf(shape, d);
  plan->top_parts = PartsOf(top_shape, d);
  const bool of_bottom = pass == BACKWARD_DATA;
  const bool all_channels =
      plan->channels == (of_bottom ? shape[1] : this->num_output_);
  if (!all_channels) {
    SubImages* const parts = of_bottom ? &plan->bottom_parts : &plan->top_parts;
    parts->blocks = plan->channels / parts->block_width;
  }
  plan->in_pieces =
      !all_channels || plan->images < shape[0] || plan->rows < target_shape[2];
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
  if (pass == FORWARD_RECTIFIED || pass == FORWARD_SCALED) {
    // Never a slower method for the followers' sake. oneDNN's direct code makes 0
    // of a NaN where it rectifies, and so would hide that a training has diverged;
    // Winograd's does not scale.
    const Plan& alone = PlanFor(FORWARD, shape);
    if (alone.available && alone.is_winograd() == (pass == FORWARD_RECTIFIED)) {
      Try(pass, shape, alone.method, plan);
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
  if (Rounds(pass, bottom_shape)) { return "bfloat16"; }
  const Plan& plan = PlanFor(pass, bottom_shape);
  if (!plan.available) { return "as in Caffe"; }
  return std::string(plan.is_winograd() ? "Winograd" : "direct")
      + (plan.method.dilation > 1 ? " on sub-images" : "")
      + (plan.in_pieces ? " in pieces" : "");
}

OneDNNConvolutionLayer::Parameters OneDNNConvolutionLayer::ParametersFor(
    const Followers& followers) {
  Blob<float>* const own = this->blobs_[0].get();
  const float* const bias =
      this->bias_term_ ? this->blobs_[1]->cpu_data() : NULL;
  if (this->phase_ != TEST || (bias != NULL && !followers.affine)) {
    return {own->data().get(), bias, NULL, &packed_};
  }
  folded_.bias.assign(this->num_output_, 0);
  for (int o = 0; o < this->num_output_; ++o) {
    const float term = bias != NULL ? bias[o] : 0;
    folded_.bias[o] = followers.affine
        ? followers.scale[o] * term + followers.shift[o] : term;
  }
  if (!followers.affine) {
    return {own->data().get(), folded_.bias.data(), NULL, &packed_};
  }
  SyncedMemory* const memory = own->data().get();
  // behind a pointer in somebody's hands, weights may have changed unseen
  if (memory->exposed() || folded_.version != memory->version()
      || folded_.scale != followers.scale) {
    folded_.weights.ReshapeLike(*own);
    const float* const from = own->cpu_data();
    float* const to = folded_.weights.mutable_cpu_data();
    const int size = own->count() / this->num_output_;
#pragma omp parallel for
    for (int o = 0; o < this->num_output_; ++o) {
      for (int i = 0; i < size; ++i) {
        to[o * size + i] = followers.scale[o] * from[o * size + i];
      }
    }
    folded_.scale = followers.scale;
    folded_.version = memory->version();
  }
  return {folded_.weights.data().get(), folded_.bias.data(), NULL,
      &folded_.packed};
}

OneDNNConvolutionLayer::Parameters OneDNNConvolutionLayer::UnfoldedParameters(
    const Followers& followers) {
  const float* const bias =
      this->bias_term_ ? this->blobs_[1]->cpu_data() : NULL;
  const int blocks = (this->num_output_ + kWidestBlock - 1) / kWidestBlock;
  scale_.assign(blocks * kWidestBlock, 0);
  shift_.assign(blocks * kWidestBlock, 0);
  for (int o = 0; o < this->num_output_; ++o) {
    scale_[o] = followers.scale[o];
    shift_[o] = followers.scale[o] * (bias != NULL ? bias[o] : 0)
        + followers.shift[o];
  }
  return {this->blobs_[0]->data().get(), shift_.data(), scale_.data(), &packed_};
}

memory::desc OneDNNConvolutionLayer::OfChannels() const {
  return onednn::PlainOrder(vector<int>{1, this->num_output_, 1, 1});
}

void OneDNNConvolutionLayer::Execute(const Plan& plan,
    std::unordered_map<int, memory> arguments) {
  if (plan.scratch.get_size() > 0) {
    arguments[DNNL_ARG_SCRATCHPAD] = memory(plan.scratch, onednn::Engine(),
        Work(WORK_SCRATCH, plan.scratch.get_size()));
  }
  plan.primitive.execute(onednn::Stream(), arguments);
}

memory OneDNNConvolutionLayer::WeightsFor(const Plan& plan,
    const Parameters& parameters, int channel) {
  const bool of_bottom = plan.pass == BACKWARD_DATA;
  const bool all = plan.piece_weights == plan.weights;
  // of weights that learn, and of some channels of the bottom, a piece is packed at
  // a time
  if (all || (!of_bottom && !WeightsLearn())) {
    // not those that a net in training has, too
    const bool saves_memory = saves_memory_
        && this->blobs_[0]->data().use_count() == 1
        && parameters.weights == this->blobs_[0]->data().get();
    const memory packed = parameters.packed->Get(parameters.weights,
        PlainWeights(), plan.weights, WeightsLearn(), saves_memory);
    return memory(plan.piece_weights, onednn::Engine(), onednn::Values(packed)
        + channel / plan.channels * (plan.piece_weights.get_size() / sizeof(float)));
  }
  memory::dims first(plan.piece_weights.dims().size(), 0);
  first[of_bottom ? 1 : 0] = channel;
  const memory packed(plan.piece_weights, onednn::Engine(),
      Work(WORK_WEIGHTS, plan.piece_weights.get_size()));
  onednn::Reorder(memory(
      PlainWeights().submemory_desc(plan.piece_weights.dims(), first),
      onednn::Engine(), const_cast<void*>(parameters.weights->cpu_data())), packed);
  return packed;
}

void OneDNNConvolutionLayer::ForwardPiece(const Plan& plan,
    const Parameters& parameters, int channel, const memory& source,
    const memory& target) {
  std::unordered_map<int, memory> arguments = {{DNNL_ARG_SRC, source},
      {DNNL_ARG_DST, target},
      {DNNL_ARG_WEIGHTS, WeightsFor(plan, parameters, channel)}};
  if (plan.pass == FORWARD_SCALED) {
    const float* const values[] = {parameters.scale, parameters.bias};
    for (int i = 0; i < 2; ++i) {
      arguments[DNNL_ARG_ATTR_MULTIPLE_POST_OP(i) | DNNL_ARG_SRC_1] =
          memory(OfChannels(), onednn::Engine(), const_cast<float*>(values[i]));
    }
  } else if (parameters.bias != NULL) {
    arguments[DNNL_ARG_BIAS] = memory(plan.bias, onednn::Engine(),
        const_cast<float*>(parameters.bias) + channel);
  }
  Execute(plan, std::move(arguments));
}

void OneDNNConvolutionLayer::ForwardImages(const Plan& plan,
    const Parameters& parameters, const Blob<float>& bottom, const Blob<float>& top,
    const memory& source, const memory& target) {
  const int num = bottom.shape(0), height = top.shape(2);
  const size_t bottom_size = plan.source.get_size() / sizeof(float) / num;
  const size_t top_size = plan.target.get_size() / sizeof(float) / num;
  const int block = plan.top_parts.block_width;
  const RowBands bands = {bottom.shape(2), bottom.shape(3) * block,
      plan.bottom_parts.blocks, plan.rows + 2};
  const RowBands top_bands = {height, top.shape(3) * block, plan.top_parts.blocks,
      plan.rows};
  for (int image = 0; image < num; image += plan.images) {
    float* const from = onednn::Values(source) + image * bottom_size;
    float* const to = onednn::Values(target) + image * top_size;
    if (plan.rows == height) {
      ForwardPiece(plan, parameters, 0,
          memory(plan.piece_source, onednn::Engine(), from),
          memory(plan.piece_target, onednn::Engine(), to));
      continue;
    }
    const memory rows(plan.piece_source, onednn::Engine(),
        Work(WORK_PARTS, plan.piece_source.get_size()));
    const memory piece(plan.piece_target, onednn::Engine(),
        Work(WORK_TARGET, plan.piece_target.get_size()));
    for (int row = 0; row < height; row += plan.rows) {
      bands.Cut(from, row - this->pad_.cpu_data()[0], onednn::Values(rows));
      ForwardPiece(plan, parameters, 0, rows, piece);
      top_bands.Paste(onednn::Values(piece), row, to);
    }
  }
}

void OneDNNConvolutionLayer::ForwardPlan(const Plan& plan,
    const Parameters& parameters, bool rectified, Blob<float>* bottom,
    Blob<float>* top) {
  const memory map = onednn::Read(bottom->data().get(), bottom->shape(),
      plan.bottom, WORK_SOURCE);
  const memory source =
      Take(map, plan.source, plan.bottom_parts, 0, WORK_PARTS);
  onednn::Writer writer(top->data().get(), top->shape(), plan.top);
  if (plan.method.dilation == 1
      && (plan.images < bottom->shape(0) || plan.rows < top->shape(2))) {
    ForwardImages(plan, parameters, *bottom, *top, source, writer.memory());
  } else {
    for (int channel = 0; channel < this->num_output_; channel += plan.channels) {
      const memory piece = PlaceFor(writer.memory(), plan.piece_target,
          plan.top_parts, channel, WORK_TARGET);
      ForwardPiece(plan, parameters, channel, source, piece);
      Put(piece, plan.top_parts, channel, writer.memory());
    }
  }
  if (rectified && plan.pass != FORWARD_RECTIFIED) {
    Rectify(plan.top.get_size() / sizeof(float), onednn::Values(writer.memory()));
  }
  writer.Finish(rectified);
}

bool OneDNNConvolutionLayer::Rounds(Pass pass, const vector<int>& shape) {
  if (!may_round_) { return false; }
  static const bool available = Bfloat16Convolution::Available();
  if (!available) {
    LOG_FIRST_N(WARNING, 1) << "CAFFE_ALLOW_BF16: convolutions in bfloat16 need "
        "a processor with AMX or, from AMD, AVX512_BF16: they are float32's.";
    return false;
  }
  if (this->group_ != 1 || this->num_spatial_axes_ != 2 || this->channel_axis_ != 1
      || *std::min_element(shape.begin(), shape.end()) <= 0
      || BlockWidth(onednn::BlockedOrder(shape)) != kTileRows) {
    return false;
  }
  const bool fills_bottom = shape[1] >= kTileRows;
  const bool fills_top = this->num_output_ >= kTileRows;
  const bool forward = IsForward(pass);
  const Bfloat16Convolution convolution = InOneLine(Rounded(shape));
  const bool can_round = forward ? fills_bottom
      : pass == BACKWARD_DATA ? fills_top && Rounded(shape).HasBackward()
      : fills_top && fills_bottom && convolution.HasWeightGradient();
  if (!can_round || Bfloat16Convolution::HasTiles()) { return can_round; }
  const int summed = forward ? shape[1]
      : pass == BACKWARD_DATA ? this->num_output_ : convolution.out_width;
  return FillsVectors(summed)
      && !PlanFor(forward ? FORWARD : pass, shape).is_winograd();
}

Bfloat16Convolution OneDNNConvolutionLayer::Rounded(
    const vector<int>& shape) const {
  const int* const kernel = this->kernel_shape_.cpu_data();
  const int* const stride = this->stride_.cpu_data();
  const int* const pad = this->pad_.cpu_data();
  const int* const dilation = this->dilation_.cpu_data();
  int out[2];
  for (int i = 0; i < 2; ++i) {
    out[i] = (shape[2 + i] + 2 * pad[i] - (dilation[i] * (kernel[i] - 1) + 1))
        / stride[i] + 1;
  }
  return {shape[0], shape[1], shape[2], shape[3], this->num_output_, out[0], out[1],
      kernel[0], kernel[1], stride[0], stride[1], pad[0], pad[1], dilation[0],
      dilation[1]};
}

void OneDNNConvolutionLayer::ForwardRounded(const Followers& followers,
    Blob<float>* bottom, Blob<float>* top) {
  const Bfloat16Convolution convolution = InOneLine(Rounded(bottom->shape()));
  const Parameters parameters = ParametersFor(followers);
  const size_t bytes = convolution.packed_bytes();
  Tiles* const kept = WeightsLearn() ? NULL
      : followers.affine ? &folded_.tiles : &tiles_;
  if (kept != NULL) { kept->values.resize(bytes / sizeof(float)); }
  float* const tiles =
      kept != NULL ? kept->values.data() : Work(WORK_WEIGHTS, bytes);
  // behind a pointer in somebody's hands, weights may have changed unseen
  if (kept == NULL || parameters.weights->exposed()
      || kept->version != parameters.weights->version()) {
    convolution.Pack(static_cast<const float*>(parameters.weights->cpu_data()),
        tiles);
    if (kept != NULL) { kept->version = parameters.weights->version(); }
  }
  const memory map = onednn::Read(bottom->data().get(), bottom->shape(),
      onednn::BlockedOrder(bottom->shape()), WORK_SOURCE);
  onednn::Writer writer(top->data().get(), top->shape(),
      onednn::BlockedOrder(top->shape()));
  convolution.Forward(onednn::Values(map), tiles, parameters.bias,
      followers.rectify, onednn::Values(writer.memory()),
      Work(WORK_PARTS, convolution.work_bytes()));
  writer.Finish(followers.rectify);
}

void OneDNNConvolutionLayer::BackwardDataRounded(Blob<float>* top,
    Blob<float>* bottom) {
  const Bfloat16Convolution convolution =
      InOneLine(Rounded(bottom->shape()).Backward());
  float* const tiles = Work(WORK_WEIGHTS, convolution.packed_bytes());
  convolution.PackTurned(this->blobs_[0]->cpu_data(), tiles);
  const memory map = onednn::Read(top->diff().get(), top->shape(),
      onednn::BlockedOrder(top->shape()), WORK_SOURCE);
  onednn::Writer writer(bottom->diff().get(), bottom->shape(),
      onednn::BlockedOrder(bottom->shape()));
  convolution.Forward(onednn::Values(map), tiles, NULL, false,
      onednn::Values(writer.memory()), Work(WORK_PARTS, convolution.work_bytes()));
  writer.Finish();
}

void OneDNNConvolutionLayer::BackwardWeightsRounded(Blob<float>* top,
    Blob<float>* bottom) {
  const vector<int>& shape = top->shape();
  const memory map = onednn::Read(bottom->data().get(), bottom->shape(),
      onednn::BlockedOrder(bottom->shape()), WORK_SOURCE);
  const memory gradient = onednn::Read(top->diff().get(), shape,
      onednn::BlockedOrder(shape), WORK_OTHER_SOURCE);
  if (this->param_propagate_down_[0]) {
    const Bfloat16Convolution convolution = InOneLine(Rounded(bottom->shape()));
    convolution.AddWeightGradient(onednn::Values(map), onednn::Values(gradient),
        this->blobs_[0]->mutable_cpu_diff(),
        Work(WORK_PARTS, convolution.gradient_work_bytes()));
  }
  if (this->bias_term_ && this->param_propagate_down_[1]) {
    const vector<float> zeros(this->num_output_, 0);
    ChannelSums(ChannelOrder(shape, kTileRows), onednn::Values(gradient),
        onednn::Values(gradient), zeros, zeros, &channel_sums_, &channel_products_);
    float* const diff = this->blobs_[1]->mutable_cpu_diff();
    for (int o = 0; o < this->num_output_; ++o) { diff[o] += channel_sums_[o]; }
  }
}

void OneDNNConvolutionLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  const Followers followers = TakeFollowers();
  if (Rounds(FORWARD, bottom[0]->shape())) {
    for (size_t i = 0; i < bottom.size(); ++i) {
      ForwardRounded(followers, bottom[i], top[i]);
    }
    return;
  }
  // Caffe's ReLU makes NaN of -infinity, by which a training that overflows is
  // told; the one that is computed along makes 0 of it.
  const vector<int>& shape = bottom[0]->shape();
  const bool rectifies = followers.rectify
      && PlanFor(FORWARD_RECTIFIED, shape).available;
  const bool scales = followers.affine
      && this->blobs_[0]->count() / kScales >= top[0]->count()
      && PlanFor(FORWARD_SCALED, shape).available;
  const Plan& plan = PlanFor(rectifies ? FORWARD_RECTIFIED
      : scales ? FORWARD_SCALED : FORWARD, shape);
  if (!plan.available) {
    ConvolutionLayer<float>::Forward_cpu(bottom, top);
    if (followers.affine || followers.rectify) {
      const vector<float> ones(this->num_output_, 1);
      const vector<float> zeros(this->num_output_, 0);
      onednn::AffinePass(ones, zeros, followers, *top[0], top[0]);
    }
    return;
  }
  const Parameters parameters =
      scales ? UnfoldedParameters(followers) : ParametersFor(followers);
  for (size_t i = 0; i < bottom.size(); ++i) {
    ForwardPlan(plan, parameters, followers.rectify, bottom[i], top[i]);
  }
  // what has been folded is at hand as the plan takes it
  if (followers.affine && !scales) { folded_.weights.data()->ReleasePlain(); }
}

void OneDNNConvolutionLayer::BackwardData(const Plan& plan, Blob<float>* top,
    Blob<float>* bottom) {
  const memory map = onednn::Read(top->diff().get(), top->shape(), plan.top,
      WORK_SOURCE);
  const memory target = Take(map, plan.target, plan.top_parts, 0, WORK_PARTS);
  const Parameters parameters =
      {this->blobs_[0]->data().get(), NULL, NULL, &packed_};
  onednn::Writer writer(bottom->diff().get(), bottom->shape(), plan.bottom);
  for (int channel = 0; channel < bottom->shape(1); channel += plan.channels) {
    const memory piece = PlaceFor(writer.memory(), plan.piece_source,
        plan.bottom_parts, channel, WORK_TARGET);
    Execute(plan, {{DNNL_ARG_DIFF_SRC, piece}, {DNNL_ARG_DIFF_DST, target},
        {DNNL_ARG_WEIGHTS, WeightsFor(plan, parameters, channel)}});
    Put(piece, plan.bottom_parts, channel, writer.memory());
  }
  writer.Finish();
}

void OneDNNConvolutionLayer::BackwardWeights(const Plan& plan,
    Blob<float>* top, Blob<float>* bottom) {
  // each map through work areas of its own, as the primitive reads both
  const memory bottom_map = onednn::Read(bottom->data().get(), bottom->shape(),
      plan.bottom, WORK_SOURCE);
  const memory source =
      Take(bottom_map, plan.source, plan.bottom_parts, 0, WORK_PARTS);
  const memory top_map = onednn::Read(top->diff().get(), top->shape(), plan.top,
      WORK_OTHER_SOURCE);
  // primitives overwrite, and Caffe's layers add to what is there
  const memory weights(plan.piece_weights, onednn::Engine(),
      Work(WORK_WEIGHTS, plan.piece_weights.get_size()));
  memory bias;
  if (this->bias_term_) {
    bias = memory(plan.bias, onednn::Engine(),
        Work(WORK_BIAS, plan.bias.get_size()));
  }
  for (int channel = 0; channel < this->num_output_; channel += plan.channels) {
    std::unordered_map<int, memory> arguments = {{DNNL_ARG_SRC, source},
        {DNNL_ARG_DIFF_DST, Take(top_map, plan.piece_target, plan.top_parts,
            channel, WORK_TARGET)}, {DNNL_ARG_DIFF_WEIGHTS, weights}};
    if (this->bias_term_) { arguments[DNNL_ARG_DIFF_BIAS] = bias; }
    Execute(plan, std::move(arguments));
    if (this->param_propagate_down_[0]) {
      memory::dims first(plan.piece_weights.dims().size(), 0);
      first[0] = channel;
      onednn::Accumulate(weights, memory(
          PlainWeights().submemory_desc(plan.piece_weights.dims(), first),
          onednn::Engine(), this->blobs_[0]->mutable_cpu_diff()));
    }
    if (this->bias_term_ && this->param_propagate_down_[1]) {
      onednn::Accumulate(bias, memory(plan.bias, onednn::Engine(),
          this->blobs_[1]->mutable_cpu_diff() + channel));
    }
  }
}

void OneDNNConvolutionLayer::Backward_cpu(const vector<Blob<float>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  const vector<int>& shape = bottom[0]->shape();
  const bool to_weights = this->param_propagate_down_[0]
      || (this->bias_term_ && this->param_propagate_down_[1]);
  const bool to_bottom = std::find(propagate_down.begin(),
      propagate_down.end(), true) != propagate_down.end();
  const bool rounds = to_bottom && Rounds(BACKWARD_DATA, shape);
  const bool rounds_to_weights = to_weights && Rounds(BACKWARD_WEIGHTS, shape);
  if ((to_weights && !rounds_to_weights
          && !PlanFor(BACKWARD_WEIGHTS, shape).available)
      || (to_bottom && !rounds && !PlanFor(BACKWARD_DATA, shape).available)) {
    ConvolutionLayer<float>::Backward_cpu(top, propagate_down, bottom);
    return;
  }
  for (size_t i = 0; i < top.size(); ++i) {
    if (to_weights && rounds_to_weights) {
      BackwardWeightsRounded(top[i], bottom[i]);
    } else if (to_weights) {
      BackwardWeights(PlanFor(BACKWARD_WEIGHTS, shape), top[i], bottom[i]);
    }
    if (!propagate_down[i]) { continue; }
    if (rounds) {
      BackwardDataRounded(top[i], bottom[i]);
    } else {
      BackwardData(PlanFor(BACKWARD_DATA, shape), top[i], bottom[i]);
    }
  }
}

}  // namespace caffe
