#ifndef CAFFE_EMULATION_CUDA_RUNTIME_H_
#define CAFFE_EMULATION_CUDA_RUNTIME_H_

/**
 * CUDA's runtime on the host, for builds with -DGPU=EMULATED: all of Caffe in GPU
 * mode without a GPU. The memory of the device is the host's, full of NaN when it
 * is given and when it is taken back; what a stream is given is done at once, and
 * kernels run as cuda_emulation.hpp says. A recorded graph keeps what it was given
 * and does it whenever it is launched, so that what has moved meanwhile shows.
 * Nothing here tells of times, and nothing of what CUDA itself would refuse.
 */
#include "cuda_emulation.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorCudartUnloading = 4,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNotReady = 600
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaDeviceAttr {
  cudaDevAttrClockRate,
  cudaDevAttrKernelExecTimeout,
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
const unsigned cudaStreamNonBlocking = 1;
const unsigned cudaEventBlockingSync = 1;
const unsigned cudaEventDisableTiming = 2;

struct cudaDeviceProp {
  char name[64];
  struct { char bytes[16]; } uuid;
  size_t totalGlobalMem, sharedMemPerBlock, memPitch, totalConstMem, textureAlignment;
  int regsPerBlock, warpSize, maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3];
  int major, minor, asyncEngineCount, multiProcessorCount;
};
struct cudaPointerAttributes { int device; };
struct cudaFuncAttributes {};

typedef std::vector<std::function<void()> > EmulatedGraph;
struct EmulatedStream {
  bool is_recorded;
  EmulatedGraph graph;
};
struct EmulatedEvent {};
typedef EmulatedStream* cudaStream_t;
typedef EmulatedEvent* cudaEvent_t;
typedef EmulatedGraph* cudaGraph_t;
typedef EmulatedGraph* cudaGraphExec_t;

namespace caffe {
namespace emulation {

/// What was allocated on the device, and the most that ever was at once.
class DeviceMemory {
 public:
  static DeviceMemory& Get() {
    // never destroyed: memory is given back until the end of the process
    static DeviceMemory* const instance = new DeviceMemory;
    return *instance;
  }
  void* Allocate(size_t bytes) {
    if (bytes == 0) { return NULL; }
    void* const memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (memory == NULL) { return NULL; }
    std::memset(memory, 0xFF, bytes);
    std::lock_guard<std::mutex> lock(mutex_);
    sizes_[memory] = bytes;
    in_use_ += bytes;
    peak_ = std::max(peak_, in_use_);
    return memory;
  }
  void Free(void* memory) {
    if (memory == NULL) { return; }
    std::lock_guard<std::mutex> lock(mutex_);
    const std::map<void*, size_t>::iterator found = sizes_.find(memory);
    if (found == sizes_.end()) { throw Error("cudaFree of what is not allocated"); }
    std::memset(memory, 0xFF, found->second);
    in_use_ -= found->second;
    sizes_.erase(found);
    std::free(memory);
  }
  size_t in_use() const { return in_use_; }
  size_t peak() const { return peak_; }

 private:
  std::mutex mutex_;
  std::map<void*, size_t> sizes_;
  size_t in_use_ = 0;
  size_t peak_ = 0;
};

/// Does what a stream is given, or keeps it for the graph that it records.
inline void Enqueue(cudaStream_t stream, const std::function<void()>& work) {
  if (stream != NULL && stream->is_recorded) {
    stream->graph.push_back(work);
  } else {
    work();
  }
}

/// `kernel<<<grid, block, shared_bytes, stream>>>`: a function, or what calls one.
template <typename Kernel>
class ConfiguredKernel {
 public:
  ConfiguredKernel(Kernel kernel, dim3 grid, dim3 block, size_t shared_bytes,
      cudaStream_t stream)
      : kernel_(kernel), grid_(grid), block_(block),
        shared_bytes_(shared_bytes), stream_(stream) {}
  template <typename... A>
  void operator()(A... arguments) const {
    const ConfiguredKernel self = *this;
    Enqueue(stream_, [=]() {
      LaunchBody(KernelName(Address(self.kernel_), typeid(Kernel)), self.grid_,
          self.block_, self.shared_bytes_, [=]() { self.kernel_(arguments...); });
    });
  }

 private:
  template <typename... P>
  static void* Address(void (*kernel)(P...)) {
    return reinterpret_cast<void*>(kernel);
  }
  template <typename Call>
  static void* Address(const Call& /* call */) { return NULL; }

