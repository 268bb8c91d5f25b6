#ifndef CAFFE_ONEDNN_CONCAT_LAYER_HPP_
#define CAFFE_ONEDNN_CONCAT_LAYER_HPP_

#include <vector>

#include "caffe/layers/concat_layer.hpp"

namespace caffe {

/**
 * @brief ConcatLayer for the CPU in single precision: channels are put side by
 *        side block by block where a bottom lies in blocks (onednn::BlockedOrder)
 *        and all bottoms but the last fill theirs; else as in Caffe.
 */
class OneDNNConcatLayer : public ConcatLayer<float> {
 public:
  explicit OneDNNConcatLayer(const LayerParameter& param)
      : ConcatLayer<float>(param) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);

 private:
  /// Whether blocks can be put side by side, `width` channels each.
  bool Fits(const vector<Blob<float>*>& bottom, int width) const;
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_CONCAT_LAYER_HPP_
