#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/onednn_conv_layer.hpp"
#include "caffe/net.hpp"
#include "caffe/onednn/onednn.hpp"
#include "caffe/onednn/sub_images.hpp"
#include "caffe/util/layer_fusion.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

namespace {

using std::string;

string Text(const string& layers, const vector<int>& shape, Phase phase) {
  std::ostringstream text;
  text << "state { phase: " << (phase == TRAIN ? "TRAIN" : "TEST") << " } "
       << "force_backward: true "
       << "layer { name: 'data' type: 'Input' top: 'data' input_param { shape {";
  for (size_t i = 0; i < shape.size(); ++i) { text << " dim: " << shape[i]; }
  text << " } } } " << layers;
  return text.str();
}

template <typename Dtype>
shared_ptr<Net<Dtype> > Made(const string& text) {
  NetParameter parameter;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &parameter));
  return shared_ptr<Net<Dtype> >(new Net<Dtype>(parameter));
}

string Convolution(const string& name, const string& bottom, int outputs,
    const string& rest) {
  std::ostringstream text;
  text << "layer { name: '" << name << "' type: 'Convolution' bottom: '"
       << bottom << "' top: '" << name << "' convolution_param { num_output: "
       << outputs << " weight_filler { type: 'msra' } bias_filler { type: "
       << "'gaussian' std: 0.5 } " << rest << " } } ";
  return text.str();
}

string ReLU(const string& name, const string& blob) {
  return "layer { name: '" + name + "' type: 'ReLU' bottom: '" + blob
      + "' top: '" + blob + "' } ";
}

string Pooling(const string& name, const string& bottom, const string& rest,
    const string& kind = "MAX") {
  return "layer { name: '" + name + "' type: 'Pooling' bottom: '" + bottom
      + "' top: '" + name + "' pooling_param { pool: " + kind + " " + rest
      + " } } ";
}

string BatchNorm(const string& name, const string& bottom, const string& top) {
  return "layer { name: '" + name + "' type: 'BatchNorm' bottom: '" + bottom
      + "' top: '" + top + "' } ";
}

string Scale(const string& name, const string& bottom, const string& top,
    bool bias = true) {
  return "layer { name: '" + name + "' type: 'Scale' bottom: '" + bottom
      + "' top: '" + top + "' scale_param { filler { type: 'gaussian' std: 0.5 "
      "mean: 1 } " + (bias ? "bias_term: true bias_filler { type: 'gaussian' }"
          : "") + " } } ";
}

// A layer of several bottoms, "a b c".
string Joined(const string& type, const string& name, const string& bottoms,
    const string& rest = "") {
  std::istringstream names(bottoms);
  string text = "layer { name: '" + name + "' type: '" + type + "' top: '"
      + name + "'";
  for (string bottom; names >> bottom;) { text += " bottom: '" + bottom + "'"; }
  return text + " " + rest + " } ";
}

// Statistics as of a training, where there are BatchNorm layers.
template <typename Dtype>
void FillStatistics(const Net<Dtype>& net) {
  for (const shared_ptr<Layer<Dtype> >& layer : net.layers()) {
    if (string(layer->type()) != "BatchNorm") { continue; }
    Blob<Dtype>& mean = *layer->blobs()[0];
    Blob<Dtype>& variance = *layer->blobs()[1];
    for (int c = 0; c < mean.count(); ++c) {
      mean.mutable_cpu_data()[c] = 0.5 * c - 2;
      variance.mutable_cpu_data()[c] = 0.5 + c % 5;
    }
    layer->blobs()[2]->mutable_cpu_data()[0] = 2;
  }
}

template <typename From, typename To>
void Convert(const Blob<From>& from, Blob<To>* to) {
  ASSERT_EQ(from.count(), to->count());
  std::copy(from.cpu_data(), from.cpu_data() + from.count(),
      to->mutable_cpu_data());
}

void FillNoise(Blob<float>* blob) {
  FillerParameter filler_param;
  GaussianFiller<float> filler(filler_param);
  filler.Fill(blob);
}

// The largest difference, in units of the largest value.
double Difference(const float* values, const double* expected, int count) {
  double largest = 1e-30, difference = 0;
  for (int i = 0; i < count; ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    const double d = std::abs(values[i] - expected[i]);
    difference = d <= difference ? difference : d;  // a NaN stays
  }
  return difference / largest;
}

// One net in single precision, so with the layers on oneDNN, beside the same in
// double precision, so without them.
class Pair {
 public:
  Pair(const string& layers, const vector<int>& shape, Phase phase)
      : net(Made<float>(Text(layers, shape, phase))),
        reference(Made<double>(Text(layers, shape, phase))) {
    CopyParameters();
  }

  void CopyParameters() {
    for (size_t i = 0; i < net->params().size(); ++i) {
      Convert(*net->params()[i], reference->params()[i].get());
    }
  }

  void Reshape(const vector<int>& shape) {
    net->input_blobs()[0]->Reshape(shape);
    net->Reshape();
    reference->input_blobs()[0]->Reshape(shape);
    reference->Reshape();
  }

  // Forward and backward on new noise; then compares every result and gradient.
  void Run(double tolerance) { Run(tolerance, tolerance); }
  void Run(double tolerance, double tolerance_of_gradients) {
    FillNoise(net->input_blobs()[0]);
    Convert(*net->input_blobs()[0], reference->input_blobs()[0]);
    net->ClearParamDiffs();
    reference->ClearParamDiffs();
    net->Forward();
    reference->Forward();
    Blob<float>* const output = net->output_blobs()[0];
    Blob<double>* const expected = reference->output_blobs()[0];
    EXPECT_LT(Difference(output->cpu_data(), expected->cpu_data(),
        output->count()), tolerance);
    Blob<float> noise(output->shape());
    FillNoise(&noise);
    std::copy(noise.cpu_data(), noise.cpu_data() + noise.count(),
        output->mutable_cpu_diff());
    std::copy(noise.cpu_data(), noise.cpu_data() + noise.count(),
        expected->mutable_cpu_diff());
    net->Backward();
    reference->Backward();
    Compare("data's gradient", *net->input_blobs()[0],
        *reference->input_blobs()[0], tolerance_of_gradients);
    for (size_t i = 0; i < net->params().size(); ++i) {
      Compare("parameter " + std::to_string(i) + "'s gradient",
          *net->params()[i], *reference->params()[i], tolerance_of_gradients);
    }
  }

  static void Compare(const string& what, const Blob<float>& blob,
      const Blob<double>& expected, double tolerance) {
    EXPECT_LT(Difference(blob.cpu_diff(), expected.cpu_diff(), blob.count()),
        tolerance) << what;
  }

  shared_ptr<Net<float> > net;
  shared_ptr<Net<double> > reference;
};

OneDNNConvolutionLayer* ConvolutionOf(const Net<float>& net,
    const string& name) {
  return dynamic_cast<OneDNNConvolutionLayer*>(net.layer_by_name(name).get());
}

