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
  crf_ = Settings();
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
  classes_ = bottom[0]->shape(1);
  CHECK_GT(classes_, 0) << Who() << "the scores have no class";
  positional_height_ = positional_width_ = 0;
  const bool matrix =
      crf_.kernel_weights() == DenseCRFParameter_ClassMatrix_MATRIX;
  learned_weights_ = crf_.learn() || matrix;
  mixing_.classes = classes_;
  for (int k = 0; k < 2; ++k) {
    mixing_.weights[k].common = k == 0 ? crf_.pos_w() : crf_.bi_w();
    mixing_.weights[k].full = matrix;
  }
  if (this->blobs_.empty()) { FillBlobs(); }
  CheckBlobs();
  CHECK(this->blobs_.empty() || crf_.output() != DenseCRFParameter_Output_LABEL)
      << Who() << "output LABEL has no gradient, so nothing can be learned";
  this->param_propagate_down_.resize(this->blobs_.size(), true);
}

template <typename Dtype>
vector<vector<int> > DenseCRFLayer<Dtype>::BlobShapes() const {
  vector<vector<int> > shapes;
  vector<int> matrix(4, 1);
  matrix[2] = matrix[3] = classes_;
  if (learned_weights_) {
    shapes.assign(2,
        mixing_.weights[0].full ? matrix : vector<int>(1, classes_));
  }
  if (crf_.compatibility() == DenseCRFParameter_ClassMatrix_MATRIX) {
    shapes.push_back(matrix);
  } else if (crf_.learn()) {
    shapes.push_back(vector<int>(2, classes_));
  }
  return shapes;
}

