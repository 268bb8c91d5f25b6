// The mean-field steps for x86-64 with AVX-512; the build compiles this file
// with the flags for it. Elsewhere the file is empty.
#if defined(__AVX512F__) && defined(__AVX512VL__)
#define MEAN_FIELD_SET mean_field_avx512
#define MEAN_FIELD_VECTOR_BYTES 32
#include "caffe/crf/mean_field_kernels.hpp"

namespace caffe {

template <typename Dtype>
MeanFieldKernels<Dtype> MeanFieldKernelsAvx512() {
  return mean_field_avx512::MakeKernels<Dtype>("avx512");
}
template MeanFieldKernels<float> MeanFieldKernelsAvx512<float>();
template MeanFieldKernels<double> MeanFieldKernelsAvx512<double>();

}  // namespace caffe
#endif
