#ifndef CAFFE_RENET_IRNN_LAYER_HPP_
#define CAFFE_RENET_IRNN_LAYER_HPP_

#include <vector>

#include "caffe/layers/renet_layer.hpp"

namespace caffe {

/**
 * @brief A ReNet layer of rectified units whose recurrent weights start as the
 *        identity (IRNN).
 *
 * With x the patch of a step, h the state before and h' after it:
 * @f[ h' = \max(0, W_x x + b + W_h h) @f]
 *
 * Parameter blobs of each scan:
 *   -# W_x, d x P (P = C * s * t in the order channel, row, column)
 *   -# b, d
 *   -# W_h, d x d; the weight filler is for W_x alone
 */
template <typename Dtype>
class ReNetIRNNLayer : public ReNetLayer<Dtype> {
 public:
  explicit ReNetIRNNLayer(const LayerParameter& param)
      : ReNetLayer<Dtype>(param, RENET_IRNN) {}
  virtual inline const char* type() const { return "ReNetIRNN"; }

 protected:
  virtual int Gates() const { return 1; }
  virtual void FillParameters(int scan);
};

}  // namespace caffe

#endif  // CAFFE_RENET_IRNN_LAYER_HPP_