class OneDNNLayersTest : public CPUDeviceTest<float> {
 protected:
  virtual void SetUp() {
    CHECK(onednn::Allowed()) << "these tests are of what CAFFE_ONEDNN=0 leaves out";
  }
};

struct Case {
  const char* convolution;
  int channels, outputs, height, width;
};

// Winograd's, on sub-images and not; direct; what oneDNN leaves to Caffe.
const Case kCases[] = {
  {"kernel_size: 3 pad: 1", 16, 32, 9, 14},
  {"kernel_size: 3 pad: 1", 16, 32, 23, 30},
  {"kernel_size: 3 pad: 1", 32, 16, 1, 1},
  {"kernel_size: 3", 32, 32, 8, 11},
  {"kernel_size: 3", 32, 32, 26, 29},
  {"kernel_size: 3 pad: 2", 16, 16, 8, 11},
  {"kernel_size: 3 pad: 2 dilation: 2", 32, 16, 13, 10},
  {"kernel_size: 3 pad: 2 dilation: 2", 32, 16, 31, 27},
  {"kernel_size: 3 pad: 12 dilation: 12", 16, 48, 40, 44},
  {"kernel_size: 3 pad: 12 dilation: 12", 16, 16, 3, 5},
  {"kernel_size: 3 pad: 1 dilation: 2", 16, 16, 13, 10},
  {"kernel_size: 3 pad: 1 bias_term: false", 16, 16, 12, 12},
  {"kernel_size: 3 pad: 1", 3, 16, 12, 13},
  {"kernel_size: 3 pad: 1", 21, 19, 7, 6},
  {"kernel_size: 3 pad: 2 dilation: 2", 5, 7, 9, 9},
  {"kernel_size: 1", 32, 21, 6, 7},
  {"kernel_size: 5 stride: 2 pad: 2", 16, 16, 11, 13},
  {"kernel_h: 1 kernel_w: 5 pad_h: 0 pad_w: 2", 16, 16, 5, 9},
  {"kernel_size: 3 pad: 1 stride: 2", 16, 32, 10, 10},
  {"kernel_size: 3 pad: 1 group: 2", 32, 32, 8, 8},
  {"kernel_size: 3 pad: 1 group: 4", 12, 8, 8, 8},
  {"kernel_size: 3 pad: 1 group: 16", 16, 16, 8, 8},
  {"kernel_size: 7 pad: 3", 16, 16, 20, 20},
};

TEST_F(OneDNNLayersTest, ConvolutionsEqualDoublePrecision) {
  for (const Case& c : kCases) {
    for (int num = 1; num <= 3; num += 2) {
      for (Phase phase : {TRAIN, TEST}) {
        SCOPED_TRACE(testing::Message() << c.convolution << ", " << num << " x "
            << c.channels << " x " << c.height << " x " << c.width << " to "
            << c.outputs << ", phase " << phase);
        Pair pair(Convolution("conv", "data", c.outputs, c.convolution),
            {num, c.channels, c.height, c.width}, phase);
        pair.Run(2e-5);
      }
    }
  }
}

// Convolutions that Winograd's takes hundreds of megabytes for go in pieces of their
// channels when they learn.
TEST_F(OneDNNLayersTest, LargeConvolutionsThatLearnEqualDoublePrecision) {
  for (const char* place : {"pad: 1", "pad: 2 dilation: 2"}) {
    for (bool learns : {true, false}) {
      for (int num = 1; num <= 2; ++num) {
        SCOPED_TRACE(testing::Message() << place << ", " << num << ", " << learns);
        string text =
            Convolution("conv", "data", 1024, string("kernel_size: 3 ") + place);
        if (!learns) {
          text.replace(text.find("convolution_param"), 0, "param { lr_mult: 0 } ");
        }
        const vector<int> shape = {num, 1024, 24, 24};
        Pair pair(text, shape, TRAIN);
        pair.Run(2e-5);
        if (!onednn::WinogradAllowed()
            || dnnl::get_effective_cpu_isa() < dnnl::cpu_isa::avx512_core) {
          continue;
        }
        OneDNNConvolutionLayer* const layer = ConvolutionOf(*pair.net, "conv");
        for (OneDNNConvolutionLayer::Pass pass : {OneDNNConvolutionLayer::FORWARD,
            OneDNNConvolutionLayer::BACKWARD_DATA,
            OneDNNConvolutionLayer::BACKWARD_WEIGHTS}) {
          const string method = layer->Describe(pass, shape);
          EXPECT_NE(string::npos, method.find("in pieces")) << method;
        }
      }
    }
  }
}

// Transformed weights of 72 MiB, and 20 MiB of tiles: a map of few positions may not
// have as much, one of some more may.
TEST_F(OneDNNLayersTest, MapsOfFewPositionsGoInSmallerPieces) {
  if (!onednn::WinogradAllowed()
      || dnnl::get_effective_cpu_isa() < dnnl::cpu_isa::avx512_core) {
    return;
  }
  for (int height : {36, 40}) {
    const vector<int> shape = {1, 1024, height, 40};
    const string text =
        Text(Convolution("a", "data", 512, "kernel_size: 3 pad: 1"), shape, TRAIN);
    EXPECT_EQ(height == 36 ? "Winograd in pieces" : "Winograd",
        ConvolutionOf(*Made<float>(text), "a")->Describe(
            OneDNNConvolutionLayer::FORWARD, shape));
  }
}

// By tiles all that can round, by vectors what gains by it.
TEST_F(OneDNNLayersTest, VectorsRoundWhereTheyGain) {
  if (!Bfloat16Convolution::Available() || !onednn::WinogradAllowed()
      || dnnl::get_effective_cpu_isa() < dnnl::cpu_isa::avx512_core) {
    return;
  }
  const struct { const char* convolution; int channels; bool by_vectors; } kLayers[] = {
    {"kernel_size: 1", 64, true}, {"kernel_size: 5 pad: 2", 48, true},
    {"kernel_size: 3 stride: 2", 32, true}, {"kernel_size: 3 dilation: 15 pad: 15", 32, true},
    {"kernel_size: 3 pad: 1", 64, false},
    {"kernel_size: 1", 16, false}, {"kernel_size: 1", 40, false},
  };
  for (const auto& each : kLayers) {
    const vector<int> shape = {1, each.channels, 40, 40};
    shared_ptr<Net<float> > net = Made<float>(
        Text(Convolution("a", "data", 64, each.convolution), shape, TEST));
    OneDNNConvolutionLayer* const layer = ConvolutionOf(*net, "a");
    layer->AllowRounding(true);
    EXPECT_EQ(each.by_vectors || Bfloat16Convolution::HasTiles(),
        layer->Describe(OneDNNConvolutionLayer::FORWARD, shape) == "bfloat16")
        << each.convolution << ", " << each.channels;
  }
}

