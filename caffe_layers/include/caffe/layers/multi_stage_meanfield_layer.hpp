#ifndef CAFFE_MULTI_STAGE_MEANFIELD_LAYER_HPP_
#define CAFFE_MULTI_STAGE_MEANFIELD_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layers/dense_crf_layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief CRF-as-RNN's layer (Zheng et al. 2015) under its own name, settings
 *        and blobs: DenseCRFLayer with both MATRIX, normalization AFTER and
 *        output SCORE.
 *
 * bottom[0]: class scores s, N x C x H x W, before the softmax.
 * bottom[1]: what Q^0 is the softmax of, N x C x H x W; mostly the scores once
 * more.
 * bottom[2]: image, N x 3 x H x W; its channels are taken as they are.
 * top[0]: s - mu m of the last of num_iterations iterations, N x C x H x W, of
 * which the softmax is Q.
 *
 * DenseCRFLayer has the equations. Parameter blobs, 1 x 1 x C x C each: W_1
 * (spatial_filter_weight on its diagonal), W_2 (bilateral_filter_weight), mu
 * (-1 on its diagonal). Deviations: theta_gamma of K_1, theta_alpha and
 * theta_beta of K_2.
 */
template <typename Dtype>
class MultiStageMeanfieldLayer : public DenseCRFLayer<Dtype> {
 public:
  explicit MultiStageMeanfieldLayer(const LayerParameter& param)
      : DenseCRFLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "MultiStageMeanfield"; }
  virtual inline int ExactNumBottomBlobs() const { return 3; }

 protected:
  virtual DenseCRFParameter Settings() const;
};

}  // namespace caffe

#endif  // CAFFE_MULTI_STAGE_MEANFIELD_LAYER_HPP_
