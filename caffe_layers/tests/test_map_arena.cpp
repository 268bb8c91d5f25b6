#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/onednn_conv_layer.hpp"
#include "caffe/memory/map_arena.hpp"
#include "caffe/memory/work_areas.hpp"
#include "caffe/net.hpp"
#include "caffe/util/large_page_allocator.hpp"
#include "caffe/onednn/onednn.hpp"
#include "caffe/util/row_bands.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

namespace {

using std::string;

string Described(const string& name, const string& bottom, const string& top,
    const string& rest) {
  return "layer { name: '" + name + "' bottom: '" + bottom + "' top: '" + top
      + "' " + rest + " } ";
}

string Convolution(const string& name, const string& bottom, int outputs,
    const string& place = "pad: 1") {
  return Described(name, bottom, name, "type: 'Convolution' convolution_param "
      "{ kernel_size: 3 weight_filler { type: 'msra' } bias_filler "
      "{ type: 'gaussian' } num_output: " + std::to_string(outputs) + " " + place
      + " }");
}

// Maps that two layers read, in place and not, in blocks and in Caffe's order.
string OfAnySize() {
  return Convolution("a", "data", 16) + Described("ra", "a", "a", "type: 'ReLU'")
      + Convolution("b", "a", 32, "pad: 2 dilation: 2")
      + Described("rb", "b", "b", "type: 'ReLU'")
      + Described("pool", "b", "pool", "type: 'Pooling' pooling_param "
          "{ kernel_size: 2 stride: 2 }")
      + Convolution("c", "pool", 32) + Convolution("d", "c", 32)
      + Described("sum", "c' bottom: 'd", "sum", "type: 'Eltwise'");
}

string Layers() {
  return OfAnySize() + Described("flat", "sum", "flat", "type: 'Flatten'")
      + Described("last", "flat", "last", "type: 'InnerProduct' "
          "inner_product_param { num_output: 3 weight_filler "
          "{ type: 'gaussian' std: 0.1 } }");
}

template <typename Dtype>
shared_ptr<Net<Dtype> > Made(const string& layers, const vector<int>& shape,
    const string& phase = "TEST") {
  string text = "state { phase: " + phase + " } layer { name: 'data' "
      "type: 'Input' top: 'data' input_param { shape {";
  for (int size : shape) { text += " dim: " + std::to_string(size); }
  NetParameter parameter;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      text + " } } } " + layers, &parameter));
  return shared_ptr<Net<Dtype> >(new Net<Dtype>(parameter));
}

template <typename Dtype>
void Fill(Blob<Dtype>* blob) {
  GaussianFiller<Dtype> filler((FillerParameter()));
  filler.Fill(blob);
}

template <typename Dtype>
bool IsGone(const Net<Dtype>& net, const string& blob) {
  return net.blob_by_name(blob)->data()->head() == SyncedMemory::UNINITIALIZED;
}

}  // namespace

template <typename TypeParam>
class OneDNNMapArenaTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  // Two nets with the same weights.
  void MakeBoth(const string& layers, const vector<int>& shape,
      shared_ptr<Net<Dtype> >* net, shared_ptr<Net<Dtype> >* other) {
    *net = Made<Dtype>(layers, shape);
    *other = Made<Dtype>(layers, shape);
    (*other)->ShareTrainedLayersWith(net->get());
  }

  // A net that lets maps go gives what one that keeps them gives.
  void ExpectSame(Net<Dtype>* net, Net<Dtype>* other, const vector<int>& shape) {
    for (Net<Dtype>* one : {net, other}) {
      one->input_blobs()[0]->Reshape(shape);
    }
    Fill(net->input_blobs()[0]);
    other->input_blobs()[0]->CopyFrom(*net->input_blobs()[0]);
    net->Forward();
    other->Forward();
    const Blob<Dtype>& actual = *net->output_blobs()[0];
    const Blob<Dtype>& expected = *other->output_blobs()[0];
    ASSERT_EQ(expected.shape(), actual.shape());
    for (int i = 0; i < expected.count(); ++i) {
      ASSERT_NEAR(expected.cpu_data()[i], actual.cpu_data()[i],
          1e-4 * (1 + std::abs(expected.cpu_data()[i])));
    }
  }
};

