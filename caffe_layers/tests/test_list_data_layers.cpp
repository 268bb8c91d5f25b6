#include <fstream>  // NOLINT(readability/streams)
#include <set>
#include <string>
#include <vector>

#include <opencv2/imgcodecs/imgcodecs.hpp>
#include <opencv2/imgproc/imgproc.hpp>

#include "boost/filesystem.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/image_seg_data_layer.hpp"
#include "caffe/util/io.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

/// ImageSegData and DenseImageData, on files in a folder of their own.
template <typename TypeParam>
class ListDataLayerTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  virtual void SetUp() {
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";
    MakeTempDir(&folder_);
    list_ = folder_ + "/list.txt";
  }
  virtual void TearDown() {
    layer_.reset();  // its threads read the files
    Caffe::set_solver_count(1);
    Caffe::set_solver_rank(0);
    boost::filesystem::remove_all(folder_);
  }

  /// Noise as files N.png and N_label.png, with a line in the list.
  void Add(int height, int width) {
    const int number = images_.size();
    images_.push_back(cv::Mat(height, width, CV_8UC3));
    labels_.push_back(cv::Mat(height, width, CV_8UC1));
    cv::RNG random(number + 1);
    random.fill(images_.back(), cv::RNG::UNIFORM, 0, 256);
    random.fill(labels_.back(), cv::RNG::UNIFORM, 0, 21);
    const string name = folder_ + "/" + std::to_string(number);
    CHECK(cv::imwrite(name + ".png", images_.back()));
    CHECK(cv::imwrite(name + "_label.png", labels_.back()));
    AddLine(std::to_string(number) + ".png " + std::to_string(number) +
        "_label.png");
  }
  void AddLine(const string& line) {
    std::ofstream(list_.c_str(), std::ios::app) << line << "\n";
  }
  LayerParameter Given(const string& type, const string& fields,
      const string& transform = "", Phase phase = TRAIN) const {
    LayerParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(
        "name: 'data' type: '" + type + "' " +
        (type == "ImageSegData" ? "image_data_param" :
         "dense_image_data_param") + " { source: '" + list_ +
        "' root_folder: '" + folder_ + "/' " + fields + " } " +
        (transform.empty() ? "" : "transform_param { " + transform + " }"),
        &param)) << fields;
    param.set_phase(phase);
    return param;
  }
  void Make(const LayerParameter& param, int tops = 2) {
    layer_.reset();
    top_.clear();
    Blob<Dtype>* const all[] = {&data_, &label_, &sizes_};
    top_.assign(all, all + tops);
    layer_ = LayerRegistry<Dtype>::CreateLayer(param);
    layer_->SetUp(bottom_, top_);
  }
  void Forward() { layer_->Forward(bottom_, top_); }

  /// Sample n of the batch is the crop of item i whose corner is (row, column);
  /// beyond the image lie 0 and `ignored`.
  void ExpectSample(int n, int i, int row, int column, bool flipped,
      const vector<double>& mean, double scale, int ignored) {
    const int height = data_.height(), width = data_.width();
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const int from_y = row + y;
        const int from_x = column + (flipped ? width - 1 - x : x);
        const bool beyond =
            from_y >= images_[i].rows || from_x >= images_[i].cols;
        for (int c = 0; c < data_.channels(); ++c) {
          const double expected = beyond ? 0 : scale *
              (images_[i].at<cv::Vec3b>(from_y, from_x)[c] - mean[c]);
          ASSERT_NEAR(expected, data_.data_at(n, c, y, x), 1e-4)
              << n << " " << c << " " << y << " " << x;
        }
        if (top_.size() > 1) {
          ASSERT_EQ(beyond ? ignored : labels_[i].at<uchar>(from_y, from_x),
              label_.data_at(n, 0, y, x));
        }
      }
    }
  }
  /// Which item, corner and flip sample n is; fails where it is none.
  vector<int> Find(int n) {
    const int height = data_.height(), width = data_.width();
    for (size_t i = 0; i < images_.size(); ++i) {
      for (int row = 0; row <= images_[i].rows - height; ++row) {
        for (int column = 0; column <= images_[i].cols - width; ++column) {
          for (int flipped = 0; flipped < 2; ++flipped) {
            bool same = true;
            for (int x = 0; x < width && same; ++x) {
              const cv::Vec3b& pixel = images_[i].at<cv::Vec3b>(row,
                  column + (flipped ? width - 1 - x : x));
              for (int c = 0; c < 3; ++c) {
                same = same && data_.data_at(n, c, 0, x) == pixel[c];
              }
            }
            if (same) { return {static_cast<int>(i), row, column, flipped}; }
          }
        }
      }
    }
    ADD_FAILURE() << "sample " << n << " is of no image";
    return {0, 0, 0, 0};
  }

  void ExpectDeathAtSetUp(const LayerParameter& param, const string& message) {
    EXPECT_DEATH(Make(param), message);
  }
  void ExpectDeathAtForward(const LayerParameter& param,
      const string& message) {
    EXPECT_DEATH({
      Make(param);
      for (int i = 0; i < 3; ++i) { Forward(); }
    }, message);
  }

  string folder_, list_;
  vector<cv::Mat> images_, labels_;
  Blob<Dtype> data_, label_, sizes_;
  vector<Blob<Dtype>*> bottom_, top_;
  shared_ptr<Layer<Dtype> > layer_;
};

