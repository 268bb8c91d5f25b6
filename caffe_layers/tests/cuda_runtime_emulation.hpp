#ifndef CAFFE_TEST_CUDA_RUNTIME_EMULATION_HPP_
#define CAFFE_TEST_CUDA_RUNTIME_EMULATION_HPP_

/**
 * The part of CUDA's runtime that moves data (memory, streams, events) on the
 * host, for builds without CUDA's headers: so that code in which copies overlap
 * other work is tested without a GPU. A stream is a thread that does its work
 * in order and takes its time before and amid each piece; nothing but events
 * orders two streams. Memory that is given back is overwritten first. So work
 * that is not waited for shows as wrong bytes.
 */
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorCudartUnloading = 4,
  cudaErrorNotReady = 600
};
enum cudaMemcpyKind {
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3
};
const unsigned cudaStreamNonBlocking = 1;
const unsigned cudaEventBlockingSync = 1;
const unsigned cudaEventDisableTiming = 2;

#define CUDA_CHECK(condition) CHECK_EQ(condition, cudaSuccess)

namespace caffe {
namespace emulation {

inline void TakeTime() {
  std::this_thread::sleep_for(std::chrono::microseconds(500));
}

class Stream {
 public:
  Stream() : busy_(false), stop_(false), thread_([this]() { Run(); }) {}
  ~Stream() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void Put(const std::function<void()>& work) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      queue_.push_back(work);
    }
    changed_.notify_all();
  }
  void Synchronize() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this]() { return queue_.empty() && !busy_; });
  }

  static Stream* Default() {
    static Stream instance;
    return &instance;
  }

 private:
  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [this]() { return stop_ || !queue_.empty(); });
      if (queue_.empty()) { return; }
      const std::function<void()> work = queue_.front();
      queue_.pop_front();
      busy_ = true;
      lock.unlock();
      work();
      lock.lock();
      busy_ = false;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()> > queue_;
  bool busy_;
  bool stop_;
  std::thread thread_;  // the last member: it uses the others
};

/// A place in a stream; true when the stream has come there.
class Marker {
 public:
  typedef std::chrono::steady_clock Clock;

  Marker() : reached_(false) {}
  void Reach() {
    std::lock_guard<std::mutex> lock(mutex_);
    reached_ = true;
    when_ = Clock::now();
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this]() { return reached_; });
  }
  bool IsReached() {
    std::lock_guard<std::mutex> lock(mutex_);
    return reached_;
  }
  Clock::time_point when() const { return when_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_;
  Clock::time_point when_;
};

/// The marker of the last record; one that was never recorded has none.
typedef std::shared_ptr<Marker> Event;

/// What was allocated and how much; what is left at the end is a leak.
class Allocations {
 public:
  cudaError_t Allocate(void** pointer, size_t bytes) {
    *pointer = std::malloc(bytes);
    if (*pointer == NULL) { return cudaErrorMemoryAllocation; }
    std::memset(*pointer, 0xCD, bytes);
    std::lock_guard<std::mutex> lock(mutex_);
    sizes_[*pointer] = bytes;
    return cudaSuccess;
  }
  cudaError_t Free(void* pointer) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::memset(pointer, 0xDD, sizes_.at(pointer));
    sizes_.erase(pointer);
    std::free(pointer);
    return cudaSuccess;
  }
  size_t count() {
    std::lock_guard<std::mutex> lock(mutex_);
    return sizes_.size();
  }

  static Allocations* Get() {
    static Allocations instance;
    return &instance;
  }

 private:
  std::mutex mutex_;
  std::map<void*, size_t> sizes_;
};

}  // namespace emulation
}  // namespace caffe

typedef caffe::emulation::Stream* cudaStream_t;
typedef caffe::emulation::Event* cudaEvent_t;

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "an error";
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int /* device */) { return cudaSuccess; }
inline cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return caffe::emulation::Allocations::Get()->Allocate(pointer, bytes);
}
inline cudaError_t cudaFree(void* pointer) {
  return caffe::emulation::Allocations::Get()->Free(pointer);
}
inline cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return cudaMalloc(pointer, bytes);
}
inline cudaError_t cudaFreeHost(void* pointer) { return cudaFree(pointer); }

inline caffe::emulation::Stream* EmulatedStream(cudaStream_t stream) {
  return stream == NULL ? caffe::emulation::Stream::Default() : stream;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes,
    cudaMemcpyKind /* kind */, cudaStream_t stream) {
  EmulatedStream(stream)->Put([=]() {
    const size_t half = bytes / 2;
    caffe::emulation::TakeTime();
    std::memcpy(to, from, half);
    caffe::emulation::TakeTime();
    std::memcpy(static_cast<char*>(to) + half,
        static_cast<const char*>(from) + half, bytes - half);
  });
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes,
    cudaMemcpyKind kind) {
  cudaMemcpyAsync(to, from, bytes, kind, NULL);
  EmulatedStream(NULL)->Synchronize();
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes,
    cudaStream_t stream) {
  EmulatedStream(stream)->Put([=]() {
    caffe::emulation::TakeTime();
    std::memset(to, value, bytes);
  });
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream,
    unsigned /* flags */) {
  *stream = new caffe::emulation::Stream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event,
    unsigned /* flags */) {
  *event = new caffe::emulation::Event;
  return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const caffe::emulation::Event marker(new caffe::emulation::Marker);
  *event = marker;
  EmulatedStream(stream)->Put([marker]() { marker->Reach(); });
  return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
    unsigned /* flags */) {
  const caffe::emulation::Event marker = *event;
  if (marker) { EmulatedStream(stream)->Put([marker]() { marker->Wait(); }); }
  return cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t event) {
  return !*event || (*event)->IsReached() ? cudaSuccess : cudaErrorNotReady;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin,
    cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(
      (*end)->when() - (*begin)->when()).count();
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (*event) { (*event)->Wait(); }
  return cudaSuccess;
}

#endif  // CAFFE_TEST_CUDA_RUNTIME_EMULATION_HPP_
