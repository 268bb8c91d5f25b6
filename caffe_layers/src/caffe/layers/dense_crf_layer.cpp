#include "caffe/layers/dense_crf_layer.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>

#include "caffe/layer_factory.hpp"
#include "caffe/crf/dense_crf_features.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

namespace {

void CheckDeviation(const string& who, float deviation, const char* name) {
  CHECK(std::isfinite(deviation) && deviation > 0)
      << who << name << " is a standard deviation and must be above 0, not "
      << deviation;
}

void CheckWeight(const string& who, float weight, const char* name) {
  CHECK(std::isfinite(weight) && weight >= 0)
      << who << name << " is the weight of a kernel and must be 0 or above, "
      << "not " << weight;
}

}  // namespace

template <typename Dtype>
void DenseCRFLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& /*top*/) {
  crf_ = this->layer_param_.dense_crf_param();
  CheckDeviation(Who(), crf_.pos_xy_std(), "pos_xy_std");
  CheckDeviation(Who(), crf_.bi_xy_std(), "bi_xy_std");
  CheckDeviation(Who(), crf_.bi_rgb_std(), "bi_rgb_std");
  CheckWeight(Who(), crf_.pos_w(), "pos_w");
  CheckWeight(Who(), crf_.bi_w(), "bi_w");
  CHECK(std::isfinite(crf_.scale()) && crf_.scale() != 0)
      << Who() << "scale is what the image was multiplied with and cannot be "
      << crf_.scale();
  CHECK_LT(crf_.max_iter(), static_cast<uint32_t>(INT_MAX))
      << Who() << "max_iter is a number of iterations";
  const int means = crf_.mean_value_size();
  CHECK(means == 0 || means == 1 || means == 3)
      << Who() << "mean_value is given once for all channels or 3 times, not "
      << means << " times";
  for (float mean : crf_.mean_value()) {
    CHECK(std::isfinite(mean))
        << Who() << "mean_value is what was taken off the image and cannot be "
        << mean;
  }
  CHECK(!crf_.learn() || crf_.output() != DenseCRFParameter_Output_LABEL)
      << Who() << "output LABEL has no gradient, so learn cannot be set";
  classes_ = bottom[0]->shape(1);
  CHECK_GT(classes_, 0) << Who() << "the scores have no class";
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
      << Who() << "the scores must be N x C x H x W";
  CHECK_EQ(4, bottom[1]->num_axes())
      << Who() << "the image must be N x 3 x H x W";
  CHECK_EQ(classes_, bottom[0]->channels())
      << Who() << "the number of classes cannot change";
  CHECK_EQ(3, bottom[1]->channels())
      << Who() << "the image must have 3 channels";
  CHECK_EQ(bottom[0]->num(), bottom[1]->num())
      << Who() << "scores and images must be as many";
  CHECK(bottom[0]->height() == bottom[1]->height() &&
      bottom[0]->width() == bottom[1]->width())
      << Who() << "the scores are " << bottom[0]->height() << " x "
      << bottom[0]->width() << " and the image is " << bottom[1]->height()
      << " x " << bottom[1]->width()
      << "; bring the scores to the image's size first "
      << "(BilinearInterpolation)";
  height_ = bottom[0]->height();
  width_ = bottom[0]->width();
  pixels_ = height_ * width_;
  vector<int> shape = bottom[0]->shape();
  if (crf_.output() == DenseCRFParameter_Output_LABEL) { shape[1] = 1; }
  top[0]->Reshape(shape);
}

