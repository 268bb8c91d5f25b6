#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/net.hpp"
#include "caffe/solvers/weight_average.hpp"
#include "caffe/util/io.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "solver_under_test.hpp"

namespace caffe {

template <typename TypeParam>
class WeightAverageTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  WeightAverageTest() {
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";
    MakeTempDir(&folder_);
  }

  string Rule(const string& more) const {
    return "base_lr: 0.05 lr_policy: 'fixed' momentum: 0.9 max_iter: 40 snapshot_prefix: '" + folder_ + "/x' " + more;
  }

  // What a net that tests gets to see.
  static vector<Dtype> Tested(const SolverUnderTest<Dtype>& solver) {
    NetParameter description;
    CHECK(google::protobuf::TextFormat::ParseFromString(kSolverUnderTestNet, &description));
    description.mutable_state()->set_phase(TEST);
    Net<Dtype> net(description);
    solver->ShareWeights(&net);
    return SolverUnderTest<Dtype>::Weights(net);
  }

  static void ExpectNear(const vector<double>& expected, const vector<Dtype>& actual, double tolerance) {
    ASSERT_EQ(expected.size(), actual.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(expected[i], actual[i], tolerance * std::max(1., std::abs(expected[i]))) << i;
    }
  }

  string folder_;
};

TYPED_TEST_CASE(WeightAverageTest, TestDtypesAndDevices);

TYPED_TEST(WeightAverageTest, TestFollowsTheWeights) {
  typedef typename TypeParam::Dtype Dtype;
  SolverUnderTest<Dtype> solver(this->Rule("average_decay: 0.6"));
  EXPECT_TRUE(solver.Weights() == this->Tested(solver)) << "before the first update";
  vector<double> average;
  for (int n = 1; n <= 20; ++n) {
    solver->Step(1);
    const vector<Dtype> weights = solver.Weights();
    if (average.empty()) { average.assign(weights.begin(), weights.end()); }
    const double decay = std::min(0.6, n / (n + 9.));
    for (size_t i = 0; i < average.size(); ++i) {
      average[i] = decay * average[i] + (1 - decay) * weights[i];
    }
    this->ExpectNear(average, this->Tested(solver), 2e-6);
  }
  EXPECT_FALSE(solver.Weights() == this->Tested(solver));
}

TYPED_TEST(WeightAverageTest, TestWhatIsTrainedStaysTheSame) {
  typedef typename TypeParam::Dtype Dtype;
  SolverUnderTest<Dtype> with(this->Rule("average_decay: 0.9")), without(this->Rule(""));
  for (int i = 0; i < 3; ++i) {
    with->Step(3);
    without->Step(3);
    with->Snapshot();
    this->Tested(with);
    EXPECT_TRUE(with.Weights() == without.Weights());
    EXPECT_TRUE(without.Weights() == this->Tested(without));
  }
}

TYPED_TEST(WeightAverageTest, TestFrozenWeightsAreTheirAverage) {
  typedef typename TypeParam::Dtype Dtype;
  SolverUnderTest<Dtype> solver(this->Rule("average_decay: 0.9"));
  const shared_ptr<Blob<Dtype> > stays = solver->net()->layer_by_name("stays")->blobs()[0];
  solver->Step(30);
  const vector<Dtype> trained = solver.Weights(), tested = this->Tested(solver);
  const auto place = std::search(trained.begin(), trained.end(), stays->cpu_data(),
      stays->cpu_data() + stays->count()) - trained.begin();
  EXPECT_TRUE(std::equal(stays->cpu_data(), stays->cpu_data() + stays->count(), tested.begin() + place));
}

TYPED_TEST(WeightAverageTest, TestSolversOwnTestIsOfTheAverage) {
  typedef typename TypeParam::Dtype Dtype;
  SolverUnderTest<Dtype> solver(this->Rule("average_decay: 0.9 test_iter: 1 test_interval: 5"));
  solver->Step(11);  // a test before iterations 0, 5 and 10
  const vector<Dtype> tested = SolverUnderTest<Dtype>::Weights(*solver->test_nets()[0]);
  EXPECT_TRUE(tested == this->Tested(solver)) << "shared, and so up to date";
  EXPECT_FALSE(tested == solver.Weights());
}

