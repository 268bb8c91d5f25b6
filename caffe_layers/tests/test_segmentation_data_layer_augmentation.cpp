// What each kind of augmentation does to scenes that show it.
#include <algorithm>
#include <cmath>
#include <vector>

#include <opencv2/core/core.hpp>

#include "gtest/gtest.h"

#include "caffe/data/sample_order.hpp"
#include "caffe/proto/caffe.pb.h"

#include "segmentation_data_fixture.hpp"

namespace caffe {

namespace {

const int kStep = 4;   // grey levels from pixel to pixel of a Chart
const int kChart = 64;  // its height and width
const int kBlock = 8;  // height and width of a class

// Blue says the column and green the row; the class says the block of both.
Scene Chart() {
  Scene scene;
  scene.image.create(kChart, kChart, CV_8UC3);
  scene.label.create(kChart, kChart, CV_8UC1);
  for (int y = 0; y < kChart; ++y) {
    for (int x = 0; x < kChart; ++x) {
      scene.image.at<cv::Vec3b>(y, x) = cv::Vec3b(kStep * x, kStep * y, 128);
      scene.label.at<uchar>(y, x) = y / kBlock * kBlock + x / kBlock;
    }
  }
  return scene;
}

Scene Plain(int height, int width, const cv::Vec3b& colour, int label) {
  Scene scene;
  scene.image.create(height, width, CV_8UC3);
  scene.image.setTo(cv::Scalar(colour[0], colour[1], colour[2]));
  scene.label.create(height, width, CV_8UC1);
  scene.label.setTo(cv::Scalar(label));
  return scene;
}

// How a crop of the Chart was turned and stretched, seen at its middle.
struct Geometry {
  double scale_x, scale_y, angle;
};

template <typename Dtype>
Geometry Measure(const Reader<Dtype>& reader, int n) {
  const int y = reader.data.height() / 2, x = reader.data.width() / 2;
  const int kReach = 3;
  auto slope = [&](int channel, int down, int right) {
    return (reader.data.data_at(n, channel, y + down, x + right) -
        reader.data.data_at(n, channel, y - down, x - right)) /
        (2. * kReach * kStep);
  };
  const double xx = slope(0, 0, kReach), yx = slope(1, 0, kReach);
  const double xy = slope(0, kReach, 0), yy = slope(1, kReach, 0);
  const Geometry geometry =
      {1 / std::hypot(xx, yx), 1 / std::hypot(xy, yy), std::atan2(xy, yy)};
  return geometry;
}

template <typename Dtype>
vector<Geometry> MeasureAll(const LayerParameter& param, int passes) {
  Reader<Dtype> reader(param);
  vector<Geometry> all;
  for (int pass = 0; pass < passes; ++pass) {
    reader.Forward();
    for (int n = 0; n < reader.data.num(); ++n) {
      all.push_back(Measure(reader, n));
    }
  }
  return all;
}

template <typename Dtype>
vector<vector<Dtype> > Labels(const LayerParameter& param, int passes) {
  Reader<Dtype> reader(param);
  vector<vector<Dtype> > labels;
  for (int pass = 0; pass < passes; ++pass) {
    reader.Forward();
    const Dtype* const values = reader.label.cpu_data();
    labels.push_back(vector<Dtype>(values, values + reader.label.count()));
  }
  return labels;
}

}  // namespace

// --- Geometry ---

// Where a pixel's colour says that it comes from, its label is at home, too;
// also in the reflections around a crop that is larger than the image.
TYPED_TEST(SegmentationDataLayerTest, TestLabelMovesWithImage) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", vector<Scene>(1, Chart()));
  this->data_param()->set_mirror(true);
  this->data_param()->set_scale_min(0.3);
  this->data_param()->set_scale_max(3);
  this->data_param()->set_aspect(1.5);
  this->data_param()->set_rotation(40);
  for (const int crop : {0, 24, 90}) {
    this->SetCrop(crop, crop, crop == 0 ? 1 : 4);
    Reader<Dtype> reader(this->param_);
    for (int pass = 0; pass < 10; ++pass) {
      reader.Forward();
      for (int n = 0; n < reader.data.num(); ++n) {
        for (int y = 0; y < reader.data.height(); ++y) {
          for (int x = 0; x < reader.data.width(); ++x) {
            const double column = reader.data.data_at(n, 0, y, x) / kStep;
            const double row = reader.data.data_at(n, 1, y, x) / kStep;
            const int label = reader.label.data_at(n, 0, y, x);
            const double kOff = 1.5;  // folds are smoothed
            ASSERT_GE(column + kOff, label % kBlock * kBlock);
            ASSERT_LE(column - kOff, label % kBlock * kBlock + kBlock - 1);
            ASSERT_GE(row + kOff, label / kBlock * kBlock);
            ASSERT_LE(row - kOff, label / kBlock * kBlock + kBlock - 1);
          }
        }
      }
    }
  }
}

