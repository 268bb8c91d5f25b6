#include "caffe/distributed/batch_statistics.hpp"

#include <cmath>
#include <vector>

#include "caffe/distributed/collective_queue.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
void AverageOverBatch(const LayerParameter& layer, int count, Dtype* values) {
  CollectiveQueue* const ranks =
      RanksOf(layer.phase(), layer.batch_norm_param().scope());
  if (ranks != NULL) { ranks->Average(values, count); }
}

template <typename Dtype>
void AverageOverBatch(const LayerParameter& layer, Blob<Dtype>* values) {
  // what is on the GPU comes here only where there is somebody to send it to
  if (RanksOf(layer.phase(), layer.batch_norm_param().scope()) != NULL) {
    AverageOverBatch(layer, values->count(), values->mutable_cpu_data());
  }
}

namespace {

/// What makes the variance of so many samples an unbiased one.
template <typename Dtype>
Dtype Unbiased(int64_t samples) {
  return samples > 1 ? Dtype(samples) / (samples - 1) : 1;
}

}  // namespace

template <typename Dtype>
void AddToRunning(const LayerParameter& layer, int count, const Dtype* mean,
    const Dtype* variance, const vector<shared_ptr<Blob<Dtype> > >& running) {
  const bool is_local = layer.batch_norm_param().scope() == LOCAL;
  CollectiveQueue* const ranks = RanksOf(layer.phase());
  const int parts = ranks == NULL ? 1 : ranks->size();
  const int channels = running[0]->count();
  const Dtype stays = layer.batch_norm_param().moving_average_fraction();
  const Dtype unbiased =
      Unbiased<Dtype>(static_cast<int64_t>(count) * (is_local ? 1 : parts));
  const int passes = is_local ? parts : 1;
  for (int pass = 0; pass < passes; ++pass) {
    Dtype* const number = running[2]->mutable_cpu_data();
    *number = *number * stays + 1;
  }
  if (passes == 1) {
    caffe_cpu_axpby(channels, Dtype(1), mean, stays,
        running[0]->mutable_cpu_data());
    caffe_cpu_axpby(channels, unbiased, variance, stays,
        running[1]->mutable_cpu_data());
    return;
  }
  // what the passes after this rank's leave of its own
  const Dtype share = std::pow(stays, passes - 1 - ranks->rank());
  vector<Dtype> added(2 * channels);
  caffe_cpu_scale(channels, share, mean, added.data());
  caffe_cpu_scale(channels, share * unbiased, variance,
      added.data() + channels);
  ranks->Sum(added.data(), added.size());
  const Dtype left = std::pow(stays, passes);
  for (int i = 0; i < 2; ++i) {
    caffe_cpu_axpby(channels, Dtype(1), added.data() + i * channels, left,
        running[i]->mutable_cpu_data());
  }
}

template <typename Dtype>
void AddToRunning(const LayerParameter& layer, int count,
    const Blob<Dtype>& mean, const Blob<Dtype>& variance,
    const vector<shared_ptr<Blob<Dtype> > >& running) {
#ifndef CPU_ONLY
  if (Caffe::mode() == Caffe::GPU && RanksOf(layer.phase()) == NULL) {
    const Dtype stays = layer.batch_norm_param().moving_average_fraction();
    Dtype* const number = running[2]->mutable_cpu_data();
    *number = *number * stays + 1;
    caffe_gpu_axpby(mean.count(), Dtype(1), mean.gpu_data(), stays,
        running[0]->mutable_gpu_data());
    caffe_gpu_axpby(variance.count(), Unbiased<Dtype>(count),
        variance.gpu_data(), stays, running[1]->mutable_gpu_data());
    return;
  }
#endif
  AddToRunning(layer, count, mean.cpu_data(), variance.cpu_data(), running);
}

template void AverageOverBatch(const LayerParameter& layer, int count,
    float* values);
template void AverageOverBatch(const LayerParameter& layer, int count,
    double* values);
template void AddToRunning(const LayerParameter& layer, int count,
    const float* mean, const float* variance,
    const vector<shared_ptr<Blob<float> > >& running);
template void AddToRunning(const LayerParameter& layer, int count,
    const double* mean, const double* variance,
    const vector<shared_ptr<Blob<double> > >& running);
template void AverageOverBatch(const LayerParameter& layer,
    Blob<float>* values);
template void AverageOverBatch(const LayerParameter& layer,
    Blob<double>* values);
template void AddToRunning(const LayerParameter& layer, int count,
    const Blob<float>& mean, const Blob<float>& variance,
    const vector<shared_ptr<Blob<float> > >& running);
template void AddToRunning(const LayerParameter& layer, int count,
    const Blob<double>& mean, const Blob<double>& variance,
    const vector<shared_ptr<Blob<double> > >& running);

}  // namespace caffe
