#include <fcntl.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <google/protobuf/text_format.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "caffe/layer_factory.hpp"
#include "caffe/util/foreign_networks.hpp"
#include "caffe/util/upgrade_proto.hpp"

namespace caffe {

namespace {

struct ForeignType {
  const char* name;
  const char* fork;
  const char* instead;  // what serves here; NULL: nothing
};

const char kDetection[] = "SSD";
const char kRegions[] = "Fast R-CNN";

const ForeignType kForeignTypes[] = {
  {"AdaptiveBiasChannel", "DeepLab", NULL},
  {"AnnotatedData", kDetection, NULL},
  {"Axpy", "SENet", "Scale with two bottoms, then Eltwise"},
  {"BatchReduction", "PSPNet", "Reduction"},
  {"BiasChannel", "DeepLab", NULL},
  {"ConvolutionDepthwise", "a fork for MobileNet",
   "Convolution with group: its number of channels"},
  {"Correlation", "FlowNet", NULL},
  {"DepthwiseConvolution", "a fork for MobileNet",
   "Convolution with group: its number of channels"},
  {"DetectionEvaluate", kDetection, NULL},
  {"DetectionOutput", kDetection, NULL},
  {"DominantChannel", "DeepLab", "ArgMax"},
  {"EltwiseAccuracy", "DeconvNet", "Accuracy with ignore_label"},
  {"FocalLoss", "a fork for RetinaNet",
   "SoftmaxWithLoss with hard_example_fraction"},
  {"MatRead", "DeepLab", "HDF5Data"},
  {"MatWrite", "DeepLab", "HDF5Output, or net.blobs of pycaffe"},
  {"MultiBoxLoss", kDetection, NULL},
  {"Padding", "DeepLab", "pad in the convolution or pooling that reads it"},
  {"PriorBox", kDetection, NULL},
  {"ROIPooling", kRegions, NULL},
  {"ReLU6", "a fork for MobileNet", "Clip with min: 0 max: 6"},
  {"RedAccuracy", "DeconvNet", "Accuracy"},
  {"RedSoftmaxWithLoss", "DeconvNet", "SoftmaxWithLoss"},
  {"ShuffleChannel", "a fork for ShuffleNet", "Reshape, Permute, Reshape"},
  {"SmoothL1Loss", kRegions, NULL},
  {"SoftmaxWithFocalLoss", "a fork for RetinaNet",
   "SoftmaxWithLoss with hard_example_fraction"},
  {"SpatialDropout", "ENet", "Dropout"},
  {"UniqueLabel", "DeepLab", NULL},
  {"WeightedSoftmaxWithLoss", "a fork for class weights",
   "SoftmaxWithLoss with class_weight"},
  {"WindowClsData", "DeconvNet", "SegmentationData"},
  {"WindowInstSegData", "DeconvNet", "SegmentationData"},
  {"WindowSegData", "DeconvNet", "SegmentationData or ImageSegData"},
};

/// Says nothing: what is wrong with the text was said before.
class Silent : public google::protobuf::io::ErrorCollector {
 public:
  virtual void AddError(int /* line */, int /* column */,
      const string& /* message */) {}
};

}  // namespace

string ForeignLayerAdvice(const string& type) {
  for (const ForeignType& foreign : kForeignTypes) {
    if (type == foreign.name) {
      return string(foreign.fork) + " has it; " + (foreign.instead == NULL ?
          string("nothing here serves instead") :
          string("here serves ") + foreign.instead);
    }
  }
  return "";
}

string UnknownLayerMessage(const LayerParameter& layer) {
  const string advice = ForeignLayerAdvice(layer.type());
  return "Unknown layer type: " + layer.type() + " of layer '" + layer.name() +
      "'" + (advice.empty() ? "" : "; " + advice);
}

const char* ForeignV1LayerType(V1LayerParameter_LayerType type) {
  switch (type) {
  case V1LayerParameter_LayerType_BN: return "BN";
  case V1LayerParameter_LayerType_CROP: return "Crop";
  case V1LayerParameter_LayerType_DENSE_CRF: return "DenseCRF";
  case V1LayerParameter_LayerType_DENSE_IMAGE_DATA: return "DenseImageData";
  case V1LayerParameter_LayerType_ELTWISE_ACCURACY: return "EltwiseAccuracy";
  case V1LayerParameter_LayerType_IMAGE_SEG_DATA: return "ImageSegData";
  case V1LayerParameter_LayerType_INTERP: return "Interp";
  case V1LayerParameter_LayerType_MAT_READ: return "MatRead";
  case V1LayerParameter_LayerType_MAT_WRITE: return "MatWrite";
  case V1LayerParameter_LayerType_MULTI_STAGE_MEANFIELD:
    return "MultiStageMeanfield";
  case V1LayerParameter_LayerType_PADDING: return "Padding";
  case V1LayerParameter_LayerType_PRELU: return "PReLU";
  case V1LayerParameter_LayerType_SEG_ACCURACY: return "SegAccuracy";
  case V1LayerParameter_LayerType_UNPOOLING: return "Unpooling";
  case V1LayerParameter_LayerType_UPSAMPLE: return "Upsample";
  case V1LayerParameter_LayerType_WINDOW_SEG_DATA: return "WindowSegData";
  default: return NULL;
  }
}

void CopyForeignV1Parameters(const V1LayerParameter& from, LayerParameter* to) {
  if (from.has_bn_param()) { *to->mutable_bn_param() = from.bn_param(); }
  if (from.has_dense_image_data_param()) {
    *to->mutable_dense_image_data_param() = from.dense_image_data_param();
  }
  if (from.has_interp_param()) {
    *to->mutable_interp_param() = from.interp_param();
  }
  if (from.has_multi_stage_meanfield_param()) {
    *to->mutable_multi_stage_meanfield_param() =
        from.multi_stage_meanfield_param();
  }
  if (from.has_seg_accuracy_param()) {
    *to->mutable_seg_accuracy_param() = from.seg_accuracy_param();
  }
  if (from.has_unpooling_param()) {
    *to->mutable_unpooling_param() = from.unpooling_param();
  }
  if (from.has_upsample_param()) {
    *to->mutable_upsample_param() = from.upsample_param();
  }
}

bool HasHole(const LayerParameter& layer) {
  const ConvolutionParameter& convolution = layer.convolution_param();
  return convolution.has_hole() || convolution.has_hole_h() ||
      convolution.has_hole_w();
}

string UpgradeHole(LayerParameter* layer) {
  if (!HasHole(*layer)) { return ""; }
  ConvolutionParameter* const convolution = layer->mutable_convolution_param();
  const string name = "layer '" + layer->name() + "': ";
  if (convolution->has_hole() &&
      (convolution->has_hole_h() || convolution->has_hole_w())) {
    return name + "hole is that of both axes; give it, or hole_h and hole_w";
  }
  const uint32_t height = convolution->has_hole() ? convolution->hole() :
      convolution->hole_h();
  const uint32_t width = convolution->has_hole() ? convolution->hole() :
      convolution->hole_w();
  const string given =
      "hole " + std::to_string(height) + " and " + std::to_string(width);
  if (height == 0 || width == 0) {
    return name + given + " given; expected 1 or more";
  }
  const int dilations = convolution->dilation_size();
  if (dilations > 0 && (dilations > 2 || convolution->dilation(0) != height ||
      convolution->dilation(dilations - 1) != width)) {
    return name + "hole is another name of dilation, and both are given and"
        " differ; give one of them";
  }
  convolution->clear_hole();
  convolution->clear_hole_h();
  convolution->clear_hole_w();
  convolution->clear_dilation();
  convolution->add_dilation(height);
  if (width != height) { convolution->add_dilation(width); }
  return "";
}

bool NetNeedsHoleUpgrade(const NetParameter& net) {
  for (LayerParameter layer : net.layer()) {
    if (HasHole(layer) && UpgradeHole(&layer).empty()) { return true; }
  }
  return false;
}

void UpgradeNetHoles(NetParameter* net) {
  for (LayerParameter& layer : *net->mutable_layer()) { UpgradeHole(&layer); }
}

void CheckLayerTypesOfText(const string& file) {
  const int descriptor = open(file.c_str(), O_RDONLY);
  if (descriptor < 0) { return; }
  NetParameter read, net;
  {
    google::protobuf::io::FileInputStream input(descriptor);
    google::protobuf::TextFormat::Parser parser;
    Silent silent;
    parser.RecordErrorsTo(&silent);
    parser.AllowUnknownField(true);
    parser.AllowPartialMessage(true);
    parser.Parse(&input, &read);
  }
  close(descriptor);
  net = read;
  if (NetNeedsV1ToV2Upgrade(read)) {
    net.clear_layer();
    for (const V1LayerParameter& layer : read.layers()) {
      LayerParameter* const upgraded = net.add_layer();
      upgraded->set_name(layer.name());
      upgraded->set_type(UpgradeV1LayerType(layer.type()));
    }
  }
  const vector<string> types = LayerRegistry<float>::LayerTypeList();
  for (const LayerParameter& layer : net.layer()) {
    if (layer.type().empty()) { continue; }
    bool here = false;
    for (const string& type : types) { here = here || type == layer.type(); }
    CHECK(here) << file << ": " << UnknownLayerMessage(layer);
  }
}

}  // namespace caffe
