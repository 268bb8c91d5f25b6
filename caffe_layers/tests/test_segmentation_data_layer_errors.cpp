// Each message names the layer, what was given and what was expected.
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include <opencv2/core/core.hpp>

#include "boost/filesystem.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/proto/caffe.pb.h"

#include "image_bombs.hpp"
#include "segmentation_data_fixture.hpp"

namespace caffe {

TYPED_TEST(SegmentationDataLayerTest, TestBadParameters) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const string layer = "SegmentationData layer 'data': ";
  this->ExpectDeathAtSetUp(layer + "no source given; expected the folder");
  this->AddSource("split", this->SmallScenes(1));
  const LayerParameter good(this->param_);
  this->data_param()->set_batch_size(0);
  this->ExpectDeathAtSetUp(layer + "batch_size 0 given; expected 1 to");
  this->data_param()->set_batch_size(2);
  this->ExpectDeathAtSetUp(
      layer + "batch_size 2 given without a crop; expected batch_size 1");
  this->data_param()->set_crop_height(5);
  this->ExpectDeathAtSetUp(
      layer + "crop_height 5 and crop_width 0 given; expected both 0");
  this->param_ = good;
  this->data_param()->add_mean_value(1);
  this->data_param()->add_mean_value(2);
  this->ExpectDeathAtSetUp(
      layer + "2 mean_value fields given; expected none, 1 .* or 3");
  this->param_ = good;
  this->data_param()->add_mean_value(NAN);
  this->ExpectDeathAtSetUp(layer + "mean_value -?nan given; expected a finite");
  this->param_ = good;
  for (const float scale : {NAN, INFINITY, 0.f}) {
    this->data_param()->set_scale(scale);
    this->ExpectDeathAtSetUp(layer + "scale .* given; expected a finite");
  }
  this->param_ = good;
  this->data_param()->set_prefetch(0);
  this->ExpectDeathAtSetUp(layer + "prefetch 0 given; expected 1 to 1024");
  this->param_ = good;
  this->data_param()->set_prefetch_threads(0);
  this->ExpectDeathAtSetUp(layer + "prefetch_threads 0 given; expected 1");
  this->data_param()->set_prefetch_threads(4000000000u);
  this->ExpectDeathAtSetUp(layer + "prefetch_threads 4000000000 given; expected 1 to 1024");
  this->param_ = good;
  this->data_param()->set_prefetch(4000000000u);
  this->ExpectDeathAtSetUp(layer + "prefetch 4000000000 given; expected 1 to 1024");
  this->param_ = good;
  this->data_param()->set_batch_size(4000000000u);
  this->ExpectDeathAtSetUp(layer + "batch_size 4000000000 given; expected 1 to");
  this->data_param()->set_batch_size(1000);
  this->data_param()->set_crop_height(100000);
  this->data_param()->set_crop_width(100000);
  this->ExpectDeathAtSetUp(layer + "prefetch 4 batches of batch_size 1000, .* take [0-9]* MB, and this machine has");
  this->param_ = good;
  this->data_param()->set_ignore_label(300);
  this->ExpectDeathAtSetUp(layer + "ignore_label 300 given; expected 0 to 255");
  this->param_ = good;
  this->param_.mutable_transform_param()->set_mirror(true);
  this->ExpectDeathAtSetUp(layer + "transform_param given; expected");
}

TYPED_TEST(SegmentationDataLayerTest, TestBadAugmentation) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  this->AddSource("split", this->SmallScenes(1));
  const LayerParameter good(this->param_);
  struct Case { string field, given, expected; };
  const Case cases[] = {
    {"scale_min", "0", "0.1 to 10"}, {"scale_min", "nan", "0.1 to 10"},
    {"scale_max", "10.5", "0.1 to 10"}, {"scale_max", "inf", "0.1 to 10"},
    {"aspect", "0.9", "1 to 2"}, {"aspect", "nan", "1 to 2"},
    {"rotation", "-1", "0 to 180"}, {"rotation", "181", "0 to 180"},
    {"rotation", "nan", "0 to 180"}, {"brightness", "1.1", "0 to 1"},
    {"brightness", "nan", "0 to 1"}, {"contrast", "-0.1", "0 to 1"},
    {"contrast", "nan", "0 to 1"}, {"saturation", "2", "0 to 1"},
    {"saturation", "nan", "0 to 1"}, {"hue", "200", "0 to 180"},
    {"hue", "nan", "0 to 180"}, {"blur", "21", "0 to 20"},
    {"blur", "-1", "0 to 20"}, {"blur", "nan", "0 to 20"},
    {"cutout", "101", "0 to 100"}, {"cutout_size", "1.5", "0 to 1"},
    {"cutout_size", "nan", "0 to 1"},
  };
  for (const Case& bad : cases) {
    this->param_ = good;
    ASSERT_TRUE(google::protobuf::TextFormat::MergeFromString(
        bad.field + ": " + bad.given, this->data_param()));
    this->ExpectDeathAtSetUp("SegmentationData layer 'data': " + bad.field +
        " " + bad.given + " given; expected " + bad.expected);
  }
  this->param_ = good;
  this->data_param()->set_scale_min(2);
  this->ExpectDeathAtSetUp("SegmentationData layer 'data': scale_min 2 and "
      "scale_max 1 given; expected the smaller one first");
}