TYPED_TEST(SegmentationDataLayerTest, TestRangesOfGeometry) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", vector<Scene>(1, Chart()));
  this->SetCrop(9, 9, 10);
  const LayerParameter plain(this->param_);

  this->data_param()->set_scale_min(0.5);
  this->data_param()->set_scale_max(2);
  int below_1 = 0;
  double least = 9, most = 0;
  for (const Geometry& one : MeasureAll<Dtype>(this->param_, 20)) {
    EXPECT_NEAR(one.scale_x, one.scale_y, 0.15 * one.scale_x);
    EXPECT_NEAR(0, one.angle, 1e-6);
    least = std::min(least, one.scale_x);
    most = std::max(most, one.scale_x);
    below_1 += one.scale_x < 1;
  }
  EXPECT_NEAR(0.5, least, 0.05);
  EXPECT_NEAR(2, most, 0.15);
  EXPECT_NEAR(100, below_1, 35);  // of 200, sigma 7

  this->param_ = plain;
  this->data_param()->set_aspect(2);
  least = 9, most = 0;
  for (const Geometry& one : MeasureAll<Dtype>(this->param_, 20)) {
    EXPECT_NEAR(1, one.scale_x * one.scale_y, 0.15);
    least = std::min(least, one.scale_x / one.scale_y);
    most = std::max(most, one.scale_x / one.scale_y);
  }
  EXPECT_NEAR(0.5, least, 0.1);
  EXPECT_NEAR(2, most, 0.2);

  this->param_ = plain;
  this->data_param()->set_rotation(30);
  least = 9, most = -9;
  for (const Geometry& one : MeasureAll<Dtype>(this->param_, 20)) {
    EXPECT_NEAR(1, one.scale_x, 0.1);
    EXPECT_NEAR(1, one.scale_y, 0.1);
    least = std::min(least, one.angle);
    most = std::max(most, one.angle);
  }
  EXPECT_NEAR(-30 * CV_PI / 180, least, 0.07);
  EXPECT_NEAR(30 * CV_PI / 180, most, 0.07);
}

// Columns that alternate become grey, where taking single ones would show
// stripes of any width.
TYPED_TEST(SegmentationDataLayerTest, TestShrinkingDoesNotAlias) {
  typedef typename TypeParam::Dtype Dtype;
  Scene scene = Plain(120, 120, cv::Vec3b(0, 0, 0), 0);
  for (int x = 0; x < 120; x += 2) {
    scene.image.col(x).setTo(cv::Scalar(255, 255, 255));
  }
  this->AddSource("split", vector<Scene>(1, scene));
  for (const float scale : {0.5f, 0.4f, 0.3f, 0.25f, 0.15f}) {
    this->data_param()->set_scale_min(scale);
    this->data_param()->set_scale_max(scale);
    Reader<Dtype> reader(this->param_);
    reader.Forward();
    for (int x = 1; x + 1 < reader.data.width(); ++x) {
      EXPECT_NEAR(127.5, reader.data.data_at(0, 0, 5, x), 45) << scale;
    }
  }
}