TEST_F(OneDNNLayersTest, DeconvolutionsEqualDoublePrecision) {
  const Case kDeconvolutions[] = {
    {"kernel_size: 4 stride: 2", 16, 16, 5, 7},
    {"kernel_size: 4 stride: 2 pad: 1 bias_term: false", 21, 21, 6, 5},
    {"kernel_size: 16 stride: 8", 21, 21, 3, 4},
    {"kernel_size: 3 pad: 1", 32, 19, 8, 6},
    {"kernel_size: 4 stride: 2 pad: 1 group: 21", 21, 21, 6, 5},
    {"kernel_size: 4 stride: 2 pad: 1 group: 32", 32, 32, 6, 5},
    {"kernel_size: 3 stride: 2 group: 2", 32, 64, 4, 5},
    {"kernel_size: 3 pad: 2 dilation: 2", 16, 32, 7, 7},
    {"kernel_size: 7", 16, 16, 1, 1},
    // as Winograd's
    {"kernel_size: 3 pad: 1", 32, 48, 14, 17},
    {"kernel_size: 3 pad: 1 bias_term: false", 21, 19, 13, 15},
    {"kernel_size: 3", 16, 16, 12, 13},
    {"kernel_size: 3 pad: 2", 16, 32, 16, 18},
  };
  for (const Case& c : kDeconvolutions) {
    for (int num = 1; num <= 2; ++num) {
      for (Phase phase : {TRAIN, TEST}) {
        SCOPED_TRACE(testing::Message() << c.convolution << ", " << num << " x "
            << c.channels << " to " << c.outputs << ", phase " << phase);
        string text = Convolution("up", "data", c.outputs, c.convolution);
        text.replace(text.find("'Convolution'"), 13, "'Deconvolution'");
        Pair pair(text, {num, c.channels, c.height, c.width}, phase);
        pair.Run(2e-5);
        pair.Reshape({num, c.channels, c.height + 1, c.width});
        for (Blob<float>* parameter : pair.net->learnable_params()) {
          caffe_scal(parameter->count(), 1.5f, parameter->mutable_cpu_data());
        }
        pair.CopyParameters();
        pair.Run(2e-5);
      }
    }
  }
}

TEST_F(OneDNNLayersTest, NetsEqualDoublePrecision) {
  const string layers = Convolution("a", "data", 16, "kernel_size: 3 pad: 1")
      + ReLU("relu_a", "a") + Convolution("b", "a", 32, "kernel_size: 3 pad: 1")
      + ReLU("relu_b", "b") + Pooling("p", "b", "kernel_size: 2 stride: 2")
      + Convolution("c", "p", 32, "kernel_size: 3 pad: 2 dilation: 2")
      + ReLU("relu_c", "c") + Pooling("q", "c", "kernel_size: 3 stride: 1 pad: 1")
      // two readers of one map, one of them a layer of another kind
      + Convolution("d", "q", 16, "kernel_size: 1")
      + "layer { name: 'e' type: 'Scale' bottom: 'q' top: 'e' "
        "scale_param { bias_term: true filler { type: 'gaussian' } } }"
      + Convolution("f", "e", 16, "kernel_size: 3 pad: 1")
      + "layer { name: 'sum' type: 'Eltwise' bottom: 'd' bottom: 'f' top: 'sum' }";
  for (Phase phase : {TRAIN, TEST}) {
    Pair pair(layers, {2, 3, 24, 30}, phase);
    pair.Run(1e-5);
    pair.Run(1e-5);
    // sizes that change, back to an old one among them
    pair.Reshape({1, 3, 19, 23});
    pair.Run(1e-5);
    pair.Reshape({3, 3, 31, 40});
    pair.Run(1e-5);
    pair.Reshape({2, 3, 24, 30});
    pair.Run(1e-5);
    // more shapes than plans are kept of
    for (int width = 8; width < 20; ++width) {
      pair.Reshape({1, 3, 9, width});
      pair.Run(1e-5);
    }
    // weights that change
    for (Blob<float>* parameter : pair.net->learnable_params()) {
      caffe_scal(parameter->count(), 1.5f, parameter->mutable_cpu_data());
    }
    pair.CopyParameters();
    pair.Run(1e-5);
  }
}

// Everything that takes maps as they lie, with channels that fill blocks and not,
// in place and not, several readers of a map, and bottoms in different orders.
string Mixed(int channels) {
  const string ave = "kernel_size: 3 stride: 2 pad: 1";
  // a bias before BatchNorm would have a gradient of 0 and roundings
  return Convolution("a", "data", channels,
          "kernel_size: 3 pad: 1 bias_term: false")
      + BatchNorm("a_bn", "a", "a") + Scale("a_scale", "a", "a") + ReLU("a_relu", "a")
      + Convolution("b", "a", channels, "kernel_size: 3 pad: 1 bias_term: false")
      + BatchNorm("b_bn", "b", "b_bn") + Scale("b_scale", "b_bn", "b_scale", false)
      + Convolution("c", "a", channels, "kernel_size: 1") + Scale("c_scale", "c", "c")
      + Joined("Eltwise", "sum", "b_scale c a", "eltwise_param { coeff: 0.5 "
          "coeff: -1 coeff: 2 }")
      + ReLU("sum_relu", "sum")
      + Joined("Eltwise", "product", "sum c", "eltwise_param { operation: PROD }")
      + Joined("Eltwise", "most", "product b", "eltwise_param { operation: MAX }")
      + Joined("Concat", "joined", "sum product most")
      + Pooling("ave", "joined", ave, "AVE")
      + Pooling("max", "joined", "kernel_size: 3 stride: 2 pad: 1", "MAX")
      + Joined("Eltwise", "pools", "ave max")
      + Convolution("d", "pools", 9, "kernel_size: 1 group: 1")
      + Pooling("all", "d", "global_pooling: true", "AVE")
      + "layer { name: 'e' type: 'InnerProduct' bottom: 'all' top: 'e' "
        "inner_product_param { num_output: 5 weight_filler { type: 'xavier' } } }";
}

TEST_F(OneDNNLayersTest, MapsInBlocksEqualDoublePrecision) {
  for (int channels : {16, 32, 21, 5}) {
    for (Phase phase : {TRAIN, TEST}) {
      SCOPED_TRACE(testing::Message() << channels << " channels, phase " << phase);
      Pair pair(Mixed(channels), {2, 3, 13, 11}, phase);
      FillStatistics(*pair.net);
      FillStatistics(*pair.reference);
      // rounding, which hangs on the number of threads, decides some ReLUs and
      // maxima, whose gradients go another way then
      pair.Run(1e-4, 2e-3);
      pair.Run(1e-4, 2e-3);
      pair.Reshape({3, 3, 8, 17});
      pair.Run(1e-4, 2e-3);
      for (size_t i = 0; i < pair.net->params().size(); ++i) {
        const Blob<float>& values = *pair.net->params()[i];
        EXPECT_LT(Difference(values.cpu_data(),
            pair.reference->params()[i]->cpu_data(), values.count()), 1e-4)
            << "parameter " << i;  // statistics of the batches among them
      }
      for (const string& name : pair.net->blob_names()) {
        const Blob<float>& map = *pair.net->blob_by_name(name);
        EXPECT_LT(Difference(map.cpu_data(),
            pair.reference->blob_by_name(name)->cpu_data(), map.count()), 1e-4)
            << name;
      }
    }
  }
}

