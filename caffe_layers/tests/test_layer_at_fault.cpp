#include <google/protobuf/text_format.h>

#include <cmath>
#include <new>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/layers/pooling_layer.hpp"
#include "caffe/net.hpp"
#include "caffe/util/layer_at_work.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

// Nets of an input, 2 x 3 x 6 x 5, labels for it, a number for each image, and a layer 'bad'.
class LayerAtFaultTest : public ::testing::Test {
 protected:
  LayerAtFaultTest() { ::testing::FLAGS_gtest_death_test_style = "fast"; }

  static void Run(const string& layer, const string& bottom = "bottom: 'data'") {
    NetParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(
        "layer { name: 'in' type: 'Input' top: 'data' top: 'label' top: 'one' input_param { "
        "shape { dim: 2 dim: 3 dim: 6 dim: 5 } shape { dim: 2 dim: 1 dim: 6 dim: 5 } shape { dim: 2 } } } "
        "layer { name: 'bad' " + bottom + " top: 'out' " + layer + " }", &param));
    param.mutable_state()->set_phase(TRAIN);
    param.set_force_backward(true);
    Net<float> net(param);
    net.Forward();
    net.Backward();
  }
};

struct Fault {
  const char* layer;
  const char* field;  // in the message
};

const Fault kFaults[] = {
  {"type: 'Convolution' convolution_param { kernel_size: 3 }", "convolution_param.num_output is missing"},
  {"type: 'Convolution' convolution_param { num_output: 0 kernel_size: 3 }", "convolution_param.num_output is 0, expected 1"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 group: 0 }", "convolution_param.group is 0"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 group: 2 }", "multiples of group"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 group: 3 }", "multiples of group"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 0 }", "convolution_param.kernel_size is 0"},
  {"type: 'Convolution' convolution_param { num_output: 4 }", "kernel_size"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_h: 3 }", "Filter dimensions"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 stride: 0 }", "convolution_param.stride is 0"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 stride_h: 0 stride_w: 1 }", "stride_h is 0"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 stride_h: 1 }", "Stride dimensions"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 dilation: 0 }", "convolution_param.dilation is 0"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 pad: 4000000000 }", "pad is 4000000000"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 9 }", "kernel_size and dilation reach over 9"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 axis: 7 }", "axis 7 out of range"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: 'nice' } }",
      "Unknown filler name: nice"},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: 'gaussian' std: nan } }",
      "convolution_param.weight_filler.std is nan"},
  {"type: 'Convolution' param { lr_mult: inf } convolution_param { num_output: 4 kernel_size: 3 }", "param.lr_mult is inf"},
  {"type: 'Deconvolution' convolution_param { num_output: 4 kernel_size: 3 group: 0 }", "convolution_param.group is 0"},
  {"type: 'Deconvolution' convolution_param { num_output: 4 kernel_size: 1 pad: 8 }", "pad 8 takes all"},
  {"type: 'Pooling' pooling_param { kernel_size: 0 }", "pooling_param.kernel_size is 0"},
  {"type: 'Pooling' pooling_param { kernel_size: 2 stride: 0 }", "pooling_param.stride is 0"},
  {"type: 'Pooling' pooling_param { kernel_size: 2 pad: 2 }", "pad_h_ < kernel_h_"},
  {"type: 'Pooling' pooling_param { kernel_size: 40 }", "kernel_size 40 x 40 is too large"},
  {"type: 'Pooling' pooling_param { global_pooling: true kernel_size: 2 }", "[Gg]lobal_pooling"},
  {"type: 'LRN' lrn_param { local_size: 0 }", "lrn_param.local_size is 0"},
  {"type: 'LRN' lrn_param { local_size: 4 }", "local_size"},
  {"type: 'Slice' top: 'b' slice_param { slice_point: 7 }", "slice_point lies beyond"},
  {"type: 'Slice' top: 'b' slice_param { slice_point: 1 slice_point: 2 }", "slice_point"},
  {"type: 'Slice' top: 'b' slice_param { axis: 9 }", "axis 9 out of range"},
  {"type: 'Slice' top: 'b'", "Number of top blobs"},
  {"type: 'Reshape' reshape_param { shape { dim: 0 dim: -1 dim: 65536 dim: 65536 } }", "reshape_param.shape.dim is 65536"},
  {"type: 'Reshape' reshape_param { shape { dim: -2 } }", "reshape_param.shape.dim is -2"},
  {"type: 'Reshape' reshape_param { shape { dim: -1 dim: -1 } }", "new shape contains multiple -1"},
  {"type: 'Reshape' reshape_param { shape { dim: 7 dim: -1 } }", "must be divisible"},
  {"type: 'Reshape' reshape_param { axis: 9 shape { dim: 1 } }", "axis 9 out of range"},
  {"type: 'Tile'", "tile_param.tiles is missing"},
  {"type: 'Tile' tile_param { tiles: -1 }", "tile_param.tiles is -1"},
  {"type: 'Tile' tile_param { tiles: 1431655766 }", "tiles makes a blob that exceeds"},
  {"type: 'InnerProduct' inner_product_param { axis: 9 num_output: 2 }", "axis 9 out of range"},
  {"type: 'InnerProduct'", "inner_product_param.num_output is missing"},
  {"type: 'InnerProduct' inner_product_param { num_output: 2 } blobs { shape { dim: 1 } data: 0 } "
      "blobs { shape { dim: 2 } data: 0 data: 0 }", "blob 0 of the file's weights has the shape 1; the layer expects 2 90"},
  {"type: 'InnerProduct' inner_product_param { num_output: 4294967295 }", "num_output is 4294967295"},
  {"type: 'ArgMax' argmax_param { top_k: 0 }", "argmax_param.top_k is 0"},
  {"type: 'ArgMax' argmax_param { top_k: 1000 }", "top_k must be less"},
  {"type: 'SPP' spp_param { pyramid_height: 0 }", "spp_param.pyramid_height is 0"},
  {"type: 'Flatten' flatten_param { axis: 3 end_axis: 1 }", "axis"},
  {"type: 'Scale' scale_param { axis: 3 num_axes: 2 }", "axis = 3"},
  {"type: 'Scale' scale_param { num_axes: 2147483647 }", "scale_param.num_axes is 2147483647"},
  {"type: 'Bias' bias_param { num_axes: 2147483647 }", "bias_param.num_axes is 2147483647"},
  {"type: 'LSTM' recurrent_param { num_output: 1000000000 }", "recurrent_param.num_output is 1000000000"},
  {"type: 'Im2col' convolution_param { kernel_size: 2 stride_h: 1 }", "Stride dimensions"},
  {"type: 'Im2col' convolution_param { kernel_h: 32767 kernel_w: 32767 }", "kernel_size makes a blob that exceeds"},
  {"type: 'BatchNorm' batch_norm_param { moving_average_fraction: nan }", "moving_average_fraction is nan"},
  {"type: 'Power' power_param { power: inf }", "power_param.power is inf"},
  {"type: 'Dropout' dropout_param { dropout_ratio: 1.5 }", "dropout_ratio"},
  {"type: 'DummyData' dummy_data_param { shape { dim: -4 } }", "dummy_data_param.shape.dim is -4"},
  {"type: 'Embed' embed_param { num_output: 2 }", "embed_param.input_dim is missing"},
  {"type: 'Konvolution'", "Konvolution"},
  {"type: 'ReLU' relu_param { negative_slope: nan }", "relu_param.negative_slope is nan"},
  {"type: 'ReLU' param { } param { }", "Too many params"},
  {"type: 'ReLU' loss_weight: 1 loss_weight: 2", "loss_weight"},
  {"type: 'ReLU' propagate_down: true propagate_down: true", "propagate_down"},
  {"type: 'ReLU' include { phase: TRAIN } exclude { phase: TEST }", "include rules or exclude rules"},
  {"type: 'ReNetLSTM' renet_param { num_output: 0 }", "renet_param.num_output"},
  {"type: 'ReNetLSTM' renet_param { num_output: 4 patch_width: 0 }", "renet_param.patch_width"},
  {"type: 'Permute' permute_param { order: 9 }", "order"},
  {"type: 'Interp' interp_param { height: -1 width: 4 }", "height"},
  {"type: 'Unpooling' unpooling_param { kernel_size: 2 stride: 0 }", "stride"},
  {"type: 'Upsample' upsample_param { scale: 0 }", "scale"},
};