TYPED_TEST_CASE(ListDataLayerTest, TestDtypesAndDevices);

TYPED_TEST(ListDataLayerTest, TestWholeImagesOfManySizes) {
  this->Add(5, 7);
  this->AddLine("");
  this->Add(3, 4);
  this->Add(9, 2);
  for (const char* type : {"ImageSegData", "DenseImageData"}) {
    const string fields =
        string(type) == "ImageSegData" ? "label_type: PIXEL" : "";
    this->Make(this->Given(type, fields,
        "mean_value: 10 mean_value: 20 mean_value: 30.5 scale: 0.5"));
    EXPECT_EQ("1 3 5 7 (105)", this->data_.shape_string());
    for (int i = 0; i < 7; ++i) {
      this->Forward();
      EXPECT_EQ(this->images_[i % 3].rows, this->data_.height());
      EXPECT_EQ(this->images_[i % 3].cols, this->label_.width());
      this->ExpectSample(0, i % 3, 0, 0, false, {10, 20, 30.5}, 0.5, 255);
    }
  }
}

// Smaller images get the mean below and to the right, as in DeepLab's fork.
TYPED_TEST(ListDataLayerTest, TestCropsOfImageSegData) {
  this->Add(3, 9);
  this->Add(8, 4);
  const string transform = "crop_size: 6 mean_value: 10.25 mean_value: 20"
      " mean_value: 30";
  for (Phase phase : {TRAIN, TEST}) {
    this->Make(this->Given("ImageSegData",
        "label_type: PIXEL batch_size: 2 ignore_label: 99", transform, phase), 3);
    EXPECT_EQ("2 1 1 2 (4)", this->sizes_.shape_string());
    std::set<int> columns;
    for (int i = 0; i < 20; ++i) {
      this->Forward();
      EXPECT_EQ("2 3 6 6 (216)", this->data_.shape_string());
      // The first column's pixel tells the random crop's place.
      int column = -1, row = -1;
      for (int x = 0; x < 4; ++x) {
        if (this->data_.data_at(0, 1, 0, 0) ==
            this->images_[0].template at<cv::Vec3b>(0, x)[1] - 20) { column = x; }
      }
      for (int y = 0; y < 3; ++y) {
        if (this->data_.data_at(1, 1, 0, 0) ==
            this->images_[1].template at<cv::Vec3b>(y, 0)[1] - 20) { row = y; }
      }
      if (phase == TEST) {
        EXPECT_EQ(1, column);
        EXPECT_EQ(1, row);
      }
      columns.insert(column);
      this->ExpectSample(0, 0, 0, column, false, {10.25, 20, 30}, 1, 99);
      this->ExpectSample(1, 1, row, 0, false, {10.25, 20, 30}, 1, 99);
      EXPECT_EQ(3, this->sizes_.cpu_data()[0]);
      EXPECT_EQ(6, this->sizes_.cpu_data()[1]);
      EXPECT_EQ(6, this->sizes_.cpu_data()[2]);
      EXPECT_EQ(4, this->sizes_.cpu_data()[3]);
    }
    EXPECT_EQ(phase == TRAIN ? 4 : 1, columns.size());
  }
}

TYPED_TEST(ListDataLayerTest, TestCropsAndFlipsOfDenseImageData) {
  for (int i = 0; i < 3; ++i) { this->Add(6, 8); }
  this->Make(this->Given("DenseImageData", "batch_size: 3 mirror: true"
      " crop_height: 4 crop_width: 5 shuffle: true"));
  int flips = 0, first = 0;
  std::set<int> rows, columns;
  for (int i = 0; i < 30; ++i) {
    this->Forward();
    std::set<int> items;
    for (int n = 0; n < 3; ++n) {
      const vector<int> found = this->Find(n);
      this->ExpectSample(n, found[0], found[1], found[2], found[3], {0, 0, 0}, 1,
          255);
      items.insert(found[0]);
      first += n == 0 && found[0] == 0;
      rows.insert(found[1]);
      columns.insert(found[2]);
      flips += found[3];
    }
    EXPECT_EQ(3, items.size());  // each comes once in an epoch
  }
  EXPECT_EQ(3, rows.size());
  EXPECT_EQ(4, columns.size());
  EXPECT_GT(flips, 20);
  EXPECT_LT(flips, 70);
  EXPECT_GT(first, 2);
  EXPECT_LT(first, 25);
}

