#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/dense_crf_layer.hpp"
#include "caffe/layers/multi_stage_meanfield_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"

namespace caffe {

template <typename TypeParam>
class DenseCRFLayerTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  DenseCRFLayerTest() : crf_(param_.mutable_dense_crf_param()) {
    bottom_.push_back(&scores_);
    bottom_.push_back(&image_);
    top_.push_back(&result_);
  }

  // Noise for scores, a slanted edge with noise for the image.
  void Shape(int num, int classes, int height, int width) {
    scores_.Reshape(num, classes, height, width);
    image_.Reshape(num, 3, height, width);
    FillerParameter filler_param;
    GaussianFiller<Dtype> filler(filler_param);
    filler.Fill(&scores_);
    Dtype* image = image_.mutable_cpu_data();
    for (int i = 0; i < image_.count(); ++i) {
      const int x = i % width, y = i / width % height;
      image[i] = (2 * x + y > width + i / (height * width) ? 170 : 60) +
          (7 * i) % 11;
    }
  }

  void Forward() {
    DenseCRFLayer<Dtype> layer(param_);
    layer.SetUp(bottom_, top_);
    layer.Forward(bottom_, top_);
  }

  // The definition with every pair of pixels, in double, into Q (image n).
  std::vector<double> BruteForce(int n) const {
    const int classes = scores_.channels();
    const int width = scores_.width();
    const int pixels = scores_.height() * width;
    const Dtype* scores = scores_.cpu_data() + scores_.offset(n);
    const Dtype* image = image_.cpu_data() + image_.offset(n);
    std::vector<double> kernel[2];
    for (int k = 0; k < 2; ++k) {
      kernel[k].resize(pixels * pixels);
      std::vector<double> sums(pixels);
      for (int i = 0; i < pixels; ++i) {
        for (int j = 0; j < pixels; ++j) {
          const double xy = k == 0 ? crf_->pos_xy_std() : crf_->bi_xy_std();
          double distance = (std::pow(i % width - j % width, 2) +
              std::pow(i / width - j / width, 2)) / (xy * xy);
          for (int c = 0; k == 1 && c < 3; ++c) {
            distance += std::pow((image[c * pixels + i] -
                image[c * pixels + j]) / crf_->bi_rgb_std(), 2);
          }
          kernel[k][i * pixels + j] = std::exp(-distance / 2);
          sums[i] += kernel[k][i * pixels + j];
        }
      }
      for (int i = 0; i < pixels * pixels; ++i) {
        const double after = sums[i / pixels], before = sums[i % pixels];
        switch (crf_->normalization()) {
        case DenseCRFParameter_Normalization_SYMMETRIC:
          kernel[k][i] /= std::sqrt(after * before);
          break;
        case DenseCRFParameter_Normalization_AFTER:
          kernel[k][i] /= after;
          break;
        case DenseCRFParameter_Normalization_BEFORE:
          kernel[k][i] /= before;
          break;
        default:
          break;
        }
      }
    }
    std::vector<double> q, message(classes * pixels);
    for (int t = 0; t <= static_cast<int>(crf_->max_iter()); ++t) {
      std::fill(message.begin(), message.end(), 0);
      for (int k = 0; t > 0 && k < 2; ++k) {
        for (int c = 0; c < classes; ++c) {
          for (int i = 0; i < pixels; ++i) {
            for (int j = 0; j < pixels; ++j) {
              message[c * pixels + i] += (k == 0 ? crf_->pos_w() : crf_->bi_w())
                  * kernel[k][i * pixels + j] * q[c * pixels + j];
            }
          }
        }
      }
      q.resize(classes * pixels);
      for (int i = 0; i < pixels; ++i) {
        double sum = 0;
        for (int c = 0; c < classes; ++c) {
          double energy = scores[c * pixels + i];
          for (int other = 0; other < classes; ++other) {
            if (other != c) { energy -= message[other * pixels + i]; }
          }
          sum += q[c * pixels + i] = std::exp(energy);
        }
        for (int c = 0; c < classes; ++c) { q[c * pixels + i] /= sum; }
      }
    }
    return q;
  }

