#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/memory/work_areas.hpp"

namespace caffe {

class WorkAreasTest : public ::testing::Test {
 protected:
  virtual void SetUp() { FreeWork(); }
  virtual void TearDown() { LendWork(WORK_SOURCE, NULL, 0); }
};

TEST_F(WorkAreasTest, AreApartAndStay) {
  float* const source = Work(WORK_SOURCE, 400);
  float* const target = Work(WORK_TARGET, 800);
  std::fill(source, source + 100, 1.f);
  std::fill(target, target + 200, 2.f);
  EXPECT_EQ(100, std::count(source, source + 100, 1.f));
  EXPECT_EQ(source, Work(WORK_SOURCE, 200));
  EXPECT_EQ(1200u, OwnWorkSize());
  FreeWork();
  EXPECT_EQ(0u, OwnWorkSize());
}

TEST_F(WorkAreasTest, LieInWhatIsLentWhereItIsLargeEnough) {
  std::vector<float> lent(100);
  LendWork(WORK_SOURCE, lent.data(), 400);
  EXPECT_EQ(lent.data(), Work(WORK_SOURCE, 400));
  EXPECT_EQ(0u, OwnWorkSize());
  EXPECT_NE(lent.data(), Work(WORK_SOURCE, 404));
  EXPECT_NE(lent.data(), Work(WORK_TARGET, 4));
  EXPECT_EQ(lent.data(), Work(WORK_SOURCE, 4));
  LendWork(WORK_SOURCE, NULL, 0);
  EXPECT_NE(lent.data(), Work(WORK_SOURCE, 4));
}

TEST_F(WorkAreasTest, TellTheMostThatTheyWereAskedFor) {
  TakeWorkSizes();
  Work(WORK_SCRATCH, 40);
  Work(WORK_SCRATCH, 30);
  std::vector<float> lent(100);
  LendWork(WORK_SOURCE, lent.data(), 400);
  Work(WORK_SOURCE, 20);
  const std::array<size_t, WORK_AREAS> sizes = TakeWorkSizes();
  EXPECT_EQ(40u, sizes[WORK_SCRATCH]);
  EXPECT_EQ(20u, sizes[WORK_SOURCE]);
  EXPECT_EQ(0u, sizes[WORK_TARGET]);
  EXPECT_EQ(0u, TakeWorkSizes()[WORK_SCRATCH]);
}

}  // namespace caffe