string Layer(const string& type, const string& bottom, const string& top,
    const string& rest = "") {
  return "layer { name: '" + type + "_" + top + "' type: '" + type
      + "' bottom: '" + bottom + "' top: '" + top + "' " + rest + " } ";
}

// Layers behind a map in blocks and before one, in place and not.
TEST_F(OneDNNLayersTest, OtherLayersEqualDoublePrecision) {
  const struct { string type, rest; bool in_place; } kLayers[] = {
    {"PReLU", "prelu_param { filler { type: 'gaussian' std: 0.3 } }", true},
    {"PReLU", "prelu_param { channel_shared: true }", true},
    {"Sigmoid", "", true}, {"TanH", "", true},
    {"ELU", "elu_param { alpha: 0.7 }", true}, {"AbsVal", "", false},
    {"Power", "power_param { power: 2 scale: 0.5 shift: 0.3 }", false},
    {"Softmax", "", false}, {"Softmax", "softmax_param { axis: 2 }", false},
    {"LRN", "lrn_param { local_size: 5 alpha: 0.3 beta: 0.75 k: 2 }", false},
    {"LRN", "lrn_param { local_size: 3 alpha: 0.3 beta: 0.5 }", false},
    {"LRN", "lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }", false},
    {"Dropout", "dropout_param { dropout_ratio: 0 }", true},
  };
  for (const auto& layer : kLayers) {
    for (int channels : {16, 21}) {
      for (bool in_place : {false, true}) {
        if (in_place && !layer.in_place) { continue; }
        for (Phase phase : {TRAIN, TEST}) {
          SCOPED_TRACE(testing::Message() << layer.type << " " << layer.rest
              << ", " << channels << " channels, in place " << in_place
              << ", phase " << phase);
          // a bias before Softmax has a gradient of 0 and roundings
          Pair pair(Convolution("a", "data", channels,
                  "kernel_size: 3 pad: 1 bias_term: false")
              + Layer(layer.type, "a", in_place ? "a" : "b", layer.rest)
              + Convolution("c", in_place ? "a" : "b", 7, "kernel_size: 1"),
              {2, 3, 19, 17}, phase);
          pair.Run(1e-4);
          pair.Reshape({1, 3, 20, 21});
          pair.Run(1e-4);
        }
      }
    }
  }
}

// Scores that are far apart, as of a network that is sure, and more positions
// than a thread takes at a time.
TEST_F(OneDNNLayersTest, SoftmaxOfScoresFarApart) {
  Pair pair(Layer("Power", "data", "far", "power_param { scale: 60 }")
      + Layer("Softmax", "far", "prob"), {2, 21, 40, 33}, TEST);
  pair.Run(1e-5);
  const Blob<float>& probabilities = *pair.net->output_blobs()[0];
  for (int i = 0; i < probabilities.count(); ++i) {
    ASSERT_TRUE(probabilities.cpu_data()[i] >= 0);
    ASSERT_LE(probabilities.cpu_data()[i], 1);
  }
  Blob<float>* const scores = pair.net->input_blobs()[0];
  scores->mutable_cpu_data()[5] = std::numeric_limits<float>::quiet_NaN();
  pair.net->Forward();
  EXPECT_TRUE(std::isnan(probabilities.cpu_data()[5]));
  EXPECT_FALSE(std::isnan(probabilities.cpu_data()[6]));
}

// Folded into the weights on a map of the first size, and scaled along by direct
// convolution on a small one.
void ExpectFused(int outputs, const string& convolution) {
  const string conv = Convolution("a", "data", outputs, convolution);
  const string rest = BatchNorm("bn", "a", "a") + Scale("scale", "a", "a")
      + ReLU("relu", "a") + Convolution("b", "a", 16, "kernel_size: 1");
  SCOPED_TRACE(conv);
  Pair pair(conv + rest, {2, 16, 9, 10}, TEST);
  FillStatistics(*pair.net);
  FillStatistics(*pair.reference);
  const Blob<float>& weights = *pair.net->params()[0];
  const vector<float> before(weights.cpu_data(),
      weights.cpu_data() + weights.count());
  pair.Run(2e-5);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), weights.cpu_data()));
  // layer 1 with the three behind it, and no further than the pass goes
  EXPECT_EQ(3, FuseFollowers(*pair.net, 1, 5));
  EXPECT_EQ(2, FuseFollowers(*pair.net, 1, 3));
  pair.Run(2e-5);
  // another plan for the same weights, and the first one again
  pair.Reshape({1, 16, 1, 1});
  pair.Run(2e-5);
  pair.Reshape({2, 16, 9, 10});
  pair.Run(2e-5);
  // whatever of it changes, weights through a pointer in somebody's hands too
  for (const shared_ptr<Blob<float> >& parameter : pair.net->params()) {
    if (parameter->count() == 1) { continue; }
    caffe_scal(parameter->count(), 1.25f, parameter->mutable_cpu_data());
    pair.CopyParameters();
    pair.Run(2e-5);
  }
  Blob<float>* const own = pair.net->params()[0].get();
  own->data()->Expose();
  float* const written = own->mutable_cpu_data();
  pair.Run(2e-5);
  for (int i = 0; i < own->count(); ++i) { written[i] *= -0.5f; }
  pair.CopyParameters();
  pair.Run(2e-5);
  // a pass that ends between the layers shows what is there
  Blob<float>* const a = pair.net->blob_by_name("a").get();
  for (int end = 1; end <= 4; ++end) {
    pair.net->ForwardTo(end);
    pair.reference->ForwardTo(end);
    EXPECT_LT(Difference(a->cpu_data(),
        pair.reference->blob_by_name("a")->cpu_data(), a->count()), 2e-5) << end;
  }
}

TEST_F(OneDNNLayersTest, LayersInPlaceAreComputedAlongAndWeightsStay) {
  for (int outputs : {16, 19, 40}) {
    for (const char* bias : {"false", "true"}) {
      const string rest = string(" bias_term: ") + bias;
      ExpectFused(outputs, "kernel_size: 3 pad: 1" + rest);
      ExpectFused(outputs, "kernel_size: 1" + rest);
    }
  }
  ExpectFused(16, "kernel_size: 3 pad: 1 group: 16 bias_term: false");
  ExpectFused(32, "kernel_size: 3 pad: 1 group: 2");
}

// Forward and backward on noise, layer by layer or not: every map's values, and the
// gradients of every parameter and of the input.
struct Learnt { vector<float> values, gradients; };

