#include "cuda_emulation.hpp"

#ifdef CAFFE_CUDA_EMULATION

#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/gpu/cuda_block.hpp"

namespace caffe {

namespace {

using emulation::Launch;
using emulation::Settings;
using std::string;
using std::vector;

/// sums[block] = sum of the block's share of values, by a tree.
__global__ void TreeSum(const float* values, int count, float* sums) {
  DYNAMIC_SHARED(float, partial);
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  partial[threadIdx.x] = i < count ? values[i] : 0.f;
  __syncthreads();
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < static_cast<unsigned>(half)) {
      partial[threadIdx.x] += partial[threadIdx.x + half];
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

/// to[i] = from[i + 1] through shared memory, with the barrier left out.
__global__ void RotateWithoutBarrier(const float* from, float* to) {
  DYNAMIC_SHARED(float, buffer);
  buffer[threadIdx.x] = from[threadIdx.x];
  to[threadIdx.x] = buffer[(threadIdx.x + 1) % blockDim.x];
}

/// The same within each warp; `sync`: with the warp's barrier.
__global__ void RotateInWarp(const float* from, float* to, bool sync) {
  DYNAMIC_SHARED(float, buffer);
  buffer[threadIdx.x] = from[threadIdx.x];
  if (sync) __syncwarp();
  to[threadIdx.x] =
      buffer[threadIdx.x / 32 * 32 + (threadIdx.x + 1) % 32];
}

__global__ void SomeSkipTheBarrier() {
  if (threadIdx.x < 40) return;
  __syncthreads();
}

__global__ void TwoBarriers() {
  if (threadIdx.x % 2) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void ShuffleOfHalfAWarp(int* to) {
  if (threadIdx.x % 32 < 16) {
    to[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, threadIdx.x, 1);
  }
}

__global__ void ShuffleFromOutside(int* to) {
  if (threadIdx.x < 16) {
    to[threadIdx.x] = __shfl_sync(0xFFFFu, int(threadIdx.x), 20);
  }
}

__global__ void ShuffleWithoutSelf(int* to) {
  to[threadIdx.x] = __shfl_xor_sync(0xFu, int(threadIdx.x), 1);
}

__global__ void Shuffles(double* to) {
  const int n = blockDim.x, i = threadIdx.x;
  const unsigned all = 0xFFFFFFFFu;
  to[i] = __shfl_sync(all, i + 0.5, 5);
  to[n + i] = __shfl_xor_sync(all, float(i), 3);
  to[2 * n + i] = __shfl_down_sync(all, i, 4u);
  to[3 * n + i] = __shfl_up_sync(all, unsigned(i), 4u);
  to[4 * n + i] = __shfl_sync(all, i, 9, 8);
  to[5 * n + i] = __shfl_down_sync(all, i, 3u, 8);
}

/// Halves of a warp that go their own ways, each with its own mask.
__global__ void ShuffleInHalves(int* to) {
  const int i = threadIdx.x;
  if (i % 32 < 16) {
    to[i] = __shfl_xor_sync(0x0000FFFFu, i, 1);
  } else {
    to[i] = __shfl_xor_sync(0xFFFF0000u, i, 15);
  }
}

__global__ void WriteShared(int index) {
  DYNAMIC_SHARED(float, memory);
  if (threadIdx.x == 0) memory[index] = 1.f;
}

__global__ void ReadFresh(float* to, int* to_int) {
  DYNAMIC_SHARED(float, memory);
  if (threadIdx.x == 0) {
    *to = memory[0];
    memcpy(to_int, memory + 1, sizeof(*to_int));
    memory[0] = 7.f;
  }
}

__global__ void Indices(vector<int>* seen) {
  seen->push_back(threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z
      + 1000 * blockIdx.x + 10000 * blockIdx.y + 100000 * blockIdx.z);
}

__global__ void OrderOfThreads(vector<int>* order) {
  order->push_back(threadIdx.x);
  __syncthreads();
  order->push_back(threadIdx.x);
}

__global__ void Atomics(int* total) { atomicAdd(total, int(threadIdx.x)); }

}  // namespace

class CudaEmulationTest : public ::testing::Test {
 protected:
  virtual void TearDown() { emulation::settings() = Settings(); }

  /// The message of the Error that a launch throws; empty: none.
  template <typename... P, typename... A>
  static string ErrorOf(void (*kernel)(P...), dim3 grid, dim3 block,
      size_t shared_bytes, A... args) {
    try {
      Launch(kernel, grid, block, shared_bytes, args...);
    } catch (const emulation::Error& error) {
      return error.what();
    }
    return string();
  }

  static bool Has(const string& text, const string& part) {
    return text.find(part) != string::npos;
  }

  static const Settings::Order kOrders[3];
};

const Settings::Order CudaEmulationTest::kOrders[3] = {
    Settings::ASCENDING, Settings::DESCENDING, Settings::SHUFFLED};

TEST_F(CudaEmulationTest, TestTreeSumInEveryOrder) {
  const int kCount = 5000;
  vector<float> values(kCount);
  for (int i = 0; i < kCount; ++i) values[i] = i % 17 - 8;
  for (const int threads : {1, 32, 64, 1024}) {
    const int blocks = (kCount + threads - 1) / threads;
    for (const Settings::Order order : kOrders) {
      emulation::settings().order = order;
      for (unsigned seed = 1; seed < 4; ++seed) {
        emulation::settings().seed = seed;
        vector<float> sums(blocks, NAN);
        Launch(TreeSum, blocks, threads, threads * sizeof(float),
            values.data(), kCount, sums.data());
        for (int block = 0; block < blocks; ++block) {
          float expected = 0;
          for (int i = block * threads;
               i < std::min(kCount, (block + 1) * threads); ++i) {
            expected += values[i];
          }
          EXPECT_EQ(sums[block], expected);
        }
      }
    }
  }
}

TEST_F(CudaEmulationTest, TestMissingBarrierDependsOnTheOrder) {
  const int kThreads = 64;
  vector<float> from(kThreads);
  for (int i = 0; i < kThreads; ++i) from[i] = i;
  vector<vector<float> > results;
  for (const Settings::Order order : kOrders) {
    emulation::settings().order = order;
    vector<float> to(kThreads);
    Launch(RotateWithoutBarrier, 1, kThreads, kThreads * sizeof(float),
        from.data(), to.data());
    results.push_back(to);
  }
  // who comes first finds the NaN that fresh memory is full of
  EXPECT_TRUE(std::isnan(results[0][0]));
  EXPECT_EQ(results[0][kThreads - 1], 0.f);
  EXPECT_EQ(results[1][0], 1.f);
  EXPECT_TRUE(std::isnan(results[1][kThreads - 1]));
  int missing = 0;
  for (const float x : results[2]) missing += std::isnan(x);
  EXPECT_GT(missing, 5);
  EXPECT_LT(missing, kThreads - 5);
}

TEST_F(CudaEmulationTest, TestMissingWarpBarrierDependsOnTheOrder) {
  const int kThreads = 96;
  vector<float> from(kThreads);
  for (int i = 0; i < kThreads; ++i) from[i] = i;
  for (const Settings::Order order : kOrders) {
    emulation::settings().order = order;
    vector<float> right(kThreads), wrong(kThreads);
    Launch(RotateInWarp, 1, kThreads, kThreads * sizeof(float), from.data(),
        right.data(), true);
    Launch(RotateInWarp, 1, kThreads, kThreads * sizeof(float), from.data(),
        wrong.data(), false);
    int missing = 0;
    for (int i = 0; i < kThreads; ++i) {
      EXPECT_EQ(right[i], i / 32 * 32 + (i + 1) % 32);
      missing += std::isnan(wrong[i]);
    }
    EXPECT_GT(missing, 0);
  }
}

TEST_F(CudaEmulationTest, TestOrders) {
  vector<vector<int> > orders;
  for (const Settings::Order order : kOrders) {
    emulation::settings().order = order;
    orders.push_back(vector<int>());
    Launch(OrderOfThreads, 1, 100, 0, &orders.back());
    ASSERT_EQ(orders.back().size(), 200);
  }
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(orders[0][i], i);
    EXPECT_EQ(orders[0][100 + i], i);
    EXPECT_EQ(orders[1][i], 99 - i);
    EXPECT_EQ(orders[1][100 + i], 99 - i);
  }
  // a drawn order, another one after the barrier, the same for the same seed
  const vector<int>& drawn = orders[2];
  const vector<int> first(drawn.begin(), drawn.begin() + 100);
  const vector<int> second(drawn.begin() + 100, drawn.end());
  EXPECT_NE(first, vector<int>(orders[0].begin(), orders[0].begin() + 100));
  EXPECT_NE(first, second);
  vector<int> again, other;
  Launch(OrderOfThreads, 1, 100, 0, &again);
  EXPECT_EQ(again, drawn);
  emulation::settings().seed = 2;
  Launch(OrderOfThreads, 1, 100, 0, &other);
  EXPECT_NE(other, drawn);
}

TEST_F(CudaEmulationTest, TestDivergentBarriersAreErrors) {
  for (const Settings::Order order : kOrders) {
    emulation::settings().order = order;
    string error = ErrorOf(SomeSkipTheBarrier, dim3(2, 3), 64, 0);
    EXPECT_TRUE(Has(error, "40 ended, 24 wait at test_cuda_emulation.cpp:"))
        << error;
    EXPECT_TRUE(Has(error, "block (0, 0, 0) of 64 threads")) << error;
    error = ErrorOf(TwoBarriers, 1, 64, 0);
    EXPECT_TRUE(Has(error, "32 wait at")) << error;
    EXPECT_TRUE(Has(error, "(first: thread 0)")) << error;
    EXPECT_TRUE(Has(error, "(first: thread 1)")) << error;
  }
  emulation::settings().kernel = "SkipTheBarrier<float>";
  EXPECT_TRUE(Has(ErrorOf(SomeSkipTheBarrier, 1, 64, 0),
      "SkipTheBarrier<float>, block"));
  // and the emulation still works afterwards
  int total = 0;
  Launch(Atomics, 2, 100, 0, &total);
  EXPECT_EQ(total, 2 * 4950);
}

TEST_F(CudaEmulationTest, TestWrongShufflesAreErrors) {
  int to[64];
  for (const Settings::Order order : kOrders) {
    emulation::settings().order = order;
    string error = ErrorOf(ShuffleOfHalfAWarp, 1, 64, 0, to);
    EXPECT_TRUE(Has(error, "32 ended")) << error;
    EXPECT_TRUE(Has(error, "with mask ffffffff")) << error;
    error = ErrorOf(ShuffleFromOutside, 1, 32, 0, to);
    EXPECT_TRUE(Has(error, "reads lane 20, which takes no part")) << error;
    error = ErrorOf(ShuffleWithoutSelf, 1, 32, 0, to);
    EXPECT_TRUE(Has(error, "is not in its own mask")) << error;
  }
}

TEST_F(CudaEmulationTest, TestShuffles) {
  const int n = 64;
  for (const Settings::Order order : kOrders) {
    emulation::settings().order = order;
    vector<double> to(6 * n);
    Launch(Shuffles, 1, n, 0, to.data());
    for (int i = 0; i < n; ++i) {
      const int warp = i / 32 * 32, lane = i % 32;
      EXPECT_EQ(to[i], warp + 5.5);
      EXPECT_EQ(to[n + i], warp + (lane ^ 3));
      EXPECT_EQ(to[2 * n + i], lane + 4 < 32 ? i + 4 : i);
      EXPECT_EQ(to[3 * n + i], lane >= 4 ? i - 4 : i);
      EXPECT_EQ(to[4 * n + i], i / 8 * 8 + 1);
      EXPECT_EQ(to[5 * n + i], i % 8 + 3 < 8 ? i + 3 : i);
    }
    vector<int> halves(n);
    Launch(ShuffleInHalves, 1, n, 0, halves.data());
    for (int i = 0; i < n; ++i) {
      EXPECT_EQ(halves[i], i % 32 < 16 ? i ^ 1 : i ^ 15);
    }
  }
}

#ifndef __SANITIZE_ADDRESS__  // which ends the program at such a write
TEST_F(CudaEmulationTest, TestWritesOutsideOfSharedMemoryAreErrors) {
  EXPECT_EQ(ErrorOf(WriteShared, 1, 32, 40, 9), "");
  EXPECT_TRUE(Has(ErrorOf(WriteShared, 1, 32, 40, 10), "byte 40"));
  EXPECT_TRUE(Has(ErrorOf(WriteShared, 1, 32, 40, -1), "byte -4"));
}
#endif

TEST_F(CudaEmulationTest, TestSharedMemoryIsFreshInEveryBlock) {
  for (int launch = 0; launch < 2; ++launch) {
    float read = 0.f;
    int read_int = 0;
    Launch(ReadFresh, 3, 32, 8, &read, &read_int);
    EXPECT_TRUE(std::isnan(read));
    EXPECT_EQ(read_int, -1);
  }
}

TEST_F(CudaEmulationTest, TestLimitsOfLaunches) {
  vector<int> seen;
  EXPECT_TRUE(Has(ErrorOf(Indices, 1, 1025, 0, &seen), "1 to 1024 threads"));
  EXPECT_TRUE(Has(ErrorOf(Indices, 1, dim3(2, 2, 65), 0, &seen),
      "1 to 1024 threads"));
  EXPECT_TRUE(Has(ErrorOf(Indices, 1, 0, 0, &seen), "1 to 1024 threads"));
  EXPECT_TRUE(Has(ErrorOf(Indices, 0, 32, 0, &seen), "no grid"));
  EXPECT_TRUE(Has(ErrorOf(Indices, dim3(1, 65536), 32, 0, &seen), "no grid"));
  emulation::settings().shared_memory_limit = 1024;
  EXPECT_EQ(ErrorOf(Indices, 1, 1, 1024, &seen), "");
  const string error = ErrorOf(Indices, 1, 1, 1025, &seen);
  EXPECT_TRUE(Has(error, "1025 bytes of shared memory")) << error;
  EXPECT_TRUE(Has(error, "vector")) << error << " does not tell the kernel";
  EXPECT_EQ(seen.size(), 1);
}

TEST_F(CudaEmulationTest, TestIndices) {
  vector<int> seen;
  Launch(Indices, dim3(2, 2, 2), dim3(3, 2, 2), 0, &seen);
  ASSERT_EQ(seen.size(), 8 * 12);
  size_t i = 0;
  for (int bz = 0; bz < 2; ++bz) for (int by = 0; by < 2; ++by) {
    for (int bx = 0; bx < 2; ++bx) {
      for (int z = 0; z < 2; ++z) for (int y = 0; y < 2; ++y) {
        for (int x = 0; x < 3; ++x, ++i) {
          EXPECT_EQ(seen[i], x + 10 * y + 100 * z + 1000 * bx + 10000 * by
              + 100000 * bz);
        }
      }
    }
  }
}

}  // namespace caffe

#endif  // CAFFE_CUDA_EMULATION