  // Of all parameter blobs, wherever they are, and of a bottom.
  void CheckGradient(DenseCRFLayer<Dtype>* layer, int bottom) {
    // the gradient of single precision is the rounding's
    if (sizeof(Dtype) < sizeof(double)) { return; }
    layer->SetUp(bottom_, top_);
    Disturb(layer);
    GradientChecker<Dtype> checker(1e-4, 1e-5);
    checker.CheckGradientExhaustive(layer, bottom_, top_, bottom);
  }
  void CheckGradient() {
    DenseCRFLayer<Dtype> layer(param_);
    CheckGradient(&layer, 0);
  }
  // Parameters that differ from class to class.
  void Disturb(DenseCRFLayer<Dtype>* layer) {
    for (const shared_ptr<Blob<Dtype> >& blob : layer->blobs()) {
      for (int i = 0; i < blob->count(); ++i) {
        blob->mutable_cpu_data()[i] += Dtype(0.2) * std::sin(Dtype(i + 1));
      }
    }
  }

  LayerParameter param_;
  DenseCRFParameter* crf_;
  Blob<Dtype> scores_, image_, result_;
  vector<Blob<Dtype>*> bottom_, top_;
};

TYPED_TEST_CASE(DenseCRFLayerTest, TestDtypesAndDevices);

TYPED_TEST(DenseCRFLayerTest, NearsBruteForce) {
  this->crf_->set_bi_xy_std(6);
  this->crf_->set_bi_rgb_std(20);
  this->crf_->set_max_iter(3);
  this->Shape(2, 3, 11, 13);
  this->Forward();
  double sum = 0;
  for (int n = 0; n < 2; ++n) {
    const std::vector<double> expected = this->BruteForce(n);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double error = std::abs(expected[i] -
          this->result_.cpu_data()[this->result_.offset(n) + i]);
      EXPECT_LT(error, 0.35);
      sum += error;
    }
  }
  // the lattice's own error: hat functions and [1/2 1 1/2] stand for a Gaussian
  // (0.006 to 0.016 on average and up to 0.2 anywhere were seen on such noise)
  EXPECT_LT(sum / this->result_.count(), 0.04);
}

// Between AFTER and BEFORE, exchanged, lies more than the lattice's error.
TYPED_TEST(DenseCRFLayerTest, OneSideNearsBruteForce) {
  this->crf_->set_bi_xy_std(4);
  this->crf_->set_bi_rgb_std(40);
  this->crf_->set_pos_w(1);
  this->crf_->set_bi_w(1);
  this->crf_->set_max_iter(1);
  this->Shape(2, 3, 9, 13);
  const DenseCRFParameter_Normalization sides[] = {
      DenseCRFParameter_Normalization_AFTER,
      DenseCRFParameter_Normalization_BEFORE};
  for (int side = 0; side < 2; ++side) {
    double own = 0, other = 0;
    for (int of = 0; of < 2; ++of) {
      for (int n = 0; n < 2; ++n) {
        this->crf_->set_normalization(sides[side]);
        this->Forward();
        this->crf_->set_normalization(sides[of]);
        const std::vector<double> expected = this->BruteForce(n);
        for (size_t i = 0; i < expected.size(); ++i) {
          (of == side ? own : other) += std::abs(expected[i] -
              this->result_.cpu_data()[this->result_.offset(n) + i]);
        }
      }
    }
    EXPECT_LT(own / this->result_.count(), 0.02);
    EXPECT_LT(own, other / 2);
  }
}

TYPED_TEST(DenseCRFLayerTest, WithoutWeightsIsTheSoftmax) {
  this->crf_->set_pos_w(0);
  this->crf_->set_bi_w(0);
  this->Shape(2, 4, 5, 7);
  this->Forward();
  for (int n = 0; n < 2; ++n) {
    const std::vector<double> expected = this->BruteForce(n);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(expected[i],
          this->result_.cpu_data()[this->result_.offset(n) + i], 1e-5);
    }
  }
}

