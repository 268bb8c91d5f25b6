#ifndef CAFFE_GPU_GPU_DEVICE_HPP_
#define CAFFE_GPU_GPU_DEVICE_HPP_

#include <string>

namespace caffe {

/// How many GPUs CUDA sees; 0 in a build for the CPU.
int GpuCount();

/**
 * Why GPU number `device` cannot be used, as one line for a person; empty where
 * it can. Beside the obvious (no driver, no such number, a build for the CPU
 * only) it is asked whether the GPU can be opened now and whether this build
 * has code for it. Opens a context there, and leaves the current device as it
 * was.
 */
std::string GpuFault(int device);

}  // namespace caffe

#endif  // CAFFE_GPU_GPU_DEVICE_HPP_
