#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <opencv2/core/core.hpp>

#include "boost/filesystem.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/data/lmdb_reader.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/net.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/format.hpp"

#include "segmentation_data_fixture.hpp"

namespace caffe {

namespace {

// Whether sample n of the tops is the window of the scene whose first pixel
// is (row, column), flipped or not; data and label both.
template <typename Dtype>
bool IsWindow(const Reader<Dtype>& reader, int n, const Scene& scene, int row,
    int column, bool flip) {
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
Scene Pad(const Scene& scene, int height, int width) {
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
template <typename Dtype>
int SceneOf(const Reader<Dtype>& reader, int n, const vector<Scene>& scenes) {
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
template <typename Dtype>
vector<int> Order(Reader<Dtype>* reader, const vector<Scene>& scenes,
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

vector<int> Range(int count) {
  vector<int> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

}  // namespace

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
    EXPECT_EQ(i % 4, SceneOf(reader, 0, scenes));
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
    padded.push_back(Pad(scenes[i], kHeight, kWidth));
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
            if (IsWindow(reader, sample % kBatch, padded[scene], row,
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
    const bool flip = IsWindow(reader, 0, scenes[0], 0, 0, true);
    ASSERT_NE(flip, IsWindow(reader, 0, scenes[0], 0, 0, false));
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
    const vector<int> order = Order(&reader, scenes, 21);
    for (int i = 0; i < 21; ++i) { EXPECT_EQ(i % 7, order[i]); }
  }
  this->data_param()->set_shuffle(true);
  std::set<vector<int> > epochs;
  for (int seed = 0; seed < 2; ++seed) {
    this->data_param()->set_seed(seed);
    Reader<Dtype> reader(this->param_);
    const vector<int> order = Order(&reader, scenes, 21);
    for (int i = 0; i < 21; i += 7) {
      vector<int> epoch(order.begin() + i, order.begin() + i + 7);
      epochs.insert(epoch);
      std::sort(epoch.begin(), epoch.end());
      EXPECT_EQ(Range(7), epoch);
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
  vector<int> order = Order(&in_order, scenes, 8);
  EXPECT_EQ(Range(8), order);
  this->data_param()->set_shuffle(true);
  Reader<Dtype> shuffled(this->param_);
  order = Order(&shuffled, scenes, 8);
  EXPECT_NE(Range(8), order);
  std::sort(order.begin(), order.end());
  EXPECT_EQ(Range(8), order);
}

// A seed means the same samples in every version: item, row, column and flip
// were computed from the definition, by another program.
TYPED_TEST(SegmentationDataLayerTest, TestKnownSamples) {
  typedef typename TypeParam::Dtype Dtype;
  const int known[][4] = {{0, 5, 2, 1}, {1, 5, 3, 0}, {2, 0, 5, 0},
      {1, 4, 1, 1}, {2, 5, 1, 0}, {0, 0, 4, 1}, {2, 3, 4, 0}, {1, 0, 0, 0}};
  vector<Scene> scenes;
  for (int i = 0; i < 3; ++i) { scenes.push_back(MakeScene(9, 10, i)); }
  this->AddSource("split", scenes);
  this->SetCrop(4, 5, 2);
  this->data_param()->set_shuffle(true);
  this->data_param()->set_mirror(true);
  this->data_param()->set_seed(7);
  Reader<Dtype> reader(this->param_);
  for (int sample = 0; sample < 8; ++sample) {
    if (sample % 2 == 0) { reader.Forward(); }
    const int* const item = known[sample];
    EXPECT_TRUE(IsWindow(reader, sample % 2, scenes[item[0]], item[1], item[2],
        item[3] == 1)) << "sample " << sample;
  }
}

// Neither threads nor look-ahead nor the run change what comes; the seed does.
TYPED_TEST(SegmentationDataLayerTest, TestDeterminism) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", this->SmallScenes(5));
  this->SetCrop(3, 3, 4);
  this->data_param()->set_shuffle(true);
  this->data_param()->set_mirror(true);
  for (const bool augment : {false, true}) {
    if (augment) { AugmentInEveryWay(this->data_param()); }
    this->data_param()->set_seed(3);
    this->data_param()->set_prefetch_threads(1);
    this->data_param()->set_prefetch(1);
    const vector<vector<Dtype> > expected =
        Reader<Dtype>(this->param_).Next(20);
    EXPECT_NE(expected[0], expected[5]);  // the same items, other crops
    EXPECT_EQ(expected, Reader<Dtype>(this->param_).Next(20));
    this->data_param()->set_prefetch_threads(5);
    this->data_param()->set_prefetch(7);
    EXPECT_EQ(expected, Reader<Dtype>(this->param_).Next(20));
    this->data_param()->set_seed(4);
    EXPECT_NE(expected, Reader<Dtype>(this->param_).Next(20));
  }
}

TYPED_TEST(SegmentationDataLayerTest, TestRanksReadDisjointShares) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", this->SmallScenes(11));
  this->SetCrop(3, 3, 2);
  this->data_param()->set_shuffle(true);
  this->data_param()->set_mirror(true);
  AugmentInEveryWay(this->data_param());
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

// --- In a net ---

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

}  // namespace caffe
