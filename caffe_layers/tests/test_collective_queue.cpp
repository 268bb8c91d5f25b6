#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/distributed/emulated_collective.hpp"
#include "several_ranks.hpp"

namespace caffe {

TEST(CollectiveQueueTest, TestSumsBroadcastsAndGathers) {
  for (const int size : {1, 2, 3, 5}) {
    vector<vector<double> > found(size);
    OnRanks(size, [&found](CollectiveQueue* ranks) {
      const int rank = ranks->rank();
      EXPECT_EQ(rank, Caffe::solver_rank());
      EXPECT_EQ(ranks->size(), Caffe::solver_count());
      double values[] = {rank + 1., 10.};
      ranks->Sum(values, 2);
      int64_t whole = int64_t(1) << 60;
      whole += rank;
      ranks->Average(values + 1, 1);
      ranks->Sum(&whole, 1);
      float sent = rank;
      ranks->Broadcast(&sent, sizeof(sent));
      vector<float> gathered(rank, rank);  // none of the first
      ranks->Gather(&gathered);
      found[rank] = {values[0], values[1], sent, whole % 1000000 == 0 ? 0. : 1.};
      found[rank].insert(found[rank].end(), gathered.begin(), gathered.end());
    });
    for (int rank = 0; rank < size; ++rank) {
      EXPECT_EQ(found[0], found[rank]) << rank;
      EXPECT_EQ(size * (size + 1) / 2, found[rank][0]);
      EXPECT_EQ(10 * size, found[rank][1]);
      EXPECT_EQ(0, found[rank][2]);
      size_t place = 4;
      for (int other = 0; other < size; ++other) {
        for (int i = 0; i < other; ++i) { EXPECT_EQ(other, found[rank].at(place++)); }
      }
      EXPECT_EQ(place, found[rank].size());
    }
  }
  EXPECT_EQ(1, Caffe::solver_count());
}

TEST(CollectiveQueueTest, TestLaterIsDoneAfterWaitInTheOrderOfAsking) {
  OnRanks(3, [](CollectiveQueue* ranks) {
    vector<vector<float> > values(20, vector<float>(1000, ranks->rank()));
    for (vector<float>& each : values) { ranks->AverageLater(each.data(), each.size()); }
    double between = 1;
    ranks->Sum(&between, 1);
    EXPECT_EQ(3, between);
    ranks->Wait();
    for (const vector<float>& each : values) { EXPECT_EQ(vector<float>(1000, 1), each); }
    EXPECT_GE(ranks->waited_seconds(), 0);
  });
}

TEST(CollectiveQueueTest, TestRecordsWhatIsAsked) {
  CollectiveQueue ranks(std::unique_ptr<Collective>(new EmulatedCollective(3)));
  vector<CollectiveQueue::Event> events;
  vector<float> values(10, 2);
  ranks.Average(values.data(), 1);
  EXPECT_TRUE(events.empty());
  ranks.Record(&events);
  ranks.AverageLater(values.data(), 10);
  int64_t count = 5;
  ranks.Sum(&count, 1);
  EXPECT_EQ(15, count);  // as if the others had the same
  EXPECT_EQ(vector<float>(10, 2), values);
  const size_t bytes[] = {40, 8, 0};
  ASSERT_EQ(3u, events.size());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(bytes[i], events[i].bytes);
    EXPECT_LE(events[i == 0 ? 0 : i - 1].seconds, events[i].seconds);
  }
}

TEST(CollectiveQueueTest, TestNormalizers) {
  LayerParameter loss;
  loss.set_phase(TRAIN);
  LayerParameter test = loss, local = loss;
  test.set_phase(TEST);
  local.mutable_loss_param()->set_scope(LOCAL);
  EXPECT_EQ(7, NormalizerOverRanks(loss, 7, true));
  EXPECT_EQ(1, NormalizerOverRanks(loss, 0, true));
  OnRanks(4, [&](CollectiveQueue* ranks) {
    EXPECT_EQ(6 / 4., NormalizerOverRanks(loss, ranks->rank(), true));
    EXPECT_EQ(1 / 4., NormalizerOverRanks(loss, 0, true));
    EXPECT_EQ(1 / 4., NormalizerOverRanks(loss, 1, false));
    for (const LayerParameter& alone : {test, local}) {
      EXPECT_EQ(ranks->rank() + 1, NormalizerOverRanks(alone, ranks->rank() + 1, true));
      EXPECT_EQ(1, NormalizerOverRanks(alone, 0, true));
      EXPECT_EQ(1, NormalizerOverRanks(alone, 1, false));
    }
  });
}

}  // namespace caffe