TYPED_TEST(DenseCRFLayerTest, AnImageIsItselfInABatchAndAfterAnotherSize) {
  typedef typename TypeParam::Dtype Dtype;
  DenseCRFLayer<Dtype> layer(this->param_);
  this->Shape(1, 3, 4, 9);
  layer.SetUp(this->bottom_, this->top_);
  layer.Forward(this->bottom_, this->top_);
  this->Shape(3, 3, 8, 5);
  layer.Reshape(this->bottom_, this->top_);
  layer.Forward(this->bottom_, this->top_);
  Blob<Dtype> together, scores, image;
  together.CopyFrom(this->result_, false, true);
  scores.CopyFrom(this->scores_, false, true);
  image.CopyFrom(this->image_, false, true);
  for (int n = 0; n < 3; ++n) {
    this->scores_.Reshape(1, 3, 8, 5);
    this->image_.Reshape(1, 3, 8, 5);
    caffe_copy(120, scores.cpu_data() + scores.offset(n),
        this->scores_.mutable_cpu_data());
    caffe_copy(120, image.cpu_data() + image.offset(n),
        this->image_.mutable_cpu_data());
    this->Forward();
    for (int i = 0; i < 120; ++i) {
      EXPECT_EQ(this->result_.cpu_data()[i],
          together.cpu_data()[together.offset(n) + i]);
    }
  }
}

TYPED_TEST(DenseCRFLayerTest, ExtremeScoresAndFlatImagesStayFinite) {
  const int sizes[][2] = {{6, 5}, {1, 9}, {9, 1}, {1, 1}};
  for (int s = 0; s < 4; ++s) {
    this->Shape(1, 2, sizes[s][0], sizes[s][1]);
    caffe_scal(this->scores_.count(), typename TypeParam::Dtype(1e6),
        this->scores_.mutable_cpu_data());
    caffe_set(this->image_.count(), typename TypeParam::Dtype(0),
        this->image_.mutable_cpu_data());
    this->Forward();
    for (int i = 0; i < this->result_.count(); ++i) {
      EXPECT_TRUE(std::isfinite(this->result_.cpu_data()[i]));
    }
  }
}

// NaN and infinity pass a comparison, and an int that they are cast to looks
// like any other.
TYPED_TEST(DenseCRFLayerTest, RefusesWhatHasNoLattice) {
  typedef typename TypeParam::Dtype Dtype;
  // a fork has none of OpenMP's threads and would wait for them
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  this->param_.set_name("crf");
  this->Shape(2, 2, 5, 6);
  for (float deviation : { 1e-7f, 1e-8f, 1e-38f }) {
    this->crf_->set_bi_rgb_std(deviation);
    EXPECT_DEATH(this->Forward(), "layer \"crf\": the pixels of image 0 lie "
        "too many standard deviations apart.* deviation is too small");
    this->crf_->clear_bi_rgb_std();
    this->crf_->set_pos_xy_std(deviation);
    EXPECT_DEATH(this->Forward(), "a standard deviation is too small");
    this->crf_->clear_pos_xy_std();
  }
  this->crf_->set_bi_xy_std(1e-8f);
  EXPECT_DEATH(this->Forward(), "a standard deviation is too small");
  this->crf_->clear_bi_xy_std();
  this->crf_->set_scale(1e-38f);
  EXPECT_DEATH(this->Forward(), "values are far above 255");
  this->crf_->clear_scale();
  Dtype* const value =
      this->image_.mutable_cpu_data() + this->image_.offset(1, 2, 4, 3);
  for (Dtype wrong : { Dtype(NAN), Dtype(INFINITY), Dtype(-INFINITY) }) {
    *value = wrong;
    EXPECT_DEATH(this->Forward(), "layer \"crf\": image 1 holds -?(nan|inf) at "
        "channel 2, row 4, column 3");
  }
  *value = 1e30;
  EXPECT_DEATH(this->Forward(), "values are far above 255");
  // nobody looks at it
  *value = NAN;
  this->crf_->set_bi_w(0);
  this->Forward();
  EXPECT_TRUE(std::isfinite(this->result_.cpu_data()[0]));
}