TYPED_TEST(ListDataLayerTest, TestMirrorOfImageSegData) {
  this->Add(3, 4);
  this->Make(this->Given("ImageSegData", "label_type: PIXEL", "mirror: true"));
  int flips = 0;
  for (int i = 0; i < 40; ++i) {
    this->Forward();
    const bool flipped = this->Find(0)[3];
    this->ExpectSample(0, 0, 0, 0, flipped, {0, 0, 0}, 1, 255);
    flips += flipped;
  }
  EXPECT_GT(flips, 5);
  EXPECT_LT(flips, 35);
}

TYPED_TEST(ListDataLayerTest, TestAnotherSize) {
  typedef typename TypeParam::Dtype Dtype;
  this->Add(5, 7);
  this->Add(9, 4);
  for (const char* type : {"ImageSegData", "DenseImageData"}) {
    const string fields =
        string(type) == "ImageSegData" ? " label_type: PIXEL" : "";
    this->Make(this->Given(type,
        "batch_size: 2 new_height: 6 new_width: 8" + fields));
    this->Forward();
    EXPECT_EQ("2 3 6 8 (288)", this->data_.shape_string());
    for (int n = 0; n < 2; ++n) {
      cv::Mat image, label;
      cv::resize(this->images_[n], image, cv::Size(8, 6));
      cv::resize(this->labels_[n], label, cv::Size(8, 6), 0, 0,
          cv::INTER_NEAREST);
      for (int i = 0; i < 48; ++i) {
        EXPECT_EQ(Dtype(image.at<cv::Vec3b>(i / 8, i % 8)[2]),
            this->data_.data_at(n, 2, i / 8, i % 8));
        EXPECT_EQ(Dtype(label.at<uchar>(i / 8, i % 8)),
            this->label_.data_at(n, 0, i / 8, i % 8));
      }
    }
  }
}

TYPED_TEST(ListDataLayerTest, TestOtherLabels) {
  this->Add(3, 4);
  std::ofstream(this->list_.c_str()) << "0.png 7\r\n";
  this->Make(this->Given("ImageSegData", ""));
  this->Forward();
  EXPECT_EQ("1 1 3 4 (12)", this->label_.shape_string());
  EXPECT_EQ(7, this->label_.cpu_data()[11]);
  std::ofstream(this->list_.c_str()) << "0.png\n";
  this->Make(this->Given("ImageSegData", "label_type: NONE ignore_label: 21"));
  this->Forward();
  EXPECT_EQ(21, this->label_.cpu_data()[11]);
  this->Make(this->Given("ImageSegData", "label_type: NONE"), 1);
  this->Forward();
  this->ExpectSample(0, 0, 0, 0, false, {0, 0, 0}, 1, 255);
}

TYPED_TEST(ListDataLayerTest, TestGrey) {
  typedef typename TypeParam::Dtype Dtype;
  this->Add(3, 4);
  this->Make(this->Given("DenseImageData", "is_color: false", "mean_value: 3"));
  this->Forward();
  EXPECT_EQ("1 1 3 4 (12)", this->data_.shape_string());
  cv::Mat grey = cv::imread(this->folder_ + "/0.png", cv::IMREAD_GRAYSCALE);
  for (int i = 0; i < 12; ++i) {
    EXPECT_EQ(Dtype(grey.at<uchar>(i / 4, i % 4) - 3),
        this->data_.cpu_data()[i]);
  }
  this->ExpectDeathAtSetUp(this->Given("DenseImageData", "is_color: false",
      "mean_value: [1, 2, 3]"), "3 mean_value fields given; expected none, 1");
}

// What a resumed training sees, and what two ranks share.
TYPED_TEST(ListDataLayerTest, TestSeedResumptionAndRanks) {
  for (int i = 0; i < 5; ++i) { this->Add(4, 4); }
  const LayerParameter param = this->Given("DenseImageData",
      "batch_size: 2 shuffle: true");
  vector<int> seen;
  this->Make(param);
  this->layer_->SetSeed(3);
  for (int i = 0; i < 10; ++i) {
    this->Forward();
    for (int n = 0; n < 2; ++n) { seen.push_back(this->Find(n)[0]); }
  }
  EXPECT_EQ(5, std::set<int>(seen.begin(), seen.begin() + 5).size());
  this->Make(param);
  this->layer_->SetSeed(3);
  this->layer_->ResumeAt(4);
  this->Forward();
  EXPECT_EQ(seen[8], this->Find(0)[0]);
  EXPECT_EQ(seen[9], this->Find(1)[0]);
  Caffe::set_solver_count(2);
  Caffe::set_solver_rank(1);
  this->Make(param);
  this->layer_->SetSeed(3);
  this->Forward();
  EXPECT_EQ(seen[2], this->Find(0)[0]);
  EXPECT_EQ(seen[3], this->Find(1)[0]);
}