template <typename Dtype>
int DenseCRFLayer<Dtype>::CompatibilityBlob() const {
  const int weights = learned_weights_ ? 2 : 0;
  return static_cast<int>(this->blobs_.size()) > weights ? weights : -1;
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::FillBlobs() {
  for (const vector<int>& shape : BlobShapes()) {
    this->blobs_.push_back(shared_ptr<Blob<Dtype> >(new Blob<Dtype>(shape)));
    caffe_set(this->blobs_.back()->count(), Dtype(0),
        this->blobs_.back()->mutable_cpu_data());
  }
  for (int k = 0; k < 2 && learned_weights_; ++k) {
    Dtype* const weight = this->blobs_[k]->mutable_cpu_data();
    for (int c = 0; c < classes_; ++c) {
      weight[c * (mixing_.weights[k].full ? classes_ + 1 : 1)] =
          mixing_.weights[k].common;
    }
  }
  if (CompatibilityBlob() < 0) { return; }
  const bool matrix =
      crf_.compatibility() == DenseCRFParameter_ClassMatrix_MATRIX;
  Dtype* const compatibility =
      this->blobs_[CompatibilityBlob()]->mutable_cpu_data();
  for (int i = 0; i < classes_ * classes_; ++i) {
    const bool on_diagonal = i % (classes_ + 1) == 0;
    compatibility[i] = matrix ? -on_diagonal : !on_diagonal;
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::CheckBlobs() const {
  const vector<vector<int> > shapes = BlobShapes();
  CHECK_EQ(shapes.size(), this->blobs_.size())
      << Who() << "it has as many parameter blobs as kernel_weights, "
      << "compatibility and learn say (kernel_weights: MATRIX two, "
      << "compatibility: MATRIX one, learn: true three)";
  for (size_t i = 0; i < shapes.size(); ++i) {
    CHECK(this->blobs_[i]->shape() == shapes[i])
        << Who() << "parameter blob " << i << " ("
        << (static_cast<int>(i) == CompatibilityBlob() ? "compatibility" :
            i == 0 ? "the positional kernel's weights" :
            "the bilateral kernel's weights")
        << ") is " << this->blobs_[i]->shape_string() << " and with "
        << classes_ << " classes must be " << Blob<Dtype>(shapes[i])
        .shape_string() << "; weights of other classes cannot be used";
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  CHECK_EQ(4, bottom[0]->num_axes())
      << Who() << "the scores must be N x C x H x W";
  const Blob<Dtype>& image = *bottom.back();
  CHECK_EQ(4, image.num_axes()) << Who() << "the image must be N x 3 x H x W";
  CHECK_EQ(classes_, bottom[0]->channels())
      << Who() << "the number of classes cannot change";
  CHECK_EQ(3, image.channels()) << Who() << "the image must have 3 channels";
  CHECK_EQ(bottom[0]->num(), image.num())
      << Who() << "scores and images must be as many";
  CHECK(bottom[0]->height() == image.height() &&
      bottom[0]->width() == image.width())
      << Who() << "the scores are " << bottom[0]->height() << " x "
      << bottom[0]->width() << " and the image is " << image.height()
      << " x " << image.width()
      << "; bring the scores to the image's size first "
      << "(BilinearInterpolation)";
  CHECK(bottom.size() == 2 || bottom[1]->shape() == bottom[0]->shape())
      << Who() << "what the first probabilities are the softmax of is "
      << bottom[1]->shape_string() << " and the scores are "
      << bottom[0]->shape_string() << "; they must be alike";
  height_ = bottom[0]->height();
  width_ = bottom[0]->width();
  pixels_ = height_ * width_;
  vector<int> shape = bottom[0]->shape();
  if (crf_.output() == DenseCRFParameter_Output_LABEL) { shape[1] = 1; }
  top[0]->Reshape(shape);
}

template <typename Dtype>
const ClassMixing<Dtype>& DenseCRFLayer<Dtype>::Mixing(bool on_gpu) {
  const auto data = [&](int blob) {
    return on_gpu ? this->blobs_[blob]->gpu_data() :
        this->blobs_[blob]->cpu_data();
  };
  for (int k = 0; k < 2 && learned_weights_; ++k) {
    mixing_.weights[k].values = data(k);
  }
  const int compatibility = CompatibilityBlob();
  mixing_.compatibility = compatibility < 0 ? NULL : data(compatibility);
  return mixing_;
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::LoadParameters() {
  stride_ = MeanFieldStride<Dtype>(classes_);
  Mixing(false);
  for (int k = 0; k < 2; ++k) {
    weight_[k].assign(stride_,
        mixing_.Learned() ? Dtype(1) : mixing_.weights[k].common);
    if (!mixing_.Learned() || !mixing_.Uses(k)) { continue; }
    gain_[k].assign(stride_ * stride_, Dtype(0));
#pragma omp parallel for schedule(static)
    for (int i = 0; i < classes_; ++i) {
      for (int j = 0; j < classes_; ++j) {
        gain_[k][i * stride_ + j] = mixing_.Gain(k, i, j);
      }
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
  const Blob<Dtype>& images = *bottom.back();
  const Dtype* image = images.cpu_data() + images.offset(n);
  const int values = mixing_.Uses(1) ? 3 * pixels_ : 0;
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
  const LatticeNormalization normalization = MakeNormalization(crf_);
  if (mixing_.Uses(0) && !kept) {
    positional_height_ = positional_width_ = 0;
    CHECK(positional_.Build(MakePositionalFeatures(crf_, width_), pixels_,
        normalization)) << WhyNoLattice(bottom, n);
    positional_height_ = height_;
    positional_width_ = width_;
  }
  if (mixing_.Uses(1)) {
    const Blob<Dtype>& images = *bottom.back();
    CHECK(bilateral_.Build(MakeBilateralFeatures<Dtype>(crf_,
        images.cpu_data() + images.offset(n), height_, width_), pixels_,
        normalization)) << WhyNoLattice(bottom, n);
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Blur(const Dtype* rows, bool transposed) {
  blurred_.clear();
  for (int k = 0; k < 2; ++k) {
    if (!mixing_.Uses(k)) { continue; }
    BlurredKernel<Dtype> kernel;
    kernel.plan =
        k == 0 ? positional_.plan(transposed) : bilateral_.plan(transposed);
    kernel.weight = weight_[k].data();
    const size_t size =
        static_cast<size_t>(kernel.plan.vertices + 1) * stride_;
    if (values_[k].size() < size) { values_[k].resize(size); }
    kernel.values = values_[k].data();
    kernels_.splat_and_blur(kernel.plan, stride_, rows, values_[k].data());
    blurred_.push_back(kernel);
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::Mix() {
  for (size_t n = 0, k = 0; n < blurred_.size(); ++n, ++k) {
    if (!mixing_.Uses(k)) { ++k; }
    const int vertices = blurred_[n].plan.vertices;
    const size_t size = static_cast<size_t>(vertices + 1) * stride_;
    if (mixed_[k].size() < size) { mixed_[k].resize(size); }
    caffe_cpu_gemm<Dtype>(CblasNoTrans, CblasTrans, vertices, stride_, stride_,
        Dtype(1), blurred_[n].values + stride_, gain_[k].data(), Dtype(0),
        mixed_[k].data() + stride_);
    blurred_[n].values = mixed_[k].data();
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::LearnedDiffs(const Dtype* probability, Dtype* diff) {
  sliced_.resize(scores_.size());
  if (blurred_.empty()) { std::fill_n(diff, scores_.size(), Dtype(0)); }
  for (size_t n = 0, k = 0; n < blurred_.size(); ++n, ++k) {
    if (!mixing_.Uses(k)) { ++k; }
    kernels_.slice(&blurred_[n], 1, pixels_, stride_, sliced_.data());
    // with g the gradient of the logits: dG_k = (N_k^T g)^T Q,
    // dQ = sum_k (N_k^T g) G_k
    caffe_cpu_gemm<Dtype>(CblasTrans, CblasNoTrans, stride_, stride_, pixels_,
        Dtype(1), sliced_.data(), probability, Dtype(1), gain_diff_[k].data());
    caffe_cpu_gemm<Dtype>(CblasNoTrans, CblasNoTrans, pixels_, stride_, stride_,
        Dtype(1), sliced_.data(), gain_[k].data(), Dtype(n > 0), diff);
  }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::MeanField(const vector<Blob<Dtype>*>& bottom, int n,
    bool keep_history) {
  const int iterations = crf_.max_iter();
  history_.resize(keep_history ? iterations + 1 : 1);
  for (size_t t = 0; t < history_.size(); ++t) {
    history_[t].resize(scores_.size());
  }
  const Dtype impossible = -std::numeric_limits<Dtype>::infinity();
  ToRows(bottom[0]->cpu_data() + bottom[0]->offset(n), impossible,
      scores_.data());
  const bool has_start = bottom.size() == 3;
  if (has_start) {
    ToRows(bottom[1]->cpu_data() + bottom[1]->offset(n), impossible,
        logits_.data());
  } else if (iterations == 0) {
    logits_ = scores_;
  }
  kernels_.softmax(has_start ? logits_.data() : scores_.data(), pixels_,
      stride_, history_[0].data());
  for (int t = 0; t < iterations; ++t) {
    Blur(history_[keep_history ? t : 0].data(), false);
    if (mixing_.Learned()) { Mix(); }
    kernels_.slice_and_softmax(blurred_.data(), blurred_.size(), pixels_,
        stride_, scores_.data(), t + 1 == iterations ? logits_.data() : NULL,
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
    MeanField(bottom, n, false);
    Dtype* result = top[0]->mutable_cpu_data() + top[0]->offset(n);
    if (crf_.output() == DenseCRFParameter_Output_PROBABILITY) {
      ToPlanes(history_[0].data(), result);
      continue;
    }
    if (crf_.output() == DenseCRFParameter_Output_SCORE) {
      ToPlanes(logits_.data(), result);
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
  CHECK(!propagate_down.back()) << Who() << "the image gets no gradient";
  const bool has_start = bottom.size() == 3;
  if (!propagate_down[0] && !(has_start && propagate_down[1]) &&
      this->blobs_.empty()) {
    return;
  }
  CHECK(crf_.output() != DenseCRFParameter_Output_LABEL)
      << Who() << "output LABEL has no gradient";
  LoadParameters();
  const int iterations = crf_.max_iter();
  const size_t size = scores_.size();
  std::vector<Dtype> score_diff(size), diff(size), logit_diff(size);
  for (int k = 0; k < 2; ++k) {
    gain_diff_[k].assign(mixing_.Learned() ? stride_ * stride_ : 0, Dtype(0));
  }
  for (int n = 0; n < bottom[0]->num(); ++n) {
    Build(bottom, n);
    MeanField(bottom, n, true);
    ToRows(top[0]->cpu_diff() + top[0]->offset(n), Dtype(0), diff.data());
    std::fill(score_diff.begin(), score_diff.end(), Dtype(0));
    for (int t = iterations; t >= 0; --t) {
      const Dtype* probability = history_[t].data();
      const bool of_logarithm = t == iterations &&
          crf_.output() == DenseCRFParameter_Output_LOG_PROBABILITY;
      const bool of_logit = t == iterations &&
          crf_.output() == DenseCRFParameter_Output_SCORE;
      const bool of_start = t == 0 && has_start;
#pragma omp parallel for schedule(static)
      for (int i = 0; i < pixels_; ++i) {
        const size_t at = static_cast<size_t>(i) * stride_;
        Dtype sum = 0;
        for (int c = 0; c < stride_; ++c) {
          sum += of_logarithm ? diff[at + c] :
              diff[at + c] * probability[at + c];
        }
        for (int c = 0; c < stride_; ++c) {
          logit_diff[at + c] = of_logit ? diff[at + c] : of_logarithm ?
              diff[at + c] - probability[at + c] * sum :
              probability[at + c] * (diff[at + c] - sum);
          if (!of_start) { score_diff[at + c] += logit_diff[at + c]; }
        }
      }
      if (of_start && propagate_down[1]) {
        ToPlanes(logit_diff.data(),
            bottom[1]->mutable_cpu_diff() + bottom[1]->offset(n));
      }
      if (t == 0) { break; }
      // the weights are of the class alone, so they may come after the filter
      Blur(logit_diff.data(), true);
      if (mixing_.Learned()) {
        LearnedDiffs(history_[t - 1].data(), diff.data());
      } else {
        kernels_.slice(blurred_.data(), blurred_.size(), pixels_, stride_,
            diff.data());
      }
    }
    if (propagate_down[0]) {
      ToPlanes(score_diff.data(),
          bottom[0]->mutable_cpu_diff() + bottom[0]->offset(n));
    }
  }
  if (iterations > 0 && mixing_.Learned()) { AddParameterDiffs(); }
}

template <typename Dtype>
void DenseCRFLayer<Dtype>::AddParameterDiffs() {
  const int compatibility = CompatibilityBlob();
  for (int k = 0; k < 2; ++k) {
    if (!mixing_.Uses(k)) { continue; }
    std::vector<Dtype> gain_diff(classes_ * classes_);
    for (int i = 0; i < classes_; ++i) {
      std::copy_n(&gain_diff_[k][i * stride_], classes_,
          &gain_diff[i * classes_]);
    }
    const bool full = mixing_.weights[k].full;
    if (learned_weights_ && this->param_propagate_down_[k]) {
      Dtype* const to = this->blobs_[k]->mutable_cpu_diff();
      for (int e = 0; e < this->blobs_[k]->count(); ++e) {
        to[e] += mixing_.WeightDiff(full ? e / classes_ : e,
            full ? e % classes_ : e, gain_diff.data());
      }
    }
    if (compatibility >= 0 && this->param_propagate_down_[compatibility]) {
      Dtype* const to = this->blobs_[compatibility]->mutable_cpu_diff();
      for (int e = 0; e < classes_ * classes_; ++e) {
        to[e] += mixing_.CompatibilityDiff(k, e / classes_, e % classes_,
            gain_diff.data());
      }
    }
  }
}

#ifdef CPU_ONLY
STUB_GPU(DenseCRFLayer);
#endif

INSTANTIATE_CLASS(DenseCRFLayer);
REGISTER_LAYER_CLASS(DenseCRF);

}  // namespace caffe
