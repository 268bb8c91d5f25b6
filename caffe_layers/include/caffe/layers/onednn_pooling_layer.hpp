#ifndef CAFFE_ONEDNN_POOLING_LAYER_HPP_
#define CAFFE_ONEDNN_POOLING_LAYER_HPP_

#include <vector>

#include "caffe/layers/pooling_layer.hpp"
#include "caffe/onednn/channel_order.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

/**
 * @brief PoolingLayer's MAX and AVE for the CPU in single precision, by all
 *        threads.
 *
 * MAX is oneDNN's on maps whose channels fill blocks of oneDNN's order (see
 * OneDNNConvolutionLayer). Others in blocks are pooled as they lie in TEST, and
 * as in Caffe in TRAIN. AVE of maps in blocks is computed as they lie
 * (ChannelOrder), and as in Caffe of others.
 */
class OneDNNPoolingLayer : public PoolingLayer<float> {
 public:
  explicit OneDNNPoolingLayer(const LayerParameter& param)
      : PoolingLayer<float>(param), winners_are_kept_(false),
        mask_is_kept_(false) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);

 private:
  /// Pooling over bottoms of one shape, ready to run.
  struct Plan {
    bool made;       // whether the rest has been found out
    bool available;  // whether oneDNN computes it; else it goes as in Caffe
    dnnl::memory::desc bottom, top, winners;
    dnnl::primitive inference, training, backward;
    Plan() : made(false), available(false) {}
  };
  const Plan& PlanFor(const Blob<float>& bottom, const Blob<float>& top);
  bool IsAverage() const {
    return this->layer_param_.pooling_param().pool() == PoolingParameter::AVE;
  }
  PoolingWindows Windows() const;
  /// AVE of maps in blocks, and MAX of those in blocks that are not full, in TEST.
  void ForwardAsItLies(Blob<float>* bottom, Blob<float>* top);
  void BackwardAverage(int width, Blob<float>* top, Blob<float>* bottom);
  void ForwardKeepingWinners(const Plan& plan, Blob<float>* bottom,
      const dnnl::memory& top);

  onednn::PlansByShape<Plan> plans_;
  LargePageVector<float> winners_;  // which position of each window won
  bool winners_are_kept_;
  bool mask_is_kept_;  // PoolingLayer's
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_POOLING_LAYER_HPP_
