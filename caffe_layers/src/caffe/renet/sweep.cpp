#include "caffe/renet/sweep.hpp"

#include <vector>

#include "caffe/common.hpp"
#include "caffe/util/instruction_set.hpp"

namespace caffe {

template <typename Dtype> ReNetKernels<Dtype> ReNetKernelsGeneric();
template <typename Dtype> ReNetKernels<Dtype> ReNetKernelsAvx2();
template <typename Dtype> ReNetKernels<Dtype> ReNetKernelsAvx512();

namespace {

template <typename Dtype>
ReNetKernels<Dtype> KernelsFor(InstructionSet set) {
#if defined(__x86_64__)
  if (set == AVX512) { return ReNetKernelsAvx512<Dtype>(); }
  if (set == AVX2) { return ReNetKernelsAvx2<Dtype>(); }
#endif
  return ReNetKernelsGeneric<Dtype>();
}

}  // namespace

template <typename Dtype>
std::vector<ReNetKernels<Dtype> > AvailableReNetKernels() {
  std::vector<ReNetKernels<Dtype> > available;
  for (int set = SupportedInstructionSet(); set >= GENERIC; --set) {
    available.push_back(KernelsFor<Dtype>(static_cast<InstructionSet>(set)));
  }
  return available;
}

template <typename Dtype>
const ReNetKernels<Dtype>& GetReNetKernels() {
  static const ReNetKernels<Dtype> kernels =
      KernelsFor<Dtype>(ChosenInstructionSet());
  return kernels;
}

namespace {

template <typename Dtype>
class CpuEngine : public ReNetEngine<Dtype> {
 public:
  CpuEngine() : kernels_(GetReNetKernels<Dtype>()) {}
  virtual void Plan(ReNetSweep<Dtype>* sweep) const { kernels_.plan(sweep); }
  virtual size_t HistorySize(const ReNetSweep<Dtype>& sweep) const {
    return kernels_.history_size(sweep);
  }
  virtual size_t WorkspaceSize(const ReNetSweep<Dtype>& sweep,
      bool backward) const {
    return kernels_.workspace_size(sweep, backward);
  }
  virtual void Forward(const ReNetSweep<Dtype>& sweep) {
    kernels_.forward(sweep);
  }
  virtual void Backward(const ReNetSweep<Dtype>& sweep) {
    kernels_.backward(sweep);
  }

 private:
  const ReNetKernels<Dtype>& kernels_;
};

}  // namespace

template <typename Dtype>
shared_ptr<ReNetEngine<Dtype> > NewReNetCpuEngine() {
  return shared_ptr<ReNetEngine<Dtype> >(new CpuEngine<Dtype>());
}

template std::vector<ReNetKernels<float> > AvailableReNetKernels<float>();
template std::vector<ReNetKernels<double> > AvailableReNetKernels<double>();
template const ReNetKernels<float>& GetReNetKernels<float>();
template const ReNetKernels<double>& GetReNetKernels<double>();
template shared_ptr<ReNetEngine<float> > NewReNetCpuEngine();
template shared_ptr<ReNetEngine<double> > NewReNetCpuEngine();

}  // namespace caffe
