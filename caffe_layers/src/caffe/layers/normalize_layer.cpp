#include <algorithm>
#include <cmath>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/normalize_layer.hpp"

namespace caffe {

namespace {

// Positions that one thread takes in one go: their sums fit a first cache.
const int kTile = 256;

int Tiles(int area) { return (area - 1) / kTile + 1; }

}  // namespace

template <typename Dtype>
void NormalizeLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& /*top*/) {
  const NormalizeParameter& param = this->layer_param_.norm_param();
  CHECK_GE(bottom[0]->num_axes(), 2)
      << Name() << ": the input must be N x C x H x W, and is "
      << bottom[0]->shape_string();
  shape_.across = param.across_spatial();
  shape_.shared = param.channel_shared();
  shape_.channels = bottom[0]->shape(1);
  shape_.eps = param.eps();
  CHECK(std::isfinite(shape_.eps) && shape_.eps >= 0)
      << Name() << ": norm_param's eps must be 0 or more, not " << param.eps();
  if (this->blobs_.empty()) {
    const vector<int> shape(shape_.shared ? 0 : 1, shape_.channels);
    this->blobs_.push_back(
        shared_ptr<Blob<Dtype> >(new Blob<Dtype>(shape)));
    FillerParameter ones;
    ones.set_value(1);
    shared_ptr<Filler<Dtype> > filler(GetFiller<Dtype>(
        param.has_scale_filler() ? param.scale_filler() : ones));
    filler->Fill(this->blobs_[0].get());
  }
  if (param.fix_scale()) {  // Net asks a layer's own parameters for the rate
    if (this->layer_param_.param_size() == 0) {
      this->layer_param_.add_param();
    }
    this->layer_param_.mutable_param(0)->set_lr_mult(0);
  }
  this->param_propagate_down_.assign(1, true);
}

template <typename Dtype>
void NormalizeLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  CHECK_NE(bottom[0], top[0])
      << Name() << ": cannot work in place, as its gradient needs the input";
  CHECK(bottom[0]->num_axes() >= 2 && (shape_.shared ||
      bottom[0]->shape(1) == this->blobs_[0]->count()))
      << Name() << ": the input has shape " << bottom[0]->shape_string()
      << "; expected N x C x H x W with the C of the scale, "
      << this->blobs_[0]->count() << " (or norm_param's channel_shared: true)";
  shape_.num = bottom[0]->shape(0);
  shape_.channels = bottom[0]->shape(1);
  shape_.area = bottom[0]->count(2);
  top[0]->ReshapeLike(*bottom[0]);
}

template <typename Dtype>
void NormalizeLayer<Dtype>::Sum(const Dtype* x, const Dtype* dy) {
  sums_.Reshape(vector<int>(1, 2 * shape_.Positions()));
  double* const sums = sums_.mutable_cpu_data();
  const Dtype* const scale = this->blobs_[0]->cpu_data();
  const int area = shape_.area;
  const int tiles = Tiles(area);
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
  for (int tile = 0; tile < shape_.num * tiles; ++tile) {
    const int begin = tile % tiles * kTile;
    const int count = std::min(kTile, area - begin);
    const int position = tile / tiles * area + begin;
    double squares[kTile] = { 0 }, products[kTile] = { 0 };
    for (int c = 0; c < shape_.channels; ++c) {
      const size_t row = shape_.First(position) + static_cast<size_t>(c) * area;
      for (int i = 0; i < count; ++i) {
        const double value = x[row + i];
        squares[i] += value * value;
      }
      if (dy == NULL) { continue; }
      const double factor = scale[shape_.ScaleOf(c)];
      for (int i = 0; i < count; ++i) {
        products[i] += x[row + i] * (factor * dy[row + i]);
      }
    }
    for (int i = 0; i < count; ++i) {
      sums[2 * (position + i)] = squares[i];
      sums[2 * (position + i) + 1] = products[i];
    }
  }
  if (!shape_.across) { return; }
  for (int n = 0; n < shape_.num; ++n) {
    double* const total = sums + static_cast<size_t>(2) * n * area;
    for (int i = 1; i < area; ++i) {
      total[0] += total[2 * i];
      total[1] += total[2 * i + 1];
    }
  }
}

template <typename Dtype>
void NormalizeLayer<Dtype>::Apply(const Dtype* x, const Dtype* dy,
    Dtype* result) const {
  const double* const sums = sums_.cpu_data();
  const Dtype* const scale = this->blobs_[0]->cpu_data();
  const int area = shape_.area;
  const int tiles = Tiles(area);
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
  for (int tile = 0; tile < shape_.num * tiles; ++tile) {
    const int begin = tile % tiles * kTile;
    const int count = std::min(kTile, area - begin);
    const int position = tile / tiles * area + begin;
    Dtype same[kTile], along[kTile];
    for (int i = 0; i < count; ++i) {
      const L2Factors factors = shape_.FactorsOf(sums, position + i);
      same[i] = factors.same;
      along[i] = factors.along;
    }
    for (int c = 0; c < shape_.channels; ++c) {
      const size_t row = shape_.First(position) + static_cast<size_t>(c) * area;
      const Dtype factor = scale[shape_.ScaleOf(c)];
      if (dy == NULL) {
        for (int i = 0; i < count; ++i) {
          result[row + i] = factor * same[i] * x[row + i];
        }
      } else {
        for (int i = 0; i < count; ++i) {
          result[row + i] = factor * same[i] * dy[row + i] -
              along[i] * x[row + i];
        }
      }
    }
  }
}

template <typename Dtype>
void NormalizeLayer<Dtype>::AddScaleDiff(const Dtype* x, const Dtype* dy) {
  const int area = shape_.area;
  vector<double> factors(shape_.Positions());
  for (int i = 0; i < shape_.Positions(); ++i) {
    factors[i] = shape_.FactorsOf(sums_.cpu_data(), i).map;
  }
  vector<double> gradients(shape_.channels, 0.);
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
  for (int c = 0; c < shape_.channels; ++c) {
    for (int n = 0; n < shape_.num; ++n) {
      const size_t row =
          (static_cast<size_t>(n) * shape_.channels + c) * area;
      for (int i = 0; i < area; ++i) {
        gradients[c] += factors[n * area + i] * x[row + i] * dy[row + i];
      }
    }
  }
  Dtype* const scale_diff = this->blobs_[0]->mutable_cpu_diff();
  double total = 0;
  for (int c = 0; c < shape_.channels; ++c) {
    if (shape_.shared) {
      total += gradients[c];
    } else {
      scale_diff[c] += gradients[c];
    }
  }
  if (shape_.shared) { scale_diff[0] += total; }
}

template <typename Dtype>
void NormalizeLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  if (shape_.Count() == 0) { return; }
  Sum(bottom[0]->cpu_data(), NULL);
  Apply(bottom[0]->cpu_data(), NULL, top[0]->mutable_cpu_data());
}

template <typename Dtype>
void NormalizeLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  const bool is_learned = IsLearned();
  if (shape_.Count() == 0 || !(propagate_down[0] || is_learned)) { return; }
  const Dtype* const x = bottom[0]->cpu_data();
  const Dtype* const dy = top[0]->cpu_diff();
  Sum(x, dy);
  if (is_learned) { AddScaleDiff(x, dy); }
  if (propagate_down[0]) { Apply(x, dy, bottom[0]->mutable_cpu_diff()); }
}

#ifdef CPU_ONLY
STUB_GPU(NormalizeLayer);
#endif

INSTANTIATE_CLASS(NormalizeLayer);
REGISTER_LAYER_CLASS(Normalize);

}  // namespace caffe
