#include <vector>

#include "caffe/solvers/adamw_solver.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
void AdamWSolver<Dtype>::CheckRegularization() const {
  CHECK_EQ(this->param_.regularization_type(), "L2")
      << "AdamW takes weight_decay off the weights themselves, which is "
         "regularization_type L2; the solver says "
      << this->param_.regularization_type();
}

template <typename Dtype>
void AdamWSolver<Dtype>::ComputeUpdateValue(int param_id, Dtype rate) {
  AdamSolver<Dtype>::ComputeUpdateValue(param_id, rate);
  const Dtype decay = rate * this->net_->params_lr()[param_id] *
      this->param_.weight_decay() * this->net_->params_weight_decay()[param_id];
  if (decay == 0) { return; }
  Blob<Dtype>* weights = this->net_->learnable_params()[param_id];
  switch (Caffe::mode()) {
  case Caffe::CPU:
    caffe_axpy(weights->count(), decay, weights->cpu_data(),
        weights->mutable_cpu_diff());
    break;
  case Caffe::GPU:
#ifndef CPU_ONLY
    caffe_gpu_axpy(weights->count(), decay, weights->gpu_data(),
        weights->mutable_gpu_diff());
#else
    NO_GPU;
#endif
    break;
  }
}

INSTANTIATE_CLASS(AdamWSolver);
REGISTER_SOLVER_CLASS(AdamW);

}  // namespace caffe