TYPED_TEST(SegmentationDataLayerTest, TestBadDatabase) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const string layer = "SegmentationData layer 'data': ";
  const string split = this->folder_ + "/split";
  const string images = split + "/images.lmdb", labels = split + "/labels.lmdb";
  this->data_param()->add_source(split);
  this->ExpectDeathAtSetUp(
      layer + "there is no LMDB '.*/split/images.lmdb'; expected a folder");
  WriteSplit(split, vector<Scene>());
  this->ExpectDeathAtSetUp(layer + "source '.*/split' is empty");

  const string bytes = Encode(MakeScene(4, 5, 0).image, ".png");
  boost::filesystem::remove_all(images);
  WriteLmdb(images, vector<string>(1, "first"), vector<string>(1, bytes));
  this->ExpectDeathAtSetUp(layer + "source '.*/split' has 1 images and 0 "
      "labels, and number 0 is image 'first' and label ''");
  boost::filesystem::remove_all(labels);
  this->ExpectDeathAtSetUp(layer + "there is no LMDB '.*/split/labels.lmdb'");
  WriteLmdb(labels, vector<string>(1, "other"), vector<string>(1, bytes));
  this->ExpectDeathAtSetUp(layer + "source '.*/split' has 1 images and 1 "
      "labels, and number 0 is image 'first' and label 'other'");

  boost::filesystem::remove(images + "/data.mdb");
  std::ofstream((images + "/data.mdb").c_str()) << "no database at all";
  this->ExpectDeathAtSetUp(layer + "cannot open the LMDB '.*/images.lmdb': ");
}

// What is wrong with one item comes to light in a prefetch thread.
TYPED_TEST(SegmentationDataLayerTest, TestBadItem) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const Scene scene = MakeScene(4, 5, 0), larger = MakeScene(4, 6, 0);
  const string image = Encode(scene.image, ".png");
  const string label = Encode(scene.label, ".png");
  cv::Mat deep;
  scene.label.convertTo(deep, CV_16U);
  const string split = this->folder_ + "/split";
  this->data_param()->add_source(split);
  this->SetCrop(4, 4, 2);  // with whole images the first one is read at set-up
  struct Case {
    string image, label;
    bool encoded;
    string message;
  };
  const Case cases[] = {
    {"no image", label, true, "the image cannot be decoded"},
    {"", label, true, "the image cannot be decoded"},
    {image.substr(0, 20), label, true, "the image cannot be decoded"},
    {image, "no image", true, "the label cannot be decoded"},
    {image, label, false, "the image's Datum holds raw pixels"},
    {image, image, true, "the label has 3 channel.s. of 8 bits; expected 1"},
    {image, Encode(deep, ".png"), true,
        "the label has 1 channel.s. of 16 bits; expected 1"},
    {image, Encode(larger.label, ".png"), true,
        "the label has height 4 and width 6; expected the image's 4 and 5"},
    // told by the header: there are no such pixels to decode
    {PngBomb(image, 13000, 14000), label, true, "the image has height 13000 "
        "and width 14000; expected at most 89478485 pixels"},
    {image, PngBomb(label, 30000, 30000), true, "the label has height 30000 "
        "and width 30000; expected at most 89478485 pixels"},
    {JpegBomb(Encode(scene.image, ".jpg"), 13000, 13000), label, true,
        "the image has height 13000 and width 13000; expected at most"},
    {PngBomb(image, 60000, 60000), label, true, "the image cannot be decoded"},
  };
  for (const Case& bad : cases) {
    boost::filesystem::remove_all(split);
    boost::filesystem::create_directories(split);
    const vector<string> key(1, "00000000_broken");
    WriteLmdb(split + "/images.lmdb", key, vector<string>(1, bad.image),
        bad.encoded);
    WriteLmdb(split + "/labels.lmdb", key, vector<string>(1, bad.label));
    this->ExpectDeathAtForward("SegmentationData layer 'data': "
        "'00000000_broken' of source '.*/split': " + bad.message);
  }
}

TYPED_TEST(SegmentationDataLayerTest, TestBadResume) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  this->AddSource("split", this->SmallScenes(1));
  Reader<Dtype> reader(this->param_);
  EXPECT_DEATH(reader.layer.ResumeAt(-1), "layer 'data': cannot resume at "
      "forward pass -1; expected 0 or more");
}

}  // namespace caffe