template <typename Dtype>
bool DenseCRFLayer<Dtype>::Used(int kernel) const {
  return crf_.learn() || (kernel == 0 ? crf_.pos_w() : crf_.bi_w()) > 0;
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::LoadParameters() {
  stride_ = MeanFieldStride<Dtype>(classes_);
  one_.assign(stride_, Dtype(1));
  for (int k = 0; k < 2; ++k) {
    weight_[k].assign(stride_, Dtype(k == 0 ? crf_.pos_w() : crf_.bi_w()));
    if (crf_.learn()) {
      caffe_copy(classes_, this->blobs_[k]->cpu_data(), weight_[k].data());
    }
  }
  if (crf_.learn()) {
    compatibility_.assign(stride_ * stride_, Dtype(0));
    for (int c = 0; c < classes_; ++c) {
      caffe_copy(classes_, this->blobs_[2]->cpu_data() + c * classes_,
          &compatibility_[c * stride_]);
    }
  }
  const size_t size = static_cast<size_t>(pixels_) * stride_;
  scores_.resize(size);
  logits_.resize(size);
}

template <typename Dtype>
string DenseCRFLayer<Dtype>::WhyNoLattice(const vector<Blob<Dtype>*>& bottom,
    int n) const {
  std::ostringstream why;
  why << Who();
  const Dtype* image = bottom[1]->cpu_data() + bottom[1]->offset(n);
  const int values = Used(1) ? 3 * pixels_ : 0;
  for (int i = 0; i < values; ++i) {
    if (std::isfinite(image[i])) { continue; }
    why << "image " << n << " holds " << image[i] << " at channel "
        << i / pixels_ << ", row " << i % pixels_ / width_ << ", column "
        << i % width_;
    return why.str();
  }
  why << "the pixels of image " << n << " lie too many standard deviations "
      << "apart for a permutohedral lattice: a standard deviation is too small "
      << "(pos_xy_std " << crf_.pos_xy_std() << ", bi_xy_std "
      << crf_.bi_xy_std() << ", bi_rgb_std " << crf_.bi_rgb_std()
      << "), or the image's values are far above 255";
  return why.str();
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Build(const vector<Blob<Dtype>*>& bottom, int n) {
  const bool kept =
      positional_height_ == height_ && positional_width_ == width_;
  if (Used(0) && !kept) {
    positional_height_ = positional_width_ = 0;
    CHECK(positional_.Build(MakePositionalFeatures(crf_, width_), pixels_))
        << WhyNoLattice(bottom, n);
    positional_height_ = height_;
    positional_width_ = width_;
  }
  if (Used(1)) {
    CHECK(bilateral_.Build(MakeBilateralFeatures<Dtype>(crf_,
        bottom[1]->cpu_data() + bottom[1]->offset(n), height_, width_),
        pixels_)) << WhyNoLattice(bottom, n);
  }
  blurred_.clear();
  for (int k = 0; k < 2; ++k) {
    if (!Used(k)) { continue; }
    BlurredKernel<Dtype> kernel;
    kernel.plan = k == 0 ? positional_.plan() : bilateral_.plan();
    kernel.weight = weight_[k].data();
    const size_t size =
        static_cast<size_t>(kernel.plan.vertices + 1) * stride_;
    if (values_[k].size() < size) { values_[k].resize(size); }
    kernel.values = values_[k].data();
    blurred_.push_back(kernel);
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Blur(const Dtype* rows, bool transposed) {
  for (size_t k = 0; k < blurred_.size(); ++k) {
    kernels_.splat_and_blur(blurred_[k].plan, stride_, transposed, rows,
        const_cast<Dtype*>(blurred_[k].values));
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::SliceAlone(int kernel) {
  BlurredKernel<Dtype> alone = blurred_[kernel];
  alone.weight = one_.data();
  sliced_.resize(scores_.size());
  kernels_.slice(&alone, 1, pixels_, stride_, sliced_.data());
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Iterate(const Dtype* probability, Dtype* logits,
    Dtype* next) {
  Blur(probability, false);
  if (!crf_.learn()) {
    // Potts: the sum over all classes is the same for each, and the softmax
    // does not see it
    kernels_.slice_and_softmax(blurred_.data(), blurred_.size(), pixels_,
        stride_, scores_.data(), logits, next);
    return;
  }
  message_.resize(scores_.size());
  kernels_.slice(blurred_.data(), blurred_.size(), pixels_, stride_,
      message_.data());
  std::copy(scores_.begin(), scores_.end(), logits_.begin());
  caffe_cpu_gemm<Dtype>(CblasNoTrans, CblasTrans, pixels_, stride_, stride_,
      Dtype(-1), message_.data(), compatibility_.data(), Dtype(1),
      logits_.data());
  kernels_.softmax(logits_.data(), pixels_, stride_, next);
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::MeanField(bool keep_history) {
  const int iterations = crf_.max_iter();
  history_.resize(keep_history ? iterations + 1 : 1);
  for (size_t t = 0; t < history_.size(); ++t) {
    history_[t].resize(scores_.size());
  }
  kernels_.softmax(scores_.data(), pixels_, stride_, history_[0].data());
  if (iterations == 0) { logits_ = scores_; }
  for (int t = 0; t < iterations; ++t) {
    Iterate(history_[keep_history ? t : 0].data(),
        t + 1 == iterations ? logits_.data() : NULL,
        history_[keep_history ? t + 1 : 0].data());
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::ToRows(const Dtype* planes, Dtype padding,
    Dtype* rows) const {
  const int kTile = 16;
#pragma omp parallel for schedule(static)
  for (int first = 0; first < pixels_; first += kTile) {
    const int end = std::min(first + kTile, pixels_);
    for (int c = 0; c < stride_; ++c) {
      const Dtype* plane = planes + static_cast<size_t>(c) * pixels_;
      for (int i = first; i < end; ++i) {
        rows[static_cast<size_t>(i) * stride_ + c] =
            c < classes_ ? plane[i] : padding;
      }
    }
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::ToPlanes(const Dtype* rows, Dtype* planes) const {
  const int kTile = 16;
#pragma omp parallel for schedule(static)
  for (int first = 0; first < pixels_; first += kTile) {
    const int end = std::min(first + kTile, pixels_);
    for (int c = 0; c < classes_; ++c) {
      Dtype* plane = planes + static_cast<size_t>(c) * pixels_;
      for (int i = first; i < end; ++i) {
        plane[i] = rows[static_cast<size_t>(i) * stride_ + c];
      }
    }
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  LoadParameters();
  for (int n = 0; n < bottom[0]->num(); ++n) {
    Build(bottom, n);
    ToRows(bottom[0]->cpu_data() + bottom[0]->offset(n),
        -std::numeric_limits<Dtype>::infinity(), scores_.data());
    MeanField(false);
    Dtype* result = top[0]->mutable_cpu_data() + top[0]->offset(n);
    if (crf_.output() == DenseCRFParameter_Output_PROBABILITY) {
      ToPlanes(history_[0].data(), result);
      continue;
    }
    const bool labels = crf_.output() == DenseCRFParameter_Output_LABEL;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < pixels_; ++i) {
      const size_t at = static_cast<size_t>(i) * stride_;
      Dtype* logits = &logits_[at];
      const int best = std::max_element(logits, logits + classes_) - logits;
      if (labels) {
        result[i] = std::isnan(history_[0][at]) ? Dtype(NAN) : Dtype(best);
        continue;
      }
      // the most probable class has exp(0) over the sum
      const Dtype shift = std::log(history_[0][at + best]) - logits[best];
      for (int c = 0; c < classes_; ++c) { logits[c] += shift; }
    }
    if (!labels) { ToPlanes(logits_.data(), result); }
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  CHECK(!propagate_down[1]) << Who() << "the image gets no gradient";
  if (!propagate_down[0] && !crf_.learn()) { return; }
  CHECK(crf_.output() != DenseCRFParameter_Output_LABEL)
      << Who() << "output LABEL has no gradient";
  LoadParameters();
  const bool logarithm =
      crf_.output() == DenseCRFParameter_Output_LOG_PROBABILITY;
  const int iterations = crf_.max_iter();
  const size_t size = scores_.size();
  std::vector<Dtype> score_diff(size), diff(size), logit_diff(size);
  std::vector<Dtype> message_diff(crf_.learn() ? size : 0);
  std::vector<Dtype> pair_diff(crf_.learn() ? stride_ * stride_ : 0);
  for (int n = 0; n < bottom[0]->num(); ++n) {
    Build(bottom, n);
    ToRows(bottom[0]->cpu_data() + bottom[0]->offset(n),
        -std::numeric_limits<Dtype>::infinity(), scores_.data());
    MeanField(true);
    ToRows(top[0]->cpu_diff() + top[0]->offset(n), Dtype(0), diff.data());
    std::fill(score_diff.begin(), score_diff.end(), Dtype(0));
    for (int t = iterations; t >= 0; --t) {
      const Dtype* probability = history_[t].data();
      const bool of_logarithm = logarithm && t == iterations;
#pragma omp parallel for schedule(static)
      for (int i = 0; i < pixels_; ++i) {
        const size_t at = static_cast<size_t>(i) * stride_;
        Dtype sum = 0;
        for (int c = 0; c < stride_; ++c) {
          sum += of_logarithm ? diff[at + c] :
              diff[at + c] * probability[at + c];
        }
        for (int c = 0; c < stride_; ++c) {
          logit_diff[at + c] = of_logarithm ?
              diff[at + c] - probability[at + c] * sum :
              probability[at + c] * (diff[at + c] - sum);
          score_diff[at + c] += logit_diff[at + c];
        }
      }
      if (t == 0) { break; }
      const Dtype* arriving = logit_diff.data();
      if (crf_.learn()) {
        // what the iteration sent, once more
        Blur(history_[t - 1].data(), false);
        if (this->param_propagate_down_[2]) {
          kernels_.slice(blurred_.data(), blurred_.size(), pixels_, stride_,
              message_.data());
          caffe_cpu_gemm<Dtype>(CblasTrans, CblasNoTrans, stride_, stride_,
              pixels_, Dtype(-1), logit_diff.data(), message_.data(), Dtype(0),
              pair_diff.data());
          for (int c = 0; c < classes_; ++c) {
            caffe_axpy(classes_, Dtype(1), &pair_diff[c * stride_],
                this->blobs_[2]->mutable_cpu_diff() + c * classes_);
          }
        }
        caffe_cpu_gemm<Dtype>(CblasNoTrans, CblasNoTrans, pixels_, stride_,
            stride_, Dtype(-1), logit_diff.data(), compatibility_.data(),
            Dtype(0), message_diff.data());
        arriving = message_diff.data();
        for (int k = 0; k < 2; ++k) {
          if (!this->param_propagate_down_[k]) { continue; }
          SliceAlone(k);
          Dtype* weight_diff = this->blobs_[k]->mutable_cpu_diff();
          for (int i = 0; i < pixels_; ++i) {
            const size_t at = static_cast<size_t>(i) * stride_;
            for (int c = 0; c < classes_; ++c) {
              weight_diff[c] += message_diff[at + c] * sliced_[at + c];
            }
          }
        }
      }
      // the weights are of the class alone, so they may come after the filter
      Blur(arriving, true);
      kernels_.slice(blurred_.data(), blurred_.size(), pixels_, stride_,
          diff.data());
    }
    if (propagate_down[0]) {
      ToPlanes(score_diff.data(),
          bottom[0]->mutable_cpu_diff() + bottom[0]->offset(n));
    }
  }
}

#ifdef CPU_ONLY
STUB_GPU(DenseCRFLayer);
#endif

INSTANTIATE_CLASS(DenseCRFLayer);
REGISTER_LAYER_CLASS(DenseCRF);

}  // namespace caffe
