#include "caffe/gpu/cuda_device.cuh"

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

namespace caffe {

namespace {

/// Recordings of one layer that are kept: forward and backward passes of the
/// sizes that alternate in a training.
const size_t kMostRecordings = 8;

/// The work area that NVIDIA advises for cuBLAS on Hopper. cuBLAS must not
/// allocate while it is recorded.
const size_t kCublasBytes = 32 << 20;

template <typename Dtype> struct CublasType;
template <> struct CublasType<float> {
  static const cudaDataType_t kData = CUDA_R_32F;
  static cublasComputeType_t Compute(ReNetPrecision precision) {
    return precision == RENET_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 :
        precision == RENET_BF16 ? CUBLAS_COMPUTE_32F_FAST_16BF :
        CUBLAS_COMPUTE_32F;
  }
};
template <> struct CublasType<double> {
  static const cudaDataType_t kData = CUDA_R_64F;
  static cublasComputeType_t Compute(ReNetPrecision /* precision */) {
    return CUBLAS_COMPUTE_64F;
  }
};

}  // namespace

std::shared_ptr<CudaContext> CudaContext::Get() {
  // Weak: the context goes with the last layer that uses it, while CUDA is
  // still there, and not at the end of the process.
  static thread_local std::map<int, std::weak_ptr<CudaContext> > contexts;
  int device;
  CUDA_CHECK(cudaGetDevice(&device));
  std::shared_ptr<CudaContext> context = contexts[device].lock();
  if (!context) {
    context.reset(new CudaContext(device));
    contexts[device] = context;
  }
  return context;
}

CudaContext::CudaContext(int device_number)
    : device(device_number), who_("ReNet layers"), cublas_(NULL),
      recording_stream_(NULL), cublas_memory_(NULL) {
  int value;
  CUDA_CHECK_OF(who_, cudaDeviceGetAttribute(&multiprocessors,
      cudaDevAttrMultiProcessorCount, device));
  CUDA_CHECK_OF(who_, cudaDeviceGetAttribute(&compute_capability_major,
      cudaDevAttrComputeCapabilityMajor, device));
  CUDA_CHECK_OF(who_, cudaDeviceGetAttribute(&value,
      cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  shared_memory_per_block = value;
  CUBLAS_CHECK_OF(who_, cublasCreate(&cublas_));
  CUDA_CHECK_OF(who_, cudaMalloc(&cublas_memory_, kCublasBytes));
  // Non-blocking: work in the default stream must not meet a recording.
  CUDA_CHECK_OF(who_, cudaStreamCreateWithFlags(&recording_stream_,
      cudaStreamNonBlocking));
  SetStream(NULL);
}

CudaContext::~CudaContext() {
  // Errors of what is going away are nobody's concern.
  cublasDestroy(cublas_);
  cudaStreamDestroy(recording_stream_);
  cudaFree(cublas_memory_);
}

void CudaContext::SetStream(cudaStream_t stream) {
  CUBLAS_CHECK_OF(who_, cublasSetStream(cublas_, stream));
  // A change of the stream gives cuBLAS its own work area back.
  CUBLAS_CHECK_OF(who_, cublasSetWorkspace(cublas_, cublas_memory_,
      kCublasBytes));
}

void CudaContext::AllowSharedMemory(const void* kernel, size_t bytes) {
  const size_t kAlwaysAllowed = 48 << 10;
  if (bytes <= kAlwaysAllowed) return;
  size_t& allowed = allowed_[kernel];
  if (bytes > allowed) {
    CUDA_CHECK_OF(who_, cudaFuncSetAttribute(kernel,
        cudaFuncAttributeMaxDynamicSharedMemorySize,
        static_cast<int>(bytes)));
    allowed = bytes;
  }
}

int CudaContext::BlocksPerMultiprocessor(const void* kernel, int threads,
    size_t bytes) {
  const std::tuple<const void*, int, size_t> key(kernel, threads, bytes);
  const auto known = occupancy_.find(key);
  if (known != occupancy_.end()) return known->second;
  AllowSharedMemory(kernel, bytes);
  int blocks;
  CUDA_CHECK_OF(who_, cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks,
      kernel, threads, bytes));
  occupancy_[key] = blocks;
  return blocks;
}

CudaDevice::CudaDevice(const std::string& who)
    : who_(who), context_(CudaContext::Get()), stream_(NULL) {}

CudaDevice::~CudaDevice() {
  for (const Recording& recording : recordings_) {
    if (recording.graph != NULL) cudaGraphExecDestroy(recording.graph);
  }
}

template <typename Dtype>
void CudaDevice::BatchedProduct(bool transpose_a, bool transpose_b, int m,
    int n, int k, const Dtype* a, int lda, ptrdiff_t stride_a, const Dtype* b,
    int ldb, ptrdiff_t stride_b, Dtype beta, Dtype* c, int ldc,
    ptrdiff_t stride_c, int count, ReNetPrecision precision) {
  const Dtype alpha = 1;
  const cudaDataType_t type = CublasType<Dtype>::kData;
  const cublasOperation_t op_a = transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t op_b = transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasComputeType_t compute = CublasType<Dtype>::Compute(
      compute_capability_major() < 8 ? RENET_FLOAT32 : precision);
  // cuBLAS counts by columns: it is asked for the transpose, B A.
  if (count == 1) {
    CUBLAS_CHECK_OF(who_, cublasGemmEx(context_->cublas(), op_b, op_a, n,
        m, k, &alpha, b, type, ldb, a, type, lda, &beta, c, type, ldc,
        compute, CUBLAS_GEMM_DEFAULT));
  } else {
    CUBLAS_CHECK_OF(who_, cublasGemmStridedBatchedEx(context_->cublas(),
        op_b, op_a, n, m, k, &alpha, b, type, ldb, stride_b, a, type, lda,
        stride_a, &beta, c, type, ldc, stride_c, count, compute,
        CUBLAS_GEMM_DEFAULT));
  }
}

template void CudaDevice::BatchedProduct<float>(bool, bool, int, int, int,
    const float*, int, ptrdiff_t, const float*, int, ptrdiff_t, float, float*,
    int, ptrdiff_t, int, ReNetPrecision);
template void CudaDevice::BatchedProduct<double>(bool, bool, int, int, int,
    const double*, int, ptrdiff_t, const double*, int, ptrdiff_t, double,
    double*, int, ptrdiff_t, int, ReNetPrecision);

CudaDevice::Recording* CudaDevice::Find(const renet::RecordKey& key) {
  const std::vector<Recording>::iterator found =
      std::find_if(recordings_.begin(), recordings_.end(),
          [&key](const Recording& r) { return r.key == key; });
  if (found == recordings_.end()) return NULL;
  std::rotate(recordings_.begin(), found, found + 1);
  return &recordings_.front();
}

void CudaDevice::Remember(const renet::RecordKey& key) {
  if (recordings_.size() == kMostRecordings) {
    if (recordings_.back().graph != NULL) {
      // CUDA keeps what a launched graph needs until it has ended.
      CUDA_CHECK_OF(who_, cudaGraphExecDestroy(recordings_.back().graph));
    }
    recordings_.pop_back();
  }
  const Recording recording = {key, NULL};
  recordings_.insert(recordings_.begin(), recording);
}

void CudaDevice::BeginRecording() {
  stream_ = context_->recording_stream();
  context_->SetStream(stream_);
  // Of this thread alone: data layers' threads copy meanwhile.
  CUDA_CHECK_OF(who_, cudaStreamBeginCapture(stream_,
      cudaStreamCaptureModeThreadLocal));
}

cudaGraphExec_t CudaDevice::EndRecording() {
  cudaGraph_t graph;
  CUDA_CHECK_OF(who_, cudaStreamEndCapture(stream_, &graph));
  stream_ = NULL;
  context_->SetStream(NULL);
  cudaGraphExec_t executable;
  CUDA_CHECK_OF(who_, cudaGraphInstantiateWithFlags(&executable, graph, 0));
  CUDA_CHECK_OF(who_, cudaGraphDestroy(graph));
  return executable;
}

}  // namespace caffe
