#ifndef CAFFE_RENET_LSTM_LAYER_HPP_
#define CAFFE_RENET_LSTM_LAYER_HPP_

#include <vector>

#include "caffe/layers/renet_layer.hpp"

namespace caffe {

/**
 * @brief A ReNet layer of LSTM units.
 *
 * With x the patch of a step, (h, c) the state before and (h', c') after it:
 * @f[
 *   i = \sigma(W_{xi} x + b_i + W_{hi} h + p_i \odot c), \quad
 *   f = \sigma(W_{xf} x + b_f + W_{hf} h + p_f \odot c)
 * @f]@f[
 *   g = \tanh(W_{xg} x + b_g + W_{hg} h), \quad
 *   c' = f \odot c + i \odot g
 * @f]@f[
 *   o = \sigma(W_{xo} x + b_o + W_{ho} h + p_o \odot c'), \quad
 *   h' = o \odot \tanh(c')
 * @f]
 * The top carries h', or c' with output: CELL.
 *
 * Parameter blobs of each scan, gates in the order i, f, o, g:
 *   -# W_x, 4d x P (P = C * s * t in the order channel, row, column)
 *   -# b, 4d; renet_param.forget_bias is added once to b_f when it is filled
 *   -# W_h, 4d x d
 *   -# with peephole: true, p, 3 x d, rows i, f, o
 */
template <typename Dtype>
class ReNetLSTMLayer : public ReNetLayer<Dtype> {
 public:
  explicit ReNetLSTMLayer(const LayerParameter& param)
      : ReNetLayer<Dtype>(param, RENET_LSTM) {}
  virtual inline const char* type() const { return "ReNetLSTM"; }

 protected:
  virtual int Gates() const { return 4; }
  virtual void FillParameters(int scan);
};

}  // namespace caffe

#endif  // CAFFE_RENET_LSTM_LAYER_HPP_
