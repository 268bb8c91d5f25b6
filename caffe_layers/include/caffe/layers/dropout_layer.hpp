#ifndef CAFFE_DROPOUT_LAYER_HPP_
#define CAFFE_DROPOUT_LAYER_HPP_

#include <cstdint>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"

#include "caffe/layers/neuron_layer.hpp"
#include "caffe/util/dropout_mask.hpp"

namespace caffe {

/**
 * @brief During training only, sets a random part of @f$ x @f$ to 0 and scales
 *        the rest; in place of Caffe's own layer of this name.
 *
 * @f$ y = \left\{ \begin{array}{ll}
 *     \frac{x}{1 - p} & \mbox{if } u \ge p \\ 0 & \mbox{otherwise}
 *     \end{array} \right. @f$ in the TRAIN phase, @f$ y = x @f$ in TEST.
 *
 * In a solver with a random_seed @f$ u \sim U(0, 1) @f$ is a function of that
 * seed, the layer's name, the sample's number in the training and the value's
 * place in the sample, on CPU and GPU alike. Forward pass f of rank r of R
 * with N samples each has the numbers @f$ (f R + r) N + i @f$, as
 * SegmentationData reads them. ResumeAt sets f. Without such a solver each
 * forward pass draws a key from Caffe's generator.
 *
 * bottom: N x ..., samples along the first axis. top: the same; may be the
 * bottom itself. Backward uses the mask of the last Forward, as often as
 * called.
 */
template <typename Dtype>
class DropoutLayer : public NeuronLayer<Dtype> {
 public:
  /**
   * @param param provides DropoutParameter dropout_param:
   *   - dropout_ratio (\b optional, default 0.5). The probability
   *     @f$ 0 \le p < 1 @f$ that a value is dropped.
   */
  explicit DropoutLayer(const LayerParameter& param);
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual inline const char* type() const { return "Dropout"; }
  virtual void ResumeAt(int forward_passes) { forward_passes_ = forward_passes; }
  virtual void SetSeed(uint64_t seed);

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
  /// Takes the next forward pass's mask.
  void Draw(int samples);
  /// out = in where the mask keeps it, scaled; in and out may be the same.
  void Apply(const Blob<Dtype>& shape, const Dtype* in, Dtype* out) const;
  void ApplyOnGpu(const Blob<Dtype>& shape, const Dtype* in, Dtype* out) const;

  const uint64_t name_hash_;
  Dtype scale_;  ///< 1 / (1 - p)
  bool seeded_;
  int64_t forward_passes_;
  DropoutMask mask_;
};

}  // namespace caffe

#endif  // CAFFE_DROPOUT_LAYER_HPP_
