#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/layers/dropout_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"

namespace caffe {

// What is kept of maps of ones.
template <typename TypeParam>
class DropoutTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  typedef vector<int> Kept;

  DropoutTest() { param_.set_name("drop"); }

  ~DropoutTest() {
    Caffe::set_solver_count(1);
    Caffe::set_solver_rank(0);
  }

  shared_ptr<DropoutLayer<Dtype> > Made(int seed) {
    shared_ptr<DropoutLayer<Dtype> > layer(new DropoutLayer<Dtype>(param_));
    Blob<Dtype> input(1, 1, 1, 1), output;
    layer->SetUp({&input}, {&output});
    if (seed >= 0) { layer->SetSeed(seed); }
    return layer;
  }

  // One forward pass: 0 or 1 for each value of `samples` samples of 2 x 5 x 7.
  Kept Forward(DropoutLayer<Dtype>* layer, int samples) {
    Blob<Dtype> input(samples, 2, 5, 7), output;
    caffe_set(input.count(), Dtype(1), input.mutable_cpu_data());
    vector<Blob<Dtype>*> bottom = {&input}, top = {&output};
    layer->Reshape(bottom, top);
    layer->Forward(bottom, top);
    Kept kept;
    for (int i = 0; i < output.count(); ++i) {
      const Dtype value = output.cpu_data()[i];
      CHECK(value == 0 || value == 1 / (1 - Dtype(param_.dropout_param().dropout_ratio()))) << value;
      kept.push_back(value != 0);
    }
    return kept;
  }

  static Kept Joined(Kept first, const Kept& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
  }

  LayerParameter param_;
};

TYPED_TEST_CASE(DropoutTest, TestDtypesAndDevices);

TYPED_TEST(DropoutTest, TestFunctionOfSeedAndSample) {
  const auto all = this->Forward(this->Made(7).get(), 12);
  // as two batches, after other work of Caffe's generator, and in a layer that was resumed
  auto layer = this->Made(7);
  const auto first = this->Forward(layer.get(), 6);
  Caffe::set_random_seed(99);
  EXPECT_EQ(all, this->Joined(first, this->Forward(layer.get(), 6)));
  auto resumed = this->Made(7);
  resumed->ResumeAt(1);
  EXPECT_EQ(all, this->Joined(first, this->Forward(resumed.get(), 6)));
  EXPECT_NE(all, this->Forward(this->Made(8).get(), 12));
  this->param_.set_name("other");
  EXPECT_NE(all, this->Forward(this->Made(7).get(), 12));
}

TYPED_TEST(DropoutTest, TestRanksDropWhatOneMachineWould) {
  auto alone = this->Made(3);
  const auto first = this->Forward(alone.get(), 4);
  const auto whole = this->Joined(first, this->Forward(alone.get(), 4));
  vector<shared_ptr<DropoutLayer<typename TypeParam::Dtype> > > ranks = {this->Made(3), this->Made(3)};
  vector<int> together;
  for (int pass = 0; pass < 2; ++pass) {
    for (int rank = 0; rank < 2; ++rank) {
      Caffe::set_solver_count(2);
      Caffe::set_solver_rank(rank);
      together = this->Joined(together, this->Forward(ranks[rank].get(), 2));
    }
  }
  EXPECT_EQ(whole, together);
}

TYPED_TEST(DropoutTest, TestShareAndIndependence) {
  for (const double ratio : {0., 0.1, 0.5, 0.9}) {
    this->param_.mutable_dropout_param()->set_dropout_ratio(ratio);
    const int samples = 300;
    const auto kept = this->Forward(this->Made(1).get(), samples);
    const int n = kept.size();
    const double deviation = std::sqrt(n * ratio * (1 - ratio));
    EXPECT_NEAR(n * (1 - ratio), std::count(kept.begin(), kept.end(), 1), 4 * deviation);
    if (ratio == 0.5) {  // neighbours, samples and passes agree as often as not
      for (const int apart : {1, 7, n / samples, n / 2}) {
        int same = 0;
        for (int i = 0; i + apart < n; ++i) { same += kept[i] == kept[i + apart]; }
        EXPECT_NEAR((n - apart) / 2., same, 4 * std::sqrt((n - apart) / 4.)) << apart;
      }
    }
  }
}

TYPED_TEST(DropoutTest, TestWithoutSeedFollowsCaffesGenerator) {
  auto layer = this->Made(-1);
  Caffe::set_random_seed(5);
  const auto first = this->Forward(layer.get(), 4);
  EXPECT_NE(first, this->Forward(layer.get(), 4));
  Caffe::set_random_seed(5);
  EXPECT_EQ(first, this->Forward(layer.get(), 4));
}

TYPED_TEST(DropoutTest, TestGradientInPlaceAndTwice) {
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> blob(3, 2, 5, 7);
  vector<Blob<Dtype>*> blobs = {&blob};
  for (int i = 0; i < blob.count(); ++i) { blob.mutable_cpu_data()[i] = i + 1; }
  auto layer = this->Made(2);
  layer->Reshape(blobs, blobs);
  layer->Forward(blobs, blobs);
  for (int times = 0; times < 2; ++times) {
    caffe_set(blob.count(), Dtype(1), blob.mutable_cpu_diff());
    layer->Backward(blobs, vector<bool>(1, true), blobs);
    for (int i = 0; i < blob.count(); ++i) {
      ASSERT_NEAR(blob.cpu_data()[i], (i + 1) * blob.cpu_diff()[i], 1e-3) << i;
    }
  }
}

TYPED_TEST(DropoutTest, TestNoNumberStaysOne) {
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> input(1, 1, 1, 64), output;
  caffe_set(input.count(), Dtype(NAN), input.mutable_cpu_data());
  auto layer = this->Made(2);
  layer->Reshape({&input}, {&output});
  layer->Forward({&input}, {&output});
  for (int i = 0; i < output.count(); ++i) { EXPECT_NE(output.cpu_data()[i], output.cpu_data()[i]); }
}

TYPED_TEST(DropoutTest, TestBadRatios) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const float ratio : {1.f, -0.5f, NAN}) {
    this->param_.mutable_dropout_param()->set_dropout_ratio(ratio);
    EXPECT_DEATH(this->Made(1), "Dropout layer 'drop': dropout_ratio is .*, expected a probability");
  }
}

#ifndef CPU_ONLY

template <typename Dtype>
class GPUAgreementDropoutTest : public DropoutTest<CPUDevice<Dtype> > {};

TYPED_TEST_CASE(GPUAgreementDropoutTest, TestDtypes);

TYPED_TEST(GPUAgreementDropoutTest, TestProcessorAndGPUDropTheSame) {
  Caffe::set_mode(Caffe::CPU);
  const auto kept = this->Forward(this->Made(11).get(), 9);
  Caffe::set_mode(Caffe::GPU);
  EXPECT_EQ(kept, this->Forward(this->Made(11).get(), 9));
}

#endif  // CPU_ONLY

}  // namespace caffe