  Kernel kernel_;
  dim3 grid_, block_;
  size_t shared_bytes_;
  cudaStream_t stream_;
};

/// What scripts/emulate_kernels.py writes for `kernel<<<...>>>`.
template <typename... P>
ConfiguredKernel<void (*)(P...)> Configured(void (*kernel)(P...), dim3 grid, dim3 block,
    size_t shared_bytes = 0, cudaStream_t stream = NULL) {
  return ConfiguredKernel<void (*)(P...)>(kernel, grid, block, shared_bytes, stream);
}
template <typename Call>
ConfiguredKernel<Call> Configured(Call kernel, dim3 grid, dim3 block,
    size_t shared_bytes = 0, cudaStream_t stream = NULL) {
  return ConfiguredKernel<Call>(kernel, grid, block, shared_bytes, stream);
}

/// What CUDA gives a handle of, and takes back.
template <typename T>
cudaError_t Make(T** handle, const T& value = T()) {
  *handle = new T(value);
  return cudaSuccess;
}
template <typename T>
cudaError_t Destroy(T* handle) {
  delete handle;
  return cudaSuccess;
}

}  // namespace emulation
}  // namespace caffe

// --- Devices -----------------------------------------------------------------

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "an error";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int /* device */) { return cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  return cudaDriverGetVersion(version);
}
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute,
    int /* device */) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 4
      : attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 227 << 10
      : attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties,
    int /* device */) {
  *properties = cudaDeviceProp();
  std::strcpy(properties->name, "emulated on the processor");
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->major = 9;
  properties->multiProcessorCount = 4;
  return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = size_t(16) << 30;
  *free = *total - caffe::emulation::DeviceMemory::Get().in_use();
  return cudaSuccess;
}
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
    const void* /* pointer */) {
  attributes->device = 0;
  return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* /* attributes */,
    Kernel /* kernel */) {
  return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void* /* kernel */,
    cudaFuncAttribute /* attribute */, int /* value */) {
  return cudaSuccess;
}
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks,
    const void* /* kernel */, int threads, size_t shared_bytes) {
  *blocks = std::min<int>(1024 / threads,
      shared_bytes == 0 ? 32 : (227 << 10) / shared_bytes);
  return cudaSuccess;
}

// --- Memory ------------------------------------------------------------------

template <typename T>
cudaError_t cudaMalloc(T** pointer, size_t bytes) {
  *pointer = static_cast<T*>(caffe::emulation::DeviceMemory::Get().Allocate(bytes));
  return *pointer == NULL && bytes > 0 ? cudaErrorMemoryAllocation : cudaSuccess;
}
inline cudaError_t cudaFree(void* pointer) {
  caffe::emulation::DeviceMemory::Get().Free(pointer);
  return cudaSuccess;
}
template <typename T>
cudaError_t cudaMallocHost(T** pointer, size_t bytes) {
  *pointer = static_cast<T*>(std::malloc(bytes ? bytes : 1));
  return *pointer == NULL ? cudaErrorMemoryAllocation : cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes,
    cudaMemcpyKind /* kind */, cudaStream_t stream = NULL) {
  caffe::emulation::Enqueue(stream, [=]() { std::memmove(to, from, bytes); });
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes,
    cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, NULL);
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes,
    cudaStream_t stream = NULL) {
  caffe::emulation::Enqueue(stream, [=]() { std::memset(to, value, bytes); });
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return cudaMemsetAsync(to, value, bytes);
}

// --- Streams, events and graphs --------------------------------------------------

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream,
    unsigned /* flags */) {
  return caffe::emulation::Make(stream);
}
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, 0);
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return caffe::emulation::Destroy(stream);
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t /* stream */) {
  return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t /* stream */,
    cudaEvent_t /* event */, unsigned /* flags */) {
  return cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream,
    cudaStreamCaptureMode /* mode */) {
  stream->is_recorded = true;
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream,
    cudaGraph_t* graph) {
  *graph = new EmulatedGraph;
  (*graph)->swap(stream->graph);
  stream->is_recorded = false;
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable,
    cudaGraph_t graph, unsigned /* flags */) {
  return caffe::emulation::Make(executable, *graph);
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return caffe::emulation::Destroy(graph);
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return caffe::emulation::Destroy(executable);
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t executable,
    cudaStream_t stream) {
  for (const std::function<void()>& work : *executable) {
    caffe::emulation::Enqueue(stream, work);
  }
  return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event,
    unsigned /* flags */) {
  return caffe::emulation::Make(event);
}
inline cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, 0);
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return caffe::emulation::Destroy(event);
}
inline cudaError_t cudaEventRecord(cudaEvent_t /* event */,
    cudaStream_t /* stream */) {
  return cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t /* event */) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t /* event */) {
  return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds,
    cudaEvent_t /* begin */, cudaEvent_t /* end */) {
  *milliseconds = 1;
  return cudaSuccess;
}

// --- What Caffe's kernels call -------------------------------------------------------

inline long long __double_as_longlong(double x) {  // NOLINT(runtime/int)
  return caffe::emulation::BitCast<long long>(x);  // NOLINT(runtime/int)
}
inline double __longlong_as_double(long long x) {  // NOLINT(runtime/int)
  return caffe::emulation::BitCast<double>(x);
}

#endif  // CAFFE_EMULATION_CUDA_RUNTIME_H_
