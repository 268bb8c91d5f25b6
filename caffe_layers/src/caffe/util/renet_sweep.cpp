#include "caffe/util/renet_sweep.hpp"

#include <cstdlib>
#include <string>
#include <vector>

#include "caffe/common.hpp"

namespace caffe {

template <typename Dtype> ReNetKernels<Dtype> ReNetKernelsGeneric();
template <typename Dtype> ReNetKernels<Dtype> ReNetKernelsAvx2();
template <typename Dtype> ReNetKernels<Dtype> ReNetKernelsAvx512();

template <typename Dtype>
std::vector<ReNetKernels<Dtype> > AvailableReNetKernels() {
  std::vector<ReNetKernels<Dtype> > available;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    available.push_back(ReNetKernelsAvx512<Dtype>());
  }
  if (avx2) {
    available.push_back(ReNetKernelsAvx2<Dtype>());
  }
#endif
  available.push_back(ReNetKernelsGeneric<Dtype>());
  return available;
}

namespace {

/// Its place among the instruction sets, lesser ones first; -1 for no name of
/// one.
int InstructionSetRank(const std::string& name) {
  const char* const names[] = {"generic", "avx2", "avx512"};
  for (int i = 0; i < 3; ++i) {
    if (name == names[i]) {
      return i;
    }
  }
  return -1;
}

template <typename Dtype>
ReNetKernels<Dtype> ChooseKernels() {
  const char* asked = getenv("RENET_INSTRUCTION_SET");
  const std::string limit = asked ? asked : "avx512";
  CHECK_GE(InstructionSetRank(limit), 0)
      << "RENET_INSTRUCTION_SET is \"" << limit
      << "\"; it may be generic, avx2 or avx512.";
  const std::vector<ReNetKernels<Dtype> > available =
      AvailableReNetKernels<Dtype>();
  size_t best = 0;
  while (InstructionSetRank(available[best].name) >
         InstructionSetRank(limit)) {
    ++best;
  }
  return available[best];
}

}  // namespace

template <typename Dtype>
const ReNetKernels<Dtype>& GetReNetKernels() {
  static const ReNetKernels<Dtype> kernels = ChooseKernels<Dtype>();
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