TYPED_TEST_CASE(OneDNNMapArenaTest, TestDtypesAndDevices);

TYPED_TEST(OneDNNMapArenaTest, SameResultsWhateverTheSizes) {
  typedef typename TypeParam::Dtype Dtype;
  shared_ptr<Net<Dtype> > net, other;
  this->MakeBoth(OfAnySize(), {1, 5, 12, 16}, &net, &other);
  net->ShareMaps();
  const vector<int> shapes[] = {{1, 5, 12, 16}, {1, 5, 40, 31}, {2, 5, 7, 9},
      {1, 5, 12, 16}, {3, 5, 60, 60}};
  for (const vector<int>& shape : shapes) {
    for (int pass = 0; pass < 2; ++pass) {
      this->ExpectSame(net.get(), other.get(), shape);
    }
  }
}

TYPED_TEST(OneDNNMapArenaTest, MapsAreGoneAndInputsAndOutputsAreNot) {
  typedef typename TypeParam::Dtype Dtype;
  shared_ptr<Net<Dtype> > net = Made<Dtype>(Layers(), {1, 5, 12, 16});
  net->ShareMaps();
  Fill(net->input_blobs()[0]);
  const vector<Dtype> input(net->input_blobs()[0]->cpu_data(),
      net->input_blobs()[0]->cpu_data() + net->input_blobs()[0]->count());
  net->Forward();
  for (const char* name : {"a", "b", "pool", "c", "d", "sum", "flat"}) {
    EXPECT_TRUE(IsGone(*net, name)) << name;
  }
  EXPECT_FALSE(IsGone(*net, "data"));
  EXPECT_FALSE(IsGone(*net, "last"));
  EXPECT_TRUE(std::equal(input.begin(), input.end(),
      net->input_blobs()[0]->cpu_data()));
}

TYPED_TEST(OneDNNMapArenaTest, WhatNumPyHoldsStays) {
  typedef typename TypeParam::Dtype Dtype;
  shared_ptr<Net<Dtype> > net, other;
  this->MakeBoth(Layers(), {1, 5, 12, 16}, &net, &other);
  net->ShareMaps();
  const shared_ptr<Blob<Dtype> > held = net->blob_by_name("c");
  held->data()->Expose();
  const Dtype* const pointer = held->mutable_cpu_data();
  this->ExpectSame(net.get(), other.get(), {1, 5, 12, 16});
  EXPECT_EQ(pointer, held->cpu_data());  // on a GPU whoever looks again has them copied
  const Blob<Dtype>& expected = *other->blob_by_name("c");
  for (int i = 0; i < expected.count(); ++i) {
    ASSERT_NEAR(expected.cpu_data()[i], pointer[i], 1e-4);
  }
}

TYPED_TEST(OneDNNMapArenaTest, WeightsAreThereForWhoAsks) {
  typedef typename TypeParam::Dtype Dtype;
  shared_ptr<Net<Dtype> > net = Made<Dtype>(Layers(), {1, 5, 12, 16});
  NetParameter before, after;
  net->ToProto(&before);
  net->ShareMaps();
  Fill(net->input_blobs()[0]);
  net->Forward();
  net->ToProto(&after);
  EXPECT_EQ(before.SerializeAsString(), after.SerializeAsString());
  // new weights are the ones that count
  shared_ptr<Net<Dtype> > other = Made<Dtype>(Layers(), {1, 5, 12, 16});
  other->ToProto(&after);
  net->CopyTrainedLayersFrom(after);
  this->ExpectSame(net.get(), other.get(), {1, 5, 12, 16});
}