// A whole image changes its size; twice as large, each label fills 2 x 2 pixels.
TYPED_TEST(SegmentationDataLayerTest, TestWholeImagesAreScaled) {
  typedef typename TypeParam::Dtype Dtype;
  const Scene scene = MakeScene(6, 9, 0);
  this->AddSource("split", vector<Scene>(1, scene));
  this->data_param()->set_scale_min(2);
  this->data_param()->set_scale_max(2);
  Reader<Dtype> reader(this->param_);
  reader.Forward();
  ASSERT_EQ(12, reader.data.height());
  ASSERT_EQ(18, reader.data.width());
  ASSERT_EQ(12, reader.label.height());
  ASSERT_EQ(18, reader.label.width());
  for (int y = 0; y < 12; ++y) {
    for (int x = 0; x < 18; ++x) {
      EXPECT_EQ(scene.label.at<uchar>(y / 2, x / 2),
          reader.label.data_at(0, 0, y, x));
    }
  }
}

// No pixel's value changes where the crop is only moved and flipped, and beyond
// the image there is the mean and no class.
TYPED_TEST(SegmentationDataLayerTest, TestIgnoredPadding) {
  typedef typename TypeParam::Dtype Dtype;
  const Scene scene = MakeScene(5, 12, 0);
  this->AddSource("split", vector<Scene>(1, scene));
  this->SetCrop(8, 7, 4);
  this->data_param()->set_mirror(true);
  this->data_param()->set_ignore_label(77);
  for (const int mean : {10, 20, 30}) {
    this->data_param()->add_mean_value(mean);
  }
  const vector<vector<Dtype> > reflected =
      Reader<Dtype>(this->param_).Next(10);
  this->data_param()->set_padding(SegmentationDataParameter::IGNORED);
  Reader<Dtype> reader(this->param_);
  for (int pass = 0; pass < 10; ++pass) {
    vector<Dtype> expected = reflected[pass];
    for (size_t i = 0; i < expected.size(); ++i) {
      const bool label = i >= 4 * 3 * 8 * 7;
      if (i / 7 % 8 >= 5) { expected[i] = label ? 77 : 0; }
    }
    EXPECT_EQ(expected, reader.Next());
  }
}

// What turns in from beyond a whole image's corners is ignored, too.
TYPED_TEST(SegmentationDataLayerTest, TestIgnoredCornersOfTurnedImages) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", vector<Scene>(1,
      Plain(40, 40, cv::Vec3b(200, 200, 200), 4)));
  this->data_param()->add_mean_value(100);
  this->data_param()->set_rotation(180);
  for (const bool ignored : {false, true}) {
    if (ignored) {
      this->data_param()->set_padding(SegmentationDataParameter::IGNORED);
    }
    Reader<Dtype> reader(this->param_);
    int cut = 0;
    for (int pass = 0; pass < 20; ++pass) {
      reader.Forward();
      EXPECT_EQ(100, reader.data.data_at(0, 0, 20, 20));
      EXPECT_EQ(4, reader.label.data_at(0, 0, 20, 20));
      for (const int y : {0, 39}) {
        for (const int x : {0, 39}) {
          const bool beyond = reader.label.data_at(0, 0, y, x) == 255;
          cut += beyond;
          EXPECT_EQ(beyond, reader.data.data_at(0, 0, y, x) < 50);
        }
      }
    }
    EXPECT_EQ(ignored, cut > 40);
    EXPECT_EQ(ignored, cut > 0);
  }
}

// --- One kind and another ---

// What is switched on does not move the others' draws: geometry shows in labels.
TYPED_TEST(SegmentationDataLayerTest, TestKindsAreIndependent) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", this->SmallScenes(5));
  this->SetCrop(4, 4, 4);
  this->data_param()->set_shuffle(true);
  this->data_param()->set_mirror(true);
  const vector<vector<Dtype> > plain = Labels<Dtype>(this->param_, 10);
  this->data_param()->set_brightness(0.5);
  this->data_param()->set_hue(90);
  this->data_param()->set_blur(2);
  this->data_param()->set_cutout(2);
  this->data_param()->set_cutout_keeps_label(true);
  EXPECT_EQ(plain, Labels<Dtype>(this->param_, 10));
  this->data_param()->set_rotation(180);
  const vector<vector<Dtype> > turned = Labels<Dtype>(this->param_, 10);
  EXPECT_NE(plain, turned);
  this->data_param()->clear_brightness();
  this->data_param()->clear_hue();
  this->data_param()->clear_blur();
  this->data_param()->clear_cutout();
  EXPECT_EQ(turned, Labels<Dtype>(this->param_, 10));
}

