#include "caffe/solvers/weight_average.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
__global__ void FollowKernel(int count, Dtype share, const Dtype* weights,
    Dtype* average) {
  CUDA_KERNEL_LOOP(i, count) {
    average[i] = MovedTowards(average[i], weights[i], share);
  }
}

template <typename Dtype>
void WeightAverage<Dtype>::FollowOnGpu(const Blob<Dtype>& weights, Dtype share,
    Blob<Dtype>* average) {
  const int count = weights.count();
  if (count == 0) { return; }
  // NOLINT_NEXT_LINE(whitespace/operators)
  FollowKernel<Dtype><<<CAFFE_GET_BLOCKS(count), CAFFE_CUDA_NUM_THREADS>>>(
      count, share, weights.gpu_data(), average->mutable_gpu_data());
  CUDA_POST_KERNEL_CHECK;
}

template void WeightAverage<float>::FollowOnGpu(const Blob<float>& weights,
    float share, Blob<float>* average);
template void WeightAverage<double>::FollowOnGpu(const Blob<double>& weights,
    double share, Blob<double>* average);

}  // namespace caffe
