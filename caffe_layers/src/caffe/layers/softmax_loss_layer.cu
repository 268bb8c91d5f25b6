#include <cfloat>
#include <vector>

#include "caffe/layers/softmax_loss_layer.hpp"
#include "caffe/util/labels.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

// A label that is no class gives NaN, which tells the host to look at them all.
template <typename Dtype>
__global__ void SoftmaxLossForwardKernel(int pixels, int classes, int inner,
    bool ignores, int ignore_label, const Dtype* prob, const Dtype* label,
    const Dtype* class_weight, Dtype* weight, Dtype* loss, Dtype* counted) {
  CUDA_KERNEL_LOOP(pixel, pixels) {
    const int value = static_cast<int>(label[pixel]);
    if (counted != NULL) {
      counted[pixel] = !(ignores && value == ignore_label);
    }
    if (ignores && value == ignore_label) {
      weight[pixel] = 0;
      loss[pixel] = 0;
    } else if (!IsClass(label[pixel], classes)) {
      weight[pixel] = 1;
      loss[pixel] = NAN;
    } else {
      const Dtype own = class_weight == NULL ? Dtype(1) : class_weight[value];
      const int place = pixel / inner * classes * inner + value * inner +
          pixel % inner;
      weight[pixel] = own;
      loss[pixel] = own == 0 ? Dtype(0) :
          own * -log(max(prob[place], Dtype(FLT_MIN)));
    }
  }
}

template <typename Dtype>
__global__ void KeepWorstKernel(int pixels, HardExamples<Dtype> worst,
    Dtype* weight, Dtype* loss, Dtype* counted) {
  CUDA_KERNEL_LOOP(pixel, pixels) {
    const Dtype counts = worst.Counts(loss[pixel]);
    weight[pixel] *= counts;
    loss[pixel] *= counts;
    if (counted != NULL) { counted[pixel] *= counts; }
  }
}

template <typename Dtype>
__global__ void SoftmaxLossBackwardKernel(int count, int classes, int inner,
    Dtype scale, const Dtype* prob, const Dtype* label, const Dtype* weight,
    Dtype* diff) {
  CUDA_KERNEL_LOOP(index, count) {
    const int c = index / inner % classes;
    const int pixel = index / (classes * inner) * inner + index % inner;
    const Dtype truth = static_cast<int>(label[pixel]) == c;
    diff[index] = weight[pixel] == 0 ? Dtype(0) :
        (prob[index] - truth) * (weight[pixel] * scale);
  }
}

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::Forward_gpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  softmax_layer_->Forward(softmax_bottom_, softmax_top_);
  const int pixels = pixel_loss_.count();
  Dtype* weight = pixel_weight_.mutable_gpu_data();
  Dtype* loss = pixel_loss_.mutable_gpu_data();
  Dtype* counted = counts_pixels_ ? pixel_count_.mutable_gpu_data() : NULL;
  // NOLINT_NEXT_LINE(whitespace/operators)
  SoftmaxLossForwardKernel<Dtype><<<CAFFE_GET_BLOCKS(pixels),
      CAFFE_CUDA_NUM_THREADS>>>(pixels, classes(), inner_num_, ignores_,
      ignore_label_, prob_.gpu_data(), bottom[1]->gpu_data(),
      has_class_weights() ? class_weight_.gpu_data() : NULL, weight, loss,
      counted);
  CUDA_POST_KERNEL_CHECK;
  if (mines()) {
    const HardExamples<Dtype> worst = FindWorst();
    // NOLINT_NEXT_LINE(whitespace/operators)
    KeepWorstKernel<Dtype><<<CAFFE_GET_BLOCKS(pixels),
        CAFFE_CUDA_NUM_THREADS>>>(pixels, worst,
        pixel_weight_.mutable_gpu_data(), pixel_loss_.mutable_gpu_data(),
        counted);
    CUDA_POST_KERNEL_CHECK;
  }
  Dtype loss_sum;
  caffe_gpu_asum(pixels, pixel_loss_.gpu_data(), &loss_sum);
  if (!(loss_sum >= 0)) {
    CheckLabels(this->layer_param_, *bottom[1], classes(), ignored());
  }
  Dtype sum = pixels;
  if (normalization_ == LossParameter_NormalizationMode_VALID &&
      (ignores_ || has_class_weights() || mines())) {
    caffe_gpu_asum(pixels,
        (counts_pixels_ ? pixel_count_ : pixel_weight_).gpu_data(), &sum);
  }
  normalizer_ = Normalizer(sum);
  top[0]->mutable_cpu_data()[0] = loss_sum / normalizer_;
  if (top.size() == 2) {
    top[1]->ShareData(prob_);
  }
}

template <typename Dtype>
void SoftmaxWithLossLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  CheckPropagation(propagate_down);
  if (!propagate_down[0]) { return; }
  const int count = prob_.count();
  const Dtype scale = top[0]->cpu_diff()[0] / normalizer_;
  // NOLINT_NEXT_LINE(whitespace/operators)
  SoftmaxLossBackwardKernel<Dtype><<<CAFFE_GET_BLOCKS(count),
      CAFFE_CUDA_NUM_THREADS>>>(count, classes(), inner_num_, scale,
      prob_.gpu_data(), bottom[1]->gpu_data(), pixel_weight_.gpu_data(),
      bottom[0]->mutable_gpu_diff());
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(SoftmaxWithLossLayer);

}  // namespace caffe