Learnt LearningPass(const shared_ptr<Net<float> >& net, bool forward_by_layers,
    bool backward_by_layers) {
  Caffe::set_random_seed(11);
  FillNoise(net->input_blobs()[0]);
  net->ClearParamDiffs();
  const int last = net->layers().size() - 1;
  for (int i = 0; forward_by_layers && i <= last; ++i) { net->ForwardFromTo(i, i); }
  if (!forward_by_layers) { net->Forward(); }
  Learnt learnt;
  const auto append = [](int count, const float* values, vector<float>* seen) {
    seen->insert(seen->end(), values, values + count);
  };
  for (const shared_ptr<Blob<float> >& map : net->blobs()) {
    append(map->count(), map->cpu_data(), &learnt.values);
  }
  Blob<float>* const output = net->output_blobs()[0];
  FillNoise(output);
  caffe_copy(output->count(), output->cpu_data(), output->mutable_cpu_diff());
  for (int i = last; backward_by_layers && i >= 0; --i) { net->BackwardFromTo(i, i); }
  if (!backward_by_layers) { net->Backward(); }
  append(net->input_blobs()[0]->count(), net->input_blobs()[0]->cpu_diff(),
      &learnt.gradients);
  for (const shared_ptr<Blob<float> >& parameter : net->params()) {
    append(parameter->count(), parameter->cpu_diff(), &learnt.gradients);
  }
  return learnt;
}

TEST_F(OneDNNLayersTest, BatchNormOfABatchDoesScaleAndReLUAlong) {
  const string convolution = Convolution("a", "data", 21, "kernel_size: 1");
  const string normalised = convolution + BatchNorm("bn", "a", "a");
  const string end = Convolution("b", "a", 8, "kernel_size: 1");
  const string scale = Scale("scale", "a", "a"), relu = ReLU("relu", "a");
  const struct { string layers; int fused; } kCases[] = {
    {normalised + scale + relu + end, 2},
    {normalised + scale + end, 1},
    {normalised + relu + end, 1},
    // each has to keep a bottom of its own
    {normalised + scale + Scale("again", "a", "a") + relu + end, 1},
    {normalised + Scale("scale", "a", "a", false) + relu + end, 2},
    {convolution + BatchNorm("bn", "a", "n") + Scale("scale", "n", "n") + ReLU("relu", "n")
        + Convolution("b", "n", 8, "kernel_size: 1"), 2},
    {convolution + Scale("first", "a", "a") + relu + end, 0},
  };
  for (const auto& each : kCases) {
    SCOPED_TRACE(each.layers);
    const shared_ptr<Net<float> > net = Made<float>(Text(each.layers, {2, 3, 5, 7}, TRAIN));
    const shared_ptr<Net<float> > apart = Made<float>(Text(each.layers, {2, 3, 5, 7}, TRAIN));
    for (size_t i = 0; i < net->params().size(); ++i) {
      apart->params()[i]->CopyFrom(*net->params()[i]);
    }
    EXPECT_EQ(each.fused, FuseFollowers(*net, 2, 5));
    EXPECT_EQ(std::min(each.fused, 1), FuseFollowers(*net, 2, 3));
    net->Forward();
    apart->Forward();  // statistics of as many batches
    EXPECT_EQ(each.layers.find("'scale'") != string::npos, FuseBackward(*net, 3, 0));
    EXPECT_FALSE(FuseBackward(*net, 3, 3)) << "BatchNorm is not to go back";
    // sizes that change, and passes of either kind by the same net; in blocks, then in
    // Caffe's order
    const vector<int> small = {1, 3, 2, 3}, large = {3, 3, 9, 4};
    const struct { vector<int> shape; bool forward_by_layers, backward_by_layers; }
        kPasses[] = {
      {small, false, false}, {large, false, false}, {large, true, false},
      {large, false, true}, {small, true, true}, {large, true, true},
      {small, false, false}, {large, false, false},
    };
    for (bool exposed : {false, true}) {
      for (const shared_ptr<Net<float> >& one : {net, apart}) {
        if (exposed) { one->blob_by_name("a")->data()->Expose(); }
      }
      for (const auto& pass : kPasses) {
        net->input_blobs()[0]->Reshape(pass.shape);
        apart->input_blobs()[0]->Reshape(pass.shape);
        const Learnt expected = LearningPass(apart, true, true);
        const Learnt actual =
            LearningPass(net, pass.forward_by_layers, pass.backward_by_layers);
        EXPECT_EQ(expected.values, actual.values);
        ASSERT_EQ(expected.gradients.size(), actual.gradients.size());
        // those behind a convolution's bias and BatchNorm are 0 and roundings
        for (size_t i = 0; i < expected.gradients.size(); ++i) {
          ASSERT_NEAR(expected.gradients[i], actual.gradients[i],
              2e-5 * (1 + std::abs(expected.gradients[i]))) << i;
        }
      }
    }
  }
  // a Scale that runs again by itself, on other values, goes back by itself
  {
    const string text = Text(normalised + scale + end, {2, 3, 5, 7}, TRAIN);
    const shared_ptr<Net<float> > net = Made<float>(text);
    net->Forward();
    ASSERT_TRUE(FuseBackward(*net, 3, 0));
    Blob<float>* const map = net->blob_by_name("a").get();
    caffe_set(map->count(), 2.f, map->mutable_cpu_data());
    net->ForwardFrom(3);
    EXPECT_FALSE(FuseBackward(*net, 3, 0));
    caffe_set(map->count(), 1.f, map->mutable_cpu_diff());
    net->ClearParamDiffs();
    net->BackwardFromTo(3, 3);
    EXPECT_NEAR(2 * 2 * 5 * 7, net->layer_by_name("scale")->blobs()[0]->cpu_diff()[0], 1e-3);
  }
  // what overflows is told
  const shared_ptr<Net<float> > overflows =
      Made<float>(Text(normalised + scale + relu + end, {2, 3, 5, 7}, TRAIN));
  overflows->layer_by_name("scale")->blobs()[1]->mutable_cpu_data()[4] =
      -std::numeric_limits<float>::infinity();
  FillNoise(overflows->input_blobs()[0]);
  overflows->Forward();
  EXPECT_TRUE(std::isnan(overflows->blob_by_name("a")->data_at(0, 4, 0, 0)));
  EXPECT_FALSE(std::isnan(overflows->blob_by_name("a")->data_at(0, 3, 0, 0)));
  // with given statistics nothing is kept, so Scale does it by itself
  const shared_ptr<Net<float> > given = Made<float>(Text(convolution
      + "layer { name: 'bn' type: 'BatchNorm' bottom: 'a' top: 'a' batch_norm_param { "
        "use_global_stats: true } } " + scale + end, {2, 3, 5, 7}, TRAIN));
  EXPECT_EQ(0, FuseFollowers(*given, 2, 4));
}

