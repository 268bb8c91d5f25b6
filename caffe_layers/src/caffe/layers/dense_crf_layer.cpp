#include "caffe/layers/dense_crf_layer.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "caffe/layer_factory.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

namespace {

// A mean that has been taken off an 8-bit value and added back leaves rounding
// errors far below this; what lies further from a whole number is meant.
const float kWholeNumber = 0.01f;

inline double Exponential(double x) { return std::exp(x); }

// exp(x) for x <= 0 to about two units in the last place, without a call, so
// that a loop over classes runs in vectors: 2^n times the polynomial of the
// rest, |rest| <= ln(2) / 2. Below -87 it is as good as 0.
inline float Exponential(float x) {
  const float bounded = x < -87.f ? -87.f : x;
  // adding and subtracting 1.5 * 2^23 rounds to a whole number
  const float shifted = bounded * 1.44269504f + 12582912.f;
  const float whole = shifted - 12582912.f;
  const float rest = (bounded - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float sum = 1.f / 5040;
  sum = sum * rest + 1.f / 720;
  sum = sum * rest + 1.f / 120;
  sum = sum * rest + 1.f / 24;
  sum = sum * rest + 1.f / 6;
  sum = sum * rest + 0.5f;
  sum = sum * rest + 1.f;
  sum = sum * rest + 1.f;
  const int32_t exponent = (static_cast<int32_t>(whole) + 127) << 23;
  float power;
  std::memcpy(&power, &exponent, sizeof(power));
  return sum * power;
}

void CheckDeviation(float deviation, const char* name) {
  CHECK(std::isfinite(deviation) && deviation > 0)
      << "DenseCRF: " << name << " is a standard deviation and must be above "
      << "0, not " << deviation;
}

void CheckWeight(float weight, const char* name) {
  CHECK(std::isfinite(weight) && weight >= 0)
      << "DenseCRF: " << name << " is the weight of a kernel and must be 0 or "
      << "above, not " << weight;
}

}  // namespace

template <typename Dtype>
void DenseCRFLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& /*top*/) {
  crf_ = this->layer_param_.dense_crf_param();
  CheckDeviation(crf_.pos_xy_std(), "pos_xy_std");
  CheckDeviation(crf_.bi_xy_std(), "bi_xy_std");
  CheckDeviation(crf_.bi_rgb_std(), "bi_rgb_std");
  CheckWeight(crf_.pos_w(), "pos_w");
  CheckWeight(crf_.bi_w(), "bi_w");
  CHECK(std::isfinite(crf_.scale()) && crf_.scale() != 0)
      << "DenseCRF: scale is what the image was multiplied with and cannot be "
      << crf_.scale();
  const int means = crf_.mean_value_size();
  CHECK(means == 0 || means == 1 || means == 3)
      << "DenseCRF: mean_value is given once for all channels or 3 times, not "
      << means << " times";
  CHECK(!crf_.learn() || crf_.output() != DenseCRFParameter_Output_LABEL)
      << "DenseCRF: output LABEL has no gradient, so learn cannot be set";
  classes_ = bottom[0]->shape(1);
  CHECK_GT(classes_, 0) << "DenseCRF: the scores have no class";
  positional_height_ = positional_width_ = 0;
  if (crf_.learn() && this->blobs_.empty()) {
    const vector<int> per_class(1, classes_);
    vector<int> per_pair(2, classes_);
    this->blobs_.resize(3);
    for (int k = 0; k < 2; ++k) {
      this->blobs_[k].reset(new Blob<Dtype>(per_class));
      caffe_set(classes_, Dtype(k == 0 ? crf_.pos_w() : crf_.bi_w()),
          this->blobs_[k]->mutable_cpu_data());
    }
    this->blobs_[2].reset(new Blob<Dtype>(per_pair));
    Dtype* compatibility = this->blobs_[2]->mutable_cpu_data();
    for (int i = 0; i < classes_ * classes_; ++i) {
      compatibility[i] = i % (classes_ + 1) != 0;
    }
  }
  this->param_propagate_down_.resize(this->blobs_.size(), true);
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  CHECK_EQ(4, bottom[0]->num_axes())
      << "DenseCRF: the scores must be N x C x H x W";
  CHECK_EQ(4, bottom[1]->num_axes())
      << "DenseCRF: the image must be N x 3 x H x W";
  CHECK_EQ(classes_, bottom[0]->channels())
      << "DenseCRF: the number of classes cannot change";
  CHECK_EQ(3, bottom[1]->channels())
      << "DenseCRF: the image must have 3 channels";
  CHECK_EQ(bottom[0]->num(), bottom[1]->num())
      << "DenseCRF: scores and images must be as many";
  CHECK(bottom[0]->height() == bottom[1]->height() &&
      bottom[0]->width() == bottom[1]->width())
      << "DenseCRF: the scores are " << bottom[0]->height() << " x "
      << bottom[0]->width() << " and the image is " << bottom[1]->height()
      << " x " << bottom[1]->width()
      << "; bring the scores to the image's size first "
      << "(BilinearInterpolation)";
  height_ = bottom[0]->height();
  width_ = bottom[0]->width();
  pixels_ = height_ * width_;
  const size_t size = static_cast<size_t>(pixels_) * classes_;
  scores_.resize(size);
  logits_.resize(size);
  message_.resize(size);
  filtered_.resize(size);
  weight_.resize(classes_);
  vector<int> shape = bottom[0]->shape();
  if (crf_.output() == DenseCRFParameter_Output_LABEL) { shape[1] = 1; }
  top[0]->Reshape(shape);
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::BuildKernel(const std::vector<float>& features,
    int dimensions, Kernel* kernel) {
  kernel->lattice.Build(features.data(), pixels_, dimensions);
  kernel->normalisation.assign(pixels_, Dtype(1));
  Dtype* normalisation = kernel->normalisation.data();
  kernel->lattice.Filter(normalisation, static_cast<const Dtype*>(NULL), 1,
      false, normalisation, scratch_);
  for (int i = 0; i < pixels_; ++i) {
    normalisation[i] = 1 / std::sqrt(normalisation[i] + Dtype(1e-20));
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::BuildPositional() {
  if (positional_height_ == height_ && positional_width_ == width_) { return; }
  features_.resize(static_cast<size_t>(pixels_) * 2);
  for (int i = 0; i < pixels_; ++i) {
    features_[2 * i] = (i % width_) / crf_.pos_xy_std();
    features_[2 * i + 1] = (i / width_) / crf_.pos_xy_std();
  }
  BuildKernel(features_, 2, &kernels_[0]);
  positional_height_ = height_;
  positional_width_ = width_;
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::BuildBilateral(const Dtype* image) {
  features_.resize(static_cast<size_t>(pixels_) * 5);
  const int means = crf_.mean_value_size();
#pragma omp parallel for schedule(static)
  for (int i = 0; i < pixels_; ++i) {
    float* feature = &features_[static_cast<size_t>(i) * 5];
    feature[0] = (i % width_) / crf_.bi_xy_std();
    feature[1] = (i / width_) / crf_.bi_xy_std();
    for (int k = 0; k < 3; ++k) {
      // red, green, blue, whatever the image's order
      const int c = crf_.order() == DenseCRFParameter_Order_RGB ? k : 2 - k;
      const float mean =
          means == 0 ? 0 : crf_.mean_value(means == 1 ? 0 : c);
      const float value = image[c * pixels_ + i] / crf_.scale() + mean;
      const float whole = std::nearbyint(value);
      feature[2 + k] =
          (std::abs(value - whole) < kWholeNumber ? whole : value) /
          crf_.bi_rgb_std();
    }
  }
  BuildKernel(features_, 5, &kernels_[1]);
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Apply(const Kernel& kernel, const Dtype* from,
    bool transposed, Dtype* to) {
  kernel.lattice.Filter(from, kernel.normalisation.data(), classes_,
      transposed, to, scratch_);
}

template <typename Dtype>
bool DenseCRFLayer<Dtype>::Used(int kernel) const {
  return crf_.learn() || (kernel == 0 ? crf_.pos_w() : crf_.bi_w()) > 0;
}

template <typename Dtype>
Dtype DenseCRFLayer<Dtype>::Weight(int kernel, int label) const {
  if (crf_.learn()) { return this->blobs_[kernel]->cpu_data()[label]; }
  return kernel == 0 ? crf_.pos_w() : crf_.bi_w();
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Message(const Dtype* probability) {
  std::fill(message_.begin(), message_.end(), Dtype(0));
  for (int k = 0; k < 2; ++k) {
    if (!Used(k)) { continue; }
    for (int c = 0; c < classes_; ++c) { weight_[c] = Weight(k, c); }
    Apply(kernels_[k], probability, false, filtered_.data());
#pragma omp parallel for schedule(static)
    for (int i = 0; i < pixels_; ++i) {
      const size_t at = static_cast<size_t>(i) * classes_;
      for (int c = 0; c < classes_; ++c) {
        message_[at + c] += weight_[c] * filtered_[at + c];
      }
    }
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Logits(const Dtype* message, Dtype* logits) const {
  if (crf_.learn()) {
    caffe_copy(static_cast<int>(scores_.size()), scores_.data(), logits);
    caffe_cpu_gemm<Dtype>(CblasNoTrans, CblasTrans, pixels_, classes_,
        classes_, Dtype(-1), message, this->blobs_[2]->cpu_data(), Dtype(1),
        logits);
    return;
  }
  // Potts: the sum over all classes is the same for each, and the softmax
  // does not see it
  const int size = pixels_ * classes_;
#pragma omp parallel for simd schedule(static)
  for (int i = 0; i < size; ++i) {
    logits[i] = scores_[i] + message[i];
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Softmax(const Dtype* logits,
    Dtype* probability) const {
#pragma omp parallel for schedule(static)
  for (int i = 0; i < pixels_; ++i) {
    const Dtype* in = logits + static_cast<size_t>(i) * classes_;
    Dtype* out = probability + static_cast<size_t>(i) * classes_;
    const Dtype largest = *std::max_element(in, in + classes_);
    Dtype sum = 0;
#pragma omp simd reduction(+:sum)
    for (int c = 0; c < classes_; ++c) {
      out[c] = Exponential(in[c] - largest);
      sum += out[c];
    }
    const Dtype inverse = 1 / sum;
    for (int c = 0; c < classes_; ++c) { out[c] *= inverse; }
  }
}

template <typename Dtype>
const Dtype* DenseCRFLayer<Dtype>::Scores(const Dtype* planes) {
#pragma omp parallel for schedule(static)
  for (int i = 0; i < pixels_; ++i) {
    for (int c = 0; c < classes_; ++c) {
      scores_[static_cast<size_t>(i) * classes_ + c] =
          planes[static_cast<size_t>(c) * pixels_ + i];
    }
  }
  return scores_.data();
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::MeanField(const Dtype* scores, bool keep_history) {
  const int iterations = crf_.max_iter();
  history_.resize(keep_history ? iterations + 1 : 1);
  for (size_t t = 0; t < history_.size(); ++t) {
    history_[t].resize(scores_.size());
  }
  std::copy(scores, scores + scores_.size(), logits_.begin());
  Softmax(scores, history_[0].data());
  for (int t = 0; t < iterations; ++t) {
    Message(history_[keep_history ? t : 0].data());
    Logits(message_.data(), logits_.data());
    Softmax(logits_.data(), history_[keep_history ? t + 1 : 0].data());
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  const bool logarithm =
      crf_.output() == DenseCRFParameter_Output_LOG_PROBABILITY;
  for (int n = 0; n < bottom[0]->num(); ++n) {
    if (Used(0)) { BuildPositional(); }
    if (Used(1)) { BuildBilateral(bottom[1]->cpu_data() + bottom[1]->offset(n)); }
    MeanField(Scores(bottom[0]->cpu_data() + bottom[0]->offset(n)), false);
    const Dtype* probability = history_[0].data();
    Dtype* result = top[0]->mutable_cpu_data() + top[0]->offset(n);
#pragma omp parallel for schedule(static)
    for (int i = 0; i < pixels_; ++i) {
      const size_t at = static_cast<size_t>(i) * classes_;
      const Dtype* logits = &logits_[at];
      const int best = std::max_element(logits, logits + classes_) - logits;
      if (crf_.output() == DenseCRFParameter_Output_LABEL) {
        result[i] = best;
        continue;
      }
      // the most probable class has exp(0) over the sum
      const Dtype log_sum = -std::log(probability[at + best]);
      for (int c = 0; c < classes_; ++c) {
        result[static_cast<size_t>(c) * pixels_ + i] = logarithm ?
            logits[c] - logits[best] - log_sum : probability[at + c];
      }
    }
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  CHECK(!propagate_down[1]) << "DenseCRF: the image gets no gradient";
  if (!propagate_down[0] && !crf_.learn()) { return; }
  CHECK(crf_.output() != DenseCRFParameter_Output_LABEL)
      << "DenseCRF: output LABEL has no gradient";
  const bool logarithm =
      crf_.output() == DenseCRFParameter_Output_LOG_PROBABILITY;
  const int iterations = crf_.max_iter();
  const size_t size = scores_.size();
  std::vector<Dtype> score_diff(size), diff(size), logit_diff(size);
  std::vector<Dtype> message_diff(size);
  for (int n = 0; n < bottom[0]->num(); ++n) {
    if (Used(0)) { BuildPositional(); }
    if (Used(1)) { BuildBilateral(bottom[1]->cpu_data() + bottom[1]->offset(n)); }
    MeanField(Scores(bottom[0]->cpu_data() + bottom[0]->offset(n)), true);
    const Dtype* top_diff = top[0]->cpu_diff() + top[0]->offset(n);
    for (int i = 0; i < pixels_; ++i) {
      for (int c = 0; c < classes_; ++c) {
        diff[static_cast<size_t>(i) * classes_ + c] =
            top_diff[static_cast<size_t>(c) * pixels_ + i];
      }
    }
    std::fill(score_diff.begin(), score_diff.end(), Dtype(0));
    for (int t = iterations; t >= 0; --t) {
      const Dtype* probability = history_[t].data();
      for (int i = 0; i < pixels_; ++i) {
        const size_t at = static_cast<size_t>(i) * classes_;
        const bool of_logarithm = logarithm && t == iterations;
        Dtype sum = 0;
        for (int c = 0; c < classes_; ++c) {
          sum += of_logarithm ? diff[at + c] : diff[at + c] * probability[at + c];
        }
        for (int c = 0; c < classes_; ++c) {
          logit_diff[at + c] = of_logarithm ?
              diff[at + c] - probability[at + c] * sum :
              probability[at + c] * (diff[at + c] - sum);
          score_diff[at + c] += logit_diff[at + c];
        }
      }
      if (t == 0) { break; }
      if (crf_.learn()) {
        Message(history_[t - 1].data());
        if (this->param_propagate_down_[2]) {
          caffe_cpu_gemm<Dtype>(CblasTrans, CblasNoTrans, classes_, classes_,
              pixels_, Dtype(-1), logit_diff.data(), message_.data(), Dtype(1),
              this->blobs_[2]->mutable_cpu_diff());
        }
        caffe_cpu_gemm<Dtype>(CblasNoTrans, CblasNoTrans, pixels_, classes_,
            classes_, Dtype(-1), logit_diff.data(),
            this->blobs_[2]->cpu_data(), Dtype(0), message_diff.data());
      } else {
        message_diff = logit_diff;
      }
      std::fill(diff.begin(), diff.end(), Dtype(0));
      for (int k = 0; k < 2; ++k) {
        if (!Used(k)) { continue; }
        if (crf_.learn() && this->param_propagate_down_[k]) {
          Apply(kernels_[k], history_[t - 1].data(), false, filtered_.data());
          Dtype* weight_diff = this->blobs_[k]->mutable_cpu_diff();
          for (size_t i = 0; i < size; ++i) {
            weight_diff[i % classes_] += message_diff[i] * filtered_[i];
          }
        }
        // the messages have been used: their place takes the weighted gradient
        for (size_t i = 0; i < size; ++i) {
          message_[i] = Weight(k, i % classes_) * message_diff[i];
        }
        Apply(kernels_[k], message_.data(), true, filtered_.data());
        for (size_t i = 0; i < size; ++i) { diff[i] += filtered_[i]; }
      }
    }
    if (!propagate_down[0]) { continue; }
    Dtype* bottom_diff = bottom[0]->mutable_cpu_diff() + bottom[0]->offset(n);
    for (int i = 0; i < pixels_; ++i) {
      for (int c = 0; c < classes_; ++c) {
        bottom_diff[static_cast<size_t>(c) * pixels_ + i] =
            score_diff[static_cast<size_t>(i) * classes_ + c];
      }
    }
  }
}

INSTANTIATE_CLASS(DenseCRFLayer);
REGISTER_LAYER_CLASS(DenseCRF);

}  // namespace caffe
