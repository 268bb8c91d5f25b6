#ifndef CAFFE_SEG_ACCURACY_LAYER_HPP_
#define CAFFE_SEG_ACCURACY_LAYER_HPP_

#include <cstdint>
#include <set>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Scores of a segmentation, from a confusion matrix, as DeepLab's fork
 *        prints them while it trains.
 *
 * bottom[0]: class scores, N x C x H x W. bottom[1]: labels, N x 1 x H x W.
 * top[0]: 1 x 1 x 1 x 3. With @f$ n_{ij} @f$ pixels of class i whose highest
 * score is class j's (of equal scores the last class's), and
 * @f$ t_i = \sum_j n_{ij} @f$:
 *
 *  - @f$ \sum_i n_{ii} / \sum_i t_i @f$, pixel accuracy;
 *  - the mean of @f$ n_{ii} / t_i @f$ over the classes that there are, mean
 *    recall;
 *  - the mean of @f$ n_{ii} / (t_i + \sum_j n_{ji} - n_{ii}) @f$ over all C
 *    classes, mean intersection over union. A class that is neither there nor
 *    predicted counts with 1, so that a few images score higher here than in an
 *    evaluation over a whole set (tools/evaluate.py).
 *
 * Pixels with a label of seg_accuracy_param.ignore_label (any number of them)
 * count nowhere; without any pixel the first two are 0. With reset: false n is
 * of all passes since the layer was set up. No gradient. On a GPU the CPU counts.
 */
template <typename Dtype>
class SegAccuracyLayer : public Layer<Dtype> {
 public:
  explicit SegAccuracyLayer(const LayerParameter& param)
      : Layer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "SegAccuracy"; }
  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int ExactNumTopBlobs() const { return 1; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  /// Dies where a gradient is asked for.
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);

  int classes_;
  std::set<int> ignored_;
  vector<int64_t> confusion_;  ///< C x C: class, then prediction
};

}  // namespace caffe

#endif  // CAFFE_SEG_ACCURACY_LAYER_HPP_