TEST_F(OneDNNLayersTest, RoundedConvolutionsFollowWhatChanges) {
  const string layers = Convolution("a", "data", 28, "kernel_size: 3 pad: 2 dilation: 2")
      + BatchNorm("bn", "a", "a") + Scale("scale", "a", "a") + ReLU("relu", "a")
      + Convolution("b", "a", 50, "kernel_size: 1") + ReLU("relu_b", "b")
      + Convolution("c", "b", 9, "kernel_size: 3 stride: 2 bias_term: false");
  Pair pair(layers, {2, 26, 9, 10}, TEST);
  FillStatistics(*pair.net);
  FillStatistics(*pair.reference);
  for (const char* name : {"a", "b", "c"}) {
    ConvolutionOf(*pair.net, name)->AllowRounding(true);
  }
  const bool rounds = Bfloat16Convolution::Available()
      && dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core;
  typedef OneDNNConvolutionLayer Layer;
  Layer* const first = ConvolutionOf(*pair.net, "a");
  EXPECT_EQ(rounds, first->Describe(Layer::FORWARD, {2, 26, 9, 10}) == "bfloat16");
  // gradients hang on the signs before a ReLU, some of which rounding changes
  const double kSigns = 10;
  pair.Run(0.02, kSigns);
  pair.Reshape({1, 26, 17, 40});
  pair.Run(0.02, kSigns);
  for (const shared_ptr<Blob<float> >& parameter : pair.net->params()) {
    if (parameter->count() == 1) { continue; }
    caffe_scal(parameter->count(), 1.25f, parameter->mutable_cpu_data());
    pair.CopyParameters();
    pair.Run(0.02, kSigns);
  }
  for (int i : {0, static_cast<int>(pair.net->params().size()) - 1}) {
    Blob<float>* const weights = pair.net->params()[i].get();
    weights->data()->Expose();
    float* const written = weights->mutable_cpu_data();
    pair.Run(0.02, kSigns);
    for (int j = 0; j < weights->count(); ++j) { written[j] *= -0.5f; }
    pair.CopyParameters();
    pair.Run(0.02, kSigns);
  }
}

// Not with few channels, nor back with a stride.
TEST_F(OneDNNLayersTest, RoundedConvolutionsLearn) {
  const string layers = Convolution("a", "data", 28, "kernel_size: 3 pad: 2 dilation: 2")
      + Convolution("b", "a", 50, "kernel_size: 1")
      + Convolution("c", "b", 25, "kernel_size: 3 stride: 2 bias_term: false")
      + Convolution("d", "c", 9, "kernel_size: 3 pad: 1");
  Pair pair(layers, {2, 26, 9, 25}, TRAIN);
  for (const char* name : {"a", "b", "c", "d"}) {
    ConvolutionOf(*pair.net, name)->AllowRounding(true);
  }
  const bool rounds = Bfloat16Convolution::Available()
      && dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_core;
  typedef OneDNNConvolutionLayer Layer;
  const struct { const char* name; int channels; bool back, to_weights; } kLayers[] = {
    {"a", 26, true, true}, {"b", 28, true, true}, {"c", 50, false, false},
    {"d", 25, false, false},
  };
  for (const auto& each : kLayers) {
    Layer* const layer = ConvolutionOf(*pair.net, each.name);
    const vector<int> shape = {2, each.channels, 9, 25};
    EXPECT_EQ(rounds, layer->Describe(Layer::FORWARD, shape) == "bfloat16");
    EXPECT_EQ(rounds && each.back,
        layer->Describe(Layer::BACKWARD_DATA, shape) == "bfloat16") << each.name;
    EXPECT_EQ(rounds && each.to_weights,
        layer->Describe(Layer::BACKWARD_WEIGHTS, shape) == "bfloat16") << each.name;
  }
  pair.Run(0.02);
  pair.Reshape({1, 26, 17, 40});
  pair.Run(0.02);
  // as a solver changes them, and through a pointer in somebody's hands
  for (const shared_ptr<Blob<float> >& parameter : pair.net->params()) {
    caffe_scal(parameter->count(), 1.25f, parameter->mutable_cpu_data());
  }
  pair.CopyParameters();
  pair.Run(0.02);
  Blob<float>* const weights = pair.net->params()[0].get();
  weights->data()->Expose();
  float* const written = weights->mutable_cpu_data();
  for (int i = 0; i < weights->count(); ++i) { written[i] *= -0.5f; }
  pair.CopyParameters();
  pair.Run(0.02);
}

TEST_F(OneDNNLayersTest, BlocksPassThroughLayersWithoutWeights) {
  shared_ptr<Net<float> > net = Made<float>(Text(Mixed(16), {1, 3, 12, 12}, TRAIN));
  net->Forward();
  net->Backward();
  for (const char* name : {"a", "b", "b_bn", "b_scale", "c", "sum", "product",
       "ave", "max", "pools", "d", "all"}) {
    EXPECT_TRUE(net->blob_by_name(name)->data()->layout() != NULL) << name;
  }
  for (const char* name : {"a", "b_bn", "b_scale", "pools", "ave", "max"}) {
    EXPECT_TRUE(net->blob_by_name(name)->diff()->layout() != NULL) << name;
  }
}

TEST_F(OneDNNLayersTest, PoolingsEqualDoublePrecision) {
  const char* const kPoolings[] = {"kernel_size: 2 stride: 2",
    "kernel_size: 3 stride: 2", "kernel_size: 3 stride: 1 pad: 1",
    "kernel_size: 3 stride: 2 pad: 1", "kernel_size: 3 stride: 2 round_mode: FLOOR",
    "kernel_h: 3 kernel_w: 2 stride: 2", "global_pooling: true"};
  const int kSizes[][2] = {{8, 8}, {7, 9}, {12, 5}, {3, 3}};
  for (const char* pooling : kPoolings) {
    for (const int* size : kSizes) {
      for (int channels : {16, 5}) {
        SCOPED_TRACE(testing::Message() << pooling << ", " << channels << " x "
            << size[0] << " x " << size[1]);
        for (const char* kind : {"MAX", "AVE"}) {
          // as they lie in Caffe's order, and in blocks
          for (const string& before : {string(),
               Convolution("data_", "data", channels, "kernel_size: 1")}) {
            for (Phase phase : {TRAIN, TEST}) {
              SCOPED_TRACE(testing::Message() << kind << ", phase " << phase);
              Pair pair(before + Pooling("p", before.empty() ? "data" : "data_",
                  pooling, kind), {2, channels, size[0], size[1]}, phase);
              pair.Run(2e-5);
            }
          }
        }
      }
    }
  }
}

TEST_F(OneDNNLayersTest, FactoryChooses) {
  shared_ptr<Net<float> > net = Made<float>(Text(
      Convolution("on", "data", 16, "kernel_size: 3")
      + Convolution("off", "on", 16, "kernel_size: 3 engine: CAFFE"),
      {1, 16, 8, 8}, TEST));
  EXPECT_TRUE(ConvolutionOf(*net, "on") != NULL);
  EXPECT_TRUE(ConvolutionOf(*net, "off") == NULL);
}

