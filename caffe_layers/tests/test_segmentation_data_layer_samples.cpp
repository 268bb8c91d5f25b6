#ifdef USE_OPENCV
#ifdef USE_LMDB
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <opencv2/core/core.hpp>
#include <opencv2/imgcodecs/imgcodecs.hpp>
#include <set>
#include <cmath>
#include <string>
#include <vector>

#include "boost/filesystem.hpp"
#include "boost/scoped_ptr.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/segmentation_data_layer.hpp"
#include "caffe/net.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/sgd_solvers.hpp"
#include "caffe/util/db.hpp"
#include "caffe/util/format.hpp"
#include "caffe/util/io.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

namespace {

// One image with its label map, as the layer should decode them.
struct Scene {
  cv::Mat image;  // 8UC3
  cv::Mat label;  // 8UC1
};

// Noise, so that no two windows of any two scenes are equal.
Scene MakeScene(int height, int width, int seed) {
  Scene scene;
  scene.image.create(height, width, CV_8UC3);
  scene.label.create(height, width, CV_8UC1);
  cv::RNG random(seed + 1);
  random.fill(scene.image, cv::RNG::UNIFORM, 0, 256);
  random.fill(scene.label, cv::RNG::UNIFORM, 0, 255);
  return scene;
}

string Encode(const cv::Mat& pixels, const string& extension) {
  vector<uchar> bytes;
  CHECK(cv::imencode(extension, pixels, bytes));
  return string(bytes.begin(), bytes.end());
}

string Key(int number) { return format_int(number, 8) + "_scene"; }

void WriteLmdb(const string& path, const vector<string>& keys,
    const vector<string>& values, bool encoded = true) {
  boost::scoped_ptr<db::DB> database(db::GetDB(DataParameter::LMDB));
  database->Open(path, db::NEW);
  boost::scoped_ptr<db::Transaction> transaction(database->NewTransaction());
  for (size_t i = 0; i < keys.size(); ++i) {
    Datum datum;
    datum.set_data(values[i]);
    datum.set_encoded(encoded);
    transaction->Put(keys[i], datum.SerializeAsString());
  }
  transaction->Commit();
}

void WriteSplit(const string& folder, const vector<Scene>& scenes,
    const string& image_extension = ".png") {
  boost::filesystem::create_directories(folder);
  vector<string> keys, images, labels;
  for (size_t i = 0; i < scenes.size(); ++i) {
    keys.push_back(Key(i));
    images.push_back(Encode(scenes[i].image, image_extension));
    labels.push_back(Encode(scenes[i].label, ".png"));
  }
  WriteLmdb(folder + "/images.lmdb", keys, images);
  WriteLmdb(folder + "/labels.lmdb", keys, labels);
}

// A layer with tops of its own.
template <typename Dtype>
struct Reader {
  explicit Reader(const LayerParameter& param, bool with_label = true)
      : layer(param) {
    top.push_back(&data);
    if (with_label) { top.push_back(&label); }
    layer.SetUp(bottom, top);
  }
  void Forward() { layer.Forward(bottom, top); }
  // All values of the next forward pass in one row.
  vector<Dtype> Next() {
    Forward();
    vector<Dtype> values(data.cpu_data(), data.cpu_data() + data.count());
    values.insert(values.end(), label.cpu_data(),
        label.cpu_data() + label.count());
    return values;
  }
  vector<vector<Dtype> > Next(int count) {
    vector<vector<Dtype> > all;
    for (int i = 0; i < count; ++i) { all.push_back(Next()); }
    return all;
  }

  Blob<Dtype> data, label;
  vector<Blob<Dtype>*> bottom, top;
  SegmentationDataLayer<Dtype> layer;
};

}  // namespace

