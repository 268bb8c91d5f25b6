#include <algorithm>
#include <cstdint>
#include <map>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/data/sample_order.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

namespace {

vector<int64_t> Epoch(const SampleOrder& order, int64_t epoch) {
  vector<int64_t> items;
  for (int64_t i = 0; i < order.count(); ++i) {
    items.push_back(order.Item(epoch * order.count() + i));
  }
  return items;
}

}  // namespace

// A seed means the same order on every machine and in every version: the
// numbers were computed from the definition, by another program.
TEST(SampleOrderTest, TestKnownOrder) {
  const int64_t epoch0[] = {3, 1, 4, 6, 2, 0, 7, 5};
  const int64_t epoch1[] = {3, 2, 6, 5, 0, 7, 4, 1};
  const int64_t other_seed[] = {2, 1, 0, 4, 3, 6, 7, 5};
  EXPECT_EQ(vector<int64_t>(epoch0, epoch0 + 8),
      Epoch(SampleOrder(7, 8, true), 0));
  EXPECT_EQ(vector<int64_t>(epoch1, epoch1 + 8),
      Epoch(SampleOrder(7, 8, true), 1));
  EXPECT_EQ(vector<int64_t>(other_seed, other_seed + 8),
      Epoch(SampleOrder(8, 8, true), 0));
}

TEST(SampleOrderTest, TestKnownDraws) {
  const int64_t rows[] = {61, 47, 48, 44, 41, 50};
  const int64_t columns[] = {62, 7, 79, 91, 51, 72};
  const int64_t flips[] = {1, 0, 0, 1, 0, 1};
  const SampleOrder order(7, 3, false);
  for (int n = 0; n < 6; ++n) {
    EXPECT_EQ(rows[n], order.Draw(n, SampleOrder::CROP_ROW, 100));
    EXPECT_EQ(columns[n], order.Draw(n, SampleOrder::CROP_COLUMN, 100));
    EXPECT_EQ(flips[n], order.Draw(n, SampleOrder::MIRROR, 2));
  }
}

// Likewise what augmentation draws: one kind's draws know nothing of another's.
TEST(SampleOrderTest, TestKnownDrawsOfAugmentation) {
  const int64_t draws[][4] = {  // SCALE to CUTOUT
    {903, 517, 299, 796}, {54, 632, 151, 804}, {214, 227, 835, 393},
    {982, 872, 732, 451}, {427, 110, 795, 819}, {271, 466, 47, 953},
    {696, 586, 858, 715}, {102, 225, 351, 488}, {304, 114, 550, 931},
  };
  const int64_t steps[] = {931, 750, 732, 8, 566, 835};
  const double uniform[] = {-0.10130725702473642, 2.413760063387995,
      -0.6657071000619283, 0.9236373184240079};
  const SampleOrder order(7, 3, false);
  for (int n = 0; n < 4; ++n) {
    for (int purpose = SampleOrder::SCALE; purpose <= SampleOrder::CUTOUT;
        ++purpose) {
      EXPECT_EQ(draws[purpose - SampleOrder::SCALE][n],
          order.Draw(n, static_cast<SampleOrder::Purpose>(purpose), 1000));
    }
    EXPECT_DOUBLE_EQ(uniform[n], order.Uniform(n, SampleOrder::SCALE, -2, 3));
    EXPECT_EQ(3, order.Uniform(n, SampleOrder::SCALE, 3, 3));
  }
  for (int step = 0; step < 6; ++step) {
    EXPECT_EQ(steps[step], order.Draw(3, SampleOrder::CUTOUT, 1000, step));
  }
}

TEST(SampleOrderTest, TestEachEpochHoldsEachItemOnce) {
  for (int64_t count = 1; count < 20; ++count) {
    const SampleOrder order(1, count, true);
    for (int64_t epoch = 0; epoch < 5; ++epoch) {
      vector<int64_t> items = Epoch(order, epoch);
      std::sort(items.begin(), items.end());
      for (int64_t i = 0; i < count; ++i) { ASSERT_EQ(i, items[i]); }
    }
  }
}

TEST(SampleOrderTest, TestUnshuffledIsInOrder) {
  const SampleOrder order(1, 5, false);
  for (int64_t n = 0; n < 17; ++n) { EXPECT_EQ(n % 5, order.Item(n)); }
}

// All 6 orders of 3 items, and all values of a draw, come about equally often.
TEST(SampleOrderTest, TestUniform) {
  const SampleOrder order(5, 3, true);
  std::map<vector<int64_t>, int> orders;
  vector<int> draws(6);
  for (int64_t n = 0; n < 6000; ++n) {
    ++orders[Epoch(order, n)];
    ++draws[order.Draw(n, SampleOrder::CROP_ROW, 6)];
  }
  ASSERT_EQ(6, orders.size());
  // Five standard deviations of a count of expectation 1000.
  for (const auto& entry : orders) { EXPECT_NEAR(1000, entry.second, 145); }
  for (int count : draws) { EXPECT_NEAR(1000, count, 145); }
}

// The answer does not depend on what was asked before, nor on who asks.
TEST(SampleOrderTest, TestAnyOrderOfQuestionsFromThreads) {
  const SampleOrder order(9, 50, true);
  const SampleOrder fresh(9, 50, true);
  const int kThreads = 4;
  vector<vector<int64_t> > answers(kThreads);
  vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.push_back(std::thread([&order, &answers, t]() {
      for (int64_t n = 0; n < 500; ++n) {
        answers[t].push_back(order.Item((n * 37 + t * 111) % 500));
      }
    }));
  }
  for (std::thread& thread : threads) { thread.join(); }
  for (int t = 0; t < kThreads; ++t) {
    for (int64_t n = 0; n < 500; ++n) {
      ASSERT_EQ(fresh.Item((n * 37 + t * 111) % 500), answers[t][n]);
    }
  }
}

}  // namespace caffe
