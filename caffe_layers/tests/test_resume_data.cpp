#ifdef USE_OPENCV
#include <boost/filesystem.hpp>
#include <boost/scoped_ptr.hpp>
#include <opencv2/core/core.hpp>
#include <opencv2/imgcodecs.hpp>

#include <fstream>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/util/db.hpp"
#include "caffe/util/format.hpp"
#include "caffe/util/io.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

// Caffe's own sources of data, resumed: eleven pictures of 6 x 5, each of random values, and batches of 3.
template <typename TypeParam>
class ResumeDataTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  static const int kPictures = 11;

  ResumeDataTest() {
    MakeTempDir(&folder_);
    boost::scoped_ptr<db::DB> database(db::GetDB(DataParameter::LMDB));
    database->Open(folder_ + "/lmdb", db::NEW);
    boost::scoped_ptr<db::Transaction> transaction(database->NewTransaction());
    std::ofstream list((folder_ + "/list.txt").c_str());
    cv::RNG random(3);
    for (int i = 0; i < kPictures; ++i) {
      cv::Mat picture(6, 5, CV_8UC3);
      random.fill(picture, cv::RNG::UNIFORM, 0, 256);
      const string file = folder_ + "/" + format_int(i, 2) + ".png";
      cv::imwrite(file, picture);
      list << file << ' ' << i << '\n';
      Datum datum;
      CVMatToDatum(picture, &datum);
      datum.set_label(i);
      transaction->Put(format_int(i, 8), datum.SerializeAsString());
    }
    transaction->Commit();
  }

  ~ResumeDataTest() {
    Caffe::set_solver_count(1);
    Caffe::set_solver_rank(0);
    boost::filesystem::remove_all(folder_);
  }

  // `count` batches, pictures and labels in one row each, of a new layer that goes on after `done` forward passes.
  vector<vector<Dtype> > Batches(const string& text, int done, int count) {
    LayerParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString("name: 'data' phase: TRAIN " + text, &param));
    if (param.type() == "Data") {
      param.mutable_data_param()->set_source(folder_ + "/lmdb");
    } else {
      param.mutable_image_data_param()->set_source(folder_ + "/list.txt");
    }
    Caffe::set_random_seed(17);
    shared_ptr<Layer<Dtype> > layer = LayerRegistry<Dtype>::CreateLayer(param);
    Blob<Dtype> data, label;
    vector<Blob<Dtype>*> top = {&data, &label};
    layer->SetUp({}, top);
    if (done > 0) { layer->ResumeAt(done); }
    vector<vector<Dtype> > batches;
    for (int i = 0; i < count; ++i) {
      layer->Forward({}, top);
      batches.push_back(vector<Dtype>(data.cpu_data(), data.cpu_data() + data.count()));
      batches.back().insert(batches.back().end(), label.cpu_data(), label.cpu_data() + label.count());
    }
    return batches;
  }

  void ExpectToGoOn(const string& text) {
    const int count = 30;  // eight times through the pictures
    const vector<vector<Dtype> > unbroken = Batches(text, 0, count);
    EXPECT_NE(unbroken[0], unbroken[kPictures]) << "no draw to be restored";
    for (const int done : {1, 3, 4, 10, 25}) {
      EXPECT_EQ(vector<vector<Dtype> >(unbroken.begin() + done, unbroken.end()), Batches(text, done, count - done)) << done;
    }
  }

  string folder_;
};

TYPED_TEST_CASE(ResumeDataTest, TestDtypesAndDevices);

const char kData[] = "type: 'Data' data_param { backend: LMDB batch_size: 3 } transform_param { mirror: true crop_size: 4 }";

TYPED_TEST(ResumeDataTest, TestData) { this->ExpectToGoOn(kData); }

TYPED_TEST(ResumeDataTest, TestDataOfARank) {
  Caffe::set_solver_count(2);
  Caffe::set_solver_rank(1);
  this->ExpectToGoOn(kData);
}

TYPED_TEST(ResumeDataTest, TestDataWithoutDraws) {
  const auto unbroken = this->Batches("type: 'Data' data_param { backend: LMDB batch_size: 3 }", 0, 9);
  const auto resumed = this->Batches("type: 'Data' data_param { backend: LMDB batch_size: 3 }", 5, 4);
  EXPECT_EQ(vector<vector<typename TypeParam::Dtype> >(unbroken.begin() + 5, unbroken.end()), resumed);
}

TYPED_TEST(ResumeDataTest, TestShuffledImageData) {
  this->ExpectToGoOn("type: 'ImageData' image_data_param { batch_size: 3 shuffle: true }");
}

TYPED_TEST(ResumeDataTest, TestImageDataWithEveryDraw) {
  this->ExpectToGoOn(
      "type: 'ImageData' image_data_param { batch_size: 3 shuffle: true rand_skip: 7 } "
      "transform_param { mirror: true crop_size: 4 }");
}

}  // namespace caffe
#endif  // USE_OPENCV
