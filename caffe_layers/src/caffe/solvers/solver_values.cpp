#include "caffe/solvers/solver_values.hpp"

#include <glog/logging.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>

namespace caffe {

namespace {

template <typename Value>
void Expect(bool makes_sense, const char* field, const Value& value,
    const char* expected) {
  if (!makes_sense) {
    LOG(FATAL) << "solver: " << field << " is " << value << ", expected "
        << expected;
  }
}

void ExpectAtLeast(int least, const char* field, int value,
    const char* expected) {
  Expect(value >= least, field, value, expected);
}

/// What is 0 or more, and below `bound`; NaN is not.
void ExpectBelow(float bound, const char* field, float value,
    const char* expected) {
  Expect(value >= 0 && value < bound, field, value, expected);
}

void CheckRate(const SolverParameter& param) {
  const float infinity = std::numeric_limits<float>::infinity();
  const char* const rate = "a rate of 0 or more";
  ExpectBelow(infinity, "base_lr", param.base_lr(), rate);
  ExpectBelow(infinity, "warmup_start_lr", param.warmup_start_lr(), rate);
  ExpectAtLeast(0, "warmup_iter", param.warmup_iter(),
      "a number of iterations, 0 for none");
  ExpectBelow(infinity, "gamma", param.gamma(), "a factor of 0 or more");
  Expect(std::isfinite(param.power()), "power", param.power(), "a number");
  const std::string& policy = param.lr_policy();
  const std::set<std::string> known = {"fixed", "step", "exp", "inv",
      "multistep", "poly", "cosine", "sigmoid"};
  // one that never steps may have none
  Expect(!param.has_lr_policy() || known.count(policy) > 0, "lr_policy",
      "'" + policy + "'", "one of the known policies: fixed, step, exp, inv, "
      "multistep, poly, cosine, sigmoid");
  const bool steps = policy == "step" || policy == "sigmoid";
  ExpectAtLeast(steps ? 1 : 0, "stepsize", param.stepsize(),
      steps ? "1 iteration or more, for this lr_policy" : "0 or more");
  const bool ends = policy == "poly" || policy == "cosine";
  ExpectAtLeast(ends ? 1 : 0, "max_iter", param.max_iter(),
      ends ? "1 or more, for this lr_policy" : "a number of iterations");
  for (int i = 0, before = 0; i < param.stepvalue_size(); ++i) {
    ExpectAtLeast(before, "stepvalue", param.stepvalue(i),
        "iterations in rising order");
    before = param.stepvalue(i);
  }
}

void CheckUpdate(const SolverParameter& param) {
  const char* const share = "at least 0 and below 1";
  ExpectBelow(1, "momentum", param.momentum(), share);
  ExpectBelow(1, "momentum2", param.momentum2(), share);
  ExpectBelow(1, "rms_decay", param.rms_decay(), share);
  const float infinity = std::numeric_limits<float>::infinity();
  ExpectBelow(infinity, "delta", param.delta(), "a number of 0 or more");
  ExpectBelow(infinity, "weight_decay", param.weight_decay(),
      "a factor of 0 or more");
  const std::string& type = param.regularization_type();
  Expect(type == "L1" || type == "L2", "regularization_type",
      "'" + type + "'", "L1 or L2");
  const float clip = param.clip_gradients();
  Expect(std::isfinite(clip) && clip != 0, "clip_gradients", clip,
      "the largest L2 norm of the gradients, above 0, or -1 for no limit");
  const float decay = param.average_decay();
  ExpectBelow(1, "average_decay", decay, "the share of an average that stays: "
      "at least 0 (which keeps none) and below 1");
}

}  // namespace

void CheckSolverValues(const SolverParameter& param) {
  ExpectAtLeast(1, "iter_size", param.iter_size(),
      "1 batch or more to an iteration");
  ExpectAtLeast(1, "average_loss", param.average_loss(),
      "1 iteration or more whose losses are averaged");
  ExpectAtLeast(0, "display", param.display(), "0 (never) or more");
  ExpectAtLeast(0, "snapshot", param.snapshot(), "0 (none) or more");
  const bool tests = param.test_iter_size() > 0;
  for (int batches : param.test_iter()) {
    ExpectAtLeast(1, "test_iter", batches, "1 batch or more to a test");
  }
  ExpectAtLeast(tests ? 1 : 0, "test_interval", param.test_interval(),
      tests ? "1 iteration or more from test to test" : "0 or more");
  CheckRate(param);
  CheckUpdate(param);
}

}  // namespace caffe
