#include <algorithm>
#include <cstdlib>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"

#include "several_ranks.hpp"

// In a build without NCCL the class is compiled here, for emulations of CUDA's
// runtime and of NCCL; in one with it, a GPU alone is a group of one.
#ifdef USE_NCCL
#include "caffe/distributed/nccl_averages.hpp"
#elif defined(CPU_ONLY)
#define CAFFE_NCCL_EMULATION
#include "nccl_emulation.hpp"
#undef CPU_ONLY
#define USE_NCCL
#define NcclAverages EmulatedNcclAverages
#include "../src/caffe/distributed/nccl_averages.cpp"
#undef USE_NCCL
#define CPU_ONLY
#endif

namespace caffe {

#if defined(CAFFE_NCCL_EMULATION) || defined(USE_NCCL)

namespace {

#ifdef CAFFE_NCCL_EMULATION
#define DEVICE_TEST(name) TEST(NcclAveragesEmulationTest, name)
const int kRanks = 3;
#else
#define DEVICE_TEST(name) TEST(NcclAveragesGPUTest, name)
const int kRanks = 1;
#endif

/// Numbers in the memory of a device.
class DeviceNumbers {
 public:
  explicit DeviceNumbers(size_t count) : count_(count) {
    CUDA_CHECK(cudaMalloc(reinterpret_cast<void**>(&data_),
        count * sizeof(float)));
  }
  ~DeviceNumbers() { CUDA_CHECK(cudaFree(data_)); }
  float* data() { return data_; }
  /// Lets the default stream bring values here, which it may do late.
  void BringLater(const vector<float>& values) {
    CUDA_CHECK(cudaMemcpyAsync(data_, values.data(), count_ * sizeof(float),
        cudaMemcpyHostToDevice, 0));
  }
  vector<float> Read() const {
    vector<float> values(count_);
    CUDA_CHECK(cudaMemcpy(values.data(), data_, count_ * sizeof(float),
        cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  float* data_;
  const size_t count_;
};

/// What a rank brings: its number, and more where it stands.
vector<float> Own(int rank, size_t count) {
  vector<float> values(count);
  for (size_t i = 0; i < count; ++i) { values[i] = rank + 10.0f * i; }
  return values;
}

}  // namespace

DEVICE_TEST(TestMeansOfWhatTheDefaultStreamBrings) {
  OnRanks(kRanks, [](CollectiveQueue* ranks) {
    NcclAverages<float> averages(ranks);
    for (const size_t count : {5, 1000, 3}) {
      DeviceNumbers first(count), second(2 * count);
      const vector<float> own = Own(ranks->rank(), count),
          more = Own(7 + ranks->rank(), 2 * count);
      first.BringLater(own);
      averages.AverageLater(first.data(), count);
      second.BringLater(more);
      averages.AverageLater(second.data(), 2 * count);
      EXPECT_GE(averages.Wait(), 0);
      const float middle = (kRanks - 1) / 2.0f;
      const vector<float> means = first.Read(), more_means = second.Read();
      for (size_t i = 0; i < count; ++i) {
        EXPECT_FLOAT_EQ(middle + 10.0f * i, means[i]);
      }
      for (size_t i = 0; i < 2 * count; ++i) {
        EXPECT_FLOAT_EQ(7 + middle + 10.0f * i, more_means[i]);
      }
    }
  });
}

#ifdef CAFFE_NCCL_EMULATION
TEST(NcclAveragesEmulationTest, TestWhatIsNotHiddenIsCounted) {
  double exposed[kRanks] = {};
  emulation::NetworkState()->is_cut = true;
  emulation::NetworkState()->opens_when_asked = true;  // all wait by then
  OnRanks(kRanks, [&](CollectiveQueue* ranks) {
    NcclAverages<float> averages(ranks);
    DeviceNumbers sent(100);
    const vector<float> own = Own(ranks->rank(), 100);
    sent.BringLater(own);
    averages.AverageLater(sent.data(), 100);
    exposed[ranks->rank()] = averages.Wait();
  });
  emulation::NetworkState()->opens_when_asked = false;
  EXPECT_GT(*std::max_element(exposed, exposed + kRanks), 0);
}

TEST(NcclAveragesEmulationDeathTest, TestFaultOfTheNetwork) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(OnRanks(2, [](CollectiveQueue* ranks) {
    NcclAverages<float> averages(ranks);
    DeviceNumbers sent(10);
    emulation::NetworkState()->is_cut = true;
    emulation::NetworkState()->fault = ncclRemoteError;
    averages.AverageLater(sent.data(), 10);
    averages.Wait();
  }), "NCCL does not reach the GPUs of all processes: a fault of NCCL");
}

TEST(NcclAveragesEmulationDeathTest, TestNetworkThatSaysNothing) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH({
    setenv("CAFFE_MPI_SECONDS", "0.05", 1);
    OnRanks(2, [](CollectiveQueue* ranks) {
      NcclAverages<float> averages(ranks);
      DeviceNumbers sent(10);
      emulation::NetworkState()->is_cut = true;
      averages.AverageLater(sent.data(), 10);
      averages.Wait();
    });
  }, "NCCL has not brought the gradients of all processes' GPUs");
}
#endif  // CAFFE_NCCL_EMULATION

#endif  // CAFFE_NCCL_EMULATION || USE_NCCL

}  // namespace caffe