template <typename TypeParam>
class SegmentationDataLayerTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  virtual void SetUp() {
    MakeTempDir(&folder_);
    param_.set_name("data");
    param_.set_phase(TRAIN);
  }
  virtual void TearDown() {
    Caffe::set_solver_count(1);
    Caffe::set_solver_rank(0);
    boost::filesystem::remove_all(folder_);
  }

  SegmentationDataParameter* data_param() {
    return param_.mutable_segmentation_data_param();
  }

  // Writes the scenes as split `name` and makes it one of the sources.
  void AddSource(const string& name, const vector<Scene>& scenes) {
    WriteSplit(folder_ + "/" + name, scenes);
    data_param()->add_source(folder_ + "/" + name);
  }

  // `count` scenes of 4 x 5 whose numbers begin at `first`.
  static vector<Scene> SmallScenes(int count, int first = 0) {
    vector<Scene> scenes;
    for (int i = 0; i < count; ++i) {
      scenes.push_back(MakeScene(4, 5, first + i));
    }
    return scenes;
  }

  void SetCrop(int height, int width, int batch_size) {
    data_param()->set_crop_height(height);
    data_param()->set_crop_width(width);
    data_param()->set_batch_size(batch_size);
  }

  // Whether sample n of the tops is the window of the scene whose first pixel
  // is (row, column), flipped or not; data and label both.
  static bool IsWindow(const Reader<Dtype>& reader, int n, const Scene& scene,
      int row, int column, bool flip) {
    const int height = reader.data.height(), width = reader.data.width();
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const int i = row + y, j = column + (flip ? width - 1 - x : x);
        if (reader.label.data_at(n, 0, y, x) != scene.label.at<uchar>(i, j)) {
          return false;
        }
        for (int c = 0; c < 3; ++c) {
          if (reader.data.data_at(n, c, y, x) !=
              scene.image.at<cv::Vec3b>(i, j)[c]) {
            return false;
          }
        }
      }
    }
    return true;
  }

  // The scene, padded at the bottom and the right by OpenCV's own reflection.
  static Scene Pad(const Scene& scene, int height, int width) {
    const int bottom = std::max(height - scene.image.rows, 0);
    const int right = std::max(width - scene.image.cols, 0);
    Scene padded;
    cv::copyMakeBorder(scene.image, padded.image, 0, bottom, 0, right,
        cv::BORDER_REFLECT_101);
    cv::copyMakeBorder(scene.label, padded.label, 0, bottom, 0, right,
        cv::BORDER_REFLECT_101);
    return padded;
  }

  // Which scene sample n of the tops shows, whole and as it is; -1: none.
  static int SceneOf(const Reader<Dtype>& reader, int n,
      const vector<Scene>& scenes) {
    for (size_t i = 0; i < scenes.size(); ++i) {
      if (reader.data.height() == scenes[i].image.rows &&
          reader.data.width() == scenes[i].image.cols &&
          IsWindow(reader, n, scenes[i], 0, 0, false)) {
        return i;
      }
    }
    return -1;
  }

  // The scenes that the next `count` samples show.
  static vector<int> Order(Reader<Dtype>* reader, const vector<Scene>& scenes,
      int count) {
    vector<int> order;
    while (static_cast<int>(order.size()) < count) {
      reader->Forward();
      for (int n = 0; n < reader->data.num(); ++n) {
        order.push_back(SceneOf(*reader, n, scenes));
      }
    }
    return order;
  }

  static vector<int> Range(int count, int first = 0) {
    vector<int> numbers(count);
    for (int i = 0; i < count; ++i) { numbers[i] = first + i; }
    return numbers;
  }

  void ExpectDeathAtSetUp(const string& message) {
    EXPECT_DEATH(Reader<Dtype> reader(param_), message);
  }
  void ExpectDeathAtForward(const string& message) {
    EXPECT_DEATH({
      Reader<Dtype> reader(param_);
      reader.Forward();
    }, message);
  }

  string folder_;
  LayerParameter param_;
};

TYPED_TEST_CASE(SegmentationDataLayerTest, TestDtypesAndDevices);

TYPED_TEST(SegmentationDataLayerTest, TestIsRegistered) {
  typedef typename TypeParam::Dtype Dtype;
  LayerParameter param;
  param.set_type("SegmentationData");
  EXPECT_STREQ("SegmentationData",
      LayerRegistry<Dtype>::CreateLayer(param)->type());
}

// --- Pixels ---

TYPED_TEST(SegmentationDataLayerTest, TestWholeImagesOfDifferentSizes) {
  typedef typename TypeParam::Dtype Dtype;
  vector<Scene> scenes;
  const int sizes[][2] = {{6, 9}, {11, 4}, {1, 1}, {7, 30}};
  for (int i = 0; i < 4; ++i) {
    scenes.push_back(MakeScene(sizes[i][0], sizes[i][1], i));
  }
  this->AddSource("split", scenes);
  this->param_.set_phase(TEST);
  Reader<Dtype> reader(this->param_);
  EXPECT_EQ(6, reader.data.height());
  EXPECT_EQ(9, reader.data.width());
  for (int i = 0; i < 10; ++i) {
    reader.Forward();
    ASSERT_EQ(1, reader.data.num());
    ASSERT_EQ(3, reader.data.channels());
    ASSERT_EQ(sizes[i % 4][0], reader.data.height());
    ASSERT_EQ(sizes[i % 4][1], reader.data.width());
    ASSERT_EQ(1, reader.label.channels());
    ASSERT_EQ(sizes[i % 4][0], reader.label.height());
    ASSERT_EQ(sizes[i % 4][1], reader.label.width());
    EXPECT_EQ(i % 4, this->SceneOf(reader, 0, scenes));
  }
}

TYPED_TEST(SegmentationDataLayerTest, TestJpeg) {
  typedef typename TypeParam::Dtype Dtype;
  Scene scene = MakeScene(16, 24, 0);
  scene.image.setTo(cv::Scalar(200, 100, 30));  // B, G, R
  WriteSplit(this->folder_ + "/split", vector<Scene>(1, scene), ".jpg");
  this->data_param()->add_source(this->folder_ + "/split");
  Reader<Dtype> reader(this->param_);
  reader.Forward();
  const Dtype expected[] = {200, 100, 30};
  for (int c = 0; c < 3; ++c) {
    EXPECT_NEAR(expected[c], reader.data.data_at(0, c, 8, 12), 3);
  }
}

