#include "caffe/distributed/gradient_exchange.hpp"

#include <omp.h>

#include <algorithm>
#include <string>
#include <vector>

#include "caffe/util/mix_bits.hpp"

namespace caffe {

namespace {

int64_t Hash(const void* bytes, size_t count) {
  const unsigned char* from = static_cast<const unsigned char*>(bytes);
  uint64_t hash = 0;
  for (size_t i = 0; i < count; i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::copy(from + i, from + std::min(count, i + sizeof(word)),
        reinterpret_cast<unsigned char*>(&word));
    hash = MixBits(hash ^ word);
  }
  return static_cast<int64_t>(hash);
}

}  // namespace

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
  CompareStart();
  ShareWeights();
  MoveGradients();
  solver_->add_callback(this);
  solver_->net()->add_after_backward(this);
}

template <typename Dtype>
void GradientExchange<Dtype>::CompareStart() const {
  SolverParameter param = solver_->param();
  param.clear_net();  // where the files lie may differ
  param.clear_train_net();
  param.clear_test_net();
  param.clear_snapshot_prefix();
  param.clear_weights();
  const string solver = param.SerializeAsString();
  Compare("solver", Hash(solver.data(), solver.size()));
  string net;
  for (const shared_ptr<Layer<Dtype> >& layer : solver_->net()->layers()) {
    net += layer->layer_param().SerializeAsString();
  }
  Compare("network", Hash(net.data(), net.size()));
  Compare("iteration to go on from", solver_->iter());
  Compare("number of threads (OMP_NUM_THREADS)", omp_get_max_threads());
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
    hash = MixBits(hash ^ Hash(weights->cpu_data(),
        weights->count() * sizeof(Dtype)));
  }
  Compare("weights", static_cast<int64_t>(hash));
}

template <typename Dtype>
void GradientExchange<Dtype>::Compare(const char* what, int64_t own) const {
  vector<int64_t> all(ranks_->size());
  all[ranks_->rank()] = own;
  ranks_->Sum(all.data(), all.size());
  for (int rank = 1; rank < ranks_->size(); ++rank) {
    CHECK(all[rank] == all[0]) << ranks_->Name(rank) << ": iteration "
        << solver_->iter() << ": differs in its " << what << " from "
        << ranks_->Name(0);
  }
}

template std::vector<ExchangePlan::Parameter> ParametersOf(
    const Net<float>& net);
template std::vector<ExchangePlan::Parameter> ParametersOf(
    const Net<double>& net);
INSTANTIATE_CLASS(GradientExchange);

}  // namespace caffe
