// The mean-field steps for x86-64 with AVX2 and FMA; the build compiles this
// file with the flags for them. Elsewhere the file is empty.
#if defined(__AVX2__) && defined(__FMA__)
#define MEAN_FIELD_SET mean_field_avx2
#define MEAN_FIELD_VECTOR_BYTES 32
#include "caffe/crf/mean_field_kernels.hpp"

namespace caffe {

template <typename Dtype>
MeanFieldKernels<Dtype> MeanFieldKernelsAvx2() {
  return mean_field_avx2::MakeKernels<Dtype>("avx2");
}
template MeanFieldKernels<float> MeanFieldKernelsAvx2<float>();
template MeanFieldKernels<double> MeanFieldKernelsAvx2<double>();

}  // namespace caffe
#endif
