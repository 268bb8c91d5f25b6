#include <cuda_runtime.h>  // has all of the emulation
