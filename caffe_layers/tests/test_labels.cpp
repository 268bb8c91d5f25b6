#include <limits>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/util/labels.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

// A layer over scores and labels, its two bottoms: 2 images of 3 x 4 pixels and 3 classes or, where a layer knows no
// pixels, 4 samples and 3 classes.
template <typename TypeParam>
class LabelsTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  LabelsTest() : scores_(2, 3, 3, 4), labels_(2, 1, 3, 4), infogain_(1, 1, 3, 3) {
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";  // a forked process cannot use the GPU
  }

  void Flatten() {
    scores_.Reshape({4, 3});
    labels_.Reshape({4, 1, 1, 1});
  }

  // Forward and Backward with `value` at one place and 0, 1, 2, ... elsewhere.
  void Run(const string& text, int place, Dtype value, int top_count = 1) {
    LayerParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString("name: 'head' " + text, &param));
    FillerParameter filler_param;
    filler_param.set_min(0.1);
    filler_param.set_max(0.9);
    UniformFiller<Dtype> filler(filler_param);
    filler.Fill(&scores_);
    filler.Fill(&infogain_);
    for (int i = 0; i < labels_.count(); ++i) { labels_.mutable_cpu_data()[i] = i % 3; }
    labels_.mutable_cpu_data()[place] = value;
    vector<Blob<Dtype>*> bottom = {&scores_, &labels_};
    if (param.type() == "InfogainLoss") { bottom.push_back(&infogain_); }
    if (param.type() == "Embed") { bottom = {&labels_}; }
    Blob<Dtype> first, second;
    vector<Blob<Dtype>*> top = {&first, &second};
    top.resize(top_count);
    shared_ptr<Layer<Dtype> > layer = LayerRegistry<Dtype>::CreateLayer(param);
    layer->SetUp(bottom, top);
    layer->Forward(bottom, top);
    loss_ = first.cpu_data()[0];
    if (param.type() == "Accuracy") { return; }
    caffe_set(first.count(), Dtype(1), first.mutable_cpu_diff());
    layer->Backward(top, vector<bool>({param.type() != "Embed", false, false}), bottom);
  }

  void ExpectDeath(const string& text, int place, Dtype value, const string& message, int top_count = 1) {
    EXPECT_DEATH(Run(text, place, value, top_count), message);
  }

  Blob<Dtype> scores_, labels_, infogain_;
  Dtype loss_;
};

TYPED_TEST_CASE(LabelsTest, TestDtypesAndDevices);

TYPED_TEST(LabelsTest, TestLossNamesLayerValuePlaceAndClasses) {
  this->ExpectDeath("type: 'SoftmaxWithLoss'", 1 * 12 + 2 * 4 + 3, 255,
      "SoftmaxWithLoss layer 'head': label 255 in image 1 of the batch, row 2, column 3 is no class: expected 0 to 2 "
      "\\(3 classes\\); to leave such pixels out, set loss_param \\{ ignore_label: 255 \\}");
  this->ExpectDeath("type: 'InfogainLoss'", 0, 3, "InfogainLoss layer 'head': label 3 .*\\(3 classes\\); to leave");
}

TYPED_TEST(LabelsTest, TestIgnoredLabelDoesNotLetOthersPass) {
  for (const string type : {"SoftmaxWithLoss", "InfogainLoss"}) {
    const string text = "type: '" + type + "' loss_param { ignore_label: 255 }";
    this->ExpectDeath(text, 5, 254, "label 254 .*\\(3 classes\\), or 255, which is ignored");
    this->Run(text, 5, 255);
    EXPECT_GT(this->loss_, 0);
  }
}

TYPED_TEST(LabelsTest, TestNegativeAndNoNumber) {
  typedef typename TypeParam::Dtype Dtype;
  for (const string type : {"SoftmaxWithLoss", "InfogainLoss", "Accuracy"}) {
    this->ExpectDeath("type: '" + type + "'", 7, -1, "label -1 .*expected 0 to 2");
    this->ExpectDeath("type: '" + type + "'", 7, std::numeric_limits<Dtype>::quiet_NaN(), "label -?nan .*expected 0 to 2");
    this->ExpectDeath("type: '" + type + "'", 7, Dtype(1e20), "label 1e\\+20 .*expected 0 to 2");
  }
}

TYPED_TEST(LabelsTest, TestAccuracy) {
  this->ExpectDeath("type: 'Accuracy'", 0, 3,
      "Accuracy layer 'head': label 3 in image 0 of the batch, row 0, column 0.*accuracy_param \\{ ignore_label: 3 \\}");
  this->ExpectDeath("type: 'Accuracy'", 23, 255, "label 255 in image 1 of the batch, row 2, column 3", 2);
  this->Run("type: 'Accuracy' accuracy_param { ignore_label: 255 }", 23, 255, 2);
}

TYPED_TEST(LabelsTest, TestLossesOfSamples) {
  this->Flatten();
  this->ExpectDeath("type: 'MultinomialLogisticLoss'", 3, 3, "MultinomialLogisticLoss layer 'head': label 3 .*3 classes");
  this->ExpectDeath("type: 'HingeLoss'", 3, -2, "HingeLoss layer 'head': label -2 .*\\(3 classes\\)\n");
  this->Run("type: 'HingeLoss'", 3, 1);
}

TYPED_TEST(LabelsTest, TestEmbed) {
  this->Flatten();
  const string text = "type: 'Embed' embed_param { num_output: 2 input_dim: 3 weight_filler { type: 'uniform' } }";
  this->ExpectDeath(text, 2, 3, "Embed layer 'head': label 3 .*\\(3 classes\\)");
  this->Run(text, 2, 2);
}

}  // namespace caffe
