#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/layer_factory.hpp"
#include "caffe/sgd_solvers.hpp"
#include "caffe/util/io.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

// A source of data that remembers what it was told at a resumption.
template <typename Dtype>
class ResumeProbeLayer : public Layer<Dtype> {
 public:
  explicit ResumeProbeLayer(const LayerParameter& param) : Layer<Dtype>(param), resumed_at_(-1), seed_(-1) {}
  void Reshape(const vector<Blob<Dtype>*>& /* bottom */, const vector<Blob<Dtype>*>& top) override {
    top[0]->Reshape({2, 3});
  }
  const char* type() const override { return "ResumeProbe"; }
  void ResumeAt(int forward_passes) override { resumed_at_ = forward_passes; }
  void SetSeed(uint64_t seed) override { seed_ = seed; }
  int resumed_at() const { return resumed_at_; }
  int64_t seed() const { return seed_; }

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& /* bottom */, const vector<Blob<Dtype>*>& top) override {
    caffe_set(top[0]->count(), Dtype(1), top[0]->mutable_cpu_data());
  }
  void Backward_cpu(const vector<Blob<Dtype>*>& /* top */, const vector<bool>& /* propagate_down */,
      const vector<Blob<Dtype>*>& /* bottom */) override {}

 private:
  int resumed_at_;
  int64_t seed_;
};

REGISTER_LAYER_CLASS(ResumeProbe);

template <typename Dtype>
class ResumeTest : public ::testing::Test {
 protected:
  ResumeTest() {
    MakeTempDir(&folder_);
    CHECK(google::protobuf::TextFormat::ParseFromString(
        "base_lr: 0.1 lr_policy: 'fixed' max_iter: 5 iter_size: 3 display: 0 snapshot_after_train: false "
        "solver_mode: CPU "
        "net_param { "
        "  layer { name: 'data' type: 'ResumeProbe' top: 'data' } "
        "  layer { name: 'ip' type: 'InnerProduct' bottom: 'data' top: 'ip' inner_product_param { num_output: 1 } } "
        "  layer { name: 'loss' type: 'Reduction' bottom: 'ip' top: 'loss' loss_weight: 1 "
        "          reduction_param { operation: SUMSQ } } "
        "}", &param_));
    param_.set_snapshot_prefix(folder_ + "/probe");
  }

  // What the data layer of a new solver was told when the snapshot of iteration 5 was restored.
  int ResumedAt(SolverParameter_SnapshotFormat format, const string& extension) {
    param_.set_snapshot_format(format);
    SGDSolver<Dtype> first(param_);
    first.Step(5);
    first.Snapshot();
    SGDSolver<Dtype> second(param_);
    second.Restore((folder_ + "/probe_iter_5.solverstate" + extension).c_str());
    return static_cast<ResumeProbeLayer<Dtype>*>(second.net()->layer_by_name("data").get())->resumed_at();
  }

  string folder_;
  SolverParameter param_;
};

TYPED_TEST_CASE(ResumeTest, TestDtypes);

TYPED_TEST(ResumeTest, TestLayersHearOfForwardPassesDone) {
  EXPECT_EQ(5 * 3, this->ResumedAt(SolverParameter_SnapshotFormat_BINARYPROTO, ""));
}

TYPED_TEST(ResumeTest, TestLayersHearOfForwardPassesDoneFromHDF5) {
  EXPECT_EQ(5 * 3, this->ResumedAt(SolverParameter_SnapshotFormat_HDF5, ".h5"));
}

TYPED_TEST(ResumeTest, TestFreshTrainingIsNotResumed) {
  SGDSolver<TypeParam> solver(this->param_);
  solver.Step(1);
  EXPECT_EQ(-1, static_cast<ResumeProbeLayer<TypeParam>*>(
      solver.net()->layer_by_name("data").get())->resumed_at());
}

TYPED_TEST(ResumeTest, TestLayersHearOfTheSeedThatAllRanksShare) {
  for (const int seed : {-1, 0, 42}) {
    this->param_.set_random_seed(seed);
    Caffe::set_solver_rank(1);
    SGDSolver<TypeParam> solver(this->param_);
    Caffe::set_solver_rank(0);
    EXPECT_EQ(seed, static_cast<ResumeProbeLayer<TypeParam>*>(
        solver.net()->layer_by_name("data").get())->seed());
  }
}

}  // namespace caffe
