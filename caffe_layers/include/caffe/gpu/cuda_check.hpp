#ifndef CAFFE_GPU_CUDA_CHECK_HPP_
#define CAFFE_GPU_CUDA_CHECK_HPP_
#ifndef CPU_ONLY

#include "caffe/common.hpp"

// Checks whose messages begin with `who`, such as a layer's type and name:
// errors of earlier work come up in whatever call is next, and a network has
// many layers.

#define CUDA_CHECK_OF(who, call)                                         \
  do {                                                                   \
    const cudaError_t cuda_status = (call);                              \
    CHECK_EQ(cudaSuccess, cuda_status)                                   \
        << who << ": " << cudaGetErrorString(cuda_status);               \
  } while (0)

#define CUBLAS_CHECK_OF(who, call)                                       \
  do {                                                                   \
    const cublasStatus_t cublas_status = (call);                         \
    CHECK_EQ(CUBLAS_STATUS_SUCCESS, cublas_status)                       \
        << who << ": " << caffe::cublasGetErrorString(cublas_status);    \
  } while (0)

#ifdef USE_CUDNN
#define CUDNN_CHECK_OF(who, call)                                        \
  do {                                                                   \
    const cudnnStatus_t cudnn_status = (call);                           \
    CHECK_EQ(CUDNN_STATUS_SUCCESS, cudnn_status)                         \
        << who << ": " << ::cudnnGetErrorString(cudnn_status);           \
  } while (0)
#endif

#endif  // CPU_ONLY
#endif  // CAFFE_GPU_CUDA_CHECK_HPP_
