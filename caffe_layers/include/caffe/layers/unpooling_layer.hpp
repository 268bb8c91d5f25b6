#ifndef CAFFE_UNPOOLING_LAYER_HPP_
#define CAFFE_UNPOOLING_LAYER_HPP_

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/unpooling.hpp"

namespace caffe {

/**
 * @brief Brings pooled values back to the map that was pooled (Noh, Hong and
 *        Han, "Learning Deconvolution Network for Semantic Segmentation").
 *
 * Bottoms:
 *  - values @f$ x: (N \times C \times h \times w) @f$
 *  - mask @f$ (N \times C \times h \times w) @f$, the second top of a Pooling of
 *    MAX: for each window the place of its maximum, row * W + column. It gets no
 *    gradient. AVE and TILE do not read it; MAX without it takes each window's
 *    first place.
 *
 * Top: @f$ y: (N \times C \times H \times W) @f$ with H, W = unpool_h, unpool_w
 * or unpool_size; without them as far as the windows reach,
 * H = (h - 1) stride + kernel - 2 pad.
 *
 *  - MAX: @f$ y_m = x_i @f$ for the last window i whose place is m, and 0 where
 *    there is none. That window gets the gradient of its place.
 *  - AVE: @f$ y_m = \sum_{i \ni m} x_i / |i| @f$, with |i| the size of window i
 *    that Caffe's average pooling divides by: the transpose of that pooling.
 *  - TILE: @f$ y_m = \sum_{i \ni m} x_i @f$.
 *
 * A mask that says no place of the map, or one of far more or fewer windows than
 * a pooling of H x W would give, ends the process. The same bits come out
 * whatever the number of threads, on a GPU too.
 */
template <typename Dtype>
class UnpoolingLayer : public Layer<Dtype> {
 public:
  explicit UnpoolingLayer(const LayerParameter& param)
      : Layer<Dtype>(param) {}

  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "Unpooling"; }
  virtual inline int MinBottomBlobs() const { return 1; }
  virtual inline int MaxBottomBlobs() const { return 2; }
  virtual inline int ExactNumTopBlobs() const { return 1; }
  virtual inline bool AllowForceBackward(const int bottom_index) const {
    return bottom_index == 0;
  }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);

  /// What messages call the layer.
  string Name() const {
    return string(type()) + " layer '" + this->layer_param_.name() + "'";
  }
  /// Height and width of a message of the layer's: `both`, or `one`_h and
  /// `one`_w.
  /// @return whether it has them; sides is as it was if not
  bool GetSides(const google::protobuf::Message& param, const char* both,
      const string& one, int sides[2]) const;
  /// H and W, for windows of which the axes say all but the size.
  virtual void ChooseSizes(int* height, int* width) const;
  /// The fields that give H and W.
  virtual string SizeFields() const;
  /// Whether kernel and stride are said to be the pooling's.
  virtual bool KnowsPooling() const { return true; }
  /// Dies where a mask has far more or fewer windows than a pooling of H x W:
  /// a place in a map of another width is another place.
  void CheckWindows() const;
  /// Dies where the window with this number + 1 has a mask that is no place;
  /// 0: there is none.
  void CheckMask(int bad, const vector<Blob<Dtype>*>& bottom) const;

  UnpoolingParameter::UnpoolMethod method_;
  int size_[2];  // H, W; 0 where they follow from the bottom's
  PoolingAxis rows_, columns_;
  // On a GPU: for each place of the top the window that goes there, see
  // UnpoolingWinnersKernel, and the last window that goes nowhere.
  Blob<int> winners_, bad_;
};

}  // namespace caffe

#endif  // CAFFE_UNPOOLING_LAYER_HPP_
