#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/test/test_caffe_main.hpp"
#include "solver_under_test.hpp"

namespace caffe {

class SolverValuesTest : public ::testing::Test {
 protected:
  SolverValuesTest() { ::testing::FLAGS_gtest_death_test_style = "fast"; }

  // A good solver but for the fields of `text`.
  static void Make(string text) {
    for (const string good : {"base_lr: 0.1", "lr_policy: 'fixed'", "max_iter: 10"}) {
      if (text.find(good.substr(0, good.find(' '))) == string::npos) { text += " " + good; }
    }
    SolverUnderTest<float> solver(text);
  }
};

// Each with what its message says after the value.
TEST_F(SolverValuesTest, TestEveryValueWithoutSenseIsToldByName) {
  const struct {
    const char* text;
    const char* message;
  } cases[] = {
    {"iter_size: 0", "iter_size is 0, expected 1 batch or more"},
    {"iter_size: -1", "iter_size is -1, expected 1 batch or more"},
    {"average_loss: 0", "average_loss is 0, expected 1 iteration"},
    {"display: -1", "display is -1, expected 0 \\(never\\)"},
    {"snapshot: -5", "snapshot is -5, expected 0 \\(none\\)"},
    {"test_iter: 0 test_interval: 5", "test_iter is 0, expected 1 batch"},
    {"test_iter: 2 test_iter: -3 test_interval: 5", "test_iter is -3, expected 1 batch"},
    {"test_iter: 2", "test_interval is 0, expected 1 iteration"},
    {"test_interval: -1", "test_interval is -1, expected 0 or more"},
    {"base_lr: nan", "base_lr is nan, expected a rate"},
    {"base_lr: inf", "base_lr is inf, expected a rate"},
    {"base_lr: -0.1", "base_lr is -0.1, expected a rate"},
    {"gamma: nan", "gamma is nan, expected a factor"},
    {"gamma: -1", "gamma is -1, expected a factor"},
    {"power: inf", "power is inf, expected a number"},
    {"lr_policy: 'step'", "stepsize is 0, expected 1 iteration or more, for this"},
    {"lr_policy: 'sigmoid' stepsize: -4", "stepsize is -4, expected 1"},
    {"stepsize: -4", "stepsize is -4, expected 0 or more"},
    {"lr_policy: 'multistep' stepvalue: 5 stepvalue: 4", "stepvalue is 4, expected iterations in rising order"},
    {"stepvalue: -1", "stepvalue is -1, expected iterations in rising"},
    {"max_iter: -1", "max_iter is -1, expected a number of iterations"},
    {"lr_policy: 'poly' max_iter: 0", "max_iter is 0, expected 1 or more, for this"},
    {"lr_policy: 'cosine' max_iter: 0", "max_iter is 0, expected 1 or more, for this"},
    {"lr_policy: 'Fixed'", "lr_policy is 'Fixed', expected one of the known"},
    {"momentum: nan", "momentum is nan, expected at least 0 and below 1"},
    {"momentum: 1", "momentum is 1, expected at least 0"},
    {"type: 'Adam' momentum2: 1", "momentum2 is 1, expected at least 0"},
    {"type: 'RMSProp' rms_decay: 1.5", "rms_decay is 1.5, expected at least 0"},
    {"type: 'AdaGrad' delta: nan", "delta is nan, expected a number"},
    {"weight_decay: nan", "weight_decay is nan, expected a factor"},
    {"weight_decay: -0.1", "weight_decay is -0.1, expected a factor"},
    {"regularization_type: 'L9'", "regularization_type is 'L9', expected L1 or L2"},
    {"clip_gradients: nan", "clip_gradients is nan, expected the largest"},
    {"clip_gradients: 0", "clip_gradients is 0, expected the largest"},
  };
  for (const auto& each : cases) {
    EXPECT_DEATH(Make(each.text), string("solver: ") + each.message) << each.text;
  }
}

TEST_F(SolverValuesTest, TestValuesAtTheirEdges) {
  for (const char* text : {"iter_size: 1 average_loss: 1 display: 0 snapshot: 0 base_lr: 0", "max_iter: 0 momentum: 0",
      "stepvalue: 0 stepvalue: 0 stepvalue: 3 lr_policy: 'multistep'", "test_iter: 1 test_interval: 1 power: -1",
      "clip_gradients: -1 weight_decay: 0 gamma: 0 regularization_type: 'L1'"}) {
    Make(text);
  }
}

}  // namespace caffe