TYPED_TEST(OneDNNMapArenaTest, NoBackwardInTest) {
  typedef typename TypeParam::Dtype Dtype;
  shared_ptr<Net<Dtype> > net = Made<Dtype>(Layers(), {1, 5, 12, 16});
  net->ShareMaps();
  net->Forward();
  EXPECT_DEATH(net->Backward(), "maps that backward needs were let go");
}

// What a test of a net in training looks at: its losses and what it has learned.
template <typename Dtype>
vector<Dtype> LossesAndGradients(Net<Dtype>* net) {
  vector<Dtype> values;
  for (const Blob<Dtype>* output : net->output_blobs()) {
    values.insert(values.end(), output->cpu_data(),
        output->cpu_data() + output->count());
  }
  for (const Blob<Dtype>* parameter : net->learnable_params()) {
    values.insert(values.end(), parameter->cpu_diff(),
        parameter->cpu_diff() + parameter->count());
  }
  return values;
}

string Loss(const string& name, const string& bottom, const string& rest = "") {
  return Described(name, bottom + "' bottom: 'label", name,
      "type: 'SoftmaxWithLoss' " + rest);
}

string Labels() {
  return "layer { name: 'label' type: 'DummyData' top: 'label' "
      "dummy_data_param { shape { dim: 2 } data_filler { value: 1 } } } ";
}

string Scores(const string& name, const string& bottom, int outputs = 3) {
  return Described(name, bottom, name, "type: 'InnerProduct' "
      "inner_product_param { num_output: " + std::to_string(outputs) + " "
      "weight_filler { type: 'gaussian' std: 0.1 } }");
}

// Nets with all that shares memory or leaves some of it alone.
vector<string> TrainingNets() {
  const string body = Labels() + Layers();
  const string pooled = body.substr(0, body.find("layer { name: 'flat'"));
  return {
      body + Loss("loss", "last"),
      // several losses, one of them weighted, one without, and scores beside them
      body + Loss("loss", "last", "loss_weight: 0.3")
          + Scores("more", "flat") + Loss("second", "more")
          + Scores("third", "c") + Loss("unweighted", "third", "loss_weight: 0")
          + Described("right", "last' bottom: 'label", "right", "type: 'Accuracy'"),
      // a loss that notes something for its way back, and a gradient that nobody writes
      body + Described("hinge", "last' bottom: 'label", "hinge", "type: 'HingeLoss'")
          + "layer { name: 'still' type: 'Silence' bottom: 'last' } ",
      // crops take no gradient to what they only take the size of
      pooled + Convolution("small", "sum", 4, "stride: 1")
          + Described("cut", "sum' bottom: 'small", "cut", "type: 'Crop' "
              "crop_param { axis: 2 }")
          + Described("both", "cut' bottom: 'small", "both", "type: 'Concat'")
          + Described("part", "both", "part", "type: 'Dropout'")
          + Scores("last", "part") + Loss("loss", "last"),
      // other shapes of the same memory, one top of a Slice, a Concat of one
      pooled + Described("shape", "sum", "shape", "type: 'Reshape' "
              "reshape_param { shape { dim: 2 dim: 64 dim: -1 } }")
          + Described("slice", "shape", "slice", "type: 'Slice'")
          + Described("concat", "slice", "concat", "type: 'Concat'")
          + Described("power", "concat", "power", "type: 'Power' power_param "
              "{ scale: 0.5 }")
          + Described("tanh", "power", "tanh", "type: 'TanH'")
          + Scores("last", "tanh") + Loss("loss", "last"),
      // convolutions that do not learn, and normalization
      Labels() + Described("f", "data", "f", "type: 'Convolution' param "
              "{ lr_mult: 0 } param { lr_mult: 0 } convolution_param { num_output: 16 "
              "kernel_size: 3 pad: 1 weight_filler { type: 'msra' } }")
          + Described("rf", "f", "f", "type: 'ReLU'")
          + Described("pf", "f", "pf", "type: 'Pooling' pooling_param { kernel_size: 2 stride: 2 }")
          + Convolution("g", "pf", 32) + Described("norm", "g", "norm", "type: 'BatchNorm'")
          + Described("scale", "norm", "scale", "type: 'Scale' scale_param { bias_term: true }")
          + Described("rg", "scale", "scale", "type: 'ReLU'")
          + Convolution("h", "scale", 32)
          + Described("plus", "h' bottom: 'scale", "plus", "type: 'Eltwise'")
          + Scores("last", "plus") + Loss("loss", "last"),
      // the same in place, behind a map of its own and not
      Labels() + Convolution("f", "data", 16)
          + Described("norm", "f", "norm", "type: 'BatchNorm'")
          + Described("scale", "norm", "norm", "type: 'Scale' scale_param { bias_term: true }")
          + Described("rg", "norm", "norm", "type: 'ReLU'")
          + Convolution("g", "norm", 32) + Described("gn", "g", "g", "type: 'BatchNorm'")
          + Described("gs", "g", "g", "type: 'Scale' scale_param { bias_term: true }")
          + Described("rgs", "g", "g", "type: 'ReLU'")
          + Scores("last", "g") + Loss("loss", "last"),
  };
}

