#include <cstddef>
#include <string>

#include "caffe/common.hpp"
#include "caffe/gpu/cuda_device.cuh"
#include "caffe/renet/gpu/device_sweep.cuh"
#include "caffe/renet/sweep.hpp"

namespace caffe {

namespace {

template <typename Dtype>
class GpuEngine : public ReNetEngine<Dtype> {
 public:
  explicit GpuEngine(const std::string& who) : device_(who) {}
  virtual void Plan(ReNetSweep<Dtype>* /* sweep */) const {}
  virtual size_t HistorySize(const ReNetSweep<Dtype>& sweep) const {
    return Sweep(NULL, sweep).HistorySize();
  }
  virtual size_t WorkspaceSize(const ReNetSweep<Dtype>& sweep,
      bool backward) const {
    return Sweep(NULL, sweep).WorkspaceSize(backward);
  }
  virtual void Forward(const ReNetSweep<Dtype>& sweep) {
    Sweep(&device_, sweep).Forward();
  }
  virtual void Backward(const ReNetSweep<Dtype>& sweep) {
    Sweep(&device_, sweep).Backward();
  }

 private:
  typedef renet::DeviceSweep<Dtype, CudaDevice> Sweep;

  CudaDevice device_;
};

}  // namespace

template <typename Dtype>
shared_ptr<ReNetEngine<Dtype> > NewReNetGpuEngine(const std::string& who) {
  return shared_ptr<ReNetEngine<Dtype> >(new GpuEngine<Dtype>(who));
}

template shared_ptr<ReNetEngine<float> > NewReNetGpuEngine(
    const std::string& who);
template shared_ptr<ReNetEngine<double> > NewReNetGpuEngine(
    const std::string& who);

}  // namespace caffe
