#ifndef CAFFE_RENET_GRU_LAYER_HPP_
#define CAFFE_RENET_GRU_LAYER_HPP_

#include <vector>

#include "caffe/layers/renet_layer.hpp"

namespace caffe {

/**
 * @brief A ReNet layer of gated recurrent units.
 *
 * With x the patch of a step, h the state before and h' after it:
 * @f[
 *   z = \sigma(W_{xz} x + b_z + W_{hz} h), \quad
 *   r = \sigma(W_{xr} x + b_r + W_{hr} h)
 * @f]@f[
 *   n = \tanh(W_{xn} x + b_n + W_{hn} (r \odot h)), \quad
 *   h' = (1 - z) \odot n + z \odot h
 * @f]
 *
 * Parameter blobs of each scan, gates in the order z, r, n:
 *   -# W_x, 3d x P (P = C * s * t in the order channel, row, column)
 *   -# b, 3d
 *   -# W_h, 3d x d
 */
template <typename Dtype>
class ReNetGRULayer : public ReNetLayer<Dtype> {
 public:
  explicit ReNetGRULayer(const LayerParameter& param)
      : ReNetLayer<Dtype>(param, RENET_GRU) {}
  virtual inline const char* type() const { return "ReNetGRU"; }

 protected:
  virtual int Gates() const { return 3; }
};

}  // namespace caffe

#endif  // CAFFE_RENET_GRU_LAYER_HPP_