TYPED_TEST(SegmentationDataLayerTest, TestGreyImageHasThreeChannels) {
  typedef typename TypeParam::Dtype Dtype;
  Scene scene = MakeScene(4, 5, 0);
  scene.image = scene.label.clone();
  this->AddSource("split", vector<Scene>(1, scene));
  Reader<Dtype> reader(this->param_);
  reader.Forward();
  ASSERT_EQ(3, reader.data.channels());
  for (int c = 0; c < 3; ++c) {
    EXPECT_EQ(scene.image.at<uchar>(2, 3), reader.data.data_at(0, c, 2, 3));
  }
}

TYPED_TEST(SegmentationDataLayerTest, TestMeanAndScale) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<Scene> scenes = this->SmallScenes(1);
  this->AddSource("split", scenes);
  const float means[] = {104.5f, 117.f, 122.25f};
  // No mean, one for all channels, one for each.
  for (int count = 0; count <= 3; count += count == 0 ? 1 : 2) {
    this->data_param()->clear_mean_value();
    for (int i = 0; i < count; ++i) {
      this->data_param()->add_mean_value(means[i]);
    }
    this->data_param()->set_scale(0.25);
    Reader<Dtype> reader(this->param_);
    reader.Forward();
    for (int c = 0; c < 3; ++c) {
      const float mean = count == 0 ? 0 : means[count == 1 ? 0 : c];
      for (int y = 0; y < 4; ++y) {
        for (int x = 0; x < 5; ++x) {
          const int pixel = scenes[0].image.at<cv::Vec3b>(y, x)[c];
          ASSERT_EQ(0.25 * (pixel - mean), reader.data.data_at(0, c, y, x));
        }
      }
    }
    EXPECT_EQ(scenes[0].label.at<uchar>(1, 2), reader.label.data_at(0, 0, 1, 2));
  }
}

TYPED_TEST(SegmentationDataLayerTest, TestIgnoreLabel) {
  typedef typename TypeParam::Dtype Dtype;
  Scene scene = MakeScene(2, 2, 0);
  scene.label.at<uchar>(0, 0) = 255;
  scene.label.at<uchar>(1, 1) = 21;
  this->AddSource("split", vector<Scene>(1, scene));
  {
    Reader<Dtype> reader(this->param_);
    reader.Forward();
    EXPECT_EQ(255, reader.label.data_at(0, 0, 0, 0));
    EXPECT_EQ(21, reader.label.data_at(0, 0, 1, 1));
  }
  this->data_param()->set_ignore_label(33);
  Reader<Dtype> reader(this->param_);
  reader.Forward();
  EXPECT_EQ(33, reader.label.data_at(0, 0, 0, 0));
  EXPECT_EQ(21, reader.label.data_at(0, 0, 1, 1));
}

TYPED_TEST(SegmentationDataLayerTest, TestWithoutLabelTop) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<Scene> scenes = this->SmallScenes(2);
  this->AddSource("split", scenes);
  boost::filesystem::remove_all(this->folder_ + "/split/labels.lmdb");
  Reader<Dtype> reader(this->param_, false);
  reader.Forward();
  reader.Forward();
  EXPECT_EQ(scenes[1].image.template at<cv::Vec3b>(3, 4)[1],
      reader.data.data_at(0, 1, 3, 4));
}

// --- Crops, padding, flips ---

// The layer's answer for one image that is far smaller than the crop, spelled
// out: 0 1 0 1 ... down, 0 1 2 1 0 1 2 1 ... across.
TYPED_TEST(SegmentationDataLayerTest, TestReflectionByHand) {
  typedef typename TypeParam::Dtype Dtype;
  const Scene scene = MakeScene(2, 3, 0);
  this->AddSource("split", vector<Scene>(1, scene));
  this->SetCrop(7, 10, 1);
  Reader<Dtype> reader(this->param_);
  reader.Forward();
  const int rows[] = {0, 1, 0, 1, 0, 1, 0};
  const int columns[] = {0, 1, 2, 1, 0, 1, 2, 1, 0, 1};
  for (int y = 0; y < 7; ++y) {
    for (int x = 0; x < 10; ++x) {
      EXPECT_EQ(scene.label.at<uchar>(rows[y], columns[x]),
          reader.label.data_at(0, 0, y, x));
      for (int c = 0; c < 3; ++c) {
        EXPECT_EQ(scene.image.at<cv::Vec3b>(rows[y], columns[x])[c],
            reader.data.data_at(0, c, y, x));
      }
    }
  }
}

