#ifndef CAFFE_TEST_RENET_LAYER_RUN_HPP_
#define CAFFE_TEST_RENET_LAYER_RUN_HPP_

#include <omp.h>

#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/util/math_functions.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "renet_reference.hpp"

namespace caffe {

/// Sets the number of OpenMP's threads for a scope.
class Threads {
 public:
  explicit Threads(int count) : before_(omp_get_max_threads()) {
    omp_set_num_threads(count);
  }
  ~Threads() { omp_set_num_threads(before_); }

 private:
  const int before_;
};

/// A layer with its maps; parameters, map and top gradient are a function of
/// the case alone.
template <typename Dtype>
class LayerRun {
 public:
  explicit LayerRun(const ReNetCase& c, Phase phase = TRAIN, double gain = 1)
      : case_(c), propagate_down_(1, true) {
    bottom_vector_.push_back(&bottom_);
    top_vector_.push_back(&top_);
    layer_ = LayerRegistry<Dtype>::CreateLayer(c.Parameter(phase));
    bottom_.Reshape(c.num, c.channels, c.height, c.width);
    layer_->SetUp(bottom_vector_, top_vector_);
    FillParameters(c, gain, layer_->blobs());
    ClearDiffs();
    SetMap(c.num, c.height, c.width);
  }

  /// Another map, and another gradient of the top.
  void SetMap(int num, int height, int width) {
    case_ = case_.Map(num, case_.channels, height, width);
    bottom_.Reshape(num, case_.channels, height, width);
    layer_->Reshape(bottom_vector_, top_vector_);
    FillUniform(1, -1, 1, bottom_.count(), bottom_.mutable_cpu_data());
    SetTopDiff(2);
  }
  void SetTopDiff(unsigned int seed) {
    FillUniform(seed, -1, 1, top_.count(), top_.mutable_cpu_diff());
  }
  void ClearDiffs() {
    for (const shared_ptr<Blob<Dtype> >& blob : layer_->blobs()) {
      caffe_set(blob->count(), Dtype(0), blob->mutable_cpu_diff());
    }
  }

  void Forward() { layer_->Forward(bottom_vector_, top_vector_); }
  void Backward() {
    layer_->Backward(top_vector_, propagate_down_, bottom_vector_);
  }
  void PropagateDown(bool propagate) { propagate_down_[0] = propagate; }
  void CheckGradient(GradientChecker<Dtype> checker) {
    checker.CheckGradient(layer_.get(), bottom_vector_, top_vector_);
  }

  vector<Dtype> Top() const { return Data(top_); }
  vector<Dtype> BottomDiff() const { return Diff(bottom_); }
  vector<vector<Dtype> > ParameterDiffs() const {
    vector<vector<Dtype> > diffs;
    for (const shared_ptr<Blob<Dtype> >& blob : layer_->blobs()) {
      diffs.push_back(Diff(*blob));
    }
    return diffs;
  }
  ReNetReference Reference() const {
    return ReferenceForward(case_, bottom_, layer_->blobs());
  }

  Layer<Dtype>* layer() { return layer_.get(); }
  Blob<Dtype>* bottom() { return &bottom_; }
  Blob<Dtype>* top() { return &top_; }

 private:
  static vector<Dtype> Data(const Blob<Dtype>& blob) {
    return vector<Dtype>(blob.cpu_data(), blob.cpu_data() + blob.count());
  }
  static vector<Dtype> Diff(const Blob<Dtype>& blob) {
    return vector<Dtype>(blob.cpu_diff(), blob.cpu_diff() + blob.count());
  }

  ReNetCase case_;
  shared_ptr<Layer<Dtype> > layer_;
  Blob<Dtype> bottom_;
  Blob<Dtype> top_;
  vector<Blob<Dtype>*> bottom_vector_;
  vector<Blob<Dtype>*> top_vector_;
  vector<bool> propagate_down_;
};

/// All units in both directions.
inline vector<ReNetCase> UnitsAndDirections() {
  vector<ReNetCase> cases;
  for (const ReNetCase& unit : ReNetUnits()) {
    cases.push_back(unit.Direction(true));
    cases.push_back(unit.Direction(false));
  }
  return cases;
}

template <typename Dtype>
double GradientDistance(const vector<Dtype>& actual,
    const vector<Dtype>& expected) {
  CHECK_EQ(actual.size(), expected.size());
  return LargestGradientError(actual.size(), actual.data(), expected.data());
}

template <typename TypeParam>
class ReNetLayerTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  static bool is_float() { return sizeof(Dtype) == sizeof(float); }
};

// Here, so that the tests of several files are of one suite.
TYPED_TEST_CASE(ReNetLayerTest, TestDtypesAndDevices);

}  // namespace caffe

#endif  // CAFFE_TEST_RENET_LAYER_RUN_HPP_