TYPED_TEST(DenseCRFLayerTest, RefusesParametersThatAreNoNumbers) {
  this->param_.set_name("crf");
  this->Shape(1, 2, 5, 6);
  const DenseCRFParameter good = *this->crf_;
  for (float wrong : { NAN, INFINITY, -INFINITY, -1.f }) {
    this->crf_->set_bi_rgb_std(wrong);
    EXPECT_DEATH(this->Forward(), "layer \"crf\": bi_rgb_std is a standard");
    *this->crf_ = good;
    this->crf_->set_pos_w(wrong);
    EXPECT_DEATH(this->Forward(), "layer \"crf\": pos_w is the weight");
    *this->crf_ = good;
    if (wrong == -1) { continue; }
    this->crf_->set_scale(wrong);
    EXPECT_DEATH(this->Forward(), "layer \"crf\": scale is");
    *this->crf_ = good;
    this->crf_->add_mean_value(wrong);
    EXPECT_DEATH(this->Forward(), "layer \"crf\": mean_value is");
    *this->crf_ = good;
  }
  this->crf_->set_max_iter(4294967295u);
  EXPECT_DEATH(this->Forward(), "layer \"crf\": max_iter is");
}

// What is no number stays none, in the label too; -infinity is a class that a
// pixel cannot have.
TYPED_TEST(DenseCRFLayerTest, ScoresThatAreNoNumbersGiveNone) {
  typedef typename TypeParam::Dtype Dtype;
  const DenseCRFParameter_Output outputs[] = {
      DenseCRFParameter_Output_PROBABILITY,
      DenseCRFParameter_Output_LOG_PROBABILITY,
      DenseCRFParameter_Output_LABEL};
  for (DenseCRFParameter_Output output : outputs) {
    this->crf_->set_output(output);
    for (int iterations : { 0, 3 }) {
      this->crf_->set_max_iter(iterations);
      for (Dtype wrong : { Dtype(NAN), Dtype(INFINITY) }) {
        for (int c = 0; c < 3; ++c) {
          this->Shape(2, 3, 5, 6);
          *(this->scores_.mutable_cpu_data() +
              this->scores_.offset(1, c, 2, 4)) = wrong;
          this->Forward();
          for (int k = 0; k < this->result_.channels(); ++k) {
            EXPECT_TRUE(std::isnan(this->result_.data_at(1, k, 2, 4)));
            EXPECT_FALSE(std::isnan(this->result_.data_at(0, k, 2, 4)));
          }
        }
      }
      this->Shape(1, 3, 5, 6);
      this->scores_.mutable_cpu_data()[7] = -INFINITY;
      this->Forward();
      for (int i = 0; i < this->result_.count(); ++i) {
        EXPECT_FALSE(std::isnan(this->result_.cpu_data()[i]));
      }
      if (output == DenseCRFParameter_Output_PROBABILITY) {
        EXPECT_EQ(0, this->result_.cpu_data()[7]);
      }
      for (int c = 0; c < 3; ++c) {
        this->scores_.mutable_cpu_data()[30 * c + 7] = -INFINITY;
      }
      this->Forward();
      EXPECT_TRUE(std::isnan(this->result_.cpu_data()[7]));
    }
  }
}