// --- Colour ---

TYPED_TEST(SegmentationDataLayerTest, TestColours) {
  typedef typename TypeParam::Dtype Dtype;
  const int kSamples = 30;
  const SampleOrder order(0, 1, false);
  auto draw = [&](SampleOrder::Purpose purpose, int n, double range) {
    return order.Uniform(n, purpose, -range, range);
  };
  // Left half 50, right half 110, in blue, green and red alike; and red.
  Scene greys = Plain(4, 8, cv::Vec3b(50, 50, 50), 3);
  greys.image.colRange(4, 8).setTo(cv::Scalar(110, 110, 110));
  const Scene red = Plain(4, 8, cv::Vec3b(0, 0, 150), 3);
  this->AddSource("greys", vector<Scene>(1, greys));
  const LayerParameter plain(this->param_);
  {
    this->data_param()->set_brightness(0.5);
    Reader<Dtype> reader(this->param_);
    for (int n = 0; n < kSamples; ++n) {
      reader.Forward();
      const double factor = 1 + draw(SampleOrder::BRIGHTNESS, n, 0.5);
      EXPECT_NEAR(50 * factor, reader.data.data_at(0, 0, 0, 0), 1);
      EXPECT_NEAR(110 * factor, reader.data.data_at(0, 2, 3, 7), 1);
      EXPECT_EQ(3, reader.label.data_at(0, 0, 0, 0));
    }
  }
  {
    this->param_ = plain;
    this->data_param()->set_contrast(1);
    Reader<Dtype> reader(this->param_);
    for (int n = 0; n < kSamples; ++n) {
      reader.Forward();
      const double factor = 1 + draw(SampleOrder::CONTRAST, n, 1);
      EXPECT_NEAR(80 - 30 * factor, reader.data.data_at(0, 0, 0, 0), 1);
      EXPECT_NEAR(80 + 30 * factor, reader.data.data_at(0, 1, 3, 7), 1);
    }
  }
  {
    this->param_ = plain;
    this->data_param()->set_saturation(1);
    this->data_param()->set_hue(180);
    Reader<Dtype> reader(this->param_);
    for (int n = 0; n < kSamples; ++n) {
      reader.Forward();
      for (int c = 0; c < 3; ++c) {
        EXPECT_NEAR(50, reader.data.data_at(0, c, 0, 0), 1);
        EXPECT_NEAR(110, reader.data.data_at(0, c, 3, 7), 1);
      }
    }
  }
  WriteSplit(this->folder_ + "/red", vector<Scene>(1, red));
  {
    this->param_ = plain;
    this->data_param()->set_source(0, this->folder_ + "/red");
    this->data_param()->set_saturation(1);
    Reader<Dtype> reader(this->param_);
    for (int n = 0; n < kSamples; ++n) {
      reader.Forward();
      const double factor = 1 + draw(SampleOrder::SATURATION, n, 1);
      const double grey = 0.299 * 150;
      EXPECT_NEAR(std::max(grey - grey * factor, 0.),
          reader.data.data_at(0, 0, 0, 0), 1);
      EXPECT_NEAR(std::min(grey + (150 - grey) * factor, 255.),
          reader.data.data_at(0, 2, 0, 0), 1);
    }
  }
  {
    this->param_ = plain;
    this->data_param()->set_source(0, this->folder_ + "/red");
    this->data_param()->set_hue(180);
    Reader<Dtype> reader(this->param_);
    for (int n = 0; n < kSamples; ++n) {
      reader.Forward();
      const double hue = draw(SampleOrder::HUE, n, 180) * CV_PI / 180;
      // Each channel by its distance from red on the circle: blue, green, red.
      for (int c = 0; c < 3; ++c) {
        const double value =
            150 * (1 + 2 * std::cos(hue + (c - 2) * 2 * CV_PI / 3)) / 3;
        EXPECT_NEAR(std::max(value, 0.), reader.data.data_at(0, c, 0, 0), 1);
      }
    }
  }
}

