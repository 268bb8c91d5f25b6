#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/seg_accuracy_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"

#include "google/protobuf/text_format.h"

namespace caffe {

template <typename TypeParam>
class SegAccuracyLayerTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  SegAccuracyLayerTest() : top_(1, &result_) {
    bottom_.push_back(&scores_);
    bottom_.push_back(&labels_);
  }

  /// Labels and predictions of N x 1 x H x W, of so many classes.
  void Give(int classes, int num, int height, int width,
      const vector<int>& labels, const vector<int>& predictions) {
    scores_.Reshape(num, classes, height, width);
    labels_.Reshape(num, 1, height, width);
    const int plane = height * width;
    for (int i = 0; i < labels_.count(); ++i) {
      labels_.mutable_cpu_data()[i] = labels[i];
      for (int c = 0; c < classes; ++c) {
        scores_.mutable_cpu_data()[(i / plane * classes + c) * plane +
            i % plane] = c == predictions[i] ? 2 : -c;
      }
    }
  }
  LayerParameter Named(const string& fields) {
    LayerParameter parameter;
    parameter.set_name("score");
    CHECK(google::protobuf::TextFormat::ParseFromString(fields,
        parameter.mutable_seg_accuracy_param()));
    return parameter;
  }
  void ExpectScores(double accuracy, double recall, double overlap) {
    EXPECT_EQ("1 1 1 3 (3)", result_.shape_string());
    EXPECT_NEAR(accuracy, result_.cpu_data()[0], 1e-6);
    EXPECT_NEAR(recall, result_.cpu_data()[1], 1e-6);
    EXPECT_NEAR(overlap, result_.cpu_data()[2], 1e-6);
  }

  Blob<Dtype> scores_, labels_, result_;
  vector<Blob<Dtype>*> bottom_, top_;
};

TYPED_TEST_CASE(SegAccuracyLayerTest, TestDtypesAndDevices);

// Class 0: 2 of 3 found, 1 too many; class 1: 1 of 2, 1 too many; class 2 is
// neither there nor predicted; two ignored labels.
TYPED_TEST(SegAccuracyLayerTest, TestScores) {
  typedef typename TypeParam::Dtype Dtype;
  SegAccuracyLayer<Dtype> layer(
      this->Named("ignore_label: 255 ignore_label: 9"));
  this->Give(3, 1, 1, 7, {0, 0, 0, 1, 1, 255, 9}, {0, 0, 1, 1, 0, 2, 2});
  layer.SetUp(this->bottom_, this->top_);
  layer.Forward(this->bottom_, this->top_);
  this->ExpectScores(3 / 5., (2 / 3. + 1 / 2.) / 2,
      (2 / 4. + 1 / 3. + 1) / 3);
  // Another size, several images; the pass before is forgotten.
  this->Give(3, 2, 1, 2, {2, 1, 1, 1}, {2, 1, 1, 2});
  layer.Reshape(this->bottom_, this->top_);
  layer.Forward(this->bottom_, this->top_);
  this->ExpectScores(3 / 4., (1 + 2 / 3.) / 2, (1 + 2 / 3. + 1 / 2.) / 3);
}

TYPED_TEST(SegAccuracyLayerTest, TestAPassAfterTheOther) {
  typedef typename TypeParam::Dtype Dtype;
  SegAccuracyLayer<Dtype> layer(this->Named("reset: false"));
  this->Give(2, 1, 1, 2, {0, 1}, {0, 1});
  layer.SetUp(this->bottom_, this->top_);
  layer.Forward(this->bottom_, this->top_);
  this->ExpectScores(1, 1, 1);
  this->Give(2, 1, 1, 2, {0, 1}, {1, 0});
  layer.Forward(this->bottom_, this->top_);
  this->ExpectScores(1 / 2., 1 / 2., 1 / 3.);
}

TYPED_TEST(SegAccuracyLayerTest, TestOfEqualScoresTheLastClassCounts) {
  typedef typename TypeParam::Dtype Dtype;
  SegAccuracyLayer<Dtype> layer(this->Named(""));
  this->Give(3, 1, 1, 1, {2}, {0});
  caffe_set(3, Dtype(1), this->scores_.mutable_cpu_data());
  layer.SetUp(this->bottom_, this->top_);
  layer.Forward(this->bottom_, this->top_);
  this->ExpectScores(1, 1, 1);
}

TYPED_TEST(SegAccuracyLayerTest, TestNoPixelAtAll) {
  typedef typename TypeParam::Dtype Dtype;
  SegAccuracyLayer<Dtype> layer(this->Named("ignore_label: 0"));
  this->Give(2, 1, 1, 1, {0}, {0});
  layer.SetUp(this->bottom_, this->top_);
  layer.Forward(this->bottom_, this->top_);
  this->ExpectScores(0, 0, 1);
}

TYPED_TEST(SegAccuracyLayerTest, TestBadInputIsNamed) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  SegAccuracyLayer<Dtype> layer(this->Named(""));
  this->Give(3, 1, 2, 2, {0, 1, 2, 255}, {0, 0, 0, 0});
  layer.SetUp(this->bottom_, this->top_);
  EXPECT_DEATH(layer.Forward(this->bottom_, this->top_), "SegAccuracy layer "
      "'score': label 255 of image 0 at row 1, column 1 is none of the 3");
  EXPECT_DEATH(layer.Backward(this->top_, {true, false}, this->bottom_),
      "SegAccuracy layer 'score': scores have no gradient");
  this->labels_.Reshape(1, 1, 2, 3);
  EXPECT_DEATH(layer.Reshape(this->bottom_, this->top_), "SegAccuracy layer "
      "'score': labels of 1 1 2 3 \\(6\\) for scores of 1 3 2 2 \\(12\\)");
}

}  // namespace caffe