TYPED_TEST(DenseCRFLayerTest, MeanScaleAndOrderAreUndone) {
  typedef typename TypeParam::Dtype Dtype;
  this->Shape(1, 3, 7, 6);
  this->Forward();
  Blob<Dtype> plain, image;
  plain.CopyFrom(this->result_, false, true);
  image.CopyFrom(this->image_, false, true);
  const float means[] = {122.67f, 116.66f, 104.01f};
  for (int c = 0; c < 3; ++c) {
    this->crf_->add_mean_value(means[c]);
    for (int i = 0; i < 42; ++i) {
      this->image_.mutable_cpu_data()[c * 42 + i] =
          (image.cpu_data()[(2 - c) * 42 + i] - means[c]) * Dtype(0.017);
    }
  }
  this->crf_->set_scale(0.017f);
  this->crf_->set_order(DenseCRFParameter_Order_RGB);
  this->Forward();
  for (int i = 0; i < plain.count(); ++i) {
    EXPECT_EQ(plain.cpu_data()[i], this->result_.cpu_data()[i]);
  }
}

TYPED_TEST(DenseCRFLayerTest, OutputsAgree) {
  this->Shape(2, 3, 6, 5);
  Blob<typename TypeParam::Dtype> probability;
  this->Forward();
  probability.CopyFrom(this->result_, false, true);
  this->crf_->set_output(DenseCRFParameter_Output_LOG_PROBABILITY);
  this->Forward();
  for (int i = 0; i < probability.count(); ++i) {
    EXPECT_NEAR(probability.cpu_data()[i],
        std::exp(this->result_.cpu_data()[i]), 1e-5);
  }
  this->crf_->set_output(DenseCRFParameter_Output_LABEL);
  this->Forward();
  ASSERT_EQ(1, this->result_.channels());
  for (int n = 0; n < 2; ++n) {
    for (int i = 0; i < 30; ++i) {
      const int label = this->result_.data_at(n, 0, i / 5, i % 5);
      for (int c = 0; c < 3; ++c) {
        EXPECT_GE(probability.data_at(n, label, i / 5, i % 5),
            probability.data_at(n, c, i / 5, i % 5));
      }
    }
  }
}

TYPED_TEST(DenseCRFLayerTest, Gradient) {
  this->crf_->set_max_iter(3);
  this->crf_->set_bi_rgb_std(30);
  this->Shape(2, 3, 4, 3);
  this->CheckGradient();
}

TYPED_TEST(DenseCRFLayerTest, GradientOfLogarithm) {
  this->crf_->set_max_iter(2);
  this->crf_->set_output(DenseCRFParameter_Output_LOG_PROBABILITY);
  this->Shape(1, 2, 3, 4);
  this->CheckGradient();
}

TYPED_TEST(DenseCRFLayerTest, GradientOfLearnedParameters) {
  this->crf_->set_max_iter(2);
  this->crf_->set_learn(true);
  this->crf_->set_bi_rgb_std(30);
  this->Shape(2, 3, 3, 4);
  this->CheckGradient();
}

TYPED_TEST(DenseCRFLayerTest, GradientOfAllNormalizations) {
  this->crf_->set_max_iter(2);
  this->crf_->set_bi_rgb_std(30);
  for (DenseCRFParameter_Normalization normalization : {
      DenseCRFParameter_Normalization_AFTER,
      DenseCRFParameter_Normalization_BEFORE,
      DenseCRFParameter_Normalization_NONE}) {
    this->crf_->set_normalization(normalization);
    for (int learn = 0; learn < 2; ++learn) {
      this->crf_->set_learn(learn);
      this->Shape(2, 3, 3, 3);
      this->CheckGradient();
    }
  }
}

TYPED_TEST(DenseCRFLayerTest, GradientOfMatrices) {
  this->crf_->set_max_iter(3);
  this->crf_->set_bi_rgb_std(30);
  // weights of 3 and 5 bend three softmaxes too much for the finite difference
  this->crf_->set_pos_w(1);
  this->crf_->set_bi_w(1.5);
  for (int which = 1; which < 4; ++which) {
    this->crf_->set_kernel_weights(
        static_cast<DenseCRFParameter_ClassMatrix>(which & 1));
    this->crf_->set_compatibility(
        static_cast<DenseCRFParameter_ClassMatrix>(which >> 1));
    this->crf_->set_output(which == 1 ? DenseCRFParameter_Output_SCORE :
        DenseCRFParameter_Output_LOG_PROBABILITY);
    this->Shape(2, 3, 3, 4);
    this->CheckGradient();
  }
}

