#include <vector>

#include "gtest/gtest.h"

#include "caffe/distributed/exchange_plan.hpp"

namespace caffe {

static const size_t MEGABYTE = 1 << 20;

TEST(ExchangePlanTest, TestOrderOfBackwardAndNothingThatStays) {
  const ExchangePlan plan({{3, 0, true}, {5, 2, false}, {4, 7, true}, {2, 7, true}, {0, 3, true}}, 4);
  ASSERT_EQ(3, plan.places().size());
  EXPECT_EQ(2, plan.places()[0].parameter);
  EXPECT_EQ(0, plan.places()[0].first);
  EXPECT_EQ(3, plan.places()[1].parameter);
  EXPECT_EQ(4, plan.places()[1].first);
  EXPECT_EQ(0, plan.places()[2].parameter);
  EXPECT_EQ(6, plan.places()[2].first);
  EXPECT_EQ(9, plan.count());
  ASSERT_EQ(1, plan.buckets().size());
  EXPECT_EQ(0, plan.buckets()[0].ready_after);
}

TEST(ExchangePlanTest, TestBucketsHoldAllOnce) {
  std::vector<ExchangePlan::Parameter> parameters;
  for (int layer = 0; layer < 40; ++layer) {
    parameters.push_back({(layer % 7 + 1) * MEGABYTE / 8, layer, layer % 5 != 0});
  }
  const ExchangePlan plan(parameters, 4);
  size_t next = 0;
  int layer = 40;
  for (size_t i = 0; i < plan.buckets().size(); ++i) {
    const ExchangePlan::Bucket& bucket = plan.buckets()[i];
    EXPECT_EQ(next, bucket.first);
    next += bucket.count;
    EXPECT_LE(bucket.ready_after, layer);
    layer = bucket.ready_after;
    const size_t bytes = 4 * bucket.count, wanted = i == 0 ? MEGABYTE : 4 * MEGABYTE;
    if (i + 1 < plan.buckets().size()) { EXPECT_GE(bytes, wanted); }
    EXPECT_LT(bytes, wanted + 7 * MEGABYTE / 2);
  }
  EXPECT_EQ(plan.count(), next);
}

TEST(ExchangePlanTest, TestNothingLearns) {
  const ExchangePlan plan({{3, 0, false}}, 8);
  EXPECT_EQ(0, plan.count());
  EXPECT_TRUE(plan.buckets().empty());
}

}  // namespace caffe