TEST_F(OneDNNLayersTest, MethodsAreTheFastOnes) {
  if (dnnl::get_effective_cpu_isa() < dnnl::cpu_isa::avx512_core) { return; }
  const string on_sub_images = "kernel_size: 3 pad: 12 dilation: 12";
  shared_ptr<Net<float> > net = Made<float>(Text(
      Convolution("first", "data", 16, "kernel_size: 3 pad: 1")
      + Convolution("middle", "first", 16, "kernel_size: 3 pad: 1")
      + Convolution("dilated", "middle", 16, on_sub_images)
      + Convolution("last", "dilated", 16, "kernel_size: 1"),
      {1, 3, 36, 40}, TRAIN));
  const string winograd = onednn::WinogradAllowed() ? "Winograd" : "direct";
  typedef OneDNNConvolutionLayer Layer;
  const vector<int> shape = {1, 16, 36, 40};
  for (Layer::Pass pass : {Layer::FORWARD, Layer::BACKWARD_DATA,
       Layer::BACKWARD_WEIGHTS}) {
    EXPECT_EQ(winograd, ConvolutionOf(*net, "middle")->Describe(pass, shape));
    if (onednn::WinogradAllowed()) {
      EXPECT_EQ("Winograd on sub-images",
          ConvolutionOf(*net, "dilated")->Describe(pass, shape));
    }
    EXPECT_EQ("direct", ConvolutionOf(*net, "last")->Describe(pass, shape));
    EXPECT_EQ("direct",
        ConvolutionOf(*net, "first")->Describe(pass, {1, 3, 36, 40}));
  }
  // what would make 0 of a NaN is left to the ReLU
  EXPECT_EQ(onednn::WinogradAllowed() ? "Winograd" : "as in Caffe",
      ConvolutionOf(*net, "middle")->Describe(Layer::FORWARD_RECTIFIED, shape));
  EXPECT_EQ("as in Caffe",
      ConvolutionOf(*net, "last")->Describe(Layer::FORWARD_RECTIFIED, shape));
}

// Few positions are not worth transformed weights, nor are empty tiles.
TEST_F(OneDNNLayersTest, WinogradsIsForMapsLargeEnough) {
  if (!onednn::WinogradAllowed()
      || dnnl::get_effective_cpu_isa() < dnnl::cpu_isa::avx512_core) {
    return;
  }
  typedef OneDNNConvolutionLayer Layer;
  const struct {
    int num, channels, size;
    bool when_kept, when_learnt;
  } kShapes[] = {
    {1, 128, 28, true, true}, {1, 256, 14, true, false}, {2, 256, 14, true, false},
    {4, 256, 14, true, true}, {4, 256, 7, true, false}, {1, 512, 7, false, false},
    {4, 512, 14, true, true}, {1, 16, 1, false, false},
    // their transformed weights are too large to be kept
    {4, 1024, 7, false, false},
  };
  for (const auto& s : kShapes) {
    const vector<int> shape = {s.num, s.channels, s.size, s.size};
    SCOPED_TRACE(testing::Message() << s.num << " x " << s.channels << " x "
        << s.size);
    const string text =
        Text(Convolution("a", "data", s.channels, "kernel_size: 3 pad: 1"),
            shape, TEST);
    // how many threads there are says whether it goes in pieces
    const auto method = [&](const Net<float>& net, Layer::Pass pass) {
      const string all = ConvolutionOf(net, "a")->Describe(pass, shape);
      return all.substr(0, all.find(" in pieces"));
    };
    EXPECT_EQ(s.when_kept ? "Winograd" : "direct",
        method(*Made<float>(text), Layer::FORWARD));
    shared_ptr<Net<float> > learns = Made<float>(
        Text(Convolution("a", "data", s.channels, "kernel_size: 3 pad: 1"),
            shape, TRAIN));
    for (Layer::Pass pass : {Layer::FORWARD, Layer::BACKWARD_DATA,
         Layer::BACKWARD_WEIGHTS}) {
      EXPECT_EQ(s.when_learnt ? "Winograd" : "direct", method(*learns, pass));
    }
  }
}

TEST_F(OneDNNLayersTest, MapsPassWithoutCaffesOrder) {
  shared_ptr<Net<float> > net = Made<float>(Text(
      Convolution("a", "data", 16, "kernel_size: 3 pad: 1") + ReLU("r", "a")
      + Convolution("b", "a", 32, "kernel_size: 3 pad: 1") + ReLU("s", "b")
      + Pooling("p", "b", "kernel_size: 2 stride: 2")
      + Convolution("c", "p", 32, "kernel_size: 3 pad: 2 dilation: 2"),
      {1, 3, 32, 32}, TRAIN));
  net->Forward();
  net->Backward();
  for (const char* name : {"a", "b", "p", "c"}) {
    EXPECT_TRUE(onednn::LayoutOf(net->blob_by_name(name)->data().get()) != NULL)
        << name;
    EXPECT_TRUE(net->blob_by_name(name)->data()->cpu_data_is_behind()) << name;
  }
  for (const char* name : {"a", "b", "p"}) {
    EXPECT_TRUE(net->blob_by_name(name)->diff()->cpu_data_is_behind()) << name;
  }
}

TEST_F(OneDNNLayersTest, RectifiesAlongOnlyWhereTheReLURuns) {
  const string layers = Convolution("a", "data", 16, "kernel_size: 3 pad: 1")
      + ReLU("r", "a") + Convolution("b", "a", 16, "kernel_size: 1");
  shared_ptr<Net<float> > net =
      Made<float>(Text(layers, {1, 16, 12, 12}, TEST));
  FillNoise(net->input_blobs()[0]);
  Blob<float>* const a = net->blob_by_name("a").get();
  net->ForwardTo(1);
  vector<float> before(a->cpu_data(), a->cpu_data() + a->count());
  EXPECT_LT(*std::min_element(before.begin(), before.end()), 0);
  net->ForwardTo(2);
  for (int i = 0; i < a->count(); ++i) {
    EXPECT_EQ(std::max(before[i], 0.f), a->cpu_data()[i]);
  }
  // and again from what somebody has written
  caffe_set(a->count(), -1.f, a->mutable_cpu_data());
  net->ForwardFromTo(2, 2);
  EXPECT_EQ(0, a->asum_data());
}

TEST_F(OneDNNLayersTest, NaNStaysNaN) {
  const string layers = Convolution("a", "data", 16, "kernel_size: 3 pad: 1")
      + ReLU("r", "a") + Convolution("b", "a", 16, "kernel_size: 1");
  for (Phase phase : {TRAIN, TEST}) {
    shared_ptr<Net<float> > net =
        Made<float>(Text(layers, {1, 16, 12, 12}, phase));
    FillNoise(net->input_blobs()[0]);
    net->input_blobs()[0]->mutable_cpu_data()[0] =
        std::numeric_limits<float>::quiet_NaN();
    net->Forward();
    EXPECT_TRUE(std::isnan(net->output_blobs()[0]->cpu_data()[0]));
  }
}

