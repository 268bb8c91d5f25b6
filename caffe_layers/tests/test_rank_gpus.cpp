#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/distributed/emulated_collective.hpp"
#include "caffe/distributed/rank_gpus.hpp"

#include "several_ranks.hpp"

namespace caffe {

namespace {

/// A rank on one of several machines, named by a letter each.
class RankOnMachines : public EmulatedCollective {
 public:
  RankOnMachines(const string& machines, int rank)
      : EmulatedCollective(machines.size()), machines_(machines), rank_(rank) {}
  virtual int rank() const { return rank_; }
  virtual string host(int rank) const {
    return "node_" + machines_.substr(rank, 1);
  }

 private:
  const string machines_;
  const int rank_;
};

/// The GPU of each rank, or the fault that all are told.
vector<int> Chosen(const string& machines, const vector<int>& gpus,
    string* fault) {
  vector<int> chosen;
  for (size_t rank = 0; rank < machines.size(); ++rank) {
    CollectiveQueue ranks(std::unique_ptr<Collective>(
        new RankOnMachines(machines, rank)));
    vector<int> own = gpus;
    const string told = ChooseGpu(ranks, &own);
    if (rank == 0) { *fault = told; }
    EXPECT_EQ(*fault, told);
    if (told.empty()) { EXPECT_EQ(1, own.size()); }
    chosen.push_back(own[0]);
  }
  return chosen;
}

}  // namespace

TEST(RankGpusTest, TestTheRanksOfAMachineTakeOneAfterAnother) {
  string fault;
  EXPECT_EQ(vector<int>({0, 1, 2, 0, 1}), Chosen("aaabb", {0, 1, 2, 3}, &fault));
  EXPECT_EQ(vector<int>({2, 2, 5, 5, 7}), Chosen("abbaa", {2, 5, 7}, &fault));
  EXPECT_EQ("", fault);
}

TEST(RankGpusTest, TestOneIsForAll) {
  string fault;
  EXPECT_EQ(vector<int>({3, 3, 3}), Chosen("aab", {3}, &fault));
  EXPECT_EQ("", fault);
}

TEST(RankGpusTest, TestMoreRanksThanGpus) {
  string fault;
  Chosen("abbb", {0, 1}, &fault);
  EXPECT_EQ("node_b has 3 processes and 2 GPUs for them; expected one for each "
      "(or one GPU that they share: -gpu 0)", fault);
}

#ifndef CPU_ONLY
TEST(RankGpusGPUTest, TestRanksOfOneProcessShareOne) {
  for (const int size : {1, 2, 3}) {
    OnRanks(size, [size](CollectiveQueue* ranks) {
      EXPECT_EQ(size == 1, HaveGpusOfTheirOwn(ranks));
    });
  }
}
#endif

}  // namespace caffe
