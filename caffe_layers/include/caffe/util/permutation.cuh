#ifndef CAFFE_UTIL_PERMUTATION_CUH_
#define CAFFE_UTIL_PERMUTATION_CUH_

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/util/permutation.hpp"

namespace caffe {

const int kPermutationThreads = 256;

/// result = the array in the other order, or (back) the array from the result.
/// Neighbouring threads take neighbouring values of the result.
template <typename Dtype>
__global__ void PermutationKernel(int count, Permutation permutation, bool back,
    const Dtype* __restrict__ from, Dtype* __restrict__ to) {
  const unsigned int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= static_cast<unsigned int>(count)) { return; }
  const int there =
      PermutedFrom(permutation, permutation.axes, static_cast<int>(index));
  to[back ? there : static_cast<int>(index)] =
      from[back ? static_cast<int>(index) : there];
}

}  // namespace caffe

#endif  // CAFFE_UTIL_PERMUTATION_CUH_