TYPED_TEST(OneDNNMapArenaTest, TrainingIsTheSameBitForBit) {
  typedef typename TypeParam::Dtype Dtype;
  for (const string& layers : TrainingNets()) {
    SCOPED_TRACE(layers);
    const vector<int> shape = {2, 5, 12, 16};
    shared_ptr<Net<Dtype> > net = Made<Dtype>(layers, shape, "TRAIN");
    shared_ptr<Net<Dtype> > other = Made<Dtype>(layers, shape, "TRAIN");
    NetParameter weights;
    net->ToProto(&weights);
    other->CopyTrainedLayersFrom(weights);
    net->ShareMaps();
    for (int pass = 0; pass < 5; ++pass) {
      Fill(net->input_blobs()[0]);
      if (pass == 2) {  // what is left of this would show in the next pass
        net->input_blobs()[0]->scale_data(1000);
      }
      other->input_blobs()[0]->CopyFrom(*net->input_blobs()[0]);
      // the gradients of two batches add up
      if (pass != 4) {
        net->ClearParamDiffs();
        other->ClearParamDiffs();
      }
      vector<Dtype> found[2];
      for (Net<Dtype>* one : {net.get(), other.get()}) {
        Caffe::set_random_seed(1701 + pass);
        one->ForwardBackward();
        found[one == other.get()] = LossesAndGradients(one);
      }
      if (Caffe::mode() == Caffe::CPU) {
        EXPECT_EQ(found[1], found[0]) << "in pass " << pass;
        continue;
      }
      // cuDNN's and atomic sums are not the same twice
      ASSERT_EQ(found[1].size(), found[0].size());
      for (size_t i = 0; i < found[1].size(); ++i) {
        ASSERT_NEAR(found[1][i], found[0][i], 1e-3 * (1 + std::abs(found[1][i])))
            << "in pass " << pass;
      }
    }
  }
}

TYPED_TEST(OneDNNMapArenaTest, GradientsThatNumPyHoldsStay) {
  typedef typename TypeParam::Dtype Dtype;
  const string layers = TrainingNets()[0];
  shared_ptr<Net<Dtype> > net = Made<Dtype>(layers, {2, 5, 12, 16}, "TRAIN");
  net->ShareMaps();
  net->ForwardBackward();
  const shared_ptr<Blob<Dtype> > held = net->blob_by_name("d");
  held->diff()->Expose();
  const Dtype* const gradient = held->mutable_cpu_diff();
  EXPECT_EQ(0, held->asum_diff());
  for (int pass = 0; pass < 2; ++pass) {
    net->ForwardBackward();
    EXPECT_GT(held->asum_diff(), 0);
    EXPECT_EQ(gradient, held->cpu_diff());
  }
  EXPECT_EQ(0, net->blob_by_name("c")->asum_diff());
}