// Every sample is one window of one padded image, the same window in data and
// label; all windows come, and flips only with mirror.
TYPED_TEST(SegmentationDataLayerTest, TestCrops) {
  typedef typename TypeParam::Dtype Dtype;
  const int kHeight = 6, kWidth = 7, kBatch = 4;
  const int sizes[][2] = {{9, 10}, {6, 7}, {4, 12}, {20, 3}, {1, 1}, {2, 3}};
  vector<Scene> scenes, padded;
  for (int i = 0; i < 6; ++i) {
    scenes.push_back(MakeScene(sizes[i][0], sizes[i][1], i));
    padded.push_back(this->Pad(scenes[i], kHeight, kWidth));
  }
  this->AddSource("split", scenes);
  this->SetCrop(kHeight, kWidth, kBatch);
  for (int mirror = 0; mirror < 2; ++mirror) {
    this->data_param()->set_mirror(mirror == 1);
    Reader<Dtype> reader(this->param_);
    // How often each (row, column, flip) came, for each scene.
    vector<std::map<vector<int>, int> > seen(6);
    for (int sample = 0; sample < 1800; ++sample) {
      if (sample % kBatch == 0) { reader.Forward(); }
      const int scene = sample % 6;
      const cv::Mat& image = padded[scene].image;
      int matches = 0;
      for (int row = 0; row + kHeight <= image.rows; ++row) {
        for (int column = 0; column + kWidth <= image.cols; ++column) {
          for (int flip = 0; flip < 2; ++flip) {
            if (this->IsWindow(reader, sample % kBatch, padded[scene], row,
                column, flip == 1)) {
              ++matches;
              const int window[] = {row, column, flip};
              ++seen[scene][vector<int>(window, window + 3)];
            }
          }
        }
      }
      // A one-pixel image looks the same in both directions.
      ASSERT_EQ(scene == 4 ? 2 : 1, matches) << "sample " << sample;
    }
    // 4 x 4 places; then 1; 1 x 6; 15 x 1; and 1.
    const int flips = mirror + 1;
    EXPECT_EQ(16 * flips, seen[0].size());
    EXPECT_EQ(1 * flips, seen[1].size());
    EXPECT_EQ(6 * flips, seen[2].size());
    EXPECT_EQ(15 * flips, seen[3].size());
    EXPECT_EQ(1 * flips, seen[5].size());
    if (mirror) {  // 300 samples, 150 flips expected, sigma 8.7
      for (const auto& window : seen[1]) {
        EXPECT_NEAR(150, window.second, 44);
      }
    }
  }
}

TYPED_TEST(SegmentationDataLayerTest, TestMirrorOfWholeImages) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<Scene> scenes = this->SmallScenes(1);
  this->AddSource("split", scenes);
  this->data_param()->set_mirror(true);
  Reader<Dtype> reader(this->param_);
  int flips = 0;
  for (int i = 0; i < 40; ++i) {
    reader.Forward();
    const bool flip = this->IsWindow(reader, 0, scenes[0], 0, 0, true);
    ASSERT_NE(flip, this->IsWindow(reader, 0, scenes[0], 0, 0, false));
    flips += flip;
  }
  EXPECT_GT(flips, 0);
  EXPECT_LT(flips, 40);
}

// --- Which sample comes when ---

TYPED_TEST(SegmentationDataLayerTest, TestEpochs) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<Scene> scenes = this->SmallScenes(7);
  this->AddSource("split", scenes);
  this->SetCrop(4, 5, 3);  // 7 is no multiple of 3: batches span epochs
  {
    Reader<Dtype> reader(this->param_);
    const vector<int> order = this->Order(&reader, scenes, 21);
    for (int i = 0; i < 21; ++i) { EXPECT_EQ(i % 7, order[i]); }
  }
  this->data_param()->set_shuffle(true);
  std::set<vector<int> > epochs;
  for (int seed = 0; seed < 2; ++seed) {
    this->data_param()->set_seed(seed);
    Reader<Dtype> reader(this->param_);
    const vector<int> order = this->Order(&reader, scenes, 21);
    for (int i = 0; i < 21; i += 7) {
      vector<int> epoch(order.begin() + i, order.begin() + i + 7);
      epochs.insert(epoch);
      std::sort(epoch.begin(), epoch.end());
      EXPECT_EQ(this->Range(7), epoch);
    }
  }
  EXPECT_EQ(6, epochs.size());  // all different
}

TYPED_TEST(SegmentationDataLayerTest, TestSeveralSources) {
  typedef typename TypeParam::Dtype Dtype;
  vector<Scene> scenes;
  const int counts[] = {3, 1, 4};
  for (int i = 0; i < 3; ++i) {
    const vector<Scene> more = this->SmallScenes(counts[i], scenes.size());
    this->AddSource("split" + format_int(i), more);
    scenes.insert(scenes.end(), more.begin(), more.end());
  }
  Reader<Dtype> in_order(this->param_);
  vector<int> order = this->Order(&in_order, scenes, 8);
  EXPECT_EQ(this->Range(8), order);
  this->data_param()->set_shuffle(true);
  Reader<Dtype> shuffled(this->param_);
  order = this->Order(&shuffled, scenes, 8);
  EXPECT_NE(this->Range(8), order);
  std::sort(order.begin(), order.end());
  EXPECT_EQ(this->Range(8), order);
}