// --- Blur ---

TYPED_TEST(SegmentationDataLayerTest, TestBlur) {
  typedef typename TypeParam::Dtype Dtype;
  const int kSize = 41, kSamples = 20;
  const SampleOrder order(0, 1, false);
  Scene scene = Plain(kSize, kSize, cv::Vec3b(0, 0, 0), 2);
  scene.image.row(kSize / 2).setTo(cv::Scalar(250, 250, 250));
  scene.label.row(kSize / 2).setTo(cv::Scalar(5));
  this->AddSource("split", vector<Scene>(1, scene));
  this->data_param()->set_blur(3);
  Reader<Dtype> reader(this->param_);
  for (int n = 0; n < kSamples; ++n) {
    reader.Forward();
    const double deviation = order.Uniform(n, SampleOrder::BLUR, 0, 3);
    double sum = 0, square = 0;
    for (int y = 0; y < kSize; ++y) {
      const double value = reader.data.data_at(0, 1, y, 7);
      sum += value;
      square += value * (y - kSize / 2) * (y - kSize / 2);
      EXPECT_EQ(y == kSize / 2 ? 5 : 2, reader.label.data_at(0, 0, y, 7));
    }
    EXPECT_NEAR(250, sum, 10);
    if (deviation > 0.5) {  // wider than a pixel
      EXPECT_NEAR(deviation, std::sqrt(square / sum), 0.15 * deviation);
    }
  }
}

// --- Cut-out ---

TYPED_TEST(SegmentationDataLayerTest, TestCutOut) {
  typedef typename TypeParam::Dtype Dtype;
  const int kHeight = 20, kWidth = 30, kSamples = 60;
  this->AddSource("split", vector<Scene>(1,
      Plain(kHeight, kWidth, cv::Vec3b(200, 200, 200), 4)));
  this->data_param()->add_mean_value(100);
  this->data_param()->set_ignore_label(77);
  this->data_param()->set_cutout(1);
  this->data_param()->set_cutout_size(0.5);
  for (const bool keep : {false, true}) {
    this->data_param()->set_cutout_keeps_label(keep);
    Reader<Dtype> reader(this->param_);
    int tallest = 0, widest = 0;
    for (int n = 0; n < kSamples; ++n) {
      reader.Forward();
      int first_row = kHeight, last_row = -1, first = kWidth, last = -1;
      int holes = 0;
      for (int y = 0; y < kHeight; ++y) {
        for (int x = 0; x < kWidth; ++x) {
          const bool hole = reader.data.data_at(0, 1, y, x) == 0;
          if (!hole) { ASSERT_EQ(100, reader.data.data_at(0, 1, y, x)); }
          ASSERT_EQ(hole && !keep ? 77 : 4,
              reader.label.data_at(0, 0, y, x));
          if (hole) {
            ++holes;
            first_row = std::min(first_row, y);
            last_row = std::max(last_row, y);
            first = std::min(first, x);
            last = std::max(last, x);
          }
        }
      }
      if (holes == 0) { continue; }
      const int height = last_row - first_row + 1, width = last - first + 1;
      EXPECT_EQ(height * width, holes);  // a rectangle
      tallest = std::max(tallest, height);
      widest = std::max(widest, width);
    }
    EXPECT_EQ(kHeight / 2, tallest);
    EXPECT_GE(kWidth / 2, widest);
    EXPECT_LT(kWidth / 2 - 3, widest);
  }
}

TYPED_TEST(SegmentationDataLayerTest, TestAugmentationWithoutLabels) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", this->SmallScenes(5));
  this->SetCrop(3, 3, 2);
  AugmentInEveryWay(this->data_param());
  Reader<Dtype> both(this->param_), alone(this->param_, false);
  for (int pass = 0; pass < 5; ++pass) {
    both.Forward();
    alone.Forward();
    for (int i = 0; i < both.data.count(); ++i) {
      EXPECT_EQ(both.data.cpu_data()[i], alone.data.cpu_data()[i]);
    }
  }
}

}  // namespace caffe
