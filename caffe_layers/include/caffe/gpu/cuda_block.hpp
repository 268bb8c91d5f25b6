#ifndef CAFFE_GPU_CUDA_BLOCK_HPP_
#define CAFFE_GPU_CUDA_BLOCK_HPP_

/**
 * What the device code in .cuh headers needs beyond CUDA's own words. The same
 * headers are compiled by nvcc for a device and by a host compiler for the
 * tests' emulation of a block, which defines its own DYNAMIC_SHARED.
 */
#ifdef __CUDACC__

/// `type* name` = the block's dynamic shared memory, aligned to 16 bytes.
#define DYNAMIC_SHARED(type, name)                                   \
  extern __shared__ __align__(16) unsigned char dynamic_shared_memory[]; \
  type* const name = reinterpret_cast<type*>(dynamic_shared_memory)

/// Before a loop over an array that is to stay in registers.
#define CUDA_UNROLL _Pragma("unroll")
#define CUDA_NO_UNROLL _Pragma("unroll 1")
#define CUDA_INLINE __device__ __forceinline__
#define CUDA_HOST_INLINE __host__ __device__ __forceinline__

#else

#define CUDA_UNROLL
#define CUDA_NO_UNROLL
#define CUDA_INLINE inline
#define CUDA_HOST_INLINE inline

#endif  // __CUDACC__

#endif  // CAFFE_GPU_CUDA_BLOCK_HPP_