TYPED_TEST(OneDNNMapArenaTest, WhatIsAskedForWithinAPassStays) {
  typedef typename TypeParam::Dtype Dtype;
  shared_ptr<Net<Dtype> > net = Made<Dtype>(Layers(), {1, 5, 12, 16});
  net->ShareMaps();
  Fill(net->input_blobs()[0]);
  net->Forward();
  const int layers = net->layers().size();
  const int pool = std::find(net->layer_names().begin(), net->layer_names().end(),
      "pool") - net->layer_names().begin();
  net->ForwardFromTo(0, pool);
  const shared_ptr<Blob<Dtype> > held = net->blob_by_name("pool");
  held->data()->Expose();
  const Dtype* const values = held->mutable_cpu_data();
  const vector<Dtype> now(values, values + held->count());
  net->ForwardFromTo(pool + 1, layers - 1);
  net->Forward();
  EXPECT_EQ(now, vector<Dtype>(values, values + held->count()));
  EXPECT_EQ(0, net->blob_by_name("c")->asum_data());
}

TYPED_TEST(OneDNNMapArenaTest, WhatWasAskedForStaysWhereItGrows) {
  typedef typename TypeParam::Dtype Dtype;
  shared_ptr<Net<Dtype> > net, other;
  this->MakeBoth(OfAnySize(), {1, 5, 12, 16}, &net, &other);
  net->blob_by_name("c")->data()->Expose();
  net->ShareMaps();
  for (const vector<int>& shape : {vector<int>{1, 5, 12, 16}, {1, 5, 40, 31}}) {
    for (int pass = 0; pass < 2; ++pass) {
      this->ExpectSame(net.get(), other.get(), shape);
      const Blob<Dtype>& expected = *other->blob_by_name("c");
      const Blob<Dtype>& actual = *net->blob_by_name("c");
      for (int i = 0; i < expected.count(); ++i) {
        ASSERT_NEAR(expected.cpu_data()[i], actual.cpu_data()[i], 1e-4);
      }
    }
  }
}

TYPED_TEST(OneDNNMapArenaTest, BlobsOutliveTheNet) {
  typedef typename TypeParam::Dtype Dtype;
  shared_ptr<Net<Dtype> > net = Made<Dtype>(Layers(), {1, 5, 12, 16});
  net->ShareMaps();
  Fill(net->input_blobs()[0]);
  net->Forward();
  net->ForwardTo(net->layers().size() / 2);
  const vector<shared_ptr<Blob<Dtype> > > blobs = net->blobs();
  const auto values = [&blobs]() {
    vector<vector<Dtype> > values;
    for (const shared_ptr<Blob<Dtype> >& blob : blobs) {
      if (blob->data()->head() != SyncedMemory::UNINITIALIZED) {
        const Dtype* const begin = blob->cpu_data();
        values.push_back(vector<Dtype>(begin, begin + blob->count()));
      }
    }
    return values;
  };
  const vector<vector<Dtype> > before = values();
  net.reset();
  EXPECT_FALSE(before.empty());
  EXPECT_EQ(before, values());
}

TYPED_TEST(OneDNNMapArenaTest, TakesLessThanTheSumOfTheMaps) {
  typedef typename TypeParam::Dtype Dtype;
  shared_ptr<Net<Dtype> > net = Made<Dtype>(Layers(), {1, 5, 40, 64});
  MapArena<Dtype> arena(*net);
  FreeWork();
  size_t sizes[2], sum = 0;
  for (int pass = 0; pass < 2; ++pass) {
    Fill(net->input_blobs()[0]);
    for (size_t layer = 0; layer < net->layers().size(); ++layer) {
      arena.BeforeForward(layer);
      net->ForwardFromTo(layer, layer);
      arena.AfterForward(layer);
    }
    sizes[pass] = arena.size();
    // where the first pass works lies in the arena, too, in the second
    if (pass == 0) { sum += OwnWorkSize(); }
  }
  for (const char* name : {"a", "b", "pool", "c", "d", "sum"}) {
    sum += net->blob_by_name(name)->data()->size();
  }
  EXPECT_EQ(0u, sizes[0]);
  EXPECT_GT(sizes[1], 0u);
  EXPECT_LT(sizes[1], sum);
}

