#ifndef CAFFE_TEST_FUZZ_ANY_LAYER_HPP_
#define CAFFE_TEST_FUZZ_ANY_LAYER_HPP_

#include <google/protobuf/descriptor.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/util/layer_values.hpp"
#include "caffe/util/math_functions.hpp"

#include "fuzz_input.hpp"

namespace caffe {

/// Layers that need no file, ours and Caffe's, with their messages. Recurrent ones
/// have a net within, which a failed CHECK leaves in the middle of its work.
struct AnyLayer {
  const char* type;
  const char* message;
};

const AnyLayer ANY_LAYERS[] = {
  {"ReNetLSTM", "renet_param"}, {"ReNetGRU", "renet_param"},
  {"ReNetIRNN", "renet_param"}, {"DenseCRF", "dense_crf_param"},
  {"MultiStageMeanfield", "multi_stage_meanfield_param"},
  {"BilinearInterpolation", ""}, {"Interp", "interp_param"},
  {"Upsample", "upsample_param"}, {"Unpooling", "unpooling_param"},
  {"Permute", "permute_param"}, {"Normalize", "norm_param"},
  {"L2Normalization", "l2_normalization_param"}, {"BN", "bn_param"},
  {"SegAccuracy", "seg_accuracy_param"}, {"SoftmaxWithLoss", "loss_param"},
  {"Dropout", "dropout_param"}, {"Convolution", "convolution_param"},
  {"Deconvolution", "convolution_param"}, {"Pooling", "pooling_param"},
  {"ReLU", "relu_param"}, {"InnerProduct", "inner_product_param"},
  {"Embed", "embed_param"}, {"Scale", "scale_param"}, {"Bias", "bias_param"},
  {"BatchNorm", "batch_norm_param"}, {"PReLU", "prelu_param"},
  {"Reshape", "reshape_param"}, {"Slice", "slice_param"},
  {"Crop", "crop_param"}, {"Tile", "tile_param"}, {"LRN", "lrn_param"},
  {"Eltwise", "eltwise_param"}, {"Concat", "concat_param"},
  {"Flatten", "flatten_param"}, {"SPP", "spp_param"},
  {"ArgMax", "argmax_param"}, {"MVN", "mvn_param"},
  {"Reduction", "reduction_param"}, {"Softmax", "softmax_param"},
  {"Im2col", "convolution_param"}, {"Accuracy", "accuracy_param"},
  {"HingeLoss", "hinge_loss_param"}, {"InfogainLoss", "infogain_loss_param"},
  {"ContrastiveLoss", "contrastive_loss_param"},
  {"SigmoidCrossEntropyLoss", "loss_param"}, {"EuclideanLoss", ""},
  {"MultinomialLogisticLoss", "loss_param"}, {"BatchReindex", ""},
  {"Filter", ""}, {"Split", ""}, {"Silence", ""}, {"Power", "power_param"},
  {"Exp", "exp_param"}, {"Log", "log_param"}, {"ELU", "elu_param"},
  {"Clip", "clip_param"}, {"Threshold", "threshold_param"}, {"BNLL", ""},
  {"AbsVal", ""}, {"Sigmoid", ""}, {"TanH", ""}, {"Swish", "swish_param"},
  {"DummyData", "dummy_data_param"}, {"Input", "input_param"},
  {"Parameter", "parameter_param"},
};

/// A layer's message with any of its fields at any of the values at which things
/// go wrong.
class AnyMessage {
 public:
  explicit AnyMessage(FuzzInput* input) : input_(input) {}

  void Fill(google::protobuf::Message* message, int depth = 0) {
    using google::protobuf::FieldDescriptor;
    const google::protobuf::Descriptor* const type = message->GetDescriptor();
    const google::protobuf::Reflection* const set = message->GetReflection();
    const int fields = input_->Below(8);
    for (int i = 0; i < fields; ++i) {
      const FieldDescriptor* const field =
          type->field(input_->Below(type->field_count()));
#define SET(TYPE, VALUE) (field->is_repeated() ? \
    set->Add##TYPE(message, field, VALUE) : set->Set##TYPE(message, field, VALUE))
      switch (field->cpp_type()) {
        case FieldDescriptor::CPPTYPE_INT32: SET(Int32, Integer()); break;
        case FieldDescriptor::CPPTYPE_INT64: SET(Int64, Integer()); break;
        case FieldDescriptor::CPPTYPE_UINT32: SET(UInt32, Integer()); break;
        case FieldDescriptor::CPPTYPE_FLOAT: SET(Float, Real()); break;
        case FieldDescriptor::CPPTYPE_BOOL: SET(Bool, input_->Below(2)); break;
        case FieldDescriptor::CPPTYPE_ENUM:
          SET(Enum, field->enum_type()->value(
              input_->Below(field->enum_type()->value_count())));
          break;
        case FieldDescriptor::CPPTYPE_STRING: SET(String, Text()); break;
        case FieldDescriptor::CPPTYPE_MESSAGE:
          if (depth < 2) {
            Fill(field->is_repeated() ? set->AddMessage(message, field) :
                set->MutableMessage(message, field), depth + 1);
          }
          break;
        default: break;
      }
#undef SET
    }
  }

