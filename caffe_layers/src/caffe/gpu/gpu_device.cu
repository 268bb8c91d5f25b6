#include "caffe/gpu/gpu_device.hpp"

#include <cuda_runtime.h>

#include <sstream>

namespace caffe {

namespace {

// Compiled for whatever this build is compiled for: asked whether it can run.
__global__ void Probe() {}

std::string Version(int number) {
  std::ostringstream text;
  text << number / 1000 << "." << number % 1000 / 10;
  return text.str();
}

// Why no device can be seen at all.
std::string FaultOfDriver(cudaError_t error) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) { return "no NVIDIA driver is installed here"; }
  if (error == cudaErrorInsufficientDriver) {
    return "the NVIDIA driver is too old: it serves CUDA up to " +
           Version(driver) + ", and this is a build of CUDA " +
           Version(runtime);
  }
  return std::string("there is no GPU that CUDA can use: ") +
         cudaGetErrorString(error);
}

// What keeps the current device from being used; leaves no error behind.
std::string FaultOfCurrentDevice(int device) {
  cudaError_t error = cudaFree(0);  // opens a context
  if (error != cudaSuccess) {
    cudaGetLastError();
    return std::string("it cannot be opened: ") + cudaGetErrorString(error);
  }
  cudaFuncAttributes attributes;
  error = cudaFuncGetAttributes(&attributes, Probe);
  if (error == cudaSuccess) { return ""; }
  cudaGetLastError();
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  std::ostringstream message;
  message << "this Caffe has no code for its compute capability " << major
          << "." << minor << "; build it by make gpu CUDA_ARCHS=" << major
          << minor << " (" << cudaGetErrorString(error) << ")";
  return message.str();
}

}  // namespace

int GpuCount() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

std::string GpuFault(int device) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return FaultOfDriver(error);
  }
  if (device < 0 || device >= count) {
    std::ostringstream message;
    message << "there is no such GPU; CUDA sees " << count
            << ", and the first one is number 0";
    return message.str();
  }
  int before = 0;
  cudaGetDevice(&before);
  if (cudaSetDevice(device) != cudaSuccess) {
    return std::string("it cannot be opened: ") +
           cudaGetErrorString(cudaGetLastError());
  }
  const std::string fault = FaultOfCurrentDevice(device);
  if (before != device) { cudaSetDevice(before); }
  return fault;
}

}  // namespace caffe
