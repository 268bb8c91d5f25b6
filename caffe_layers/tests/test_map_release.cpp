#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/onednn_conv_layer.hpp"
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
string Layers() {
  return Convolution("a", "data", 16) + Described("ra", "a", "a", "type: 'ReLU'")
      + Convolution("b", "a", 32, "pad: 2 dilation: 2")
      + Described("rb", "b", "b", "type: 'ReLU'")
      + Described("pool", "b", "pool", "type: 'Pooling' pooling_param "
          "{ kernel_size: 2 stride: 2 }")
      + Convolution("c", "pool", 32) + Convolution("d", "c", 32)
      + Described("sum", "c' bottom: 'd", "sum", "type: 'Eltwise'")
      + Described("flat", "sum", "flat", "type: 'Flatten'")
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

template <typename Dtype>
class OneDNNMapReleaseTest : public CPUDeviceTest<Dtype> {
 protected:
  virtual void SetUp() { Caffe::set_random_seed(1701); }

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

TYPED_TEST_CASE(OneDNNMapReleaseTest, TestDtypes);

TYPED_TEST(OneDNNMapReleaseTest, SameResultsWhateverTheSizes) {
  // without the last layer, which takes one size
  const string layers = Layers().substr(0, Layers().find("layer { name: 'flat'"));
  shared_ptr<Net<TypeParam> > net = Made<TypeParam>(layers, {1, 5, 12, 16});
  shared_ptr<Net<TypeParam> > other = Made<TypeParam>(layers, {1, 5, 12, 16});
  other->ShareTrainedLayersWith(net.get());
  net->ReleaseMaps();
  const vector<int> shapes[] = {{1, 5, 12, 16}, {1, 5, 40, 31}, {2, 5, 7, 9},
      {1, 5, 12, 16}, {3, 5, 60, 60}};
  for (const vector<int>& shape : shapes) {
    for (int pass = 0; pass < 2; ++pass) {
      this->ExpectSame(net.get(), other.get(), shape);
    }
  }
}

TYPED_TEST(OneDNNMapReleaseTest, MapsAreGoneAndInputsAndOutputsAreNot) {
  shared_ptr<Net<TypeParam> > net = Made<TypeParam>(Layers(), {1, 5, 12, 16});
  net->ReleaseMaps();
  Fill(net->input_blobs()[0]);
  const vector<TypeParam> input(net->input_blobs()[0]->cpu_data(),
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

TYPED_TEST(OneDNNMapReleaseTest, WhatNumPyHoldsStays) {
  shared_ptr<Net<TypeParam> > net = Made<TypeParam>(Layers(), {1, 5, 12, 16});
  shared_ptr<Net<TypeParam> > other = Made<TypeParam>(Layers(), {1, 5, 12, 16});
  other->ShareTrainedLayersWith(net.get());
  net->ReleaseMaps();
  const shared_ptr<Blob<TypeParam> > held = net->blob_by_name("c");
  held->data()->Expose();
  const TypeParam* const pointer = held->mutable_cpu_data();
  this->ExpectSame(net.get(), other.get(), {1, 5, 12, 16});
  const Blob<TypeParam>& expected = *other->blob_by_name("c");
  for (int i = 0; i < expected.count(); ++i) {
    ASSERT_NEAR(expected.cpu_data()[i], pointer[i], 1e-4);
  }
}

TYPED_TEST(OneDNNMapReleaseTest, WeightsAreThereForWhoAsks) {
  shared_ptr<Net<TypeParam> > net = Made<TypeParam>(Layers(), {1, 5, 12, 16});
  NetParameter before, after;
  net->ToProto(&before);
  net->ReleaseMaps();
  Fill(net->input_blobs()[0]);
  net->Forward();
  net->ToProto(&after);
  EXPECT_EQ(before.SerializeAsString(), after.SerializeAsString());
  // new weights are the ones that count
  shared_ptr<Net<TypeParam> > other = Made<TypeParam>(Layers(), {1, 5, 12, 16});
  other->ToProto(&after);
  net->CopyTrainedLayersFrom(after);
  this->ExpectSame(net.get(), other.get(), {1, 5, 12, 16});
}

TYPED_TEST(OneDNNMapReleaseTest, NoTrainingAndNoBackward) {
  EXPECT_DEATH(Made<TypeParam>(Layers(), {1, 5, 12, 16}, "TRAIN")->ReleaseMaps(),
      "needs its maps for backward");
  shared_ptr<Net<TypeParam> > net = Made<TypeParam>(Layers(), {1, 5, 12, 16});
  net->ReleaseMaps();
  net->Forward();
  EXPECT_DEATH(net->Backward(), "maps that backward needs were let go");
}

class OneDNNConvolutionInPiecesTest : public OneDNNMapReleaseTest<float> {};

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
  const vector<int> shape = {1, 128, 190, 251};
  shared_ptr<Net<float> > net = Made<float>(layers, shape);
  shared_ptr<Net<float> > other = Made<float>(layers, shape);
  other->ShareTrainedLayersWith(net.get());
  net->ReleaseMaps();
  this->ExpectSame(net.get(), other.get(), shape);
  this->ExpectSame(net.get(), other.get(), {1, 128, 187, 200});
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
      EXPECT_EQ(one == net.get(), method.find("in pieces") != string::npos)
          << name << ": " << method;
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
