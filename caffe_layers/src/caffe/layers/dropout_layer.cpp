#include <cmath>
#include <string>
#include <vector>

#include "caffe/layers/dropout_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/rng.hpp"

namespace caffe {

namespace {

/// FNV-1a of 64 bits: the same on every machine, which std::hash need not be.
uint64_t Hash(const string& text) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char character : text) {
    hash = (hash ^ static_cast<unsigned char>(character)) * 0x100000001b3ULL;
  }
  return hash;
}

}  // namespace

template <typename Dtype>
DropoutLayer<Dtype>::DropoutLayer(const LayerParameter& param)
    : NeuronLayer<Dtype>(param), name_hash_(Hash(param.name())), scale_(1),
      seeded_(false), forward_passes_(0), mask_() {}

template <typename Dtype>
void DropoutLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  NeuronLayer<Dtype>::LayerSetUp(bottom, top);
  const double ratio = this->layer_param_.dropout_param().dropout_ratio();
  CHECK(ratio >= 0 && ratio < 1) << "Dropout layer '"
      << this->layer_param_.name() << "': dropout_ratio is " << ratio
      << ", expected a probability: at least 0 and below 1";
  scale_ = 1 / (1 - ratio);
  mask_.threshold = static_cast<uint64_t>(std::ldexp(ratio, 32));
}

template <typename Dtype>
void DropoutLayer<Dtype>::SetSeed(uint64_t seed) {
  seeded_ = true;
  mask_.key = MixBits(MixBits(seed) ^ name_hash_);
}

template <typename Dtype>
void DropoutLayer<Dtype>::Draw(int samples) {
  if (seeded_) {
    mask_.first_sample = (forward_passes_ * Caffe::solver_count() +
        Caffe::solver_rank()) * samples;
    ++forward_passes_;
  } else {
    mask_.key = MixBits(caffe_rng_rand());
  }
}

template <typename Dtype>
void DropoutLayer<Dtype>::Apply(const Blob<Dtype>& shape, const Dtype* in,
    Dtype* out) const {
  const int samples = shape.num_axes() == 0 ? 1 : shape.shape(0);
  const int size = shape.count() / samples;
  for (int i = 0; i < samples; ++i) {
    const uint64_t of_sample = mask_.OfSample(i);
    const Dtype* from = in + static_cast<int64_t>(i) * size;
    Dtype* to = out + static_cast<int64_t>(i) * size;
#pragma omp parallel for if (size > 10000)
    for (int place = 0; place < size; ++place) {
      to[place] = from[place] * (mask_.Keeps(of_sample, place) ? scale_ : 0);
    }
  }
}

template <typename Dtype>
void DropoutLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  if (this->phase_ == TRAIN) {
    Draw(bottom[0]->num_axes() == 0 ? 1 : bottom[0]->shape(0));
    Apply(*bottom[0], bottom[0]->cpu_data(), top[0]->mutable_cpu_data());
  } else if (bottom[0] != top[0]) {
    caffe_copy(bottom[0]->count(), bottom[0]->cpu_data(),
        top[0]->mutable_cpu_data());
  }
}

template <typename Dtype>
void DropoutLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) { return; }
  if (this->phase_ == TRAIN) {
    Apply(*bottom[0], top[0]->cpu_diff(), bottom[0]->mutable_cpu_diff());
  } else if (bottom[0] != top[0]) {
    caffe_copy(top[0]->count(), top[0]->cpu_diff(),
        bottom[0]->mutable_cpu_diff());
  }
}

#ifdef CPU_ONLY
STUB_GPU(DropoutLayer);
#endif

INSTANTIATE_CLASS(DropoutLayer);
REGISTER_LAYER_CLASS(Dropout);

}  // namespace caffe
