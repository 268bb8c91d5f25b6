// The ReNet sweeps for x86-64 whose products round their factors to bfloat16,
// by AMX; the build compiles this file with the flags for it. Elsewhere the
// file is empty.
#if (defined(__AMX_BF16__) || defined(__AMXBF16__)) && defined(__AVX512BF16__)  // two compilers' names
#define RENET_SET renet_amx
#define RENET_VECTOR_BYTES 64
#define RENET_PANEL_ROWS 16  // those of a tile
#define RENET_BFLOAT16
#define RENET_AMX
#include "caffe/renet/cpu/sweep_kernels.hpp"

namespace caffe {

ReNetKernels<float> ReNetKernelsAmx() {
  return renet_amx::MakeKernels<float>("amx");
}

}  // namespace caffe
#endif