TYPED_TEST(ListDataLayerTest, TestSkippedLines) {
  for (int i = 0; i < 5; ++i) { this->Add(2, 2); }
  std::set<int> first;
  for (int i = 0; i < 40; ++i) {
    this->Make(this->Given("DenseImageData", "rand_skip: 3"));
    this->Forward();
    first.insert(this->Find(0)[0]);
  }
  EXPECT_TRUE((std::set<int>{0, 1, 2}) == first);
}

TYPED_TEST(ListDataLayerTest, TestBadListsAreNamed) {
  this->ExpectDeathAtSetUp(this->Given("ImageSegData", ""), "ImageSegData layer "
      "'data': cannot open the list '.*list.txt': No such file");
  std::ofstream(this->list_.c_str()) << " \n\n";
  this->ExpectDeathAtSetUp(this->Given("DenseImageData", ""), "DenseImageData "
      "layer 'data': the list '.*list.txt' is empty");
  std::ofstream(this->list_.c_str()) << "a.png 1\nb.png\n";
  this->ExpectDeathAtSetUp(this->Given("ImageSegData", ""), "line 2 of list "
      "'.*list.txt' is 'b.png'; expected an image's file and its class number");
  this->ExpectDeathAtSetUp(this->Given("DenseImageData", ""), "line 2 of list "
      "'.*list.txt' is 'b.png'; expected an image's file and its label's file");
  std::ofstream(this->list_.c_str()) << "a.png 256\n";
  this->ExpectDeathAtSetUp(this->Given("ImageSegData", ""), "line 1 of list");
}

TYPED_TEST(ListDataLayerTest, TestBadFilesAreNamed) {
  this->Add(3, 4);
  this->AddLine("lost.png 0_label.png");
  const LayerParameter param = this->Given("DenseImageData", "");
  this->ExpectDeathAtForward(param, "DenseImageData layer 'data': line 2 of list "
      "'.*list.txt' \\('.*/lost.png'\\): cannot open the image '.*/lost.png': No");
  std::ofstream(this->list_.c_str()) << "0.png 0_label.png\n0.png list.txt\n";
  this->ExpectDeathAtForward(param, "line 2 of list .*'.*list.txt': the label "
      "cannot be decoded");
  std::ofstream(this->list_.c_str()) << "0.png 0.png\n";
  this->ExpectDeathAtForward(param, "line 1 of list .*0.png': the label has 3 "
      "channel\\(s\\) of 8 bits; expected 1 channel of 8 bits");
  this->Add(3, 5);
  std::ofstream(this->list_.c_str()) << "0.png 1_label.png\n";
  this->ExpectDeathAtForward(param, "the label has height 3 and width 5; "
      "expected the image's 3 and 4");
  std::ofstream(this->list_.c_str())
      << "0.png 0_label.png\n1.png 1_label.png\n";
  this->ExpectDeathAtForward(this->Given("DenseImageData", "batch_size: 2"),
      "line 2 of list .* the image has height 3 and width 5, where the first one "
      "has 3 and 4; give a crop, one size for all, or batch_size: 1");
}

TYPED_TEST(ListDataLayerTest, TestBadFieldsAreNamed) {
  this->Add(3, 4);
  this->ExpectDeathAtSetUp(this->Given("ImageSegData", "label_type: PIXEL",
      "mean_file: 'm'"), "ImageSegData layer 'data': mean_file given");
  this->ExpectDeathAtSetUp(this->Given("ImageSegData",
      "label_type: PIXEL new_height: 3"), "new_height 3 and new_width 0 given");
  this->ExpectDeathAtSetUp(this->Given("ImageSegData",
      "label_type: PIXEL ignore_label: 300"), "ignore_label 300 given");
  this->ExpectDeathAtSetUp(this->Given("DenseImageData", "mean_file: 'm'"),
      "DenseImageData layer 'data': mean_file given");
  this->ExpectDeathAtSetUp(this->Given("DenseImageData", "", "mirror: true"),
      "expected mirror, crop_height and crop_width in dense_image_data_param");
  this->ExpectDeathAtSetUp(this->Given("DenseImageData", "crop_height: 2"),
      "crop_height 2 and crop_width 0 given");
  LayerParameter param = this->Given("DenseImageData", "");
  param.mutable_dense_image_data_param()->clear_source();
  this->ExpectDeathAtSetUp(param, "no source given in dense_image_data_param");
}

}  // namespace caffe