TYPED_TEST(DenseCRFLayerTest, GradientOfMultiStageMeanfield) {
  typedef typename TypeParam::Dtype Dtype;
  MultiStageMeanfieldParameter* const theirs =
      this->param_.mutable_multi_stage_meanfield_param();
  theirs->set_num_iterations(2);
  theirs->set_theta_alpha(10);
  theirs->set_theta_beta(30);
  theirs->set_theta_gamma(3);
  theirs->set_bilateral_filter_weights_str("5 3.5 1");
  this->Shape(2, 3, 4, 3);
  Blob<Dtype> start(this->scores_.shape());
  for (int i = 0; i < start.count(); ++i) {
    start.mutable_cpu_data()[i] = std::cos(Dtype(i));
  }
  this->bottom_.insert(this->bottom_.begin() + 1, &start);
  for (int bottom = 0; bottom < 2; ++bottom) {
    MultiStageMeanfieldLayer<Dtype> layer(this->param_);
    this->CheckGradient(&layer, bottom);
  }
}

// The parameters of CRF-as-RNN's files, and DenseCRF with the same.
TYPED_TEST(DenseCRFLayerTest, MultiStageMeanfieldIsDenseCRF) {
  typedef typename TypeParam::Dtype Dtype;
  MultiStageMeanfieldParameter* const theirs =
      this->param_.mutable_multi_stage_meanfield_param();
  theirs->set_num_iterations(5);
  theirs->set_compatibility_mode(MultiStageMeanfieldParameter_Mode_POTTS);
  theirs->set_threshold(2);
  theirs->set_theta_alpha(160);
  theirs->set_theta_beta(3);
  theirs->set_theta_gamma(3);
  theirs->set_spatial_filter_weight(3);
  theirs->set_bilateral_filter_weight(5);
  this->crf_->set_max_iter(5);
  this->crf_->set_bi_xy_std(160);
  this->crf_->set_normalization(DenseCRFParameter_Normalization_AFTER);
  this->crf_->set_order(DenseCRFParameter_Order_RGB);
  this->crf_->set_kernel_weights(DenseCRFParameter_ClassMatrix_MATRIX);
  this->crf_->set_compatibility(DenseCRFParameter_ClassMatrix_MATRIX);
  this->crf_->set_output(DenseCRFParameter_Output_LOG_PROBABILITY);
  this->Shape(2, 4, 7, 9);
  // a mean that was taken off stays off
  for (int i = 0; i < this->image_.count(); ++i) {
    this->image_.mutable_cpu_data()[i] -= Dtype(104.00699);
  }
  DenseCRFLayer<Dtype> layer(this->param_);
  layer.SetUp(this->bottom_, this->top_);
  this->Disturb(&layer);
  layer.Forward(this->bottom_, this->top_);
  Blob<Dtype> expected;
  expected.CopyFrom(this->result_, false, true);
  this->bottom_.insert(this->bottom_.begin() + 1, &this->scores_);
  MultiStageMeanfieldLayer<Dtype> same(this->param_);
  same.SetUp(this->bottom_, this->top_);
  ASSERT_EQ(3, same.blobs().size());
  for (int k = 0; k < 3; ++k) {
    // as that layer writes them
    ASSERT_EQ("1 1 4 4 (16)", same.blobs()[k]->shape_string());
    for (int i = 0; i < 16; ++i) {
      EXPECT_EQ(i % 5 != 0 ? 0 : k == 0 ? 3 : k == 1 ? 5 : -1,
          same.blobs()[k]->cpu_data()[i]);
    }
    same.blobs()[k]->CopyFrom(*layer.blobs()[k]);
  }
  same.Forward(this->bottom_, this->top_);
  for (int n = 0; n < 2; ++n) {
    for (int i = 0; i < 63; ++i) {
      double sum = 0;
      for (int c = 0; c < 4; ++c) {
        sum += std::exp(this->result_.data_at(n, c, i / 9, i % 9));
      }
      for (int c = 0; c < 4; ++c) {
        EXPECT_NEAR(expected.data_at(n, c, i / 9, i % 9),
            this->result_.data_at(n, c, i / 9, i % 9) - std::log(sum), 1e-4);
      }
    }
  }
}

