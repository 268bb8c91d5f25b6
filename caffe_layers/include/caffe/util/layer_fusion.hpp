#ifndef CAFFE_UTIL_LAYER_FUSION_HPP_
#define CAFFE_UTIL_LAYER_FUSION_HPP_

#include <utility>
#include <vector>

#include "caffe/layer.hpp"

namespace caffe {

template <typename Dtype>
class Net;
class AffineLayer;

/// What layers in place do to the map of the layer before them: y = scale[c] x +
/// shift[c], then what is negative becomes 0 if `rectify`.
struct Followers {
  bool affine, rectify;
  std::vector<float> scale, shift;
  AffineLayer* learns;  // in training, whose scale and shift they are; else NULL
  Followers() : affine(false), rectify(false), learns(NULL) {}
};

/**
 * @brief A layer that multiplies each channel by a number and adds one, as Scale and
 *        BatchNorm with given statistics do.
 */
class AffineLayer {
 public:
  virtual ~AffineLayer() {}
  /// Whether that is what it does to a bottom of this shape.
  virtual bool IsAffine(const std::vector<int>& shape) const = 0;
  /// Makes x' -> scale (a x' + b) + shift of x' -> a x' + b.
  virtual void Append(std::vector<float>* a, std::vector<float>* b) const = 0;
  /// Whether a layer before it may do its work in training, too, and then keeps its
  /// bottom for its backward pass.
  virtual bool Learns() const { return false; }
  /// Its bottom in this pass, which stays until its backward pass is over.
  virtual void TakeBottom(const Blob<float>& /*bottom*/) {}
  /// Whether that is still so: no forward pass of its own came since.
  virtual bool HasTaken(const Blob<float>& /*bottom*/) const { return false; }
  /// Adds to the gradients of its factors and terms, for each channel, from the sums of
  /// the top's gradient and of its products with the bottom.
  virtual void AddGradients(const std::vector<float>& /*sums*/,
      const std::vector<float>& /*products*/) {}
};

/// @brief A layer that can do along what follows in place on its only top.
class FusingLayer {
 public:
  virtual ~FusingLayer() {}
  /// Whether it can do along what has been found to follow.
  virtual bool CanFuse(const Followers& followers) const = 0;
  /// Where its forward pass does so: on the processor, or on a GPU.
  virtual Caffe::Brew FusesIn() const { return Caffe::CPU; }
  /// Whether it does so in training: what an affine layer behind it needs for
  /// backward, it then hands to that (TakeBottom()).
  virtual bool FusesInTraining() const { return false; }
  /// Whether the next backward pass, which starts from the gradient behind that layer,
  /// does the layer's, too: where the latest forward pass did so. The layer's parameters
  /// have their gradients then.
  /// @param top where that gradient is.
  virtual bool FuseBackward(AffineLayer* /*layer*/, const Blob<float>& /*top*/) {
    return false;
  }
  /// For the next forward pass alone.
  void Fuse(const Followers& followers) { followers_ = followers; }

 protected:
  /// What the pass is to do along; afterwards nothing is.
  Followers TakeFollowers() {
    Followers taken;
    std::swap(taken, followers_);
    return taken;
  }

 private:
  Followers followers_;
};

/**
 * @brief Lets a layer do along what layers up to number `end` do in place on its
 *        only top, one after the other: of a TEST net, and BatchNorm in training.
 *
 * Their blobs are what they would be: nobody reads a map between layers in place.
 *
 * @return how many layers, from the next one on, have nothing left to do.
 */
template <typename Dtype>
int FuseFollowers(const Net<Dtype>& net, int layer, int end);

/**
 * @brief Lets the layer before number `layer` do this one's backward pass along, in a
 *        backward pass down to layer `end`.
 *
 * The gradient between both is then not there: nobody reads it, in place.
 *
 * @return whether this one has nothing left to do.
 */
template <typename Dtype>
bool FuseBackward(const Net<Dtype>& net, int layer, int end);

}  // namespace caffe

#endif  // CAFFE_UTIL_LAYER_FUSION_HPP_
