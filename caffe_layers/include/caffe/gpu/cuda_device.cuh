#ifndef CAFFE_GPU_CUDA_DEVICE_CUH_
#define CAFFE_GPU_CUDA_DEVICE_CUH_

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/gpu/cuda_check.hpp"
#include "caffe/renet/gpu/scan.hpp"
#include "caffe/renet/gpu/stepwise_scan.cuh"

namespace caffe {

/**
 * @brief The limits of one GPU, and what a thread needs to work on it: a cuBLAS
 *        handle with a work area of its own, and a stream to record on.
 *
 * One for each thread and device; layers share it.
 */
class CudaContext {
 public:
  /// That of this thread and its current device.
  static std::shared_ptr<CudaContext> Get();
  ~CudaContext();

  cublasHandle_t cublas() const { return cublas_; }
  cudaStream_t recording_stream() const { return recording_stream_; }
  /// The stream that cuBLAS works in.
  void SetStream(cudaStream_t stream);

  const int device;
  int multiprocessors;
  int compute_capability_major;
  size_t shared_memory_per_block;

  /// Lets a kernel have this much dynamic shared memory.
  void AllowSharedMemory(const void* kernel, size_t bytes);
  int BlocksPerMultiprocessor(const void* kernel, int threads, size_t bytes);

 private:
  explicit CudaContext(int device);
  CudaContext(const CudaContext&);
  CudaContext& operator=(const CudaContext&);

  const std::string who_;
  cublasHandle_t cublas_;
  cudaStream_t recording_stream_;
  void* cublas_memory_;
  std::map<const void*, size_t> allowed_;
  std::map<std::tuple<const void*, int, size_t>, int> occupancy_;
};

/**
 * @brief A GPU as a layer sees it: launches, products and recordings, all in
 *        the default stream, where Caffe's own work is, and all checked.
 */
class CudaDevice {
 public:
  /// who: what messages call the layer.
  explicit CudaDevice(const std::string& who);
  ~CudaDevice();

  int multiprocessors() const { return context_->multiprocessors; }
  int compute_capability_major() const {
    return context_->compute_capability_major;
  }
  size_t shared_memory_per_block() const {
    return context_->shared_memory_per_block;
  }

  template <typename... P>
  int BlocksPerMultiprocessor(void (*kernel)(P...), int threads,
      size_t shared_bytes) {
    return context_->BlocksPerMultiprocessor(
        reinterpret_cast<const void*>(kernel), threads, shared_bytes);
  }
  template <typename... P, typename... A>
  void Launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
      A... args) {
    context_->AllowSharedMemory(reinterpret_cast<const void*>(kernel),
        shared_bytes);
    kernel<<<grid, block, shared_bytes, stream_>>>(args...);
    CUDA_CHECK_OF(who_, cudaPeekAtLastError());
  }

  /// C (m x n) = op(A) op(B) + beta C, rows ld* apart.
  template <typename Dtype>
  void Product(bool transpose_a, bool transpose_b, int m, int n, int k,
      const Dtype* a, int lda, const Dtype* b, int ldb, Dtype beta, Dtype* c,
      int ldc, ReNetPrecision precision) {
    BatchedProduct(transpose_a, transpose_b, m, n, k, a, lda, 0, b, ldb, 0,
        beta, c, ldc, 0, 1, precision);
  }
  /// The same for `count` products whose matrices are a stride apart.
  template <typename Dtype>
  void BatchedProduct(bool transpose_a, bool transpose_b, int m, int n, int k,
      const Dtype* a, int lda, ptrdiff_t stride_a, const Dtype* b, int ldb,
      ptrdiff_t stride_b, Dtype beta, Dtype* c, int ldc, ptrdiff_t stride_c,
      int count, ReNetPrecision precision);

  template <typename Dtype>
  void Copy(size_t count, const Dtype* from, Dtype* to) {
    CUDA_CHECK_OF(who_, cudaMemcpyAsync(to, from, count * sizeof(Dtype),
        cudaMemcpyDeviceToDevice, stream_));
  }

  /**
   * @brief Runs what a key stands for.
   *
   * The first time as it is (a map of a size that never comes again is not
   * worth more, and libraries load their code); the second time it is recorded
   * as a graph, which from then on is launched whole.
   */
  template <typename Body>
  void Repeat(const renet::RecordKey& key, Body body) {
    Recording* recording = Find(key);
    if (recording == NULL) {
      Remember(key);
      body();
      return;
    }
    if (recording->graph == NULL) {
      BeginRecording();
      body();
      recording->graph = EndRecording();
    }
    CUDA_CHECK_OF(who_, cudaGraphLaunch(recording->graph, stream_));
  }

 private:
  struct Recording {
    renet::RecordKey key;
    cudaGraphExec_t graph;  // NULL: seen once
  };

  CudaDevice(const CudaDevice&);
  CudaDevice& operator=(const CudaDevice&);
  /// Moves what it finds to the front.
  Recording* Find(const renet::RecordKey& key);
  void Remember(const renet::RecordKey& key);
  void BeginRecording();
  cudaGraphExec_t EndRecording();

  const std::string who_;
  const std::shared_ptr<CudaContext> context_;
  cudaStream_t stream_;
  std::vector<Recording> recordings_;  // the latest first
};

}  // namespace caffe

#endif  // CAFFE_GPU_CUDA_DEVICE_CUH_
