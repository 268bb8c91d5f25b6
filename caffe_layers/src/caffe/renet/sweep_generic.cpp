// The ReNet sweeps for any processor: 16-byte vectors, which the compiler maps
// to SSE2 or NEON.
#define RENET_SET renet_generic
#define RENET_VECTOR_BYTES 16
#if defined(__aarch64__)
#define RENET_PANEL_ROWS 8  // 32 registers
#else
#define RENET_PANEL_ROWS 4  // 16 registers
#endif
#include "caffe/renet/cpu/sweep_kernels.hpp"

namespace caffe {

template <typename Dtype>
ReNetKernels<Dtype> ReNetKernelsGeneric() {
  return renet_generic::MakeKernels<Dtype>("generic");
}
template ReNetKernels<float> ReNetKernelsGeneric<float>();
template ReNetKernels<double> ReNetKernelsGeneric<double>();

}  // namespace caffe
