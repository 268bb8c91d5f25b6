#include <fstream>  // NOLINT(readability/streams)
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/net.hpp"
#include "caffe/util/foreign_networks.hpp"
#include "caffe/util/io.hpp"
#include "caffe/util/upgrade_proto.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

class ForeignNetworksTest : public ::testing::Test {
 protected:
  ForeignNetworksTest() {
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  }

  static string Written(const string& text) {
    string file;
    MakeTempFilename(&file);
    std::ofstream(file.c_str()) << text;
    return file;
  }
  static NetParameter Read(const string& text) {
    NetParameter net;
    ReadNetParamsFromTextFileOrDie(Written(text), &net);
    return net;
  }
};

TEST_F(ForeignNetworksTest, TestTypesOfTheSecondGeneration) {
  const NetParameter net = Read(
      "layers { name: 'bn' type: BN bottom: 'x' top: 'x' blobs_lr: 1"
      "  blobs_lr: 2 bn_param { bn_mode: INFERENCE scale_filler { value: 1 } } }"
      "layers { name: 'up' type: UPSAMPLE upsample_param { scale: 3 } }"
      "layers { name: 'interp' type: INTERP interp_param { zoom_factor: 8 } }"
      "layers { name: 'un' type: UNPOOLING unpooling_param { kernel_size: 2 } }"
      "layers { name: 'seg' type: IMAGE_SEG_DATA"
      "  image_data_param { source: 'list' label_type: PIXEL }"
      "  transform_param { crop_size: 321 } }"
      "layers { name: 'dense' type: DENSE_IMAGE_DATA"
      "  dense_image_data_param { source: 'list' } }"
      "layers { name: 'score' type: SEG_ACCURACY"
      "  seg_accuracy_param { ignore_label: 255 } }"
      "layers { name: 'crop' type: CROP }"
      "layers { name: 'crf' type: MULTI_STAGE_MEANFIELD"
      "  multi_stage_meanfield_param { theta_alpha: 160 } }"
      "layers { name: 'fc6' type: CONVOLUTION convolution_param { hole: 4 } }");
  const vector<string> types = {"BN", "Upsample", "Interp", "Unpooling",
      "ImageSegData", "DenseImageData", "SegAccuracy", "Crop",
      "MultiStageMeanfield", "Convolution"};
  ASSERT_EQ(types.size(), net.layer_size());
  EXPECT_EQ(0, net.layers_size());
  for (size_t i = 0; i < types.size(); ++i) {
    EXPECT_EQ(types[i], net.layer(i).type());
  }
  EXPECT_EQ(2, net.layer(0).param(1).lr_mult());
  EXPECT_EQ(BNParameter_BNMode_INFERENCE, net.layer(0).bn_param().bn_mode());
  EXPECT_EQ(3, net.layer(1).upsample_param().scale());
  EXPECT_EQ(8, net.layer(2).interp_param().zoom_factor());
  EXPECT_EQ(2, net.layer(3).unpooling_param().kernel_size());
  EXPECT_EQ(ImageDataParameter_LabelType_PIXEL,
      net.layer(4).image_data_param().label_type());
  EXPECT_EQ(321, net.layer(4).transform_param().crop_size());
  EXPECT_EQ("list", net.layer(5).dense_image_data_param().source());
  EXPECT_EQ(255, net.layer(6).seg_accuracy_param().ignore_label(0));
  EXPECT_EQ(160,
      net.layer(8).multi_stage_meanfield_param().theta_alpha());
  EXPECT_EQ(4, net.layer(9).convolution_param().dilation(0));
}

// Every name that the enumeration has is of some type.
TEST_F(ForeignNetworksTest, TestEveryNameHasAType) {
  const google::protobuf::EnumDescriptor* const names =
      V1LayerParameter_LayerType_descriptor();
  int foreign = 0;
  for (int i = 0; i < names->value_count(); ++i) {
    const int number = names->value(i)->number();
    const V1LayerParameter_LayerType type =
        static_cast<V1LayerParameter_LayerType>(number);
    EXPECT_EQ(number > 1000, ForeignV1LayerType(type) != NULL);
    foreign += number > 1000;
    UpgradeV1LayerType(type);
  }
  EXPECT_EQ(16, foreign);
}

TEST_F(ForeignNetworksTest, TestHolesAreDilations) {
  const NetParameter net = Read(
      "layer { type: 'Convolution' convolution_param { hole: 12 } }"
      "layer { type: 'Convolution' convolution_param { hole_h: 2 hole_w: 3 } }"
      "layer { type: 'Convolution' convolution_param { hole_w: 5 } }"
      "layer { type: 'Deconvolution' convolution_param { hole: 2 dilation: 2 } }"
      "layer { type: 'Convolution' convolution_param { dilation: 7 } }");
  const vector<vector<uint32_t> > expected = {{12}, {2, 3}, {1, 5}, {2}, {7}};
  for (size_t i = 0; i < expected.size(); ++i) {
    const ConvolutionParameter& convolution = net.layer(i).convolution_param();
    EXPECT_EQ(expected[i], vector<uint32_t>(convolution.dilation().begin(),
        convolution.dilation().end())) << i;
    EXPECT_FALSE(convolution.has_hole() || convolution.has_hole_h() ||
        convolution.has_hole_w());
  }
  EXPECT_FALSE(NetNeedsUpgrade(net));
}