// Neither threads nor look-ahead nor the run change what comes; the seed does.
TYPED_TEST(SegmentationDataLayerTest, TestDeterminism) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", this->SmallScenes(5));
  this->SetCrop(3, 3, 4);
  this->data_param()->set_shuffle(true);
  this->data_param()->set_mirror(true);
  this->data_param()->set_seed(3);
  this->data_param()->set_prefetch_threads(1);
  this->data_param()->set_prefetch(1);
  const vector<vector<Dtype> > expected = Reader<Dtype>(this->param_).Next(20);
  EXPECT_NE(expected[0], expected[5]);  // the same items, other crops
  EXPECT_EQ(expected, Reader<Dtype>(this->param_).Next(20));
  this->data_param()->set_prefetch_threads(5);
  this->data_param()->set_prefetch(7);
  EXPECT_EQ(expected, Reader<Dtype>(this->param_).Next(20));
  this->data_param()->set_seed(4);
  EXPECT_NE(expected, Reader<Dtype>(this->param_).Next(20));
}

TYPED_TEST(SegmentationDataLayerTest, TestResumeEqualsUnbroken) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", this->SmallScenes(5));
  this->SetCrop(3, 3, 2);
  this->data_param()->set_shuffle(true);
  this->data_param()->set_mirror(true);
  const vector<vector<Dtype> > unbroken = Reader<Dtype>(this->param_).Next(12);
  Reader<Dtype> resumed(this->param_);
  resumed.layer.ResumeAt(7);
  for (int pass = 7; pass < 10; ++pass) {
    EXPECT_EQ(unbroken[pass], resumed.Next()) << "pass " << pass;
  }
  // And again, with threads at work and batches read ahead.
  resumed.layer.ResumeAt(2);
  for (int pass = 2; pass < 12; ++pass) {
    EXPECT_EQ(unbroken[pass], resumed.Next()) << "pass " << pass;
  }
}

TYPED_TEST(SegmentationDataLayerTest, TestRanksReadDisjointShares) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", this->SmallScenes(11));
  this->SetCrop(3, 3, 2);
  this->data_param()->set_shuffle(true);
  this->data_param()->set_mirror(true);
  const vector<vector<Dtype> > alone = Reader<Dtype>(this->param_).Next(12);
  Caffe::set_solver_count(3);
  for (int rank = 0; rank < 3; ++rank) {
    Caffe::set_solver_rank(rank);
    Reader<Dtype> reader(this->param_);
    for (int pass = 0; pass < 4; ++pass) {
      EXPECT_EQ(alone[3 * pass + rank], reader.Next());
    }
    reader.layer.ResumeAt(1);
    EXPECT_EQ(alone[3 + rank], reader.Next());
    LayerParameter test_param(this->param_);
    test_param.set_phase(TEST);
    Reader<Dtype> test_reader(test_param);
    for (int pass = 0; pass < 4; ++pass) {
      EXPECT_EQ(alone[pass], test_reader.Next());
    }
  }
}

// --- The database ---

TYPED_TEST(SegmentationDataLayerTest, TestManyLayersOnOneSource) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", this->SmallScenes(5));
  const vector<vector<Dtype> > expected = Reader<Dtype>(this->param_).Next(10);
  LayerParameter linked(this->param_);
  boost::filesystem::create_symlink(this->folder_ + "/split",
      this->folder_ + "/link");
  linked.mutable_segmentation_data_param()->set_source(0,
      this->folder_ + "/link");
  Reader<Dtype> second(linked);
  {
    Reader<Dtype> first(this->param_);
    for (int pass = 0; pass < 4; ++pass) {
      EXPECT_EQ(expected[pass], first.Next());
      EXPECT_EQ(expected[pass], second.Next());
    }
  }
  // The first one's end took nothing from the second.
  for (int pass = 4; pass < 10; ++pass) {
    EXPECT_EQ(expected[pass], second.Next());
  }
}

TYPED_TEST(SegmentationDataLayerTest, TestReaderIsSharedByFile) {
  this->AddSource("split", this->SmallScenes(2));
  const string path = this->folder_ + "/split/images.lmdb";
  const std::shared_ptr<const LmdbReader> reader =
      LmdbReader::Open(path, "test");
  EXPECT_EQ(reader, LmdbReader::Open(path, "test"));
  boost::filesystem::remove_all(this->folder_ + "/split");
  WriteSplit(this->folder_ + "/split", this->SmallScenes(3));
  EXPECT_EQ(3, LmdbReader::Open(path, "test")->keys().size());
  EXPECT_EQ(2, reader->keys().size());
}

