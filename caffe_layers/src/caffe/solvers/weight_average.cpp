#include <algorithm>
#include <map>
#include <vector>

#include "caffe/solvers/weight_average.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
WeightAverage<Dtype>::WeightAverage(Net<Dtype>* net, float decay)
    : net_(net), decay_(decay) {}

template <typename Dtype>
void WeightAverage<Dtype>::Begin() {
  averages_.clear();
  for (const Blob<Dtype>* weights : net_->learnable_params()) {
    averages_.emplace_back(new Blob<Dtype>());
    averages_.back()->CopyFrom(*weights, false, true);
  }
}

template <typename Dtype>
void WeightAverage<Dtype>::Update(int updates) {
  if (!has_begun() || updates == 1) {
    Begin();
    return;
  }
  const double decay = std::min<double>(decay_, updates / (updates + 9.));
  for (size_t i = 0; i < averages_.size(); ++i) {
    const Blob<Dtype>& weights = *net_->learnable_params()[i];
    if (Caffe::mode() == Caffe::CPU) {
      Follow(weights, 1 - decay, averages_[i].get());
    } else {
      FollowOnGpu(weights, 1 - decay, averages_[i].get());
    }
  }
}

template <typename Dtype>
void WeightAverage<Dtype>::Follow(const Blob<Dtype>& weights, Dtype share,
    Blob<Dtype>* average) {
  const int count = weights.count();
  const Dtype* from = weights.cpu_data();
  Dtype* to = average->mutable_cpu_data();
#pragma omp parallel for if (count > 10000)
  for (int i = 0; i < count; ++i) {
    to[i] = MovedTowards(to[i], from[i], share);
  }
}

template <typename Dtype>
void WeightAverage<Dtype>::Share(Net<Dtype>* net) const {
  std::map<const SyncedMemory*, const Blob<Dtype>*> average_of;
  for (size_t i = 0; i < averages_.size(); ++i) {
    average_of[net_->learnable_params()[i]->data().get()] = averages_[i].get();
  }
  for (const shared_ptr<Layer<Dtype> >& layer : net->layers()) {
    for (const shared_ptr<Blob<Dtype> >& blob : layer->blobs()) {
      const auto found = average_of.find(blob->data().get());
      if (found != average_of.end()) { blob->ShareData(*found->second); }
    }
  }
}

template <typename Dtype>
void WeightAverage<Dtype>::Exchange() {
  for (size_t i = 0; i < averages_.size(); ++i) {
    Dtype* average = averages_[i]->mutable_cpu_data();
    std::swap_ranges(average, average + averages_[i]->count(),
        net_->learnable_params()[i]->mutable_cpu_data());
  }
}

#ifdef CPU_ONLY
template <typename Dtype>
void WeightAverage<Dtype>::FollowOnGpu(const Blob<Dtype>& /* weights */,
    Dtype /* share */, Blob<Dtype>* /* average */) {
  NO_GPU;
}
#endif

INSTANTIATE_CLASS(WeightAverage);

}  // namespace caffe
