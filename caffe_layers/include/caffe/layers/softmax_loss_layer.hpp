#ifndef CAFFE_SOFTMAX_LOSS_LAYER_HPP_
#define CAFFE_SOFTMAX_LOSS_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"

#include "caffe/layers/loss_layer.hpp"
#include "caffe/util/hard_examples.hpp"

namespace caffe {

/**
 * @brief Cross entropy of a softmax over the class scores, with weights of the
 *        classes and hard example mining; in place of Caffe's own layer of this
 *        name, whose bits it gives where neither is asked for.
 *
 * A pixel i with label @f$ l_i @f$ has the loss
 * @f$ e_i = -w_{l_i} \log \mathrm{softmax}(x_i)_{l_i} @f$, where w are the
 * class weights. With @f$ k_i = 1 @f$ for the pixels that count (0 for ignored
 * ones, and for all but the worst where hard examples are asked for)
 * @f$ E = \sum_i k_i e_i / Z @f$, where Z is
 *   - VALID: @f$ \sum_i k_i w_{l_i} @f$, a weighted mean as in PyTorch's
 *     CrossEntropyLoss, so that the loss's size, and with it the right learning
 *     rate, does not hang on that of the weights. (InfogainLoss divides by the
 *     number of pixels.) Without weights it is the number of pixels that count.
 *   - FULL, BATCH_SIZE, NONE: the number of all pixels, that of images, 1.
 *
 * Where no pixel counts E is 0. Where several processes train together, Z and
 * the worst pixels are those of the whole batch, and the mean of their losses is
 * E; with the scope LOCAL each process looks at its own part of the batch, and
 * the mean is that of the parts' E, as in iter_size.
 *
 * bottom[0]: scores, N x C x H x W (or others, classes along softmax_param's
 * axis). bottom[1]: labels, as many as there are pixels. top[0]: E.
 * top[1] (optional): the softmax, as bottom[0]. Backward uses what the last
 * Forward found out about the pixels, as often as called; which of them are the
 * worst is taken as given.
 */
template <typename Dtype>
class SoftmaxWithLossLayer : public LossLayer<Dtype> {
 public:
  /**
   * @param param provides LossParameter loss_param:
   *   - ignore_label (\b optional). Pixels with this label count nowhere.
   *   - normalization (\b optional, default VALID), normalize (as in Caffe).
   *   - class_weight (\b optional). C numbers of 0 or more, not all 0.
   *   - weight_by_label_freqs, class_weighting (\b optional). SegNet's names:
   *     with the first, w is class_weighting, and VALID's Z is
   *     @f$ \sum_i k_i @f$, the number of pixels that count.
   *   - hard_example_fraction (\b optional, default 1). The share of the
   *     batch's pixels that counts, 0 < fraction <= 1, rounded up: those with
   *     the largest @f$ e_i @f$. Of pixels that tie for the last places each
   *     counts with the same part. Ignored pixels and those of weight 0 are
   *     none of them. On a GPU the losses, a number for each pixel, are ranked
   *     by the CPU.
   *   - scope (\b optional, default WHOLE). Several processes' batch or, LOCAL,
   *     each one's part.
   */
  explicit SoftmaxWithLossLayer(const LayerParameter& param)
      : LossLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "SoftmaxWithLoss"; }
  virtual inline int ExactNumTopBlobs() const { return -1; }
  virtual inline int MinTopBlobs() const { return 1; }
  virtual inline int MaxTopBlobs() const { return 2; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);

 private:
  int classes() const { return prob_.shape(softmax_axis_); }
  const int* ignored() const { return ignores_ ? &ignore_label_ : NULL; }
  bool has_class_weights() const { return class_weight_.count() > 0; }
  bool mines() const { return hard_example_fraction_ < 1; }
  /// The class weights that the fields give.
  vector<float> ReadClassWeights() const;
  /// Which pixels are the worst, by pixel_loss_ and pixel_weight_.
  HardExamples<Dtype> FindWorst();
  /// Z for this sum of what VALID adds up.
  Dtype Normalizer(double sum) const;
  /// Dies where the gradient of labels is asked for.
  void CheckPropagation(const vector<bool>& propagate_down) const;

  shared_ptr<Layer<Dtype> > softmax_layer_;
  vector<Blob<Dtype>*> softmax_bottom_, softmax_top_;
  Blob<Dtype> prob_;          ///< the softmax, as bottom[0]
  bool ignores_;
  int ignore_label_;
  LossParameter_NormalizationMode normalization_;
  Blob<Dtype> class_weight_;  ///< C, or empty
  bool counts_pixels_;        ///< VALID adds up k_i, not k_i w
  float hard_example_fraction_;
  Blob<Dtype> pixel_weight_;  ///< k_i w of each pixel's label
  Blob<Dtype> pixel_loss_;    ///< k_i e_i
  Blob<Dtype> pixel_count_;   ///< k_i, where counts_pixels_
  vector<Dtype> ranked_;
  Dtype normalizer_;          ///< Z of the last Forward
  int softmax_axis_, outer_num_, inner_num_;
};

}  // namespace caffe

#endif  // CAFFE_SOFTMAX_LOSS_LAYER_HPP_