// What a diverging training does first: sums that are too large, all below 0.
TEST_F(OneDNNLayersTest, OverflowInTrainingBecomesNaN) {
  for (int channels : {16, 23}) {
    shared_ptr<Net<float> > net = Made<float>(Text(
        Convolution("a", "data", channels, "kernel_size: 3 pad: 1")
        + ReLU("r", "a") + Convolution("b", "a", 16, "kernel_size: 1"),
        {1, channels, 12, 12}, TRAIN));
    Blob<float>* const input = net->input_blobs()[0];
    caffe_set(input->count(), 1e25f, input->mutable_cpu_data());
    Blob<float>* const weights = net->params()[0].get();
    caffe_set(weights->count(), -1e25f, weights->mutable_cpu_data());
    net->Forward();
    EXPECT_TRUE(std::isnan(net->output_blobs()[0]->cpu_data()[0]));
  }
}

TEST_F(OneDNNLayersTest, PointersInHandsAreServed) {
  const string layers = Convolution("a", "data", 16, "kernel_size: 3 pad: 1")
      + ReLU("r", "a") + Convolution("b", "a", 16, "kernel_size: 3 pad: 1");
  Pair pair(layers, {1, 16, 12, 12}, TRAIN);
  // as pycaffe does: the pointer is taken once and looked at again and again
  Blob<float>* const a = pair.net->blob_by_name("a").get();
  a->data()->Expose();
  const float* const seen = a->mutable_cpu_data();
  Blob<float>* const weights = pair.net->params()[2].get();
  weights->data()->Expose();
  float* const written = weights->mutable_cpu_data();
  pair.Run(1e-5);
  EXPECT_LT(Difference(seen, pair.reference->blob_by_name("a")->cpu_data(),
      a->count()), 1e-5);
  for (int i = 0; i < weights->count(); ++i) { written[i] *= -0.5f; }
  pair.CopyParameters();
  pair.Run(1e-5);
  EXPECT_LT(Difference(seen, pair.reference->blob_by_name("a")->cpu_data(),
      a->count()), 1e-5);
  // a map written through the pointer is what the next layer reads
  for (int i = 0; i < a->count(); ++i) { a->mutable_cpu_data()[i] = seen[i] + 1; }
  Convert(*a, pair.reference->blob_by_name("a").get());
  pair.net->ForwardFrom(3);
  pair.reference->ForwardFrom(3);
  EXPECT_LT(Difference(pair.net->output_blobs()[0]->cpu_data(),
      pair.reference->output_blobs()[0]->cpu_data(),
      pair.net->output_blobs()[0]->count()), 1e-5);
}

TEST_F(OneDNNLayersTest, SameBitsAgain) {
  const string layers = Convolution("a", "data", 32, "kernel_size: 3 pad: 1")
      + ReLU("r", "a") + Pooling("p", "a", "kernel_size: 2 stride: 2")
      + Convolution("b", "p", 32, "kernel_size: 3 pad: 2 dilation: 2");
  shared_ptr<Net<float> > net =
      Made<float>(Text(layers, {2, 16, 33, 41}, TRAIN));
  FillNoise(net->input_blobs()[0]);
  vector<vector<float> > runs;
  for (int run = 0; run < 2; ++run) {
    net->ClearParamDiffs();
    net->Forward();
    Blob<float>* const output = net->output_blobs()[0];
    std::copy(output->cpu_data(), output->cpu_data() + output->count(),
        output->mutable_cpu_diff());
    net->Backward();
    vector<float> values;
    for (const shared_ptr<Blob<float> >& blob : net->params()) {
      values.insert(values.end(), blob->cpu_diff(),
          blob->cpu_diff() + blob->count());
    }
    runs.push_back(values);
  }
  EXPECT_TRUE(runs[0] == runs[1]);
}

TEST_F(OneDNNLayersTest, SwitchesAreZeroOrOne) {
  EXPECT_TRUE(onednn::ParseSwitch("CAFFE_ONEDNN", NULL));
  EXPECT_TRUE(onednn::ParseSwitch("CAFFE_ONEDNN", "1"));
  EXPECT_FALSE(onednn::ParseSwitch("CAFFE_ONEDNN", "0"));
  EXPECT_DEATH(onednn::ParseSwitch("CAFFE_ONEDNN", "off"),
      "CAFFE_ONEDNN is 'off'; 0 or 1 is expected");
}

TEST_F(OneDNNLayersTest, SubImagesComeTogetherAgain) {
  const SubImages parts = {2, 3, 7, 10, 8, 4, 3};
  vector<float> map(2 * 3 * 7 * 10 * 8);
  for (size_t i = 0; i < map.size(); ++i) { map[i] = i + 1; }
  vector<float> taken(parts.count() * 3 * parts.rows() * parts.columns() * 8, -1);
  parts.Split(map.data(), taken.data());
  // the second image's first block, row 5, column 6, first of its channels
  const int image = (1 * 4 + 5 % 4) * 4 + 6 % 4;
  EXPECT_EQ(map[((1 * 3 * 7 + 5) * 10 + 6) * 8],
      taken[((image * 3 * parts.rows() + 5 / 4) * parts.columns() + 6 / 4) * 8]);
  EXPECT_EQ(taken.size() - map.size(),
      size_t(std::count(taken.begin(), taken.end(), 0.f)));
  vector<float> again(map.size());
  parts.Join(taken.data(), again.data());
  EXPECT_TRUE(map == again);
}

TEST_F(OneDNNLayersTest, SubImagesOfSomeBlocksComeTogetherAgain) {
  for (int dilation : {1, 3}) {
    const SubImages all = {2, 5, 7, 10, 8, dilation, 5};
    SubImages some = all;
    some.blocks = 2;
    const int plane = 7 * 10 * 8, part = all.rows() * all.columns() * 8;
    vector<float> map(2 * 5 * plane);
    for (size_t i = 0; i < map.size(); ++i) { map[i] = i + 1; }
    vector<float> taken(some.count() * 2 * part), whole(all.count() * 5 * part);
    some.Split(map.data() + 3 * plane, taken.data());
    all.Split(map.data(), whole.data());
    for (int image = 0; image < some.count(); ++image) {
      EXPECT_TRUE(std::equal(taken.begin() + image * 2 * part,
          taken.begin() + (image + 1) * 2 * part,
          whole.begin() + (image * 5 + 3) * part)) << image;
    }
    vector<float> again(map);
    for (int n = 0; n < 2; ++n) {
      std::fill_n(again.begin() + (n * 5 + 3) * plane, 2 * plane, 0.f);
    }
    some.Join(taken.data(), again.data() + 3 * plane);
    EXPECT_TRUE(map == again) << dilation;
  }
}

}  // namespace

}  // namespace caffe
