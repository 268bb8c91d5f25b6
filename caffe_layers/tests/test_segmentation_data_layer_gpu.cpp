// On a GPU the copies go ahead of the device's work and never into it.
#ifndef CPU_ONLY
#include <algorithm>
#include <vector>

#include "boost/filesystem.hpp"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/proto/caffe.pb.h"

#include "segmentation_data_fixture.hpp"

namespace caffe {

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

}  // namespace caffe

#endif  // CPU_ONLY
