#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/layer_factory.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "renet_reference.hpp"

namespace caffe {

// What a person gets to read who wrote a wrong prototxt.
class ReNetParameterDeathTest : public ::testing::Test {
 protected:
  ReNetParameterDeathTest() : bottom_(1, 3, 4, 5) {
    Caffe::set_mode(Caffe::CPU);
    ::testing::FLAGS_gtest_death_test_style = "fast";
  }

  static LayerParameter Parameter(const string& type) {
    ReNetCase c = ReNetUnits()[0];
    c.type = type;
    LayerParameter parameter = c.Parameter(TRAIN);
    parameter.set_name("renet1");
    return parameter;
  }
  void SetUpLayer(const LayerParameter& parameter) {
    shared_ptr<Layer<float> > layer =
        LayerRegistry<float>::CreateLayer(parameter);
    layer->SetUp(vector<Blob<float>*>(1, &bottom_),
        vector<Blob<float>*>(1, &top_));
  }

  Blob<float> bottom_;
  Blob<float> top_;
};

TEST_F(ReNetParameterDeathTest, NumOutput) {
  for (const char* type : {"ReNetLSTM", "ReNetGRU", "ReNetIRNN"}) {
    LayerParameter parameter = Parameter(type);
    parameter.mutable_renet_param()->clear_num_output();
    EXPECT_DEATH(SetUpLayer(parameter), string(type) +
        " layer \"renet1\": renet_param.num_output.* must be given and"
        " positive");
    parameter.mutable_renet_param()->set_num_output(0);
    EXPECT_DEATH(SetUpLayer(parameter), "renet1.*num_output");
  }
}

TEST_F(ReNetParameterDeathTest, Patch) {
  LayerParameter parameter = Parameter("ReNetLSTM");
  parameter.mutable_renet_param()->set_patch_height(0);
  EXPECT_DEATH(SetUpLayer(parameter),
      "ReNetLSTM layer \"renet1\": .*patch_height must be at least 1");
  parameter.mutable_renet_param()->set_patch_height(1);
  parameter.mutable_renet_param()->set_patch_width(0);
  EXPECT_DEATH(SetUpLayer(parameter),
      "ReNetLSTM layer \"renet1\": .*patch_width must be at least 1");
}

TEST_F(ReNetParameterDeathTest, OptionsOfOtherUnits) {
  for (const char* type : {"ReNetGRU", "ReNetIRNN"}) {
    const string layer = string(type) + " layer \"renet1\": ";
    LayerParameter parameter = Parameter(type);
    parameter.mutable_renet_param()->set_peephole(true);
    EXPECT_DEATH(SetUpLayer(parameter),
        layer + "renet_param.peephole is for ReNetLSTM alone");
    parameter = Parameter(type);
    parameter.mutable_renet_param()->set_output(ReNetParameter::CELL);
    EXPECT_DEATH(SetUpLayer(parameter),
        layer + "renet_param.output: CELL is for ReNetLSTM alone");
    parameter = Parameter(type);
    parameter.mutable_renet_param()->set_forget_bias(1);
    EXPECT_DEATH(SetUpLayer(parameter),
        layer + "renet_param.forget_bias is for ReNetLSTM alone");
  }
}

TEST_F(ReNetParameterDeathTest, ForgetBiasIsNoNumber) {
  for (const float bias : {NAN, INFINITY}) {
    LayerParameter parameter = Parameter("ReNetLSTM");
    parameter.mutable_renet_param()->set_forget_bias(bias);
    EXPECT_DEATH(SetUpLayer(parameter), "ReNetLSTM layer \"renet1\": "
        "renet_param.forget_bias must be a finite number, not");
  }
}

TEST_F(ReNetParameterDeathTest, BottomShape) {
  bottom_.Reshape(vector<int>(2, 3));
  EXPECT_DEATH(SetUpLayer(Parameter("ReNetGRU")), "ReNetGRU layer \"renet1\":"
      " the bottom must be N x C x H x W, but its shape is 3 3");
  bottom_.Reshape(1, 3, 0, 4);
  EXPECT_DEATH(SetUpLayer(Parameter("ReNetGRU")),
      "ReNetGRU layer \"renet1\": the bottom is empty: 1 3 0 4");
}

TEST_F(ReNetParameterDeathTest, OtherChannelsLater) {
  shared_ptr<Layer<float> > layer =
      LayerRegistry<float>::CreateLayer(Parameter("ReNetIRNN"));
  const vector<Blob<float>*> bottom(1, &bottom_), top(1, &top_);
  layer->SetUp(bottom, top);
  bottom_.Reshape(1, 4, 4, 5);
  EXPECT_DEATH(layer->Reshape(bottom, top), "ReNetIRNN layer \"renet1\": the"
      " weights are for 3 channels, but the bottom's shape is 1 4 4 5");
}

}  // namespace caffe
