// The ReNet sweeps for x86-64 with AVX-512; the build compiles this file with
// the flags for it. Elsewhere the file is empty.
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define RENET_SET renet_avx512
#define RENET_VECTOR_BYTES 64
#define RENET_PANEL_ROWS 8  // 8 x 3 accumulators of 32 registers
#include "caffe/renet/cpu/sweep_kernels.hpp"

namespace caffe {

template <typename Dtype>
ReNetKernels<Dtype> ReNetKernelsAvx512() {
  return renet_avx512::MakeKernels<Dtype>("avx512");
}
template ReNetKernels<float> ReNetKernelsAvx512<float>();
template ReNetKernels<double> ReNetKernelsAvx512<double>();

}  // namespace caffe
#endif