TEST_F(LayerAtFaultTest, TestEveryMessageNamesLayerAndField) {
  for (const Fault& fault : kFaults) {
    // the name stands in the message, or in the line behind it
    EXPECT_DEATH(Run(fault.layer), fault.field) << fault.layer;
    EXPECT_DEATH(Run(fault.layer), "layer ['\"]bad['\"]") << fault.layer;
  }
}

TEST_F(LayerAtFaultTest, TestBottomsOfOddShapes) {
  const Fault faults[] = {
    {"type: 'Eltwise'", "bottom\\[1\\]: 2 1 6 5"},
    {"type: 'Crop' crop_param { axis: 1 offset: 4 }", "offset 4"},
    {"type: 'Concat' concat_param { axis: 2 }", "same shape, except at concat_axis"},
    {"type: 'EuclideanLoss'", "same dimension"},
  };
  for (const Fault& fault : faults) {
    const string both = "bottom: 'data' bottom: 'label'";
    EXPECT_DEATH(Run(fault.layer, both), fault.field) << fault.layer;
    EXPECT_DEATH(Run(fault.layer, both), "in the set-up of layer 'bad' \\([A-Za-z]*, TRAIN\\)") << fault.layer;
  }
  EXPECT_DEATH(Run("type: 'SoftmaxWithLoss' softmax_param { axis: 0 }", "bottom: 'data' bottom: 'label'"),
      "SoftmaxWithLoss layer 'bad': needs a label for each pixel");
  EXPECT_DEATH(Run("type: 'Accuracy' accuracy_param { top_k: 9 }", "bottom: 'data' bottom: 'label'"), "top_k");
  EXPECT_DEATH(Run("type: 'ReLU'", "bottom: 'nothing'"), "'nothing' \\(layer 'bad', bottom index 0\\)");
  EXPECT_DEATH(Run("type: 'BatchReindex'", "bottom: 'data' bottom: 'label'"), "in the set-up of layer 'bad'");
}

