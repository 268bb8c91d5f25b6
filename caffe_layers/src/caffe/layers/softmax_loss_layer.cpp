#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "caffe/distributed/collective_queue.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/softmax_loss_layer.hpp"
#include "caffe/util/labels.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::LayerSetUp(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  LossLayer<Dtype>::LayerSetUp(bottom, top);
  LayerParameter softmax(this->layer_param_);
  softmax.set_type("Softmax");
  softmax.clear_loss_weight();  // it would fill the probabilities' gradient
  softmax_layer_ = LayerRegistry<Dtype>::CreateLayer(softmax);
  softmax_bottom_.assign(1, bottom[0]);
  softmax_top_.assign(1, &prob_);
  softmax_layer_->SetUp(softmax_bottom_, softmax_top_);

  const LossParameter& loss = this->layer_param_.loss_param();
  ignores_ = loss.has_ignore_label();
  ignore_label_ = loss.ignore_label();
  normalization_ = loss.normalization();
  if (!loss.has_normalization() && loss.has_normalize()) {
    normalization_ = loss.normalize() ? LossParameter_NormalizationMode_VALID :
        LossParameter_NormalizationMode_BATCH_SIZE;
  }

  const string& name = this->layer_param_.name();
  hard_example_fraction_ = loss.hard_example_fraction();
  CHECK(hard_example_fraction_ > 0 && hard_example_fraction_ <= 1)
      << "SoftmaxWithLoss layer '" << name << "': hard_example_fraction is "
      << hard_example_fraction_ << ", expected a share of the pixels: over 0, "
      "and 1 for all of them";
  counts_pixels_ = loss.weight_by_label_freqs();
  const vector<float> weights = ReadClassWeights();
  if (weights.empty()) { return; }
  const char* const field =
      counts_pixels_ ? "class_weighting" : "class_weight";
  class_weight_.Reshape(vector<int>(1, weights.size()));
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    CHECK(weights[i] >= 0 && std::isfinite(weights[i]))
        << "SoftmaxWithLoss layer '" << name << "': " << field << " of class "
        << i << " is " << weights[i] << ", expected a number of 0 or more";
    class_weight_.mutable_cpu_data()[i] = weights[i];
    sum += weights[i];
  }
  CHECK_GT(sum, 0) << "SoftmaxWithLoss layer '" << name << "': every " << field
      << " is 0, so that nothing would be learnt";
}

template <typename Dtype>
vector<float> SoftmaxWithLossLayer<Dtype>::ReadClassWeights() const {
  const LossParameter& loss = this->layer_param_.loss_param();
  const string name = "SoftmaxWithLoss layer '" + this->layer_param_.name() +
      "': ";
  CHECK(!loss.weight_by_label_freqs() || loss.class_weighting_size() > 0)
      << name << "weight_by_label_freqs without class_weighting; give it once "
      "for each class, in their order";
  CHECK(!loss.weight_by_label_freqs() || loss.class_weight_size() == 0) << name
      << "class_weight and weight_by_label_freqs are two ways to weigh classes; "
      "give one of them";
  if (loss.weight_by_label_freqs()) {
    return vector<float>(loss.class_weighting().begin(),
        loss.class_weighting().end());
  }
  if (loss.class_weighting_size() > 0) {
    LOG(WARNING) << name << "class_weighting counts with weight_by_label_freqs:"
        " true alone, as in SegNet's fork";
  }
  return vector<float>(loss.class_weight().begin(), loss.class_weight().end());
}

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::Reshape(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  LossLayer<Dtype>::Reshape(bottom, top);
  softmax_layer_->Reshape(softmax_bottom_, softmax_top_);
  softmax_axis_ =
      bottom[0]->CanonicalAxisIndex(this->layer_param_.softmax_param().axis());
  outer_num_ = bottom[0]->count(0, softmax_axis_);
  inner_num_ = bottom[0]->count(softmax_axis_ + 1);
  CHECK_EQ(outer_num_ * inner_num_, bottom[1]->count())
      << "SoftmaxWithLoss layer '" << this->layer_param_.name()
      << "': needs a label for each pixel: scores of N x C x H x W take "
         "N*H*W labels of 0 to C - 1";
  CHECK(!has_class_weights() || class_weight_.count() == classes())
      << "SoftmaxWithLoss layer '" << this->layer_param_.name() << "': "
      << class_weight_.count()
      << (counts_pixels_ ? " class_weighting" : " class_weight")
      << " for the scores of " << classes()
      << " classes; expected one for each class, in their order";
  pixel_weight_.Reshape(vector<int>(1, outer_num_ * inner_num_));
  pixel_loss_.ReshapeLike(pixel_weight_);
  if (counts_pixels_) { pixel_count_.ReshapeLike(pixel_weight_); }
  if (top.size() >= 2) {
    top[1]->ReshapeLike(*bottom[0]);
  }
}

