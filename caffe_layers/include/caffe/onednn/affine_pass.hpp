#ifndef CAFFE_ONEDNN_AFFINE_PASS_HPP_
#define CAFFE_ONEDNN_AFFINE_PASS_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/util/layer_fusion.hpp"

namespace caffe {
namespace onednn {

/// Whether a map has an axis of channels, and no more axes than orders are known for.
inline bool HasChannels(const std::vector<int>& shape) {
  return shape.size() >= 2 && shape.size() <= 5;
}

/// A layer's y = scale[c] x + shift[c], and what follows in place, in one pass over
/// the map as it lies.
void AffinePass(const std::vector<float>& scale, const std::vector<float>& shift,
    const Followers& followers, const Blob<float>& bottom, Blob<float>* top);

}  // namespace onednn
}  // namespace caffe

#endif  // CAFFE_ONEDNN_AFFINE_PASS_HPP_
