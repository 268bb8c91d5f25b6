#ifndef CAFFE_TEST_SEGMENTATION_DATA_FIXTURE_HPP_
#define CAFFE_TEST_SEGMENTATION_DATA_FIXTURE_HPP_

#include <string>
#include <vector>

#include <opencv2/core/core.hpp>
#include <opencv2/imgcodecs/imgcodecs.hpp>

#include "boost/filesystem.hpp"
#include "boost/scoped_ptr.hpp"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/segmentation_data_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/db.hpp"
#include "caffe/util/format.hpp"
#include "caffe/util/io.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

// One image with its label map, as the layer should decode them.
struct Scene {
  cv::Mat image;  // 8UC3
  cv::Mat label;  // 8UC1
};

// Noise, so that no two windows of any two scenes are equal.
inline Scene MakeScene(int height, int width, int seed) {
  Scene scene;
  scene.image.create(height, width, CV_8UC3);
  scene.label.create(height, width, CV_8UC1);
  cv::RNG random(seed + 1);
  random.fill(scene.image, cv::RNG::UNIFORM, 0, 256);
  random.fill(scene.label, cv::RNG::UNIFORM, 0, 255);
  return scene;
}

inline string Encode(const cv::Mat& pixels, const string& extension) {
  vector<uchar> bytes;
  CHECK(cv::imencode(extension, pixels, bytes));
  return string(bytes.begin(), bytes.end());
}

inline string Key(int number) { return format_int(number, 8) + "_scene"; }

inline void WriteLmdb(const string& path, const vector<string>& keys,
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

inline void WriteSplit(const string& folder, const vector<Scene>& scenes,
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

inline void AugmentInEveryWay(SegmentationDataParameter* param) {
  param->set_scale_min(0.5);
  param->set_scale_max(2);
  param->set_aspect(1.3);
  param->set_rotation(15);
  param->set_brightness(0.3);
  param->set_contrast(0.3);
  param->set_saturation(0.3);
  param->set_hue(20);
  param->set_blur(1);
  param->set_cutout(2);
  param->set_cutout_size(0.5);
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

// Here, so that the tests of several files are of one suite.
TYPED_TEST_CASE(SegmentationDataLayerTest, TestDtypesAndDevices);

}  // namespace caffe

#endif  // CAFFE_TEST_SEGMENTATION_DATA_FIXTURE_HPP_