// Where the last reader takes a map in another order than it lies in, both lie in the
// arena: the second one is not asked of the system in each pass.
TYPED_TEST(OneDNNMapArenaTest, HasWhatTheLastReaderConverts) {
  typedef typename TypeParam::Dtype Dtype;
  if (!onednn::Allowed()) { return; }
  // Deconvolution as Caffe's own reads Caffe's order
  const string layers = Described("a", "data", "a", "type: 'Convolution' "
      "convolution_param { kernel_size: 1 num_output: 64 weight_filler "
      "{ type: 'msra' } }") + Described("b", "a", "b",
      "type: 'Deconvolution' convolution_param { kernel_size: 1 num_output: 2 "
      "weight_filler { type: 'msra' } engine: CAFFE }");
  shared_ptr<Net<Dtype> > net = Made<Dtype>(layers, {2, 5, 40, 64});
  MapArena<Dtype> arena(*net);
  bool converts = false;
  for (int pass = 0; pass < 3; ++pass) {
    Fill(net->input_blobs()[0]);
    for (size_t layer = 0; layer < net->layers().size(); ++layer) {
      arena.BeforeForward(layer);
      net->ForwardFromTo(layer, layer);
      const SyncedMemory& map = *net->blob_by_name("a")->data();
      converts |= map.layout() != NULL;
      arena.AfterForward(layer);
    }
  }
  const size_t bytes = net->blob_by_name("a")->data()->size();
  EXPECT_GE(arena.size(), converts ? 2 * bytes : bytes);
}

TYPED_TEST(OneDNNMapArenaTest, HasTheWorkAreas) {
  typedef typename TypeParam::Dtype Dtype;
  const string layers = Labels() + Layers() + Loss("loss", "last");
  shared_ptr<Net<Dtype> > net = Made<Dtype>(layers, {2, 5, 12, 16}, "TRAIN");
  net->ForwardBackward();
  net->ShareMaps();
  EXPECT_EQ(0u, OwnWorkSize()) << "after another net's passes";
  net->ForwardBackward();
  const bool wants_some = OwnWorkSize() > 0;
  // double precision and the GPU have no layers on oneDNN
  EXPECT_EQ((std::is_same<Dtype, float>::value && Caffe::mode() == Caffe::CPU
      && onednn::Allowed()), wants_some);
  for (int pass = 0; pass < 3; ++pass) {
    net->ForwardBackward();
    EXPECT_EQ(0u, OwnWorkSize()) << "in pass " << pass;
  }
}

#ifndef CPU_ONLY
TYPED_TEST(OneDNNMapArenaTest, ModeMayChange) {
  typedef typename TypeParam::Dtype Dtype;
  shared_ptr<Net<Dtype> > net, other;
  this->MakeBoth(OfAnySize(), {1, 5, 12, 16}, &net, &other);
  net->ShareMaps();
  for (Caffe::Brew mode : {Caffe::CPU, Caffe::GPU, Caffe::CPU, Caffe::GPU}) {
    Caffe::set_mode(mode);
    for (int pass = 0; pass < 3; ++pass) {
      this->ExpectSame(net.get(), other.get(), {1, 5, 12, 16});
    }
  }
}

