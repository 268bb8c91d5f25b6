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
        string(type()) + " layer \"" + this->layer_param_.name() + "\""));
  }
  return gpu_state_.get();
}

template <typename Dtype>
DenseCRFProblem<Dtype> DenseCRFLayer<Dtype>::Pose(
    const vector<Blob<Dtype>*>& bottom, int n) {
  const Blob<Dtype>& image = *bottom.back();
  DenseCRFProblem<Dtype> problem = PoseDenseCRF<Dtype>(crf_, Mixing(true),
      height_, width_, bottom[0]->gpu_data() + bottom[0]->offset(n),
      image.gpu_data() + image.offset(n));
  if (bottom.size() == 3) {
    problem.start = bottom[1]->gpu_data() + bottom[1]->offset(n);
  }
  return problem;
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  for (int n = 0; n < bottom[0]->num(); ++n) {
    CHECK(GpuState()->solver.Forward(Pose(bottom, n),
        top[0]->mutable_gpu_data() + top[0]->offset(n)))
        << WhyNoLattice(bottom, n);
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  CHECK(!propagate_down.back()) << Who() << "the image gets no gradient";
  const bool of_start = bottom.size() == 3 && propagate_down[1];
  if (!propagate_down[0] && !of_start && this->blobs_.empty()) { return; }
  CHECK(crf_.output() != DenseCRFParameter_Output_LABEL)
      << Who() << "output LABEL has no gradient";
  const int compatibility = CompatibilityBlob();
  for (int n = 0; n < bottom[0]->num(); ++n) {
    DenseCRFDiffs<Dtype> diffs = {};
    diffs.top = top[0]->gpu_diff() + top[0]->offset(n);
    if (propagate_down[0]) {
      diffs.scores = bottom[0]->mutable_gpu_diff() + bottom[0]->offset(n);
    }
    if (of_start) {
      diffs.start = bottom[1]->mutable_gpu_diff() + bottom[1]->offset(n);
    }
    for (int k = 0; k < 2 && learned_weights_; ++k) {
      if (!this->param_propagate_down_[k]) { continue; }
      diffs.weight[k] = this->blobs_[k]->mutable_gpu_diff();
    }
    if (compatibility >= 0 && this->param_propagate_down_[compatibility]) {
      diffs.compatibility = this->blobs_[compatibility]->mutable_gpu_diff();
    }
    CHECK(GpuState()->solver.Backward(Pose(bottom, n), diffs))
        << WhyNoLattice(bottom, n);
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(DenseCRFLayer);

}  // namespace caffe
