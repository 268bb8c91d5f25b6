#ifndef CAFFE_ONEDNN_POOLING_LAYER_HPP_
#define CAFFE_ONEDNN_POOLING_LAYER_HPP_

#include <list>
#include <vector>

#include "caffe/layers/pooling_layer.hpp"
#include "caffe/util/onednn.hpp"

namespace caffe {

/**
 * @brief PoolingLayer's MAX on oneDNN, for the CPU in single precision, on maps
 *        whose channels fill blocks of oneDNN's order (see
 *        OneDNNConvolutionLayer). Other maps are pooled as in Caffe.
 */
class OneDNNPoolingLayer : public PoolingLayer<float> {
 public:
  explicit OneDNNPoolingLayer(const LayerParameter& param)
      : PoolingLayer<float>(param), winners_are_kept_(false) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);

 private:
  /// Pooling over bottoms of one shape, ready to run.
  struct Plan {
    vector<int> shape;
    bool available;  // whether oneDNN computes it; else it goes as in Caffe
    dnnl::memory::desc bottom, top, winners;
    dnnl::primitive inference, training, backward;
  };
  const Plan& PlanFor(const Blob<float>& bottom, const Blob<float>& top);
  void ForwardKeepingWinners(const Plan& plan, Blob<float>* bottom,
      const dnnl::memory& top);

  std::list<Plan> plans_;  // the one used last comes first
  LargePageVector<float> winners_;  // which position of each window won
  bool winners_are_kept_;
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_POOLING_LAYER_HPP_
