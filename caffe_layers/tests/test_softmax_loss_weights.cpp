#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/softmax_loss_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"

namespace caffe {

// Class weights and hard examples of SoftmaxWithLoss, on 2 images of 4 x 5 pixels and 3 classes; every fifth pixel has
// the label 255.
template <typename TypeParam>
class SoftmaxLossWeightsTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  SoftmaxLossWeightsTest() : scores_(2, 3, 4, 5), labels_(2, 1, 4, 5) {
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";  // a forked process cannot use the GPU
    FillerParameter filler_param;
    filler_param.set_std(2);
    GaussianFiller<Dtype>(filler_param).Fill(&scores_);
    for (int i = 0; i < labels_.count(); ++i) { labels_.mutable_cpu_data()[i] = i % 5 == 4 ? 255 : i * 7 % 3; }
    bottom_ = {&scores_, &labels_};
    top_ = {&loss_};
  }

  shared_ptr<Layer<Dtype> > Made(const string& loss_param) {
    LayerParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(
        "name: 'head' type: 'SoftmaxWithLoss' loss_param { ignore_label: 255 " + loss_param + " }", &param));
    shared_ptr<Layer<Dtype> > layer = LayerRegistry<Dtype>::CreateLayer(param);
    layer->SetUp(bottom_, top_);
    return layer;
  }

  // The loss; the gradient of twice the loss is in the scores then.
  Dtype Run(const string& loss_param) {
    shared_ptr<Layer<Dtype> > layer = Made(loss_param);
    layer->Forward(bottom_, top_);
    loss_.mutable_cpu_diff()[0] = 2;
    for (int times = 0; times < 2; ++times) {  // as often as one likes
      caffe_set(scores_.count(), Dtype(NAN), scores_.mutable_cpu_diff());
      layer->Backward(top_, {true, false}, bottom_);
    }
    return loss_.cpu_data()[0];
  }

  void Expect(const string& loss_param, const vector<double>& pixel_weight, double normalizer) {
    const double loss = Run(loss_param);
    const int inner = 4 * 5;
    double expected = 0;
    for (int pixel = 0; pixel < labels_.count(); ++pixel) {
      const int label = labels_.cpu_data()[pixel];
      for (int c = 0; c < 3; ++c) {
        const double gradient = pixel_weight[pixel] / normalizer * (Probability(pixel, c) - (c == label));
        ASSERT_NEAR(2 * gradient, scores_.cpu_diff()[(pixel / inner * 3 + c) * inner + pixel % inner], 2e-6);
      }
      if (label != 255) { expected -= pixel_weight[pixel] / normalizer * std::log(Probability(pixel, label)); }
    }
    EXPECT_NEAR(expected, loss, 1e-5 * std::max(1., expected));
  }

  double Probability(int pixel, int c) const {
    const int inner = 4 * 5;
    double sum = 0;
    for (int k = 0; k < 3; ++k) {
      sum += std::exp(double(scores_.cpu_data()[(pixel / inner * 3 + k) * inner + pixel % inner]));
    }
    return std::exp(double(scores_.cpu_data()[(pixel / inner * 3 + c) * inner + pixel % inner])) / sum;
  }

  // The weight of each pixel's class, 0 for ignored ones.
  vector<double> OfClasses(const vector<double>& weights) const {
    vector<double> found;
    for (int i = 0; i < labels_.count(); ++i) {
      const int label = labels_.cpu_data()[i];
      found.push_back(label == 255 ? 0 : weights[label]);
    }
    return found;
  }

  static double Sum(const vector<double>& values) {
    double sum = 0;
    for (double value : values) { sum += value; }
    return sum;
  }

  // Those with the largest losses keep their weight.
  vector<double> Worst(const vector<double>& weights, size_t count) const {
    vector<std::pair<double, int> > ranked;
    for (size_t i = 0; i < weights.size(); ++i) {
      const int label = labels_.cpu_data()[i];
      ranked.emplace_back(label == 255 ? -1 : -weights[i] * std::log(Probability(i, label)), i);
    }
    std::sort(ranked.begin(), ranked.end(), std::greater<std::pair<double, int> >());
    vector<double> kept(weights.size(), 0);
    for (size_t i = 0; i < count; ++i) { kept[ranked[i].second] = weights[ranked[i].second]; }
    return kept;
  }

  void ExpectDeath(const string& loss_param, const string& message) {
    EXPECT_DEATH(Made(loss_param), "SoftmaxWithLoss layer 'head': .*" + message);
  }

  Blob<Dtype> scores_, labels_, loss_;
  vector<Blob<Dtype>*> bottom_, top_;
};

TYPED_TEST_CASE(SoftmaxLossWeightsTest, TestDtypesAndDevices);