// What a pass takes of the GPU's memory is the arena alone, from the second on.
TYPED_TEST(OneDNNMapArenaTest, PassesAllocateNothing) {
  typedef typename TypeParam::Dtype Dtype;
  if (Caffe::mode() == Caffe::CPU) { return; }
  const string layers = Labels() + Layers() + Loss("loss", "last");
  shared_ptr<Net<Dtype> > net = Made<Dtype>(layers, {2, 5, 12, 16}, "TRAIN");
  net->ShareMaps();
  size_t free[4], total;
  for (int pass = 0; pass < 4; ++pass) {
    net->ForwardBackward();
    CUDA_CHECK(cudaMemGetInfo(&free[pass], &total));
  }
  EXPECT_EQ(free[2], free[3]);
}
#endif

class OneDNNMapArenaWeightsTest : public OneDNNMapArenaTest<CPUDevice<float> > {};

// Also where direct convolution computes BatchNorm and Scale along.
TEST_F(OneDNNMapArenaWeightsTest, WeightsAreThereOnce) {
  if (!onednn::Allowed()) { return; }
  shared_ptr<Net<float> > net = Made<float>(Convolution("a", "data", 16)
      + Described("norm", "a", "a", "type: 'BatchNorm'")
      + Described("scale", "a", "a", "type: 'Scale' scale_param { bias_term: true }")
      + Convolution("b", "a", 32), {1, 16, 3, 3});
  for (bool shares : {false, true}) {
    if (shares) { net->ShareMaps(); }
    net->Forward();
    for (const char* name : {"a", "b"}) {
      const SyncedMemory& weights = *net->layer_by_name(name)->blobs()[0]->data();
      EXPECT_EQ(!shares, weights.plain_is_current()) << name;
    }
  }
}

// Large ones are moved from the one order to the other, and are what they were.
TEST_F(OneDNNMapArenaWeightsTest, LargeWeightsMove) {
  const string layers = Described("large", "data", "large", "type: 'Convolution' "
      "convolution_param { kernel_size: 7 num_output: 512 weight_filler "
      "{ type: 'gaussian' } }");
  const vector<int> shape = {1, 352, 9, 8};
  shared_ptr<Net<float> > net = Made<float>(layers, shape);
  shared_ptr<Net<float> > other = Made<float>(layers, shape);
  NetParameter before, after;
  net->ToProto(&before);
  other->CopyTrainedLayersFrom(before);
  net->ShareMaps();
  Fill(net->input_blobs()[0]);
  other->input_blobs()[0]->CopyFrom(*net->input_blobs()[0]);
  for (int pass = 0; pass < 2; ++pass) {
    const Blob<float>& actual = *net->Forward()[0];
    const Blob<float>& expected = *other->Forward()[0];
    EXPECT_TRUE(std::equal(actual.cpu_data(), actual.cpu_data() + actual.count(),
        expected.cpu_data()));
    net->ToProto(&after);
    EXPECT_EQ(before.SerializeAsString(), after.SerializeAsString());
  }
}

class OneDNNConvolutionInPiecesTest : public OneDNNMapArenaTest<CPUDevice<float> > {};

