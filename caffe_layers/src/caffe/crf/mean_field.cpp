#include "caffe/crf/mean_field.hpp"

#include "caffe/util/instruction_set.hpp"

namespace caffe {

template <typename Dtype> MeanFieldKernels<Dtype> MeanFieldKernelsGeneric();
template <typename Dtype> MeanFieldKernels<Dtype> MeanFieldKernelsAvx2();
template <typename Dtype> MeanFieldKernels<Dtype> MeanFieldKernelsAvx512();

namespace {

template <typename Dtype>
MeanFieldKernels<Dtype> KernelsFor(InstructionSet set) {
#if defined(__x86_64__)
  if (set >= AVX512) { return MeanFieldKernelsAvx512<Dtype>(); }
  if (set == AVX2) { return MeanFieldKernelsAvx2<Dtype>(); }
#endif
  return MeanFieldKernelsGeneric<Dtype>();
}

}  // namespace

template <typename Dtype>
std::vector<MeanFieldKernels<Dtype> > AvailableMeanFieldKernels() {
  std::vector<MeanFieldKernels<Dtype> > available;
  for (int set = std::min(SupportedInstructionSet(), AVX512); set >= GENERIC;
       --set) {
    available.push_back(KernelsFor<Dtype>(static_cast<InstructionSet>(set)));
  }
  return available;
}

template <typename Dtype>
const MeanFieldKernels<Dtype>& GetMeanFieldKernels() {
  static const MeanFieldKernels<Dtype> kernels =
      KernelsFor<Dtype>(ChosenInstructionSet());
  return kernels;
}

template std::vector<MeanFieldKernels<float> > AvailableMeanFieldKernels();
template std::vector<MeanFieldKernels<double> > AvailableMeanFieldKernels();
template const MeanFieldKernels<float>& GetMeanFieldKernels();
template const MeanFieldKernels<double>& GetMeanFieldKernels();

}  // namespace caffe
