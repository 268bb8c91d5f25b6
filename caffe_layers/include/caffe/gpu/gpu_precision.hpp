#ifndef CAFFE_GPU_GPU_PRECISION_HPP_
#define CAFFE_GPU_GPU_PRECISION_HPP_

#ifndef CPU_ONLY
#include <cublas_v2.h>
#endif

namespace caffe {

/**
 * Whether float32 products on a GPU may be rounded to TF32 (10 bits of
 * mantissa instead of 23, on Ampere and later): the environment variable
 * CAFFE_ALLOW_TF32 says so with 1, and 0 or nothing forbids it. Anything else
 * is fatal. Convolutions, inner products and ReNet layers without a precision
 * of their own all ask this function.
 */
bool AllowTF32();

/// AllowTF32() for a variable's value; null where it is not set.
bool ParseAllowTF32(const char* value);

#ifndef CPU_ONLY
/// What AllowTF32() means for a cuBLAS handle.
inline cublasMath_t CublasMathMode() {
  return AllowTF32() ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH;
}
#endif

}  // namespace caffe

#endif  // CAFFE_GPU_GPU_PRECISION_HPP_
