#include <vector>

#include "caffe/layer_factory.hpp"
#include "caffe/layers/seg_accuracy_layer.hpp"

namespace caffe {

template <typename Dtype>
void SegAccuracyLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& /* top */) {
  const SegAccuracyParameter& param = this->layer_param_.seg_accuracy_param();
  ignored_.clear();
  ignored_.insert(param.ignore_label().begin(), param.ignore_label().end());
  classes_ = bottom[0]->num_axes() > 1 ? bottom[0]->shape(1) : 0;
  confusion_.assign(static_cast<size_t>(classes_) * classes_, 0);
}

template <typename Dtype>
void SegAccuracyLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  const string name = "SegAccuracy layer '" + this->layer_param_.name() + "': ";
  CHECK(classes_ > 0 && bottom[0]->num_axes() > 1 &&
      bottom[0]->shape(1) == classes_) << name << "scores of "
      << bottom[0]->shape_string() << "; expected N x C x H x W with C = "
      << classes_ << " classes";
  CHECK_EQ(bottom[0]->count() / classes_, bottom[1]->count()) << name
      << "labels of " << bottom[1]->shape_string() << " for scores of "
      << bottom[0]->shape_string() << "; expected N x 1 x H x W";
  const int shape[] = {1, 1, 1, 3};
  top[0]->Reshape(vector<int>(shape, shape + 4));
}

template <typename Dtype>
void SegAccuracyLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  if (this->layer_param_.seg_accuracy_param().reset()) {
    confusion_.assign(confusion_.size(), 0);
  }
  const int plane = bottom[0]->count(2);
  const Dtype* const scores = bottom[0]->cpu_data();
  const Dtype* const labels = bottom[1]->cpu_data();
  for (int pixel = 0; pixel < bottom[1]->count(); ++pixel) {
    const int label = static_cast<int>(labels[pixel]);
    if (ignored_.count(label)) { continue; }
    CHECK(labels[pixel] == label && label >= 0 && label < classes_)
        << "SegAccuracy layer '" << this->layer_param_.name() << "': label "
        << labels[pixel] << " of image " << pixel / plane << " at row "
        << pixel % plane / bottom[0]->shape(-1) << ", column "
        << pixel % plane % bottom[0]->shape(-1) << " is none of the " << classes_
        << " classes; seg_accuracy_param { ignore_label } leaves labels out";
    const Dtype* const own = scores +
        static_cast<size_t>(pixel / plane) * classes_ * plane + pixel % plane;
    int best = 0;
    for (int c = 1; c < classes_; ++c) {
      if (own[static_cast<size_t>(c) * plane] >=
          own[static_cast<size_t>(best) * plane]) { best = c; }
    }
    ++confusion_[static_cast<size_t>(label) * classes_ + best];
  }
  double right = 0, all = 0, recall = 0, overlap = 0;
  int present = 0;
  for (int i = 0; i < classes_; ++i) {
    double there = 0, predicted = 0;
    for (int j = 0; j < classes_; ++j) {
      there += confusion_[static_cast<size_t>(i) * classes_ + j];
      predicted += confusion_[static_cast<size_t>(j) * classes_ + i];
    }
    const double hits = confusion_[static_cast<size_t>(i) * classes_ + i];
    right += hits;
    all += there;
    if (there > 0) {
      recall += hits / there;
      ++present;
    }
    const double either = there + predicted - hits;
    overlap += either > 0 ? hits / either : 1;
  }
  Dtype* const result = top[0]->mutable_cpu_data();
  result[0] = all > 0 ? right / all : 0;
  result[1] = present > 0 ? recall / present : 0;
  result[2] = overlap / classes_;
}

template <typename Dtype>
void SegAccuracyLayer<Dtype>::Backward_cpu(
    const vector<Blob<Dtype>*>& /* top */, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& /* bottom */) {
  for (const bool asked : propagate_down) {
    CHECK(!asked) << "SegAccuracy layer '" << this->layer_param_.name()
        << "': scores have no gradient";
  }
}

INSTANTIATE_CLASS(SegAccuracyLayer);
REGISTER_LAYER_CLASS(SegAccuracy);

}  // namespace caffe