TYPED_TEST(SegmentationDataLayerTest, TestWritesNothing) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", this->SmallScenes(2));
  const string images = this->folder_ + "/split/images.lmdb";
  boost::filesystem::remove(images + "/lock.mdb");
  Reader<Dtype> reader(this->param_);
  reader.Next(5);
  EXPECT_TRUE(boost::filesystem::exists(images + "/data.mdb"));
  EXPECT_FALSE(boost::filesystem::exists(images + "/lock.mdb"));
}

TYPED_TEST(SegmentationDataLayerTest, TestEndsWhileReadingAhead) {
  typedef typename TypeParam::Dtype Dtype;
  vector<Scene> scenes;
  for (int i = 0; i < 3; ++i) { scenes.push_back(MakeScene(200, 300, i)); }
  this->AddSource("split", scenes);
  this->data_param()->set_prefetch(20);
  this->data_param()->set_prefetch_threads(4);
  for (int round = 0; round < 5; ++round) {
    Reader<Dtype> reader(this->param_);
    for (int pass = 0; pass < round; ++pass) { reader.Forward(); }
    EXPECT_EQ(300, reader.data.width());
  }
}

// --- In a net and a solver ---

TYPED_TEST(SegmentationDataLayerTest, TestNetFollowsImageSizes) {
  typedef typename TypeParam::Dtype Dtype;
  const int sizes[][2] = {{6, 9}, {11, 4}, {8, 8}};
  vector<Scene> scenes;
  for (int i = 0; i < 3; ++i) {
    scenes.push_back(MakeScene(sizes[i][0], sizes[i][1], i));
  }
  this->AddSource("split", scenes);
  const string proto =
      "state { phase: TEST } "
      "layer { name: 'data' type: 'SegmentationData' top: 'data' top: 'label' "
      "  segmentation_data_param { source: '" + this->folder_ + "/split' } } "
      "layer { name: 'pool' type: 'Pooling' bottom: 'data' top: 'pool' "
      "  pooling_param { kernel_size: 2 stride: 2 } } "
      "layer { name: 'up' type: 'BilinearInterpolation' bottom: 'pool' "
      "  bottom: 'data' top: 'up' } "
      "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'up' "
      "  bottom: 'label' top: 'loss' loss_param { ignore_label: 255 } } ";
  NetParameter net_param;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(proto, &net_param));
  // Three classes are all that the three channels can score.
  for (Scene& scene : scenes) { scene.label = scene.label / 128; }
  boost::filesystem::remove_all(this->folder_ + "/split");
  WriteSplit(this->folder_ + "/split", scenes);
  Net<Dtype> net(net_param);
  for (int pass = 0; pass < 6; ++pass) {
    Dtype loss = -1;
    net.Forward(&loss);
    EXPECT_EQ(sizes[pass % 3][0], net.blob_by_name("up")->height());
    EXPECT_EQ(sizes[pass % 3][1], net.blob_by_name("up")->width());
    EXPECT_GT(loss, 0);
  }
}

// A solver that stops, snapshots and goes on in a new process learns what an
// unbroken one does, bit for bit; also where one iteration is two forward passes.
// (Caffe's own convolution: on a GPU, cuDNN's may add in any order.)
TYPED_TEST(SegmentationDataLayerTest, TestRestoredSolverEqualsUnbroken) {
  typedef typename TypeParam::Dtype Dtype;
  vector<Scene> scenes = this->SmallScenes(5);
  for (Scene& scene : scenes) { scene.label = scene.label / 128; }
  this->AddSource("split", scenes);
  const string proto =
      "base_lr: 0.01 lr_policy: 'fixed' momentum: 0.9 max_iter: 9 iter_size: 2 "
      "random_seed: 5 snapshot_after_train: false display: 0 "
      "snapshot_prefix: '" + this->folder_ + "/run' "
      "net_param { "
      "layer { name: 'data' type: 'SegmentationData' top: 'data' top: 'label' "
      "  segmentation_data_param { source: '" + this->folder_ + "/split' "
      "    batch_size: 2 crop_height: 3 crop_width: 3 mirror: true "
      "    shuffle: true seed: 1 mean_value: 128 scale: 0.01 } } "
      "layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv' "
      "  convolution_param { num_output: 3 kernel_size: 1 engine: CAFFE "
      "    weight_filler { type: 'gaussian' std: 0.1 } } } "
      "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'conv' "
      "  bottom: 'label' top: 'loss' } }";
  SolverParameter solver_param;
  ASSERT_TRUE(
      google::protobuf::TextFormat::ParseFromString(proto, &solver_param));
  solver_param.set_solver_mode(Caffe::mode() == Caffe::GPU ?
      SolverParameter::GPU : SolverParameter::CPU);
  vector<vector<Dtype> > weights;
  for (int interrupted = 0; interrupted < 2; ++interrupted) {
    boost::scoped_ptr<SGDSolver<Dtype> > solver(
        new SGDSolver<Dtype>(solver_param));
    if (interrupted) {
      solver->Step(4);
      solver->Snapshot();
      solver.reset(new SGDSolver<Dtype>(solver_param));
      solver->Restore((this->folder_ + "/run_iter_4.solverstate").c_str());
      EXPECT_EQ(4, solver->iter());
      solver->Step(5);
    } else {
      solver->Step(9);
    }
    const Blob<Dtype>& blob = *solver->net()->params()[0];
    weights.push_back(
        vector<Dtype>(blob.cpu_data(), blob.cpu_data() + blob.count()));
  }
  EXPECT_EQ(weights[0], weights[1]);
}