// Convolutions that Winograd's takes hundreds of megabytes for: in bands of rows,
// and in parts of the channels, on the map and on its sub-images.
TEST_F(OneDNNConvolutionInPiecesTest, ConvolutionsInPieces) {
  const string layers =
      Convolution("rows", "data", 128)
      + Described("rr", "rows", "rows", "type: 'ReLU'")
      + Described("pool", "rows", "pool", "type: 'Pooling' pooling_param "
          "{ kernel_size: 4 stride: 4 }")
      + Convolution("many", "pool", 512) + Convolution("channels", "many", 1024)
      + Convolution("parts", "channels", 512, "pad: 2 dilation: 2");
  const vector<int> shape = {1, 128, 230, 251};
  shared_ptr<Net<float> > net, other;
  this->MakeBoth(layers, shape, &net, &other);
  net->ShareMaps();
  this->ExpectSame(net.get(), other.get(), {1, 128, 187, 200});
  // several images: all at once, one by one, and each of them in bands
  const vector<int> all = {2, 128, 60, 70}, single = {3, 128, 160, 180},
      bands = {2, 128, 230, 251};
  for (const vector<int>& several : {all, single, bands}) {
    this->ExpectSame(net.get(), other.get(), several);
    const Blob<float>& actual = *net->output_blobs()[0];
    EXPECT_TRUE(std::equal(actual.cpu_data(), actual.cpu_data() + actual.count(),
        other->output_blobs()[0]->cpu_data())) << several[2] << " rows: other bits";
  }
  this->ExpectSame(net.get(), other.get(), shape);
  if (!onednn::Allowed() || !onednn::WinogradAllowed()
      || dnnl::get_effective_cpu_isa() < dnnl::cpu_isa::avx512_core) {
    return;
  }
  for (const char* name : {"rows", "channels", "parts"}) {
    const vector<int>& bottom = net->bottom_vecs()[std::find(
        net->layer_names().begin(), net->layer_names().end(), name)
        - net->layer_names().begin()][0]->shape();
    for (const Net<float>* one : {net.get(), other.get()}) {
      const string method = dynamic_cast<OneDNNConvolutionLayer*>(
          one->layer_by_name(name).get())->Describe(
              OneDNNConvolutionLayer::FORWARD, bottom);
      const bool in_pieces = method.find("in pieces") != string::npos;
      if (one == other.get()) {
        EXPECT_FALSE(in_pieces) << name << ": " << method;
      } else if (name != string("rows")) {
        EXPECT_TRUE(in_pieces) << name << ": " << method;
      } else if (in_pieces) {
        // oneDNN transforms a part at a time where the processor's cache is large
        // enough for it: then there is nothing to save
        OneDNNConvolutionLayer* const rows =
            dynamic_cast<OneDNNConvolutionLayer*>(one->layer_by_name(name).get());
        EXPECT_EQ("Winograd", rows->Describe(OneDNNConvolutionLayer::FORWARD, all));
        for (const vector<int>& several : {single, bands}) {
          EXPECT_EQ("Winograd in pieces",
              rows->Describe(OneDNNConvolutionLayer::FORWARD, several));
        }
      }
    }
  }
}

TEST(RowBandsTest, ComeTogetherAgain) {
  const RowBands bands = {7, 3, 2, 4};
  vector<float> map(2 * 7 * 3), copy(map.size(), -1), band(2 * 4 * 3);
  for (size_t i = 0; i < map.size(); ++i) { map[i] = i + 1; }
  for (int first = 0; first < 7; first += 4) {
    bands.Cut(map.data(), first, band.data());
    bands.Paste(band.data(), first, copy.data());
  }
  EXPECT_EQ(map, copy);
  bands.Cut(map.data(), -1, band.data());
  EXPECT_EQ(vector<float>(3, 0), vector<float>(band.begin(), band.begin() + 3));
  EXPECT_EQ(map[0], band[3]);
  bands.Cut(map.data(), 5, band.data());
  EXPECT_EQ(map[7 * 3 - 1], band[5]);
  EXPECT_EQ(vector<float>(6, 0), vector<float>(band.begin() + 6, band.begin() + 12));
}

TEST(LargePageAllocatorTest, SmallAndLargeArrays) {
  for (size_t count : {1u, 1000u, (1u << 20) - 1, 1u << 20, (5u << 20) + 3}) {
    LargePageVector<float> values(count, 2);
    EXPECT_EQ(0u, reinterpret_cast<size_t>(values.data()) % 64);
    EXPECT_EQ(2, values.back());
    values.resize(2 * count);
    EXPECT_EQ(2, values[count - 1]);
    EXPECT_EQ(0, values.back());
    LargePageBuffer<float> untouched(count);
    untouched.back() = 3;
    EXPECT_EQ(3, untouched.back());
  }
}

}  // namespace caffe
