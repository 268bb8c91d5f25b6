#include <algorithm>
#include <cmath>
#include <vector>

#include "caffe/layer_factory.hpp"
#include "caffe/layers/l2_normalization_layer.hpp"
#include "caffe/util/l2_normalization.hpp"

namespace caffe {

namespace {

// Values that one thread adds up in one go: what fits a first cache.
const int kPiece = 4096;

int Pieces(int size) { return (size - 1) / kPiece + 1; }

}  // namespace

template <typename Dtype>
void L2NormalizationLayer<Dtype>::LayerSetUp(
    const vector<Blob<Dtype>*>& /*bottom*/,
    const vector<Blob<Dtype>*>& /*top*/) {
  scale_ = this->layer_param_.l2_normalization_param().scale();
  CHECK(std::isfinite(scale_) && scale_ > 0)
      << Name() << ": scale is the norm of the result and must be above 0, not "
      << scale_;
}

template <typename Dtype>
void L2NormalizationLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  CHECK_NE(bottom[0], top[0])
      << Name() << ": cannot work in place, as its gradient needs the input";
  CHECK_GE(bottom[0]->num_axes(), 2)
      << Name() << ": the input must be N x C x H x W, and is "
      << bottom[0]->shape_string();
  num_ = bottom[0]->shape(0);
  size_ = bottom[0]->count(1);
  top[0]->ReshapeLike(*bottom[0]);
}

template <typename Dtype>
void L2NormalizationLayer<Dtype>::Run(const Dtype* x, const Dtype* dy,
    Dtype* result) {
  if (num_ == 0 || size_ == 0) { return; }
  const int pieces = Pieces(size_);
  const int all = num_ * pieces;
  sums_.Reshape(vector<int>(1, 2 * all));
  double* const sums = sums_.mutable_cpu_data();
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
  for (int piece = 0; piece < all; ++piece) {
    const int begin = piece % pieces * kPiece;
    const int count = std::min(kPiece, size_ - begin);
    const size_t offset = static_cast<size_t>(piece / pieces) * size_ + begin;
    const Dtype* const values = x + offset;
    const Dtype* const others = dy == NULL ? values : dy + offset;
    double squares = 0, product = 0;
#ifdef _OPENMP
#pragma omp simd reduction(+ : squares, product)
#endif
    for (int i = 0; i < count; ++i) {
      const double value = values[i];
      squares += value * value;
      product += value * others[i];
    }
    sums[2 * piece] = squares;
    sums[2 * piece + 1] = product;
  }
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
  for (int piece = 0; piece < all; ++piece) {
    const int map = piece / pieces;
    double squares = 0, product = 0;
    for (int i = 0; i < pieces; ++i) {
      squares += sums[2 * (map * pieces + i)];
      product += sums[2 * (map * pieces + i) + 1];
    }
    const L2Factors factors = GetL2Factors(scale_, squares, product);
    const int begin = piece % pieces * kPiece;
    const int count = std::min(kPiece, size_ - begin);
    const size_t offset = static_cast<size_t>(map) * size_ + begin;
    if (dy == NULL) {
      const Dtype factor = factors.map;
      for (int i = 0; i < count; ++i) {
        result[offset + i] = factor * x[offset + i];
      }
    } else {
      const Dtype same = factors.same, along = factors.along;
      for (int i = 0; i < count; ++i) {
        result[offset + i] = same * dy[offset + i] - along * x[offset + i];
      }
    }
  }
}

template <typename Dtype>
void L2NormalizationLayer<Dtype>::Forward_cpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  Run(bottom[0]->cpu_data(), NULL, top[0]->mutable_cpu_data());
}

template <typename Dtype>
void L2NormalizationLayer<Dtype>::Backward_cpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) { return; }
  Run(bottom[0]->cpu_data(), top[0]->cpu_diff(),
      bottom[0]->mutable_cpu_diff());
}

#ifdef CPU_ONLY
STUB_GPU(L2NormalizationLayer);
#endif

INSTANTIATE_CLASS(L2NormalizationLayer);
REGISTER_LAYER_CLASS(L2Normalization);

}  // namespace caffe
