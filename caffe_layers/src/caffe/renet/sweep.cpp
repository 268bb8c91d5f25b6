#include "caffe/renet/sweep.hpp"

#include <algorithm>
#include <atomic>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/util/instruction_set.hpp"

namespace caffe {

template <typename Dtype> ReNetKernels<Dtype> ReNetKernelsGeneric();
template <typename Dtype> ReNetKernels<Dtype> ReNetKernelsAvx2();
template <typename Dtype> ReNetKernels<Dtype> ReNetKernelsAvx512();
ReNetKernels<float> ReNetKernelsAvx512Bf16();
ReNetKernels<float> ReNetKernelsAmx();

namespace {

template <typename Dtype>
ReNetKernels<Dtype> KernelsFor(InstructionSet set) {
#if defined(__x86_64__)
  if (set >= AVX512) { return ReNetKernelsAvx512<Dtype>(); }
  if (set == AVX2) { return ReNetKernelsAvx2<Dtype>(); }
#endif
  return ReNetKernelsGeneric<Dtype>();
}

}  // namespace

template <typename Dtype>
std::vector<ReNetKernels<Dtype> > AvailableReNetKernels() {
  std::vector<ReNetKernels<Dtype> > available;
  for (int set = std::min(SupportedInstructionSet(), AVX512); set >= GENERIC;
       --set) {
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

template <>
std::vector<ReNetKernels<float> > AvailableReNetBfloat16Kernels(
    InstructionSet best) {
  std::vector<ReNetKernels<float> > available;
#if defined(__x86_64__)
  if (best >= AMX) { available.push_back(ReNetKernelsAmx()); }
  if (best >= AVX512_BF16) { available.push_back(ReNetKernelsAvx512Bf16()); }
#endif
  return available;
}

template <>
std::vector<ReNetKernels<double> > AvailableReNetBfloat16Kernels(
    InstructionSet /* best */) {
  return std::vector<ReNetKernels<double> >();
}

namespace {

template <typename Dtype>
class CpuEngine : public ReNetEngine<Dtype> {
 public:
  CpuEngine()
      : exact_(GetReNetKernels<Dtype>()),
        bfloat16_(AvailableReNetBfloat16Kernels<Dtype>(
            ChosenInstructionSet())) {}
  virtual void Plan(ReNetSweep<Dtype>* sweep) const {
    const bool rounds = sweep->precision == RENET_BF16;
    LOG_IF(WARNING, rounds && bfloat16_.empty() && !WasTold())
        << "renet_param.precision: BF16 needs single precision and a processor"
        << " with AVX512_BF16 or AMX: the products are float32's.";
    KernelsFor(*sweep).plan(sweep);
  }
  virtual size_t HistorySize(const ReNetSweep<Dtype>& sweep) const {
    return KernelsFor(sweep).history_size(sweep);
  }
  virtual size_t WorkspaceSize(const ReNetSweep<Dtype>& sweep,
      bool backward) const {
    return KernelsFor(sweep).workspace_size(sweep, backward);
  }
  virtual void Forward(const ReNetSweep<Dtype>& sweep) {
    KernelsFor(sweep).forward(sweep);
  }
  virtual void Backward(const ReNetSweep<Dtype>& sweep) {
    KernelsFor(sweep).backward(sweep);
  }

 private:
  /// False the first time in this process.
  static bool WasTold() {
    static std::atomic<bool> was_told(false);
    return was_told.exchange(true);
  }

  const ReNetKernels<Dtype>& KernelsFor(const ReNetSweep<Dtype>& sweep) const {
    const bool rounds = sweep.precision == RENET_BF16 && !bfloat16_.empty();
    return rounds ? bfloat16_.front() : exact_;
  }

  const ReNetKernels<Dtype>& exact_;
  const std::vector<ReNetKernels<Dtype> > bfloat16_;
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
