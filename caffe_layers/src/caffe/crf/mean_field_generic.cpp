// The mean-field steps for any processor.
#define MEAN_FIELD_SET mean_field_generic
#define MEAN_FIELD_VECTOR_BYTES 16
#include "caffe/crf/mean_field_kernels.hpp"

namespace caffe {

template <typename Dtype>
MeanFieldKernels<Dtype> MeanFieldKernelsGeneric() {
  return mean_field_generic::MakeKernels<Dtype>("generic");
}
template MeanFieldKernels<float> MeanFieldKernelsGeneric<float>();
template MeanFieldKernels<double> MeanFieldKernelsGeneric<double>();

}  // namespace caffe