// The learned net is the average; the state has what is needed to go on.
TYPED_TEST(WeightAverageTest, TestResumesBitForBit) {
  typedef typename TypeParam::Dtype Dtype;
  for (const bool hdf5 : {false, true}) {
    const string text = this->Rule(string("average_decay: 0.9 snapshot_format: ") + (hdf5 ? "HDF5" : "BINARYPROTO"));
    SolverUnderTest<Dtype> unbroken(text), first(text), second(text);
    unbroken->Step(9);
    for (const int iteration : {1, 4}) {
      first->Step(iteration - first->iter());
      first->Snapshot();
      const string prefix = this->folder_ + "/x_iter_" + std::to_string(iteration);
      second->Restore((prefix + ".solverstate" + (hdf5 ? ".h5" : "")).c_str());
      EXPECT_TRUE(first.Weights() == second.Weights()) << iteration;
      EXPECT_TRUE(this->Tested(first) == this->Tested(second)) << iteration;
      NetParameter description;
      CHECK(google::protobuf::TextFormat::ParseFromString(kSolverUnderTestNet, &description));
      Net<Dtype> learned(description);
      learned.CopyTrainedLayersFrom(prefix + ".caffemodel" + (hdf5 ? ".h5" : ""));
      EXPECT_TRUE(SolverUnderTest<Dtype>::Weights(learned) == this->Tested(first)) << iteration;
    }
    second->Step(5);
    EXPECT_TRUE(unbroken.Weights() == second.Weights());
    EXPECT_TRUE(this->Tested(unbroken) == this->Tested(second));
  }
}

TYPED_TEST(WeightAverageTest, TestBeforeTheFirstIteration) {
  typedef typename TypeParam::Dtype Dtype;
  const string text = this->Rule("average_decay: 0.9");
  SolverUnderTest<Dtype> unbroken(text), first(text), second(text);
  first->Snapshot();
  second->Restore((this->folder_ + "/x_iter_0.solverstate").c_str());
  unbroken->Step(3);
  second->Step(3);
  EXPECT_TRUE(unbroken.Weights() == second.Weights());
  EXPECT_TRUE(this->Tested(unbroken) == this->Tested(second));
}

// A solver may be given an average, or lose it, from one resumption to the next.
TYPED_TEST(WeightAverageTest, TestBeginsAndEndsWithAResumption) {
  typedef typename TypeParam::Dtype Dtype;
  const string state = this->folder_ + "/x_iter_4.solverstate";
  SolverUnderTest<Dtype> without(this->Rule(""));
  without->Step(4);
  without->Snapshot();
  SolverUnderTest<Dtype> begun(this->Rule("average_decay: 0.9"));
  begun->Restore(state.c_str());
  EXPECT_TRUE(without.Weights() == begun.Weights());
  EXPECT_TRUE(without.Weights() == this->Tested(begun));
  begun->Step(1);
  EXPECT_FALSE(begun.Weights() == this->Tested(begun));

  SolverUnderTest<Dtype> with(this->Rule("average_decay: 0.9"));
  with->Step(4);
  with->Snapshot();
  SolverUnderTest<Dtype> ended(this->Rule(""));
  ended->Restore(state.c_str());
  EXPECT_TRUE(with.Weights() == ended.Weights());
  EXPECT_TRUE(ended.Weights() == this->Tested(ended));
}

TYPED_TEST(WeightAverageTest, TestWrongDecayIsTold) {
  for (const string value : {"-0.1", "1", "nan"}) {
    EXPECT_DEATH(SolverUnderTest<typename TypeParam::Dtype>(this->Rule("average_decay: " + value)),
        "average_decay is " + value + ", expected the share of an average that stays");
  }
}

}  // namespace caffe
