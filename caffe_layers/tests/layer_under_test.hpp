#ifndef CAFFE_TEST_LAYER_UNDER_TEST_HPP_
#define CAFFE_TEST_LAYER_UNDER_TEST_HPP_

#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"

namespace caffe {

/// A layer made from the text of a prototxt, with blobs around it.
template <typename Dtype>
class LayerUnderTest {
 public:
  explicit LayerUnderTest(const string& text, int bottoms = 1)
      : bottoms_(bottoms) {
    LayerParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(text, &param)) << text;
    layer_ = LayerRegistry<Dtype>::CreateLayer(param);
    for (size_t i = 0; i < bottoms_.size(); ++i) {
      bottom_.push_back(&bottoms_[i]);
    }
    top_.push_back(&result_);
  }

  Layer<Dtype>* layer() { return layer_.get(); }
  Blob<Dtype>& bottom(int i = 0) { return bottoms_[i]; }
  Blob<Dtype>& top() { return result_; }
  const vector<Blob<Dtype>*>& bottom_vector() const { return bottom_; }
  const vector<Blob<Dtype>*>& top_vector() const { return top_; }

  static void Fill(Blob<Dtype>* blob, bool diff = false) {
    FillerParameter param;
    GaussianFiller<Dtype> filler(param);
    Blob<Dtype> noise(blob->shape());
    filler.Fill(&noise);
    caffe_copy(blob->count(), noise.cpu_data(),
        diff ? blob->mutable_cpu_diff() : blob->mutable_cpu_data());
  }
  /// Bottom 0 gets a shape, and noise.
  void Shape(const vector<int>& shape) {
    bottom().Reshape(shape);
    Fill(&bottom());
  }
  void SetUp() { layer_->SetUp(bottom_, top_); }
  void Forward() { layer_->Forward(bottom_, top_); }
  /// The gradient of noise, into rubbish; of bottom 0 alone.
  void Backward() {
    Fill(&result_, true);
    caffe_set(bottom().count(), Dtype(777), bottom().mutable_cpu_diff());
    vector<bool> propagate_down(bottom_.size(), false);
    propagate_down[0] = true;
    layer_->Backward(top_, propagate_down, bottom_);
  }
  /// The gradients of bottom 0 and of the parameters by differences.
  void CheckGradient(Dtype step = 1e-2, Dtype threshold = 1e-3) {
    GradientChecker<Dtype> checker(step, threshold);
    checker.CheckGradientExhaustive(layer_.get(), bottom_, top_, 0);
  }

 private:
  shared_ptr<Layer<Dtype> > layer_;
  vector<Blob<Dtype> > bottoms_;
  Blob<Dtype> result_;
  vector<Blob<Dtype>*> bottom_, top_;
};

/// In this form a NaN, which nothing overwrote, is a failure.
template <typename Dtype>
void ExpectNear(const vector<double>& expected, const Dtype* actual,
    double tolerance) {
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(std::abs(actual[i] - expected[i]) <=
        tolerance * std::max(1., std::abs(expected[i])))
        << actual[i] << " instead of " << expected[i] << " at " << i;
  }
}

template <typename Dtype>
double RoundingOf() { return sizeof(Dtype) == 4 ? 1e-5 : 1e-12; }

}  // namespace caffe

#endif  // CAFFE_TEST_LAYER_UNDER_TEST_HPP_
