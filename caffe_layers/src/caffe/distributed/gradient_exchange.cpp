#include "caffe/distributed/gradient_exchange.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "caffe/distributed/rank_comparison.hpp"
#include "caffe/distributed/rank_gpus.hpp"
#include "caffe/util/hash_bytes.hpp"

namespace caffe {

template <typename Dtype>
std::vector<ExchangePlan::Parameter> ParametersOf(const Net<Dtype>& net) {
  const vector<Blob<Dtype>*>& learnable = net.learnable_params();
  vector<ExchangePlan::Parameter> parameters;
  for (size_t i = 0; i < learnable.size(); ++i) {
    parameters.push_back({static_cast<size_t>(learnable[i]->count()),
        static_cast<int>(net.layers().size()), net.params_lr()[i] != 0});
  }
  // a parameter that layers share has a gradient that they share, too
  for (size_t layer = 0; layer < net.layers().size(); ++layer) {
    for (const shared_ptr<Blob<Dtype> >& blob : net.layers()[layer]->blobs()) {
      for (size_t i = 0; i < learnable.size(); ++i) {
        if (learnable[i]->diff() == blob->diff()) {
          parameters[i].lowest_layer =
              std::min(parameters[i].lowest_layer, static_cast<int>(layer));
        }
      }
    }
  }
  return parameters;
}

template <typename Dtype>
GradientExchange<Dtype>::GradientExchange(Solver<Dtype>* solver,
    CollectiveQueue* ranks)
    : solver_(solver), ranks_(ranks),
      plan_(new ExchangePlan(ParametersOf(*solver->net()), sizeof(Dtype))),
      next_bucket_(0), passes_left_(0) {
  ranks_->set_iteration(solver_->iter());
  if (Caffe::mode() == Caffe::GPU) {
    const bool is_own = HaveGpusOfTheirOwn(ranks_);
#ifdef USE_NCCL
    if (is_own) { nccl_.reset(new NcclAverages<Dtype>(ranks_)); }
#endif
    LOG_IF(WARNING, !is_own && ranks_->rank() == 0) << "processes share a GPU: "
        "their gradients take the way by the processor's memory";
  }
  ShareWeights();
  MoveGradients();
  solver_->add_callback(this);
  solver_->net()->add_after_backward(this);
}

template <typename Dtype>
void GradientExchange<Dtype>::ShareWeights() {
  for (const shared_ptr<Layer<Dtype> >& layer : solver_->net()->layers()) {
    for (const shared_ptr<Blob<Dtype> >& blob : layer->blobs()) {
      ranks_->Broadcast(blob->mutable_cpu_data(),
          blob->count() * sizeof(Dtype));
    }
  }
}

template <typename Dtype>
void GradientExchange<Dtype>::MoveGradients() {
  if (plan_->count() == 0) { return; }
  gradients_.Reshape(vector<int>(1, plan_->count()));
  const bool on_gpu = Caffe::mode() == Caffe::GPU;
  Dtype* const buffer =
      on_gpu ? gradients_.mutable_gpu_data() : gradients_.mutable_cpu_data();
  for (const ExchangePlan::Place& place : plan_->places()) {
    Blob<Dtype>* parameter = solver_->net()->learnable_params()[place.parameter];
    Dtype* const own = buffer + place.first;
    if (on_gpu) {
      caffe_copy(parameter->count(), parameter->gpu_diff(), own);
      parameter->diff()->set_gpu_data(own);
    } else {
      caffe_copy(parameter->count(), parameter->cpu_diff(), own);
      parameter->diff()->set_cpu_data(own);
      parameter->diff()->Expose();
    }
  }
}

template <typename Dtype>
void GradientExchange<Dtype>::Send(const ExchangePlan::Bucket& bucket) {
  if (Caffe::mode() == Caffe::CPU) {
    ranks_->AverageLater(gradients_.mutable_cpu_data() + bucket.first,
        bucket.count);
    return;
  }
#ifdef USE_NCCL
  if (nccl_) {
    nccl_->AverageLater(gradients_.mutable_gpu_data() + bucket.first,
        bucket.count);
  }
#endif
}

template <typename Dtype>
void GradientExchange<Dtype>::Await() {
#ifdef USE_NCCL
  if (nccl_) {
    ranks_->AddWaited(nccl_->Wait());
    return;
  }
#endif
  if (Caffe::mode() == Caffe::GPU && plan_->count() > 0) {
    gradients_.mutable_gpu_data();  // what backward has written is the newest
    ranks_->Average(gradients_.mutable_cpu_data(), plan_->count());
    gradients_.gpu_data();
    return;
  }
  ranks_->Wait();
}

template <typename Dtype>
void GradientExchange<Dtype>::on_start() {
  next_bucket_ = 0;
  passes_left_ = solver_->param().iter_size();
  ranks_->set_iteration(solver_->iter());
}

template <typename Dtype>
void GradientExchange<Dtype>::run(int layer) {
  if (passes_left_ == 1) {
    const vector<ExchangePlan::Bucket>& buckets = plan_->buckets();
    for (; next_bucket_ < buckets.size() &&
        buckets[next_bucket_].ready_after >= layer; ++next_bucket_) {
      Send(buckets[next_bucket_]);
    }
  }
  if (layer == 0) { --passes_left_; }
}

template <typename Dtype>
void GradientExchange<Dtype>::on_gradients_ready() {
  Await();
  if (solver_->iter() % ITERATIONS_BETWEEN_COMPARISONS == 0) {
    CompareWeights();
  }
}

template <typename Dtype>
void GradientExchange<Dtype>::CompareWeights() const {
  uint64_t hash = 0;
  for (const Blob<Dtype>* weights : solver_->net()->learnable_params()) {
    hash = HashBytes(weights->cpu_data(), weights->count() * sizeof(Dtype),
        hash);
  }
  const string fault = FindDifference("weights (their checksum)",
      std::to_string(hash), ranks_);
  if (fault.empty()) { return; }
  CHECK_NE(ranks_->rank(), 0) << "iteration " << solver_->iter() << ": "
      << fault;
  ranks_->AwaitEnd();  // the first rank has said it
}

template std::vector<ExchangePlan::Parameter> ParametersOf(
    const Net<float>& net);
template std::vector<ExchangePlan::Parameter> ParametersOf(
    const Net<double>& net);
INSTANTIATE_CLASS(GradientExchange);

}  // namespace caffe
