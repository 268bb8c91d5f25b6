#include "caffe/distributed/gradient_exchange.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "caffe/distributed/rank_comparison.hpp"
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
  CHECK(Caffe::mode() == Caffe::CPU)
      << "several processes train together on the CPU only";
  ranks_->set_iteration(solver_->iter());
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
  Dtype* const buffer = gradients_.mutable_cpu_data();
  for (const ExchangePlan::Place& place : plan_->places()) {
    Blob<Dtype>* parameter = solver_->net()->learnable_params()[place.parameter];
    caffe_copy(parameter->count(), parameter->cpu_diff(), buffer + place.first);
    parameter->diff()->set_cpu_data(buffer + place.first);
    parameter->diff()->Expose();
  }
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
      ranks_->AverageLater(
          gradients_.mutable_cpu_data() + buckets[next_bucket_].first,
          buckets[next_bucket_].count);
    }
  }
  if (layer == 0) { --passes_left_; }
}

template <typename Dtype>
void GradientExchange<Dtype>::on_gradients_ready() {
  ranks_->Wait();
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