template <typename Dtype>
HardExamples<Dtype> SoftmaxWithLossLayer<Dtype>::FindWorst() {
  const Dtype* weight = pixel_weight_.cpu_data();
  const Dtype* loss = pixel_loss_.cpu_data();
  ranked_.clear();
  for (int i = 0; i < pixel_loss_.count(); ++i) {
    if (weight[i] > 0) { ranked_.push_back(loss[i]); }
  }
  CollectiveQueue* const ranks =
      RanksOf(this->phase_, this->layer_param_.loss_param().scope());
  if (ranks != NULL) { ranks->Gather(&ranked_); }
  return FindHardExamples(&ranked_, hard_example_fraction_);
}

template <typename Dtype>
Dtype SoftmaxWithLossLayer<Dtype>::Normalizer(double sum) const {
  double normalizer = 1;
  switch (normalization_) {
  case LossParameter_NormalizationMode_FULL:
    normalizer = outer_num_ * inner_num_;
    break;
  case LossParameter_NormalizationMode_VALID:
    normalizer = sum;
    break;
  case LossParameter_NormalizationMode_BATCH_SIZE:
    normalizer = outer_num_;
    break;
  case LossParameter_NormalizationMode_NONE:
    break;
  }
  return NormalizerOverRanks(this->layer_param_, normalizer,
      normalization_ != LossParameter_NormalizationMode_NONE);
}

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::CheckPropagation(
    const vector<bool>& propagate_down) const {
  CHECK(!propagate_down[1]) << "SoftmaxWithLoss layer '"
      << this->layer_param_.name() << "': labels have no gradient";
}

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::Forward_cpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  softmax_layer_->Forward(softmax_bottom_, softmax_top_);
  CheckLabels(this->layer_param_, *bottom[1], classes(), ignored());
  const Dtype* prob = prob_.cpu_data();
  const Dtype* label = bottom[1]->cpu_data();
  const Dtype* class_weight =
      has_class_weights() ? class_weight_.cpu_data() : NULL;
  Dtype* weight = pixel_weight_.mutable_cpu_data();
  Dtype* loss = pixel_loss_.mutable_cpu_data();
  Dtype* counted = counts_pixels_ ? pixel_count_.mutable_cpu_data() : NULL;
  for (int i = 0; i < outer_num_; ++i) {
    const Dtype* map = prob + i * classes() * inner_num_;
#pragma omp parallel for if (inner_num_ > 10000)
    for (int j = 0; j < inner_num_; ++j) {
      const int pixel = i * inner_num_ + j;
      const int value = static_cast<int>(label[pixel]);
      const bool ignored = ignores_ && value == ignore_label_;
      if (counted != NULL) { counted[pixel] = !ignored; }
      if (ignored) {
        weight[pixel] = loss[pixel] = 0;
        continue;
      }
      weight[pixel] = class_weight == NULL ? 1 : class_weight[value];
      loss[pixel] = weight[pixel] == 0 ? 0 : weight[pixel] *
          -std::log(std::max(map[value * inner_num_ + j], Dtype(FLT_MIN)));
    }
  }
  if (mines()) {
    const HardExamples<Dtype> worst = FindWorst();
    for (int pixel = 0; pixel < pixel_loss_.count(); ++pixel) {
      const Dtype counts = worst.Counts(loss[pixel]);
      weight[pixel] *= counts;
      loss[pixel] *= counts;
      if (counted != NULL) { counted[pixel] *= counts; }
    }
  }
  const Dtype* const added = counted != NULL ? counted : weight;
  Dtype loss_sum = 0;
  double sum = 0;
  for (int pixel = 0; pixel < pixel_loss_.count(); ++pixel) {
    loss_sum += loss[pixel];
    sum += added[pixel];
  }
  normalizer_ = Normalizer(sum);
  top[0]->mutable_cpu_data()[0] = loss_sum / normalizer_;
  if (top.size() == 2) {
    top[1]->ShareData(prob_);
  }
}

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  CheckPropagation(propagate_down);
  if (!propagate_down[0]) { return; }
  const int channels = classes();
  const Dtype scale = top[0]->cpu_diff()[0] / normalizer_;
  const Dtype* all_probs = prob_.cpu_data();
  const Dtype* all_labels = bottom[1]->cpu_data();
  const Dtype* all_weights = pixel_weight_.cpu_data();
  Dtype* all_diffs = bottom[0]->mutable_cpu_diff();
#pragma omp parallel for collapse(2) if (prob_.count() > 10000)
  for (int i = 0; i < outer_num_; ++i) {
    for (int c = 0; c < channels; ++c) {
      const Dtype* prob = all_probs + (i * channels + c) * inner_num_;
      const Dtype* label = all_labels + i * inner_num_;
      const Dtype* weight = all_weights + i * inner_num_;
      Dtype* diff = all_diffs + (i * channels + c) * inner_num_;
      for (int j = 0; j < inner_num_; ++j) {
        const Dtype truth = static_cast<int>(label[j]) == c;
        // not a product with 0: a pixel that does not count may be NaN
        diff[j] = weight[j] == 0 ? 0 : (prob[j] - truth) * (weight[j] * scale);
      }
    }
  }
}

#ifdef CPU_ONLY
STUB_GPU(SoftmaxWithLossLayer);
#endif

INSTANTIATE_CLASS(SoftmaxWithLossLayer);
REGISTER_LAYER_CLASS(SoftmaxWithLoss);

}  // namespace caffe
