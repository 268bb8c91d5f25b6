#include "caffe/gpu/bias_and_relu.hpp"

#include <algorithm>
#include <string>

#include "caffe/gpu/bias_and_relu.cuh"
#include "caffe/gpu/cuda_check.hpp"

namespace caffe {

namespace {

const int kThreads = 256;
const int kMostRows = 65535;  // of a grid

}  // namespace

// Bound by memory: each value is read once and written once, where a bias and a
// ReLU of their own do so twice.
template <typename Dtype>
void AddBiasAndRectify(const std::string& who, int maps, int channels,
    int area, const Dtype* bias, Dtype* y) {
  if (maps == 0 || area == 0) { return; }
  const dim3 blocks(BiasAndReluBlocks(area, kThreads),
      std::min(maps, kMostRows));
  // NOLINT_NEXT_LINE(whitespace/operators)
  BiasAndReluKernel<Dtype><<<blocks, kThreads>>>(maps, channels, area, bias, y);
  CUDA_CHECK_OF(who, cudaPeekAtLastError());
}

template void AddBiasAndRectify(const std::string& who, int maps, int channels,
    int area, const float* bias, float* y);
template void AddBiasAndRectify(const std::string& who, int maps, int channels,
    int area, const double* bias, double* y);

}  // namespace caffe
