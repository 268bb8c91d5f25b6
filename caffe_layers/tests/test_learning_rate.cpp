#include <cmath>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/sgd_solvers.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "solver_under_test.hpp"

namespace caffe {

template <typename Dtype>
class LearningRateTest : public CPUDeviceTest<Dtype> {
 protected:
  LearningRateTest() {
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";  // a forked process cannot use the GPU
  }

  // The rates of the first iterations.
  static vector<double> Rates(const string& text, int count) {
    SolverUnderTest<Dtype> solver("base_lr: 0.5 max_iter: 10 " + text);
    vector<double> rates;
    for (int i = 0; i < count; ++i) {
      rates.push_back(static_cast<SGDSolver<Dtype>*>(solver.operator->())->GetLearningRate());
      solver->ApplyUpdate();
    }
    return rates;
  }

  static void ExpectNear(const vector<double>& expected, const vector<double>& actual) {
    ASSERT_EQ(expected.size(), actual.size());
    for (size_t i = 0; i < expected.size(); ++i) { EXPECT_NEAR(expected[i], actual[i], 1e-6) << i; }
  }
};

TYPED_TEST_CASE(LearningRateTest, TestDtypes);

TYPED_TEST(LearningRateTest, TestCosine) {
  vector<double> expected;
  for (int i = 0; i <= 10; ++i) { expected.push_back(0.5 * (1 + std::cos(M_PI * i / 10)) / 2); }
  expected.push_back(0);  // and does not rise again
  expected.push_back(0);
  this->ExpectNear(expected, this->Rates("lr_policy: 'cosine'", 13));
  EXPECT_NEAR(0.25, expected[5], 1e-9);
}

TYPED_TEST(LearningRateTest, TestWarmUpOfAFixedRate) {
  this->ExpectNear({0, 0.125, 0.25, 0.375, 0.5, 0.5}, this->Rates("lr_policy: 'fixed' warmup_iter: 4", 6));
  this->ExpectNear({0.1, 0.2, 0.3, 0.4, 0.5, 0.5},
      this->Rates("lr_policy: 'fixed' warmup_iter: 4 warmup_start_lr: 0.1", 6));
}

// Whatever the policy, the rate has no jump at the end of the warm-up, and none without one.
TYPED_TEST(LearningRateTest, TestWarmUpOfEveryPolicy) {
  for (const string policy : {"'fixed'", "'step' stepsize: 2 gamma: 0.5", "'exp' gamma: 0.9", "'inv' gamma: 0.1 power: 2",
      "'multistep' stepvalue: 1 stepvalue: 6 gamma: 0.5", "'poly' power: 0.9", "'cosine'",
      "'sigmoid' gamma: 0.5 stepsize: 5"}) {
    const vector<double> plain = this->Rates("lr_policy: " + policy, 9);
    const vector<double> warm = this->Rates("lr_policy: " + policy + " warmup_iter: 4 warmup_start_lr: 0.1", 9);
    vector<double> expected = plain;
    for (int i = 0; i < 4; ++i) { expected[i] = 0.1 + (plain[i] - 0.1) * i / 4; }
    this->ExpectNear(expected, warm);
    EXPECT_EQ(plain, this->Rates("lr_policy: " + policy + " warmup_iter: 0", 9)) << policy;
  }
}

TYPED_TEST(LearningRateTest, TestWrongSettingsAreTold) {
  const string rule = "base_lr: 1 lr_policy: 'fixed' ";
  EXPECT_DEATH(SolverUnderTest<TypeParam>(rule + "warmup_iter: -1"), "warmup_iter is -1, expected a number of iterations");
  for (const string value : {"-0.5", "nan", "inf"}) {
    EXPECT_DEATH(SolverUnderTest<TypeParam>(rule + "warmup_start_lr: " + value),
        "warmup_start_lr is " + value + ", expected a rate of 0 or more");
  }
  EXPECT_DEATH(this->Rates("lr_policy: 'cosin'", 1), "known policies: .*poly, cosine, sigmoid");
}

}  // namespace caffe
