#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "caffe/layers/dense_crf_layer.hpp"
#include "caffe/gpu/cuda_check.hpp"
#include "caffe/gpu/cuda_device.cuh"
#include "caffe/crf/mean_field_device_solver.cuh"

namespace caffe {

namespace {

/// What lattices need beyond launches and products.
class LatticeDevice : public CudaDevice {
 public:
  explicit LatticeDevice(const string& who) : CudaDevice(who), who_(who) {}

  std::shared_ptr<void> Allocate(size_t bytes) const {
    void* memory;
    CUDA_CHECK_OF(who_, cudaMalloc(&memory, bytes));
    // Errors of what is going away are nobody's concern.
    return std::shared_ptr<void>(memory, [](void* gone) { cudaFree(gone); });
  }
  /// Waits for the work before it.
  int Fetch(const int* number) const {
    int fetched;
    CUDA_CHECK_OF(who_, cudaMemcpy(&fetched, number, sizeof(fetched),
        cudaMemcpyDeviceToHost));
    return fetched;
  }

 private:
  const string who_;
};

}  // namespace

template <typename Dtype>
struct DenseCRFGpuState {
  explicit DenseCRFGpuState(const string& who)
      : device(who), solver(&device) {}

  LatticeDevice device;
  MeanFieldDeviceSolver<Dtype, LatticeDevice> solver;
};

template <typename Dtype>
DenseCRFGpuState<Dtype>* DenseCRFLayer<Dtype>::GpuState() {
  if (!gpu_state_) {
    gpu_state_.reset(new DenseCRFGpuState<Dtype>(
        "DenseCRF layer \"" + this->layer_param_.name() + "\""));
  }
  return gpu_state_.get();
}

namespace {

/// Image n's problem.
template <typename Dtype>
DenseCRFProblem<Dtype> Pose(const DenseCRFParameter& crf,
    const vector<shared_ptr<Blob<Dtype> > >& blobs,
    const vector<Blob<Dtype>*>& bottom, int n) {
  DenseCRFProblem<Dtype> problem = PoseDenseCRF<Dtype>(crf,
      bottom[0]->channels(), bottom[0]->height(), bottom[0]->width(),
      bottom[0]->gpu_data() + bottom[0]->offset(n),
      bottom[1]->gpu_data() + bottom[1]->offset(n));
  if (crf.learn()) {
    for (int k = 0; k < 2; ++k) {
      problem.weight[k].of_class = blobs[k]->gpu_data();
    }
    problem.compatibility = blobs[2]->gpu_data();
  }
  return problem;
}

}  // namespace

template <typename Dtype>
void DenseCRFLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  for (int n = 0; n < bottom[0]->num(); ++n) {
    CHECK(GpuState()->solver.Forward(Pose(crf_, this->blobs_, bottom, n),
        top[0]->mutable_gpu_data() + top[0]->offset(n)))
        << WhyNoLattice(bottom, n);
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  CHECK(!propagate_down[1]) << Who() << "the image gets no gradient";
  if (!propagate_down[0] && !crf_.learn()) { return; }
  CHECK(crf_.output() != DenseCRFParameter_Output_LABEL)
      << Who() << "output LABEL has no gradient";
  for (int n = 0; n < bottom[0]->num(); ++n) {
    DenseCRFDiffs<Dtype> diffs = {};
    diffs.top = top[0]->gpu_diff() + top[0]->offset(n);
    if (propagate_down[0]) {
      diffs.scores = bottom[0]->mutable_gpu_diff() + bottom[0]->offset(n);
    }
    for (int k = 0; k < 3 && crf_.learn(); ++k) {
      if (!this->param_propagate_down_[k]) { continue; }
      (k < 2 ? diffs.weight[k] : diffs.compatibility) =
          this->blobs_[k]->mutable_gpu_diff();
    }
    CHECK(GpuState()->solver.Backward(Pose(crf_, this->blobs_, bottom, n),
        diffs)) << WhyNoLattice(bottom, n);
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(DenseCRFLayer);

}  // namespace caffe
