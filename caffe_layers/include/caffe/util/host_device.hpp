#ifndef CAFFE_UTIL_HOST_DEVICE_HPP_
#define CAFFE_UTIL_HOST_DEVICE_HPP_

/// Before a function that CPU code and CUDA kernels share.
#ifdef __CUDACC__
#define CAFFE_HOST_DEVICE __host__ __device__
#else
#define CAFFE_HOST_DEVICE
#endif

#endif  // CAFFE_UTIL_HOST_DEVICE_HPP_