TYPED_TEST(SoftmaxLossWeightsTest, TestEveryNormalization) {
  const string text = "class_weight: [0.5, 4, 0.03125] ";
  const vector<double> weights = this->OfClasses({0.5, 4, 0.03125});
  this->Expect(text, weights, this->Sum(weights));
  this->Expect(text + "normalization: VALID", weights, this->Sum(weights));
  this->Expect(text + "normalization: FULL", weights, 40);
  this->Expect(text + "normalization: BATCH_SIZE", weights, 2);
  this->Expect(text + "normalize: false", weights, 2);
  this->Expect(text + "normalization: NONE", weights, 1);
}

// SegNet's names: the mean is over pixels, whatever their weights are.
TYPED_TEST(SoftmaxLossWeightsTest, TestNamesOfSegNet) {
  const string text = "weight_by_label_freqs: true class_weighting: [0.5, 4, 0] ";
  const vector<double> weights = this->OfClasses({0.5, 4, 0});
  const double valid = this->Sum(this->OfClasses({1, 1, 1}));
  this->Expect(text, weights, valid);
  this->Expect(text + "normalize: true", weights, valid);
  this->Expect(text + "normalization: FULL", weights, 40);
  this->Expect(text + "normalize: false", weights, 2);
  this->Expect("class_weighting: [0.5, 4, 0]", this->OfClasses({1, 1, 1}), valid);
  this->Expect("weight_by_label_freqs: true class_weighting: [1, 2, 3] hard_example_fraction: 0.25",
      this->Worst(this->OfClasses({1, 2, 3}), 8), 8);
  this->ExpectDeath("weight_by_label_freqs: true", "without class_weighting; give it once for each class");
  this->ExpectDeath(text + "class_weight: [1, 1, 1]", "are two ways to weigh classes");
  this->ExpectDeath("weight_by_label_freqs: true class_weighting: [1, 1]", "2 class_weighting for the scores of 3");
  this->ExpectDeath("weight_by_label_freqs: true class_weighting: [1, 1, -1]", "class_weighting of class 2 is -1");
}

TYPED_TEST(SoftmaxLossWeightsTest, TestSizeOfTheWeightsDoesNotMatter) {
  const double small = this->Run("class_weight: [1e-4, 3e-4, 2e-4]");
  EXPECT_NEAR(small, this->Run("class_weight: [100, 300, 200]"), 1e-5);
}

TYPED_TEST(SoftmaxLossWeightsTest, TestAClassOfWeightNothing) {
  const vector<double> weights = this->OfClasses({0, 2, 1});
  this->scores_.mutable_cpu_data()[0] = std::numeric_limits<double>::quiet_NaN();  // of a pixel of class 0
  this->Run("class_weight: [0, 2, 1]");
  EXPECT_TRUE(std::isfinite(this->loss_.cpu_data()[0]));
  EXPECT_EQ(0, this->scores_.cpu_diff()[0]);
}

TYPED_TEST(SoftmaxLossWeightsTest, TestNothingCounts) {
  caffe_set(this->labels_.count(), typename TypeParam::Dtype(255), this->labels_.mutable_cpu_data());
  for (const string text : {"", "class_weight: [1, 2, 3]", "hard_example_fraction: 0.5"}) {
    EXPECT_EQ(0, this->Run(text)) << text;
    EXPECT_EQ(0, this->scores_.asum_diff()) << text;
  }
}

// What Caffe's own layer does, in its order.
TYPED_TEST(SoftmaxLossWeightsTest, TestBitsOfCaffesOwnWhereNothingIsAskedFor) {
  typedef typename TypeParam::Dtype Dtype;
  if (Caffe::mode() == Caffe::GPU) { return; }  // cuBLAS has its own order of sums
  LayerParameter param;
  param.set_type("Softmax");
  shared_ptr<Layer<Dtype> > softmax = LayerRegistry<Dtype>::CreateLayer(param);
  Blob<Dtype> prob;
  vector<Blob<Dtype>*> top = {&prob};
  vector<Blob<Dtype>*> bottom = {&this->scores_};
  softmax->SetUp(bottom, top);
  softmax->Forward(bottom, top);
  Dtype loss = 0;
  int count = 0;
  Blob<Dtype> diff(2, 3, 4, 5);
  caffe_copy(prob.count(), prob.cpu_data(), diff.mutable_cpu_diff());
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 20; ++j) {
      const int label = this->labels_.cpu_data()[i * 20 + j];
      for (int c = 0; label == 255 && c < 3; ++c) { diff.mutable_cpu_diff()[(i * 3 + c) * 20 + j] = 0; }
      if (label == 255) { continue; }
      loss -= log(std::max(prob.cpu_data()[(i * 3 + label) * 20 + j], Dtype(FLT_MIN)));
      diff.mutable_cpu_diff()[(i * 3 + label) * 20 + j] -= 1;
      ++count;
    }
  }
  caffe_scal(diff.count(), Dtype(2) / Dtype(count), diff.mutable_cpu_diff());
  for (const string text : {"", "class_weight: [1, 1, 1]", "hard_example_fraction: 1"}) {
    EXPECT_EQ(loss / Dtype(count), this->Run(text)) << text;
    for (int i = 0; i < diff.count(); ++i) { ASSERT_EQ(diff.cpu_diff()[i], this->scores_.cpu_diff()[i]) << text; }
  }
}