TEST_F(LayerAtFaultTest, TestFailureOfAPass) {
  EXPECT_DEATH({
    NetParameter param;
    google::protobuf::TextFormat::ParseFromString(
        "layer { name: 'in' type: 'Input' top: 'data' top: 'index' input_param { shape { dim: 2 dim: 3 } shape { dim: 4 } } } "
        "layer { name: 'pick' type: 'BatchReindex' bottom: 'data' bottom: 'index' top: 'out' }", &param);
    Net<float> net(param);
    net.blob_by_name("index")->mutable_cpu_data()[1] = 5;
    net.Forward();
  }, "greater than batch size[^\n]*\nin forward of layer 'pick' \\(BatchReindex, TEST\\)");
}

TEST_F(LayerAtFaultTest, TestWeightsThatDoNotFit) {
  EXPECT_DEATH({
    NetParameter param;
    google::protobuf::TextFormat::ParseFromString(
        "layer { name: 'in' type: 'Input' top: 'data' input_param { shape { dim: 2 dim: 3 } } } "
        "layer { name: 'bad' type: 'InnerProduct' bottom: 'data' top: 'out' inner_product_param { num_output: 2 } }", &param);
    Net<float> net(param);
    param.mutable_layer(1)->add_blobs()->mutable_shape()->add_dim(0);
    param.mutable_layer(1)->add_blobs();
    net.CopyTrainedLayersFrom(param);
  }, "layer 'bad': blob 0 of the file's weights has the shape 0; the layer expects 2 3");
}

#ifndef __SANITIZE_ADDRESS__  // which ends the process where `new` would throw
TEST_F(LayerAtFaultTest, TestMemoryThatDoesNotSuffice) {
  const size_t kMoreThanAddresses = static_cast<size_t>(1) << 50;
  LayerParameter layer;
  layer.set_name("bad");
  layer.set_type("ReLU");
  EXPECT_DEATH({
    const LayerAtWork at_work(layer, "forward");
    vector<char> values(kMoreThanAddresses);
  }, "memory does not suffice[^\n]*\nin forward of layer 'bad' \\(ReLU, TRAIN\\)");
  { const LayerAtWork at_work(layer, "forward"); }
  EXPECT_THROW(vector<char> values(kMoreThanAddresses), std::bad_alloc);
}
#endif