TYPED_TEST(DenseCRFLayerTest, RefusesBlobsOfOtherShapes) {
  typedef typename TypeParam::Dtype Dtype;
  this->param_.set_name("crf");
  this->Shape(1, 3, 4, 5);
  this->crf_->set_kernel_weights(DenseCRFParameter_ClassMatrix_MATRIX);
  this->crf_->set_compatibility(DenseCRFParameter_ClassMatrix_MATRIX);
  const int matrix[] = {1, 1, 3, 3}, of_two[] = {1, 1, 2, 2};
  for (int wrong = 0; wrong < 3; ++wrong) {
    this->param_.clear_blobs();
    for (int k = 0; k < 3; ++k) {
      const int* const shape = k == wrong ? of_two : matrix;
      Blob<Dtype>(vector<int>(shape, shape + 4))
          .ToProto(this->param_.add_blobs());
    }
    const char* const messages[] = {
        "blob 0 .the positional kernel's weights. is 1 1 2 2 .4. and with 3 "
        "classes must be 1 1 3 3", "blob 1 .the bilateral kernel's weights.",
        "blob 2 .compatibility."};
    EXPECT_DEATH(this->Forward(), messages[wrong]);
  }
  this->crf_->clear_compatibility();
  EXPECT_DEATH(this->Forward(), "as many parameter blobs as");
}

TYPED_TEST(DenseCRFLayerTest, RefusesWhatMultiStageMeanfieldCannotBe) {
  typedef typename TypeParam::Dtype Dtype;
  this->param_.set_name("crf");
  this->Shape(1, 3, 4, 5);
  const auto set_up = [this](const Blob<Dtype>& start) {
    Blob<Dtype> copy(start.shape());
    vector<Blob<Dtype>*> bottom = {&this->scores_, &copy, &this->image_};
    MultiStageMeanfieldLayer<Dtype> layer(this->param_);
    layer.SetUp(bottom, this->top_);
  };
  MultiStageMeanfieldParameter* const theirs =
      this->param_.mutable_multi_stage_meanfield_param();
  theirs->set_theta_alpha(160);
  theirs->set_theta_beta(3);
  EXPECT_DEATH(set_up(this->scores_), "MultiStageMeanfield layer \"crf\": "
      "theta_alpha, theta_beta and theta_gamma are standard deviations");
  theirs->set_theta_gamma(3);
  set_up(this->scores_);
  const Blob<Dtype> narrow(1, 3, 4, 4);
  EXPECT_DEATH(set_up(narrow), "they must be alike");
  for (const char* numbers : { "3 2", "3 2 1 1", "3 x 2", "3 nan 2" }) {
    theirs->set_spatial_filter_weights_str(numbers);
    EXPECT_DEATH(set_up(this->scores_), "must be 3 numbers, one for each class");
  }
}

TYPED_TEST(DenseCRFLayerTest, LearnedParametersStartAtPotts) {
  this->Shape(1, 4, 6, 7);
  this->Forward();
  Blob<typename TypeParam::Dtype> fixed;
  fixed.CopyFrom(this->result_, false, true);
  this->crf_->set_learn(true);
  this->Forward();
  for (int i = 0; i < fixed.count(); ++i) {
    EXPECT_NEAR(fixed.cpu_data()[i], this->result_.cpu_data()[i], 1e-4);
  }
}

}  // namespace caffe
