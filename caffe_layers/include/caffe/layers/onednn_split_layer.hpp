#ifndef CAFFE_ONEDNN_SPLIT_LAYER_HPP_
#define CAFFE_ONEDNN_SPLIT_LAYER_HPP_

#include <vector>

#include "caffe/layers/split_layer.hpp"

namespace caffe {

/// @brief SplitLayer whose gradients are added as they lie, by all threads; maps
///        are shared, in any order, as in Caffe.
class OneDNNSplitLayer : public SplitLayer<float> {
 public:
  explicit OneDNNSplitLayer(const LayerParameter& param)
      : SplitLayer<float>(param) {}

 protected:
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_SPLIT_LAYER_HPP_
