#include <algorithm>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"

#include "caffe/test/test_caffe_main.hpp"

// In a build for the CPU the class's code for a device is compiled here, under
// another name, for an emulation of it.
#ifdef CPU_ONLY
#include "cuda_runtime_emulation.hpp"
#undef CPU_ONLY
#define StagedBuffer EmulatedStagedBuffer
#include "../src/caffe/data/staged_buffer.cpp"
#define CPU_ONLY
#define DEVICE_TEST(name) TEST(StagedBufferEmulationTest, name)
#define DEVICE_DEATH_TEST(name) TEST(StagedBufferEmulationDeathTest, name)
#else
#include "caffe/data/staged_buffer.hpp"
#define DEVICE_TEST(name) TEST(StagedBufferGPUTest, name)
#define DEVICE_DEATH_TEST(name) TEST(StagedBufferGPUDeathTest, name)
#endif

namespace caffe {

namespace {

#ifdef CPU_ONLY
const size_t kBusyBytes = 1 << 20;
#else
const size_t kBusyBytes = 256 << 20;  // 20 times: over a millisecond
#endif

int CurrentDevice() {
  int device;
  CUDA_CHECK(cudaGetDevice(&device));
  return device;
}

// Bytes of memory on the device.
class DeviceBytes {
 public:
  explicit DeviceBytes(size_t count) : count_(count) {
    CUDA_CHECK(cudaMalloc(&data_, count));
  }
  ~DeviceBytes() { CUDA_CHECK(cudaFree(data_)); }
  void* data() { return data_; }
  vector<uint8_t> Read() const {
    vector<uint8_t> bytes(count_);
    CUDA_CHECK(cudaMemcpy(bytes.data(), data_, count_, cudaMemcpyDeviceToHost));
    return bytes;
  }

 private:
  void* data_;
  const size_t count_;
};

// Work on the default stream that takes the device longer than the host.
void KeepBusy(DeviceBytes* busy) {
  for (int i = 0; i < 20; ++i) {
    CUDA_CHECK(cudaMemsetAsync(busy->data(), i, kBusyBytes, 0));
  }
}

// What the buffer holds on the device, read by the default stream.
void ReadLater(StagedBuffer* buffer, size_t count, DeviceBytes* to) {
  CUDA_CHECK(cudaMemcpyAsync(to->data(), buffer->device(), count,
      cudaMemcpyDeviceToDevice, 0));
  buffer->MarkRead();
}

}  // namespace

TEST(StagedBufferTest, TestWithoutDeviceItGrowsOnly) {
  StagedBuffer buffer(StagedBuffer::NO_DEVICE, "test");
  EXPECT_EQ(StagedBuffer::NO_DEVICE, buffer.device_id());
  buffer.Reserve(100);
  char* const host = static_cast<char*>(buffer.host());
  std::fill(host, host + 100, 7);
  buffer.Reserve(60);
  buffer.Reserve(100);
  ASSERT_EQ(host, buffer.host());
  EXPECT_EQ(100, std::count(host, host + 100, 7));
  buffer.Reserve(1 << 20);
  std::fill_n(static_cast<char*>(buffer.host()), 1 << 20, 8);
}

DEVICE_TEST(TestPush) {
  StagedBuffer buffer(CurrentDevice(), "test");
  for (size_t count : {1, 1000, 10, 3000000}) {
    buffer.Reserve(count);
    uint8_t* const host = static_cast<uint8_t*>(buffer.host());
    for (size_t i = 0; i < count; ++i) { host[i] = i * 7 + count; }
    buffer.Push(count);
    DeviceBytes read(count);
    ReadLater(&buffer, count, &read);
    EXPECT_TRUE(vector<uint8_t>(host, host + count) == read.Read());
  }
}

// The buffer may be filled again as soon as Push is back.
DEVICE_TEST(TestPushIsDoneWhenItReturns) {
  const size_t kCount = 4 << 20;
  StagedBuffer buffer(CurrentDevice(), "test");
  buffer.Reserve(kCount);
  uint8_t* const host = static_cast<uint8_t*>(buffer.host());
  std::fill_n(host, kCount, 1);
  buffer.Push(kCount);
  std::fill_n(host, kCount, 2);
  DeviceBytes read(kCount);
  ReadLater(&buffer, kCount, &read);
  EXPECT_TRUE(vector<uint8_t>(kCount, 1) == read.Read());
}

// Another thread fills and pushes while the device is far from having read what
// came before.
DEVICE_TEST(TestPushWaitsForReaders) {
  const size_t kCount = 1 << 20;
  const int kRounds = 10;
  StagedBuffer buffer(CurrentDevice(), "test");
  buffer.Reserve(kCount);
  DeviceBytes busy(kBusyBytes);
  vector<std::unique_ptr<DeviceBytes> > read;
  for (int round = 0; round < kRounds; ++round) {
    read.emplace_back(new DeviceBytes(kCount));
  }
  for (int round = 0; round < kRounds; ++round) {
    std::thread([&buffer, round]() {
      std::fill_n(static_cast<uint8_t*>(buffer.host()), kCount, round + 1);
      buffer.Push(kCount);
    }).join();
    KeepBusy(&busy);
    ReadLater(&buffer, kCount, read[round].get());
  }
  for (int round = 0; round < kRounds; ++round) {
    EXPECT_TRUE(vector<uint8_t>(kCount, round + 1) == read[round]->Read());
  }
}

// Growth, and the end, give the memory back only when the device has read it.
DEVICE_TEST(TestGrowthAndEndWaitForReaders) {
  const size_t kCount = 1 << 20;
  DeviceBytes busy(kBusyBytes), before(kCount), after(2 * kCount);
  {
    StagedBuffer buffer(CurrentDevice(), "test");
    for (size_t size : {kCount, 2 * kCount}) {
      buffer.Reserve(size);
      std::fill_n(static_cast<uint8_t*>(buffer.host()), size, size >> 20);
      buffer.Push(size);
      KeepBusy(&busy);
      ReadLater(&buffer, size, size == kCount ? &before : &after);
    }
  }
  EXPECT_TRUE(vector<uint8_t>(kCount, 1) == before.Read());
  EXPECT_TRUE(vector<uint8_t>(2 * kCount, 2) == after.Read());
}

DEVICE_DEATH_TEST(TestTooMuchMemory) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH({
    StagedBuffer buffer(CurrentDevice(), "the layer");
    buffer.Reserve(size_t(1) << 60);
  }, "the layer: allocating page-locked memory \\(GPU .*1152921504606846976 "
      "bytes");
}

#ifdef CPU_ONLY

TEST(StagedBufferEmulationTest, TestGivesEverythingBack) {
  const size_t before = emulation::Allocations::Get()->count();
  {
    StagedBuffer buffer(0, "test");
    for (size_t count : {10, 100, 50, 1000}) { buffer.Reserve(count); }
    EXPECT_EQ(before + 2, emulation::Allocations::Get()->count());
  }
  EXPECT_EQ(before, emulation::Allocations::Get()->count());
}

#endif  // CPU_ONLY

}  // namespace caffe