// --- Errors: each names the layer, what was given and what was expected ---

TYPED_TEST(SegmentationDataLayerTest, TestBadParameters) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const string layer = "SegmentationData layer 'data': ";
  this->ExpectDeathAtSetUp(layer + "no source given; expected the folder");
  this->AddSource("split", this->SmallScenes(1));
  const LayerParameter good(this->param_);
  this->data_param()->set_batch_size(0);
  this->ExpectDeathAtSetUp(layer + "batch_size 0 given; expected 1 or more");
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
  this->ExpectDeathAtSetUp(layer + "prefetch 0 given; expected 1 batch");
  this->param_ = good;
  this->data_param()->set_prefetch_threads(0);
  this->ExpectDeathAtSetUp(layer + "prefetch_threads 0 given; expected 1");
  this->param_ = good;
  this->param_.mutable_transform_param()->set_mirror(true);
  this->ExpectDeathAtSetUp(layer + "transform_param given; expected");
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

#ifndef CPU_ONLY

// --- On a GPU: the copies go ahead of the device's work and never into it ---

template <typename Dtype>
class SegmentationDataGPUTest
    : public SegmentationDataLayerTest<GPUDevice<Dtype> > {
 protected:
  // Random crops of random images, few of them ahead, so that buffers are used
  // again and again.
  void AddCrops() {
    vector<Scene> scenes;
    for (int i = 0; i < 9; ++i) { scenes.push_back(MakeScene(40, 50, i)); }
    this->AddSource("split", scenes);
    this->SetCrop(31, 37, 3);
    this->data_param()->set_shuffle(true);
    this->data_param()->set_mirror(true);
    this->data_param()->set_prefetch(2);
    this->data_param()->set_prefetch_threads(3);
  }
  // Whole images whose sizes go up and down.
  void AddWholeImages() {
    vector<Scene> scenes;
    for (int i = 0; i < 13; ++i) {
      scenes.push_back(MakeScene(5 + 37 * i % 61, 7 + 29 * i % 53, i));
    }
    this->AddSource("split", scenes);
    this->data_param()->set_prefetch(3);
  }

  // What the passes on the CPU give.
  vector<vector<Dtype> > OnCPU(int passes) const {
    Caffe::set_mode(Caffe::CPU);
    const vector<vector<Dtype> > all =
        Reader<Dtype>(this->param_).Next(passes);
    Caffe::set_mode(Caffe::GPU);
    return all;
  }

  void ExpectEqualsCPU(int passes) {
    const vector<vector<Dtype> > expected = OnCPU(passes);
    Reader<Dtype> reader(this->param_);
    for (int pass = 0; pass < passes; ++pass) {
      ASSERT_TRUE(expected[pass] == reader.Next()) << "pass " << pass;
    }
  }
};

TYPED_TEST_CASE(SegmentationDataGPUTest, TestDtypes);

TYPED_TEST(SegmentationDataGPUTest, TestCropsEqualCPU) {
  this->AddCrops();
  this->ExpectEqualsCPU(40);
}

TYPED_TEST(SegmentationDataGPUTest, TestWholeImagesEqualCPU) {
  this->AddWholeImages();
  this->ExpectEqualsCPU(40);
}

TYPED_TEST(SegmentationDataGPUTest, TestTopsAreOnTheDevice) {
  this->AddCrops();
  Reader<TypeParam> reader(this->param_);
  const TypeParam* data = NULL;
  for (int pass = 0; pass < 6; ++pass) {
    reader.Forward();
    EXPECT_EQ(SyncedMemory::HEAD_AT_GPU, reader.data.data()->head());
    EXPECT_EQ(SyncedMemory::HEAD_AT_GPU, reader.label.data()->head());
    // Always the same memory: nothing is allocated from pass to pass.
    if (pass > 0) { EXPECT_EQ(data, reader.data.gpu_data()); }
    data = reader.data.gpu_data();
  }
}