// Upstream adds the gradient to what lies before the map.
TEST_F(LayerAtFaultTest, TestWindowsOfNothingButNaN) {
  LayerParameter param;
  param.mutable_pooling_param()->set_kernel_size(2);
  for (const int tops : {1, 2}) {  // the second one is the mask
    Blob<float> data(1, 1, 2, 2), out, mask;
    const vector<Blob<float>*> bottom(1, &data);
    vector<Blob<float>*> top(1, &out);
    if (tops == 2) { top.push_back(&mask); }
    PoolingLayer<float> layer(param);
    layer.SetUp(bottom, top);
    float diff[] = {7, 0, 0, 0, 0};
    data.diff()->set_cpu_data(diff + 1);
    for (int i = 0; i < 4; ++i) { data.mutable_cpu_data()[i] = NAN; }
    layer.Forward(bottom, top);
    out.mutable_cpu_diff()[0] = 1;
    layer.Backward(top, vector<bool>(1, true), bottom);
    EXPECT_EQ(vector<float>({7, 0, 0, 0, 0}), vector<float>(diff, diff + 5));
  }
}

// Upstream counts a third window in each direction, that begins behind the map: its maximum has no place.
TEST_F(LayerAtFaultTest, TestWindowsBeginWithinTheMap) {
  NetParameter param;
  google::protobuf::TextFormat::ParseFromString(
      "layer { name: 'in' type: 'Input' top: 'data' input_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } } "
      "layer { name: 'pool' type: 'Pooling' bottom: 'data' top: 'out' pooling_param { kernel_size: 1 stride: 2 } }", &param);
  Net<float> net(param);
  EXPECT_EQ(vector<int>({1, 1, 2, 2}), net.blob_by_name("out")->shape());
}

// A batch of none has as few positions as others may have: layers compute with height times width.
TEST_F(LayerAtFaultTest, TestEmptyMapsOfHugeSize) {
  NetParameter param;
  google::protobuf::TextFormat::ParseFromString(
      "layer { name: 'in' type: 'Input' top: 'data' input_param { shape { dim: 0 dim: 1 dim: 4 dim: 50000 } } } "
      "layer { name: 'larger' type: 'Unpooling' bottom: 'data' top: 'out' unpooling_param { kernel_size: 1 stride: 20000 } }", &param);
  EXPECT_DEATH(Net<float> net(param), "blob size exceeds INT_MAX[^\n]*\nin the set-up of layer 'larger' \\(Unpooling, TEST\\)");
  Blob<float> empty;
  EXPECT_DEATH(empty.Reshape({65536, 0, 32768}), "blob size exceeds INT_MAX");
  empty.Reshape({65535, 0, 32768});
  EXPECT_EQ(0, empty.count());
}

TEST_F(LayerAtFaultTest, TestOtherFailuresNameNoLayer) {
  LayerParameter layer;
  layer.set_name("inner");
  layer.set_type("ReLU");
  EXPECT_DEATH({
    { const LayerAtWork over(layer, "forward"); }
    LOG(FATAL) << "elsewhere";
  }, "elsewhere\n\\*\\*\\*");
  EXPECT_DEATH({
    const LayerAtWork at_work(layer, "forward");
    LOG(FATAL) << "layer 'inner' says so";
  }, "says so\n\\*\\*\\*");
}

TEST_F(LayerAtFaultTest, TestGoodLayersStay) {
  for (const char* layer : {"type: 'Convolution' convolution_param { num_output: 3 kernel_size: 3 group: 3 pad: 1 }",
      "type: 'Pooling' pooling_param { global_pooling: true }", "type: 'Reshape' reshape_param { shape { dim: 0 dim: -1 } }",
      "type: 'Tile' tile_param { tiles: 2 }", "type: 'Convolution' convolution_param { num_output: 2 kernel_h: 1 kernel_w: 3 }",
      "type: 'Clip' clip_param { min: -inf max: 1 }", "type: 'Slice' top: 'b' slice_param { slice_point: 2 }"}) {
    Run(layer);
  }
}

}  // namespace caffe
