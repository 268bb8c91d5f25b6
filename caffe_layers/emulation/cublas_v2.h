#ifndef CAFFE_EMULATION_CUBLAS_V2_H_
#define CAFFE_EMULATION_CUBLAS_V2_H_

/// The functions of cuBLAS that Caffe calls, by the host's BLAS (cuda_runtime.h).
#include <cuda_runtime.h>

#include <vector>

extern "C" {
#include <cblas.h>
}

enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS,
  CUBLAS_STATUS_NOT_INITIALIZED,
  CUBLAS_STATUS_ALLOC_FAILED,
  CUBLAS_STATUS_INVALID_VALUE,
  CUBLAS_STATUS_ARCH_MISMATCH,
  CUBLAS_STATUS_MAPPING_ERROR,
  CUBLAS_STATUS_EXECUTION_FAILED,
  CUBLAS_STATUS_INTERNAL_ERROR,
  CUBLAS_STATUS_NOT_SUPPORTED,
  CUBLAS_STATUS_LICENSE_ERROR
};
enum cublasOperation_t { CUBLAS_OP_N = CblasNoTrans, CUBLAS_OP_T = CblasTrans };
enum cublasMath_t { CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT };
enum cudaDataType_t { CUDA_R_32F, CUDA_R_64F };
enum cublasComputeType_t {
  CUBLAS_COMPUTE_32F,
  CUBLAS_COMPUTE_32F_FAST_TF32,
  CUBLAS_COMPUTE_32F_FAST_16BF,
  CUBLAS_COMPUTE_64F
};
struct EmulatedCublas { cudaStream_t stream; };
typedef EmulatedCublas* cublasHandle_t;

inline cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  *handle = new EmulatedCublas();
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t* stream) {
  *stream = handle->stream;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) {
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetWorkspace(cublasHandle_t, void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

// alpha and beta are the host's, read at the call; a dot product's or a sum's
// result is the host's, too, and so neither can be recorded.
#define CAFFE_EMULATED_BLAS(letter, prefix, Type)                                                  \
  inline cublasStatus_t cublas##letter##gemm(cublasHandle_t handle, cublasOperation_t op_a,        \
      cublasOperation_t op_b, int m, int n, int k, const Type* alpha, const Type* a, int lda,      \
      const Type* b, int ldb, const Type* beta, Type* c, int ldc) {                                \
    const Type by = *alpha, keep = *beta;                                                          \
    caffe::emulation::Enqueue(handle->stream, [=]() {                                              \
      cblas_##prefix##gemm(CblasColMajor, static_cast<CBLAS_TRANSPOSE>(op_a),                      \
          static_cast<CBLAS_TRANSPOSE>(op_b), m, n, k, by, a, lda, b, ldb, keep, c, ldc);          \
    });                                                                                            \
    return CUBLAS_STATUS_SUCCESS;                                                                  \
  }                                                                                                \
  inline cublasStatus_t cublas##letter##gemv(cublasHandle_t handle, cublasOperation_t op, int m,   \
      int n, const Type* alpha, const Type* a, int lda, const Type* x, int step_x,                 \
      const Type* beta, Type* y, int step_y) {                                                     \
    const Type by = *alpha, keep = *beta;                                                          \
    caffe::emulation::Enqueue(handle->stream, [=]() {                                              \
      cblas_##prefix##gemv(CblasColMajor, static_cast<CBLAS_TRANSPOSE>(op), m, n, by, a, lda, x,   \
          step_x, keep, y, step_y);                                                                \
    });                                                                                            \
    return CUBLAS_STATUS_SUCCESS;                                                                  \
  }                                                                                                \
  inline cublasStatus_t cublas##letter##axpy(cublasHandle_t handle, int n, const Type* alpha,      \
      const Type* x, int step_x, Type* y, int step_y) {                                            \
    const Type by = *alpha;                                                                        \
    caffe::emulation::Enqueue(handle->stream,                                                      \
        [=]() { cblas_##prefix##axpy(n, by, x, step_x, y, step_y); });                             \
    return CUBLAS_STATUS_SUCCESS;                                                                  \
  }                                                                                                \
  inline cublasStatus_t cublas##letter##scal(cublasHandle_t handle, int n, const Type* alpha,      \
      Type* x, int step) {                                                                         \
    const Type by = *alpha;                                                                        \
    caffe::emulation::Enqueue(handle->stream, [=]() { cblas_##prefix##scal(n, by, x, step); });    \
    return CUBLAS_STATUS_SUCCESS;                                                                  \
  }                                                                                                \
  inline cublasStatus_t cublas##letter##copy(cublasHandle_t handle, int n, const Type* x,          \
      int step_x, Type* y, int step_y) {                                                           \
    caffe::emulation::Enqueue(handle->stream,                                                      \
        [=]() { cblas_##prefix##copy(n, x, step_x, y, step_y); });                                 \
    return CUBLAS_STATUS_SUCCESS;                                                                  \
  }                                                                                                \
  inline cublasStatus_t cublas##letter##dot(cublasHandle_t, int n, const Type* x, int step_x,      \
      const Type* y, int step_y, Type* result) {                                                   \
    *result = cblas_##prefix##dot(n, x, step_x, y, step_y);                                        \
    return CUBLAS_STATUS_SUCCESS;                                                                  \
  }                                                                                                \
  inline cublasStatus_t cublas##letter##asum(cublasHandle_t, int n, const Type* x, int step,       \
      Type* result) {                                                                              \
    *result = cblas_##prefix##asum(n, x, step);                                                    \
    return CUBLAS_STATUS_SUCCESS;                                                                  \
  }
CAFFE_EMULATED_BLAS(S, s, float)
CAFFE_EMULATED_BLAS(D, d, double)
#undef CAFFE_EMULATED_BLAS

/// In float32 or float64, whatever the rounding of factors that is asked for.
inline cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle,
    cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k,
    const void* alpha, const void* a, cudaDataType_t type, int lda,
    long long stride_a, const void* b, cudaDataType_t, int ldb,  // NOLINT(runtime/int)
    long long stride_b, const void* beta, void* c, cudaDataType_t, int ldc,  // NOLINT(runtime/int)
    long long stride_c, int count, cublasComputeType_t, cublasGemmAlgo_t) {  // NOLINT(runtime/int)
  for (int i = 0; i < count; ++i) {
    if (type == CUDA_R_32F) {
      cublasSgemm(handle, op_a, op_b, m, n, k, static_cast<const float*>(alpha),
          static_cast<const float*>(a) + i * stride_a, lda,
          static_cast<const float*>(b) + i * stride_b, ldb,
          static_cast<const float*>(beta), static_cast<float*>(c) + i * stride_c, ldc);
    } else {
      cublasDgemm(handle, op_a, op_b, m, n, k, static_cast<const double*>(alpha),
          static_cast<const double*>(a) + i * stride_a, lda,
          static_cast<const double*>(b) + i * stride_b, ldb,
          static_cast<const double*>(beta), static_cast<double*>(c) + i * stride_c, ldc);
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a,
    cublasOperation_t op_b, int m, int n, int k, const void* alpha, const void* a,
    cudaDataType_t type, int lda, const void* b, cudaDataType_t type_b, int ldb,
    const void* beta, void* c, cudaDataType_t type_c, int ldc,
    cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
  return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, type, lda,
      0, b, type_b, ldb, 0, beta, c, type_c, ldc, 0, 1, compute, algorithm);
}

#endif  // CAFFE_EMULATION_CUBLAS_V2_H_
