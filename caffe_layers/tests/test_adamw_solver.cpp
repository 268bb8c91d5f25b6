#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/sgd_solvers.hpp"
#include "caffe/util/io.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "solver_under_test.hpp"

namespace caffe {

const char kAdamWRule[] = "base_lr: 0.01 lr_policy: 'step' stepsize: 3 gamma: 0.5 momentum: 0.9 momentum2: 0.99 "
    "delta: 1e-8 max_iter: 9 ";
const char kDecay[] = "weight_decay: 0.125 ";

template <typename TypeParam>
class AdamWSolverTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(AdamWSolverTest, TestDtypesAndDevices);

// By hand in double precision: the decay is taken off the weights, and the moments are the gradient's alone.
TYPED_TEST(AdamWSolverTest, TestFollowsItsEquations) {
  typedef typename TypeParam::Dtype Dtype;
  SolverUnderTest<Dtype> solver(string("type: 'AdamW' ") + kAdamWRule + kDecay);
  Net<Dtype>& net = *solver->net();
  const vector<Blob<Dtype>*>& params = net.learnable_params();
  vector<vector<double> > weights, m, v;
  for (const Blob<Dtype>* blob : params) {
    weights.emplace_back(blob->cpu_data(), blob->cpu_data() + blob->count());
    m.emplace_back(blob->count());
    v.emplace_back(blob->count());
  }
  for (int t = 1; t <= 8; ++t) {
    net.ClearParamDiffs();
    net.ForwardBackward();
    const double rate = t <= 3 ? 0.01 : t <= 6 ? 0.005 : 0.0025;
    for (size_t i = 3; i < params.size(); ++i) {  // without BatchNorm's sums
      for (int k = 0; k < params[i]->count(); ++k) {
        const double g = params[i]->cpu_diff()[k];
        m[i][k] = 0.9 * m[i][k] + 0.1 * g;
        v[i][k] = 0.99 * v[i][k] + 0.01 * g * g;
        const double step = m[i][k] / (1 - std::pow(0.9, t)) / (std::sqrt(v[i][k] / (1 - std::pow(0.99, t))) + 1e-8);
        weights[i][k] -= rate * net.params_lr()[i] * (step + 0.125 * net.params_weight_decay()[i] * weights[i][k]);
      }
    }
    solver->ApplyUpdate();
    for (size_t i = 3; i < params.size(); ++i) {
      for (int k = 0; k < params[i]->count(); ++k) {
        ASSERT_NEAR(weights[i][k], params[i]->cpu_data()[k], 2e-5) << "blob " << i << " after " << t;
      }
    }
  }
  EXPECT_STREQ("AdamW", solver->type());
}

TYPED_TEST(AdamWSolverTest, TestIsAdamWithoutDecayAndAnotherWithIt) {
  typedef typename TypeParam::Dtype Dtype;
  for (const bool decays : {false, true}) {
    const string rule = string(kAdamWRule) + (decays ? kDecay : "");
    SolverUnderTest<Dtype> adamw("type: 'AdamW' " + rule), adam("type: 'Adam' " + rule);
    adamw->Step(4);
    adam->Step(4);
    EXPECT_EQ(!decays, adamw.Weights() == adam.Weights());
  }
}

TYPED_TEST(AdamWSolverTest, TestResumesBitForBit) {
  typedef typename TypeParam::Dtype Dtype;
  string folder;
  MakeTempDir(&folder);
  for (const string format : {"BINARYPROTO", "HDF5"}) {
    const string text = string("type: 'AdamW' snapshot_prefix: '") + folder + "/x' snapshot_format: " + format + " " +
        kAdamWRule + kDecay;
    SolverUnderTest<Dtype> unbroken(text), first(text), second(text);
    unbroken->Step(7);
    first->Step(4);
    first->Snapshot();
    second->Restore((folder + "/x_iter_4.solverstate" + (format == "HDF5" ? ".h5" : "")).c_str());
    second->Step(3);
    EXPECT_TRUE(unbroken.Weights() == second.Weights()) << format;
  }
}

TYPED_TEST(AdamWSolverTest, TestL1IsRefused) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(SolverUnderTest<typename TypeParam::Dtype>(string("type: 'AdamW' regularization_type: 'L1' ") + kAdamWRule),
      "AdamW takes weight_decay off the weights themselves.*says L1");
}

}  // namespace caffe
