#include "caffe/util/layer_values.hpp"

#include <glog/logging.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/blob.hpp"

namespace caffe {

namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

const double MOST = std::numeric_limits<int>::max();
// Of a recurrent layer: LSTM has four gates for each.
const double MOST_UNITS = 536870911;
// Of windows: two of them multiplied are still an int.
const double WIDEST = 32767;

/// What fields of Caffe's own layers may be.
struct Range {
  const char* message;
  const char* fields;  // each between spaces
  double least, most;
};

const Range RANGES[] = {
  {"convolution_param", " num_output group ", 1, MOST},
  {"convolution_param", " kernel_size kernel_h kernel_w stride stride_h stride_w"
      " dilation hole hole_h hole_w ", 1, WIDEST},
  {"convolution_param", " pad pad_h pad_w ", 0, WIDEST},
  {"pooling_param", " kernel_size kernel_h kernel_w stride stride_h stride_w ",
      1, WIDEST},
  {"pooling_param", " pad pad_h pad_w ", 0, WIDEST},
  {"inner_product_param", " num_output ", 1, MOST},
  {"embed_param", " num_output input_dim ", 1, MOST},
  {"recurrent_param", " num_output ", 1, MOST_UNITS},
  {"scale_param", " num_axes ", -1, kMaxBlobAxes},
  {"bias_param", " num_axes ", -1, kMaxBlobAxes},
  {"reshape_param", " num_axes ", -1, kMaxBlobAxes},
  {"lrn_param", " local_size ", 1, WIDEST},
  {"tile_param", " tiles ", 1, MOST},
  {"argmax_param", " top_k ", 1, MOST},
  {"accuracy_param", " top_k ", 1, MOST},
  {"spp_param", " pyramid_height ", 1, 15},
  {"batch_norm_param", " moving_average_fraction ", 0, 1},
  {"batch_norm_param", " eps ", 0, MOST},
  {"mvn_param", " eps ", 0, MOST},
  {"data_param", " batch_size ", 1, MOST},
  {"data_param", " prefetch ", 1, 1024},  // batches
  {"image_data_param", " batch_size ", 1, MOST},
  {"hdf5_data_param", " batch_size ", 1, MOST},
  {"window_data_param", " batch_size ", 1, MOST},
  {"memory_data_param", " batch_size channels height width ", 1, MOST},
  {"input_param", " dim ", 0, MOST},
  {"dummy_data_param", " dim ", 0, MOST},
  {"parameter_param", " dim ", 0, MOST},
  {"reshape_param", " dim ", -1, MOST},
};

/// Fields that a layer cannot do without, and whose default is 0.
const struct {
  const char* type;
  const char* message;
  const char* field;
} NEEDED[] = {
  {"Convolution", "convolution_param", "num_output"},
  {"Deconvolution", "convolution_param", "num_output"},
  {"InnerProduct", "inner_product_param", "num_output"},
  {"Embed", "embed_param", "num_output"},
  {"Embed", "embed_param", "input_dim"},
  {"RNN", "recurrent_param", "num_output"},
  {"LSTM", "recurrent_param", "num_output"},
  {"Tile", "tile_param", "tiles"},
  {"SPP", "spp_param", "pyramid_height"},
  {"Data", "data_param", "batch_size"},
  {"HDF5Data", "hdf5_data_param", "batch_size"},
  {"WindowData", "window_data_param", "batch_size"},
};

std::string Name(const LayerParameter& layer) {
  return layer.type() + " layer '" + layer.name() + "': ";
}

class Checker {
 public:
  explicit Checker(const LayerParameter& layer) : layer_(layer) {}

  /// @param path     of `message` in the layer, with a point behind it
  /// @param outermost the layer's field that `message` is, or lies in
  void Check(const Message& message, const std::string& path,
      const std::string& outermost) const {
    const Reflection* const reflection = message.GetReflection();
    std::vector<const FieldDescriptor*> fields;
    reflection->ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      const std::string here = path + field->name();
      if (here == "blobs") { continue; }  // weights, which others look at
      const int count =
          field->is_repeated() ? reflection->FieldSize(message, field) : 1;
      for (int i = 0; i < count; ++i) {
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
          Check(field->is_repeated() ?
                  reflection->GetRepeatedMessage(message, field, i) :
                  reflection->GetMessage(message, field), here + ".",
              outermost.empty() ? here : outermost);
        } else {
          CheckNumber(message, *field, i, here, outermost);
        }
      }
    }
  }

 private:
  void CheckNumber(const Message& message, const FieldDescriptor& field, int i,
      const std::string& here, const std::string& outermost) const {
    double value;
#define NUMBER(TYPE) field.is_repeated() ? \
    message.GetReflection()->GetRepeated##TYPE(message, &field, i) : \
    message.GetReflection()->Get##TYPE(message, &field)
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32: value = NUMBER(Int32); break;
      case FieldDescriptor::CPPTYPE_INT64: value = NUMBER(Int64); break;
      case FieldDescriptor::CPPTYPE_UINT32: value = NUMBER(UInt32); break;
      case FieldDescriptor::CPPTYPE_FLOAT: value = NUMBER(Float); break;
      default: return;
    }
#undef NUMBER
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_FLOAT) {
      const bool open_ended = outermost == "clip_param" && !std::isnan(value);
      CHECK(std::isfinite(value) || open_ended) << Name(layer_) << here << " is "
          << value << ", which is no number to compute with";
    } else if (field.name() != "seed") {
      Expect(here, value, -MOST, MOST);
    }
    for (const Range& range : RANGES) {
      if (outermost == range.message && std::string(range.fields).find(
          " " + field.name() + " ") != std::string::npos) {
        Expect(here, value, range.least, range.most);
      }
    }
  }

  void Expect(const std::string& field, double value, double least,
      double most) const {
    if (value >= least && value <= most) { return; }
    std::ostringstream expected;
    expected.precision(15);
    expected << field << " is " << value << ", expected " << least << " to "
        << most;
    LOG(FATAL) << Name(layer_) << expected.str();
  }

  const LayerParameter& layer_;
};

}  // namespace

void CheckLayerValues(const LayerParameter& layer) {
  Checker(layer).Check(layer, "", "");
  for (const auto& needed : NEEDED) {
    if (layer.type() != needed.type) { continue; }
    const FieldDescriptor* const field =
        layer.GetDescriptor()->FindFieldByName(needed.message);
    const Message& message = layer.GetReflection()->GetMessage(layer, field);
    CHECK(message.GetReflection()->HasField(message,
        message.GetDescriptor()->FindFieldByName(needed.field)))
        << Name(layer) << needed.message << "." << needed.field
        << " is missing";
  }
}

}  // namespace caffe