 private:
  int64_t Integer() {
    const int64_t odd[] = {-1, 0, 255, 256, 32767, 32768, 65536, INT_MAX - 1, INT_MAX, INT_MIN, UINT_MAX};
    return input_->Below(4) > 0 ? input_->Below(6) : input_->Pick(odd);
  }
  float Real() {
    const float values[] = {0, 1, 0.5f, 2, 3, 10, -1, 1e-30f, 1e30f, 1e-8f, 0.999f, INFINITY, -INFINITY, NAN};
    return input_->Pick(values);
  }
  const char* Text() {
    const char* const texts[] = {"constant", "", "uniform", "gaussian", "xavier", "msra", "bilinear",
        "positive_unitball", "1 2 3", "nan"};
    return input_->Pick(texts);
  }

  FuzzInput* const input_;
};

/// Blobs of any shape, their data and gradients each in memory of its own size.
class AnyBlobs {
 public:
  AnyBlobs(FuzzInput* input, int count) {
    vector<int> shape;
    for (int i = 0; i < count; ++i) {
      if (i == 0 || input->Below(4) == 0) { shape = Shape(input); }
      blobs_.emplace_back(new Blob<float>(shape));
      const int classes = 1 + input->Below(6);
      for (int k = 0; k < blobs_[i]->count(); ++k) {
        // labels, masks, scores
        blobs_[i]->mutable_cpu_data()[k] = i == 0 ? k % 7 * 0.5f - 1 : k % classes;
        blobs_[i]->mutable_cpu_diff()[k] = k % 3 - 1;
      }
      pointers_.push_back(blobs_[i].get());
    }
  }
  const vector<Blob<float>*>& pointers() const { return pointers_; }

 private:
  static vector<int> Shape(FuzzInput* input) {
    const int odd[] = {4, 3, 2, 1, 0, 5};
    vector<int> shape(input->Pick(odd));
    for (int& size : shape) { size = input->Below(8); }
    return shape;
  }

  vector<std::unique_ptr<Blob<float> > > blobs_;
  vector<Blob<float>*> pointers_;
};

/// Sets a layer up and runs it forward and backward, all as the input says.
inline void RunAnyLayer(FuzzInput* input) {
  const AnyLayer& any = input->Pick(ANY_LAYERS);
  LayerParameter param;
  param.set_name("any");
  param.set_type(any.type);
  param.set_phase(input->Below(2) == 0 ? TRAIN : TEST);
  AnyMessage values(input);
  if (any.message[0] != 0) {
    values.Fill(param.GetReflection()->MutableMessage(&param,
        param.GetDescriptor()->FindFieldByName(any.message)));
  }
  if (param.type() == "SoftmaxWithLoss") { values.Fill(param.mutable_softmax_param()); }
  AnyBlobs bottom(input, input->Below(4));
  const int blobs = input->Below(8) == 0 ? input->Below(5) : 0;
  for (int i = 0; i < blobs; ++i) {
    AnyBlobs weights(input, 1);
    weights.pointers()[0]->ToProto(param.add_blobs());
  }
  FuzzInput none(NULL, 0);
  const int tops = 1 + input->Below(3) / 2;
  AnyBlobs top(&none, tops);
  CheckLayerValues(param);
  const shared_ptr<Layer<float> > layer = LayerRegistry<float>::CreateLayer(param);
  layer->SetUp(bottom.pointers(), top.pointers());
  // what fuzzing shall not wait for
  int64_t work = 1;
  for (const Blob<float>* blob : top.pointers()) { work += blob->count(); }
  if (work > (1 << 20)) { return; }
  layer->Forward(bottom.pointers(), top.pointers());
  if (param.phase() == TEST || param.type() == "SegAccuracy") { return; }
  for (Blob<float>* blob : top.pointers()) {
    caffe_set(blob->count(), 1.f, blob->mutable_cpu_diff());
  }
  vector<bool> propagate_down(bottom.pointers().size(), false);
  for (size_t i = 0; i < propagate_down.size(); ++i) {
    propagate_down[i] = layer->AllowForceBackward(i);
  }
  layer->Backward(top.pointers(), propagate_down, bottom.pointers());
}

}  // namespace caffe

#endif  // CAFFE_TEST_FUZZ_ANY_LAYER_HPP_