// The host runs far ahead of a busy device: a buffer that was filled again
// before the device had read it would show.
TYPED_TEST(SegmentationDataGPUTest, TestDeviceFallsBehind) {
  const int kPasses = 60;
  for (bool whole_images : {false, true}) {
    this->data_param()->Clear();
    boost::filesystem::remove_all(this->folder_ + "/split");
    whole_images ? this->AddWholeImages() : this->AddCrops();
    const vector<vector<TypeParam> > expected = this->OnCPU(kPasses);
    Blob<TypeParam> busy(vector<int>(1, 1 << 24));
    vector<shared_ptr<Blob<TypeParam> > > kept;
    for (const vector<TypeParam>& values : expected) {
      kept.push_back(shared_ptr<Blob<TypeParam> >(
          new Blob<TypeParam>(vector<int>(1, values.size()))));
      kept.back()->mutable_gpu_data();
    }
    busy.mutable_gpu_data();
    Reader<TypeParam> reader(this->param_);
    for (int pass = 0; pass < kPasses; ++pass) {
      for (int i = 0; i < 20; ++i) {
        CUDA_CHECK(cudaMemsetAsync(busy.mutable_gpu_data(), i,
            busy.count() * sizeof(TypeParam), 0));
      }
      reader.Forward();
      const int count = reader.data.count();
      TypeParam* const to = kept[pass]->mutable_gpu_data();
      CUDA_CHECK(cudaMemcpyAsync(to, reader.data.gpu_data(),
          count * sizeof(TypeParam), cudaMemcpyDeviceToDevice, 0));
      CUDA_CHECK(cudaMemcpyAsync(to + count, reader.label.gpu_data(),
          reader.label.count() * sizeof(TypeParam), cudaMemcpyDeviceToDevice,
          0));
    }
    for (int pass = 0; pass < kPasses; ++pass) {
      const TypeParam* const values = kept[pass]->cpu_data();
      EXPECT_TRUE(expected[pass] == vector<TypeParam>(values,
          values + kept[pass]->count())) << "pass " << pass;
    }
  }
}

// The same samples come, whatever the mode of each pass.
TYPED_TEST(SegmentationDataGPUTest, TestModeChanges) {
  for (bool whole_images : {false, true}) {
    this->data_param()->Clear();
    boost::filesystem::remove_all(this->folder_ + "/split");
    whole_images ? this->AddWholeImages() : this->AddCrops();
    const vector<vector<TypeParam> > expected = this->OnCPU(24);
    const Caffe::Brew modes[] = {Caffe::CPU, Caffe::GPU, Caffe::GPU,
        Caffe::CPU, Caffe::CPU, Caffe::GPU};
    for (int first = 0; first < 2; ++first) {
      Reader<TypeParam> reader(this->param_);
      for (int pass = 0; pass < 24; ++pass) {
        Caffe::set_mode(modes[(pass + first) % 6]);
        if (pass == 13) { reader.layer.ResumeAt(13); }
        ASSERT_TRUE(expected[pass] == reader.Next()) << "pass " << pass;
      }
      Caffe::set_mode(Caffe::GPU);
    }
  }
}

// The tops are the net's: they keep their values when the layer is gone, also
// when it goes while batches are under way.
TYPED_TEST(SegmentationDataGPUTest, TestTopsOutliveTheLayer) {
  this->AddCrops();
  const vector<vector<TypeParam> > expected = this->OnCPU(5);
  for (int passes = 1; passes <= 5; ++passes) {
    Blob<TypeParam> data, label;
    {
      SegmentationDataLayer<TypeParam> layer(this->param_);
      const vector<Blob<TypeParam>*> top = {&data, &label};
      layer.SetUp(vector<Blob<TypeParam>*>(), top);
      for (int pass = 0; pass < passes; ++pass) {
        layer.Forward(vector<Blob<TypeParam>*>(), top);
      }
    }
    EXPECT_TRUE(std::equal(data.cpu_data(), data.cpu_data() + data.count(),
        expected[passes - 1].begin()));
    EXPECT_TRUE(std::equal(label.cpu_data(), label.cpu_data() + label.count(),
        expected[passes - 1].begin() + data.count()));
  }
}

// A training net and a testing one in turn, each with its own buffers.
TYPED_TEST(SegmentationDataGPUTest, TestTwoLayersInTurn) {
  this->AddCrops();
  const LayerParameter crops = this->param_;
  const vector<vector<TypeParam> > expected_crops = this->OnCPU(12);
  boost::filesystem::remove_all(this->folder_ + "/whole");
  this->data_param()->Clear();
  this->AddSource("whole", this->SmallScenes(5));
  this->param_.set_phase(TEST);
  const vector<vector<TypeParam> > expected_whole = this->OnCPU(12);
  Reader<TypeParam> train(crops), test(this->param_);
  for (int pass = 0; pass < 12; ++pass) {
    ASSERT_TRUE(expected_crops[pass] == train.Next()) << "pass " << pass;
    ASSERT_TRUE(expected_whole[pass] == test.Next()) << "pass " << pass;
  }
}

#endif  // CPU_ONLY

}  // namespace caffe

#endif  // USE_LMDB
#endif  // USE_OPENCV
