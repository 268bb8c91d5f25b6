// The ReNet sweeps for x86-64 with AVX2 and FMA; the build compiles this file
// with the flags for them. Elsewhere the file is empty.
#if defined(__AVX2__) && defined(__FMA__)
#define RENET_SET renet_avx2
#define RENET_VECTOR_BYTES 32
#define RENET_PANEL_ROWS 4  // 4 x 3 accumulators of 16 registers
#include "caffe/renet/cpu/sweep_kernels.hpp"

namespace caffe {

template <typename Dtype>
ReNetKernels<Dtype> ReNetKernelsAvx2() {
  return renet_avx2::MakeKernels<Dtype>("avx2");
}
template ReNetKernels<float> ReNetKernelsAvx2<float>();
template ReNetKernels<double> ReNetKernelsAvx2<double>();

}  // namespace caffe
#endif
