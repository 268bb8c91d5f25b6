// The ReNet sweeps for x86-64 whose products round their factors to bfloat16,
// by AVX512_BF16; the build compiles this file with the flags for it. Elsewhere
// the file is empty.
#if defined(__AVX512BF16__)
#define RENET_SET renet_avx512_bf16
#define RENET_VECTOR_BYTES 64
#define RENET_PANEL_ROWS 8  // 8 x 3 accumulators of 32 registers
#define RENET_BFLOAT16
#include "caffe/renet/cpu/sweep_kernels.hpp"

namespace caffe {

ReNetKernels<float> ReNetKernelsAvx512Bf16() {
  return renet_avx512_bf16::MakeKernels<float>("avx512_bf16");
}

}  // namespace caffe
#endif