TYPED_TEST(SoftmaxLossWeightsTest, TestHardExamples) {
  const vector<double> ones = this->OfClasses({1, 1, 1});  // 32 pixels
  this->Expect("hard_example_fraction: 0.25", this->Worst(ones, 8), 8);
  this->Expect("hard_example_fraction: 0.26", this->Worst(ones, 9), 9);
  this->Expect("hard_example_fraction: 0.0001", this->Worst(ones, 1), 1);
  this->Expect("hard_example_fraction: 0.5 normalization: FULL", this->Worst(ones, 16), 40);
  const vector<double> weights = this->Worst(this->OfClasses({0.5, 4, 0.25}), 8);
  this->Expect("hard_example_fraction: 0.25 class_weight: [0.5, 4, 0.25]", weights, this->Sum(weights));
}

TYPED_TEST(SoftmaxLossWeightsTest, TestPixelsOfWeightNothingAreNoExamples) {
  const vector<double> weights = this->OfClasses({0, 1, 1});
  const int count = std::count(weights.begin(), weights.end(), 1);
  const vector<double> worst = this->Worst(weights, (count + 1) / 2);
  this->Expect("hard_example_fraction: 0.5 class_weight: [0, 1, 1]", worst, this->Sum(worst));
}

// Where all are alike, none of them goes first.
TYPED_TEST(SoftmaxLossWeightsTest, TestTiesShareTheLastPlaces) {
  caffe_set(this->scores_.count(), typename TypeParam::Dtype(0), this->scores_.mutable_cpu_data());
  vector<double> quarter = this->OfClasses({0.25, 0.25, 0.25});
  this->Expect("hard_example_fraction: 0.25", quarter, 8);
  EXPECT_NEAR(std::log(3), this->loss_.cpu_data()[0], 1e-6);
}

TYPED_TEST(SoftmaxLossWeightsTest, TestNoNumberStaysNoNumber) {
  this->scores_.mutable_cpu_data()[3] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(this->Run("hard_example_fraction: 0.1")));
}

TYPED_TEST(SoftmaxLossWeightsTest, TestGradients) {
  typedef typename TypeParam::Dtype Dtype;
  for (const string text : {"class_weight: [0.5, 4, 0.25]", "hard_example_fraction: 0.25",
      "class_weight: [0.5, 4, 0.25] hard_example_fraction: 0.5 normalization: NONE"}) {
    shared_ptr<Layer<Dtype> > layer = this->Made(text);
    GradientChecker<Dtype> checker(1e-2, 1e-2, 1701);
    checker.CheckGradientExhaustive(layer.get(), this->bottom_, this->top_, 0);
  }
}

TYPED_TEST(SoftmaxLossWeightsTest, TestWrongParametersAreTold) {
  this->ExpectDeath("class_weight: [1, 2]", "2 class_weight for the scores of 3 classes; expected one for each class");
  this->ExpectDeath("class_weight: [1, -2, 3]", "class_weight of class 1 is -2, expected a number of 0 or more");
  this->ExpectDeath("class_weight: [1, 2, nan]", "class_weight of class 2 is nan");
  this->ExpectDeath("class_weight: [inf, 2, 1]", "class_weight of class 0 is inf");
  this->ExpectDeath("class_weight: [0, 0, 0]", "every class_weight is 0");
  for (const string value : {"0", "-1", "1.5", "nan"}) {
    this->ExpectDeath("hard_example_fraction: " + value, "hard_example_fraction is " + value + ", expected a share");
  }
}

TYPED_TEST(SoftmaxLossWeightsTest, TestOtherLossesDoNotKnowThem) {
  LayerParameter param;
  param.set_name("head");
  param.set_type("SigmoidCrossEntropyLoss");
  for (const string text : {"class_weight: 2", "hard_example_fraction: 0.5"}) {
    CHECK(google::protobuf::TextFormat::ParseFromString(text, param.mutable_loss_param()));
    shared_ptr<Layer<typename TypeParam::Dtype> > layer =
        LayerRegistry<typename TypeParam::Dtype>::CreateLayer(param);
    EXPECT_DEATH(layer->SetUp({&this->scores_, &this->scores_}, this->top_),
        "SigmoidCrossEntropyLoss layer 'head': class_weight, hard_example_fraction and weight_by_label_freqs are SoftmaxWithLoss's");
  }
}

}  // namespace caffe
