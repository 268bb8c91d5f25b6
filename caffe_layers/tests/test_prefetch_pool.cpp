#include <atomic>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/data/prefetch_pool.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

namespace {

void Sleep(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

}  // namespace

// Batches come in order and complete though later items take less time.
TEST(PrefetchPoolTest, TestOrder) {
  const int kSlots = 3;
  const int kItems = 4;
  vector<vector<int64_t> > slots(kSlots, vector<int64_t>(kItems, -1));
  PrefetchPool pool(4, kSlots, kItems, 10,
      [&slots](int slot, int64_t batch, int item) {
        Sleep((7 * batch + 3 * (kItems - item)) % 5);
        slots[slot][item] = 100 * batch + item;
      });
  for (int64_t batch = 10; batch < 40; ++batch) {
    const int slot = pool.Wait();
    for (int item = 0; item < kItems; ++item) {
      ASSERT_EQ(100 * batch + item, slots[slot][item]);
      slots[slot][item] = -1;
    }
    pool.Release();
  }
}

// What is loaded ahead is bounded by the number of slots, and does reach it.
TEST(PrefetchPoolTest, TestLooksAheadAsFarAsThereAreSlots) {
  std::atomic<int> loaded(0);
  PrefetchPool pool(3, 2, 5, 0, [&loaded](int, int64_t, int) { ++loaded; });
  for (int batch = 0; batch < 3; ++batch) {
    const int expected = (batch + 2) * 5;
    for (int i = 0; i < 1000 && loaded < expected; ++i) { Sleep(1); }
    Sleep(20);  // time for a load too many
    EXPECT_EQ(expected, loaded);
    pool.Wait();
    pool.Release();
  }
}

TEST(PrefetchPoolTest, TestItemsOfABatchAreLoadedAtTheSameTime) {
  std::atomic<int> inside(0);
  // Each load waits for the other two; one thread alone would wait in vain.
  PrefetchPool pool(3, 1, 3, 0, [&inside](int, int64_t, int) {
    ++inside;
    for (int i = 0; i < 10000 && inside < 3; ++i) { Sleep(1); }
  });
  pool.Wait();
  EXPECT_EQ(3, inside);
}

// Once a batch, by one of its loaders, with all parts there and before its use.
TEST(PrefetchPoolTest, TestFinish) {
  const int kSlots = 3;
  const int kItems = 4;
  vector<std::atomic<int> > loaded(kSlots), finished(kSlots);
  for (int slot = 0; slot < kSlots; ++slot) {
    loaded[slot] = finished[slot] = 0;
  }
  PrefetchPool pool(4, kSlots, kItems, 5,
      [&](int slot, int64_t batch, int item) {
        Sleep((3 * batch + 5 * item) % 4);
        ++loaded[slot];
      },
      [&](int slot) {
        EXPECT_EQ(kItems, loaded[slot]);
        EXPECT_EQ(0, finished[slot]);
        Sleep(slot);
        ++finished[slot];
      });
  for (int64_t batch = 5; batch < 40; ++batch) {
    const int slot = pool.Wait();
    EXPECT_EQ(batch % kSlots, slot);
    EXPECT_EQ(1, finished[slot]);
    loaded[slot] = finished[slot] = 0;
    pool.Release();
  }
}

// One batch's finishing holds up neither the loading nor the finishing of the
// next one: here the first ends when the second has.
TEST(PrefetchPoolTest, TestBatchesAreFinishedAtTheSameTime) {
  std::atomic<bool> second_finished(false);
  PrefetchPool pool(2, 2, 3, 0, [](int, int64_t, int) {},
      [&second_finished](int slot) {
        for (int i = 0; i < 10000 && slot == 0 && !second_finished; ++i) {
          Sleep(1);
        }
        if (slot == 1) { second_finished = true; }
      });
  EXPECT_EQ(0, pool.Wait());
  EXPECT_TRUE(second_finished);
}

TEST(PrefetchPoolTest, TestDestructionWaitsForLoadsUnderWay) {
  std::atomic<int> begun(0), ended(0);
  for (int round = 0; round < 20; ++round) {
    PrefetchPool pool(2, 2, 2, 0, [&begun, &ended](int, int64_t, int) {
      ++begun;
      Sleep(2);
      ++ended;
    });
    if (round % 2) { pool.Wait(); }
  }
  EXPECT_GT(begun, 0);
  EXPECT_EQ(begun, ended);
}

TEST(PrefetchPoolDeathTest, TestExceptionEndsTheProgram) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH({
    PrefetchPool pool(1, 1, 1, 0, [](int, int64_t, int) {
      throw std::runtime_error("the disk is on fire");
    });
    pool.Wait();
  }, "the disk is on fire");
}

}  // namespace caffe
