#include <cmath>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/bn_layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

namespace {

// What SegNet's form adds to a variance; it has no field for it.
const double kSegNetEps = 1e-9;

enum { SCALE, SHIFT, MEAN, VARIANCE };

}  // namespace

template <typename Dtype>
void BNLayer<Dtype>::ReadForm() {
  const BNParameter& bn = this->layer_param_.bn_param();
  const bool segnet =
      bn.has_scale_filler() || bn.has_shift_filler() || bn.has_bn_mode();
  running_ = bn.has_slope_filler() || bn.has_bias_filler() ||
      bn.has_momentum() || bn.has_eps() || bn.has_frozen() || bn.has_engine();
  CHECK(segnet || running_) << Name() << ": bn_param says not which form it is;"
      << " give bn_mode (SegNet's form: scale, shift) or frozen (PSPNet's:"
      << " slope, bias, running mean and variance)";
  CHECK(!segnet || !running_) << Name() << ": bn_param has fields of both forms;"
      << " give scale_filler, shift_filler, bn_mode (SegNet's) or slope_filler,"
      << " bias_filler, momentum, eps, frozen (PSPNet's)";
  learn_ = segnet && bn.bn_mode() == BNParameter_BNMode_LEARN;
  frozen_ = bn.frozen();
  momentum_ = bn.momentum();
  eps_ = running_ ? bn.eps() : kSegNetEps;
  CHECK(momentum_ >= 0 && momentum_ <= 1) << Name() << ": momentum is the share"
      << " of the running statistics that stays and must be 0 to 1, not "
      << momentum_;
  CHECK(eps_ > 0 && std::isfinite(eps_)) << Name() << ": eps keeps a variance"
      << " of 0 from being divided by and must be above 0, not " << eps_;
}

template <typename Dtype>
void BNLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  ReadForm();
  CHECK(top.size() == 1 || learn_) << Name() << ": " << top.size()
      << " tops; only bn_mode: LEARN has more than one, for the batch's mean and"
      << " variance";
  CHECK_GE(bottom[0]->num_axes(), 2) << Name()
      << ": the input must be N x C x H x W, and is "
      << bottom[0]->shape_string();
  if (this->blobs_.empty()) { FillBlobs(bottom[0]->shape(1)); }
  CHECK_EQ(running_ ? 4u : 2u, this->blobs_.size()) << Name() << ": blobs has "
      "another number of parameters than this form";
  for (const shared_ptr<Blob<Dtype> >& blob : this->blobs_) {
    CHECK_EQ(blob->count(), this->blobs_[SCALE]->count()) << Name()
        << ": blobs differ in their number of channels";
  }
  this->param_propagate_down_.resize(this->blobs_.size(), true);
  if (running_) { HoldFrom(frozen_ ? SCALE : MEAN); }
}

template <typename Dtype>
void BNLayer<Dtype>::FillBlobs(int channels) {
  const BNParameter& bn = this->layer_param_.bn_param();
  vector<int> shape(4, 1);
  shape[1] = channels;
  this->blobs_.resize(running_ ? 4 : 2);
  for (shared_ptr<Blob<Dtype> >& blob : this->blobs_) {
    blob.reset(new Blob<Dtype>(shape));
    caffe_set(channels, Dtype(0), blob->mutable_cpu_data());
  }
  const bool has_scale = running_ ? bn.has_slope_filler() :
      bn.has_scale_filler();
  // Without a filler a map passes; a scale of 0 would let nothing pass.
  FillerParameter scale;
  scale.set_value(1);
  if (has_scale) { scale = running_ ? bn.slope_filler() : bn.scale_filler(); }
  const FillerParameter& shift = running_ ? bn.bias_filler() :
      bn.shift_filler();
  shared_ptr<Filler<Dtype> >(GetFiller<Dtype>(scale))->Fill(
      this->blobs_[SCALE].get());
  shared_ptr<Filler<Dtype> >(GetFiller<Dtype>(shift))->Fill(
      this->blobs_[SHIFT].get());
  if (frozen_) {
    caffe_set(channels, Dtype(1), this->blobs_[VARIANCE]->mutable_cpu_data());
  }
}

template <typename Dtype>
void BNLayer<Dtype>::HoldFrom(int first) {
  while (this->layer_param_.param_size() < 4) {
    this->layer_param_.add_param();
  }
  for (int i = first; i < 4; ++i) {
    this->layer_param_.mutable_param(i)->set_lr_mult(0);
    this->layer_param_.mutable_param(i)->set_decay_mult(0);
  }
}

template <typename Dtype>
void BNLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  num_ = bottom[0]->shape(0);
  channels_ = bottom[0]->shape(1);
  plane_ = bottom[0]->count(2);
  CHECK_EQ(channels_, this->blobs_[SCALE]->count()) << Name() << ": an input of "
      << channels_ << " channels, where the layer has "
      << this->blobs_[SCALE]->count() << " of each parameter";
  in_place_ = bottom[0] == top[0];
  top[0]->ReshapeLike(*bottom[0]);
  for (size_t i = 1; i < top.size(); ++i) {
    top[i]->ReshapeLike(*this->blobs_[SCALE]);
  }
  if (keeps_input()) { input_.ReshapeLike(*bottom[0]); }
  const int shape[] = {4, channels_};
  statistics_.Reshape(vector<int>(shape, shape + 2));
}

template <typename Dtype>
bool BNLayer<Dtype>::Begin(const vector<Blob<Dtype>*>& bottom) {
  if (bottom[0]->count() == 0) { return false; }
  if (keeps_input()) { input_.CopyFrom(*bottom[0]); }
  return true;
}

