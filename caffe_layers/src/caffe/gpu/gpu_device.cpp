// A build with CUDA has gpu_device.cu instead.
#ifdef CPU_ONLY
#include "caffe/gpu/gpu_device.hpp"

namespace caffe {

int GpuCount() { return 0; }

std::string GpuFault(int /* device */) {
  return "this Caffe is built for the CPU only; `make gpu` builds one with CUDA";
}

}  // namespace caffe
#endif  // CPU_ONLY
