#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/util/math_functions.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

namespace {

const unsigned kSeed = 1701;

// Every test, Caffe's own too, draws the same numbers whatever ran before it in
// its process: alone, in a share of the tests, or among all.
class SeedsEachTest : public ::testing::EmptyTestEventListener {
 public:
  virtual void OnTestStart(const ::testing::TestInfo& /* test */) {
    Caffe::set_random_seed(kSeed);
  }
};

const bool seeds_each_test = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new SeedsEachTest);
  return true;
}();

float DrawnNumber() {
  float value;
  caffe_rng_uniform<float>(1, 0, 1, &value);
  return value;
}

}  // namespace

TEST(RandomSeedTest, EachTestBeginsWithIt) {
  ASSERT_TRUE(seeds_each_test);
  const float first = DrawnNumber();
  EXPECT_NE(first, DrawnNumber());
  Caffe::set_random_seed(kSeed);
  EXPECT_EQ(first, DrawnNumber());
}

}  // namespace caffe