template <typename Dtype>
void BNLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  if (!Begin(bottom)) { return; }
  const Dtype* const x = Input(bottom).cpu_data();
  Dtype* const y = top[0]->mutable_cpu_data();
  const Dtype* const scale = this->blobs_[SCALE]->cpu_data();
  const Dtype* const shift = this->blobs_[SHIFT]->cpu_data();
  const Dtype* const fixed_mean =
      running_ ? this->blobs_[MEAN]->cpu_data() : NULL;
  const Dtype* const fixed_variance =
      running_ ? this->blobs_[VARIANCE]->cpu_data() : NULL;
  Dtype* const running_mean = running_ && of_batch() ?
      this->blobs_[MEAN]->mutable_cpu_data() : NULL;
  Dtype* const running_variance = running_ && of_batch() ?
      this->blobs_[VARIANCE]->mutable_cpu_data() : NULL;
  Dtype* const mean_top = top.size() > 1 ? top[1]->mutable_cpu_data() : NULL;
  Dtype* const variance_top =
      top.size() > 2 ? top[2]->mutable_cpu_data() : NULL;
  double* const means = statistics_.mutable_cpu_data();
  double* const inverses = means + channels_;
  const double count = static_cast<double>(num_) * plane_;
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
  for (int c = 0; c < channels_; ++c) {
    double mean = 0, variance = 0, inverse = 1;
    if (of_batch()) {
      for (int n = 0; n < num_; ++n) {
        const Dtype* const map =
            x + (static_cast<size_t>(n) * channels_ + c) * plane_;
        double sum = 0;
#ifdef _OPENMP
#pragma omp simd reduction(+ : sum)
#endif
        for (int i = 0; i < plane_; ++i) { sum += map[i]; }
        mean += sum;
      }
      mean /= count;
      for (int n = 0; n < num_; ++n) {
        const Dtype* const map =
            x + (static_cast<size_t>(n) * channels_ + c) * plane_;
        double sum = 0;
#ifdef _OPENMP
#pragma omp simd reduction(+ : sum)
#endif
        for (int i = 0; i < plane_; ++i) {
          sum += (map[i] - mean) * (map[i] - mean);
        }
        variance += sum;
      }
      variance /= count;
      inverse = 1 / std::sqrt(variance + eps_);
      if (mean_top != NULL) { mean_top[c] = mean; }
      if (variance_top != NULL) { variance_top[c] = variance; }
      if (running_mean != NULL) {
        running_mean[c] = momentum_ * running_mean[c] + (1 - momentum_) * mean;
        running_variance[c] =
            momentum_ * running_variance[c] + (1 - momentum_) * variance;
      }
    } else if (running_) {
      mean = fixed_mean[c];
      inverse = 1 / std::sqrt(fixed_variance[c] + eps_);
    }
    means[c] = mean;
    inverses[c] = inverse;
    const Dtype factor = scale[c] * inverse, offset = mean;
    for (int n = 0; n < num_; ++n) {
      const size_t first = (static_cast<size_t>(n) * channels_ + c) * plane_;
      for (int i = 0; i < plane_; ++i) {
        y[first + i] = factor * (x[first + i] - offset) + shift[c];
      }
    }
  }
}

template <typename Dtype>
void BNLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  const bool sums = (of_batch() && propagate_down[0]) || learns(SCALE) ||
      learns(SHIFT);
  if (bottom[0]->count() == 0 || (!sums && !propagate_down[0])) { return; }
  const Dtype* const x = Input(bottom).cpu_data();
  const Dtype* const dy = top[0]->cpu_diff();
  Dtype* const dx =
      propagate_down[0] ? bottom[0]->mutable_cpu_diff() : NULL;
  const Dtype* const scale = this->blobs_[SCALE]->cpu_data();
  Dtype* const dscale =
      learns(SCALE) ? this->blobs_[SCALE]->mutable_cpu_diff() : NULL;
  Dtype* const dshift =
      learns(SHIFT) ? this->blobs_[SHIFT]->mutable_cpu_diff() : NULL;
  const double* const means = statistics_.cpu_data();
  const double count = static_cast<double>(num_) * plane_;
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
  for (int c = 0; c < channels_; ++c) {
    const double mean = means[c], inverse = means[channels_ + c];
    double all = 0, along = 0;  // of dy, of dy * x^
    for (int n = 0; sums && n < num_; ++n) {
      const size_t first = (static_cast<size_t>(n) * channels_ + c) * plane_;
      double sum = 0, product = 0;
#ifdef _OPENMP
#pragma omp simd reduction(+ : sum, product)
#endif
      for (int i = 0; i < plane_; ++i) {
        const double own = dy[first + i];
        sum += own;
        product += own * (x[first + i] - mean);
      }
      all += sum;
      along += product * inverse;
    }
    if (dscale != NULL) { dscale[c] += along; }
    if (dshift != NULL) { dshift[c] += all; }
    const Dtype factor = scale[c] * inverse;
    const Dtype level = all / count, slope = along / count * inverse;
    const Dtype offset = mean;
    for (int n = 0; dx != NULL && n < num_; ++n) {
      const size_t first = (static_cast<size_t>(n) * channels_ + c) * plane_;
      for (int i = 0; i < plane_; ++i) {
        const size_t place = first + i;
        dx[place] = of_batch() ? factor *
            (dy[place] - level - (x[place] - offset) * slope) :
            factor * dy[place];
      }
    }
  }
}

#ifdef CPU_ONLY
STUB_GPU(BNLayer);
#endif

INSTANTIATE_CLASS(BNLayer);
REGISTER_LAYER_CLASS(BN);

}  // namespace caffe