// A layer that no file was read for has its hole, too.
TEST_F(ForeignNetworksTest, TestALayerWithAHole) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString("name: 'fc6'"
      " type: 'Convolution' convolution_param { num_output: 1 kernel_size: 3"
      "  hole: 2 }", &param));
  Blob<float> bottom(1, 1, 7, 8), top;
  const shared_ptr<Layer<float> > layer =
      LayerRegistry<float>::CreateLayer(param);
  layer->SetUp({&bottom}, {&top});
  EXPECT_EQ("1 1 3 4 (12)", top.shape_string());
}

// They are read, so that programs can say so in their own way.
TEST_F(ForeignNetworksTest, TestContradictingHolesAreNamed) {
  const vector<vector<string> > cases = {
    {"hole: 12 dilation: 6", "layer 'fc6': hole is another name of dilation, and "
     "both are given and differ"},
    {"hole: 12 hole_h: 12", "layer 'fc6': hole is that of both axes; give it, or "
     "hole_h and hole_w"},
    {"hole: 0", "layer 'fc6': hole 0 and 0 given"},
  };
  for (const vector<string>& each : cases) {
    const NetParameter net = Read("layer { name: 'fc6' type: 'Convolution'"
        " convolution_param { " + each[0] + " } }");
    EXPECT_TRUE(HasHole(net.layer(0)));
    EXPECT_DEATH(LayerRegistry<float>::CreateLayer(net.layer(0)), each[1]);
  }
}

TEST_F(ForeignNetworksTest, TestUnknownTypes) {
  LayerParameter layer;
  layer.set_name("priors");
  layer.set_type("PriorBox");
  EXPECT_EQ("Unknown layer type: PriorBox of layer 'priors'; SSD has it; nothing "
      "here serves instead", UnknownLayerMessage(layer));
  EXPECT_DEATH(LayerRegistry<float>::CreateLayer(layer), "Unknown layer type: "
      "PriorBox of layer 'priors'; SSD has it; nothing here serves instead");
  layer.set_type("Convolutoin");
  EXPECT_DEATH(LayerRegistry<float>::CreateLayer(layer), "Unknown layer type: "
      "Convolutoin of layer 'priors' \\(types that are here: .*Convolution");
}

// Their fields are not here either: the type is told nevertheless.
TEST_F(ForeignNetworksTest, TestUnknownTypesWithFields) {
  EXPECT_DEATH(Read("layer { name: 'a' type: 'Input' top: 'a' }\n"
      "layer { name: 'm' type: 'MatWrite' mat_write_param { prefix: 'x' } }"),
      "Unknown layer type: MatWrite of layer 'm'; DeepLab has it; here serves "
      "HDF5Output");
  EXPECT_DEATH(Read(
      "layers { name: 'p' type: PADDING padding_param { pad_beg: 1 } }"),
      "Unknown layer type: Padding of layer 'p'; DeepLab has it; here serves pad");
  EXPECT_DEATH(Read("layer { name: 'b' type: 'Bar' bar_param { a: 1 } }"),
      "Unknown layer type: Bar of layer 'b'");
  EXPECT_DEATH(Read("layer { name: 'r' type: 'ReLU' relu_prm { } }"),
      "Failed to parse NetParameter file: ");
}

// Advice on what is here would never be given.
TEST_F(ForeignNetworksTest, TestNoAdviceOnWhatIsHere) {
  for (const string& type : LayerRegistry<float>::LayerTypeList()) {
    EXPECT_EQ("", ForeignLayerAdvice(type)) << type;
  }
}

// A fork's file of weights, with types and fields under its own numbers.
TEST_F(ForeignNetworksTest, TestWeightsOfAForkGoByNames) {
  NetParameter weights;
  V1LayerParameter* const foreign = weights.add_layers();
  foreign->set_name("bn");
  google::protobuf::UnknownFieldSet* const unknown =
      foreign->GetReflection()->MutableUnknownFields(foreign);
  unknown->AddVarint(5, 43);  // DeconvNet's BN
  unknown->AddLengthDelimited(45)->assign("\x18\x01", 2);
  for (int i = 0; i < 2; ++i) {
    BlobProto* const blob = foreign->add_blobs();
    blob->set_num(1);
    blob->set_channels(3);
    blob->set_height(1);
    blob->set_width(1);
    for (int c = 0; c < 3; ++c) { blob->add_data(10 * i + c); }
  }
  string file;
  MakeTempFilename(&file);
  WriteProtoToBinaryFile(weights, file);
  NetParameter net;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      "layer { name: 'data' type: 'Input' top: 'data'"
      "  input_param { shape { dim: 1 dim: 3 dim: 2 dim: 2 } } }"
      "layer { name: 'bn' type: 'BN' bottom: 'data' top: 'data'"
      "  bn_param { bn_mode: INFERENCE } }", &net));
  net.mutable_state()->set_phase(TEST);
  Caffe::set_mode(Caffe::CPU);
  Net<float> built(net);
  built.CopyTrainedLayersFrom(file);
  EXPECT_EQ(2, built.layer_by_name("bn")->blobs()[0]->cpu_data()[2]);
  EXPECT_EQ(11, built.layer_by_name("bn")->blobs()[1]->cpu_data()[1]);
}

}  // namespace caffe
