#ifndef CAFFE_ONEDNN_LRN_LAYER_HPP_
#define CAFFE_ONEDNN_LRN_LAYER_HPP_

#include <vector>

#include "caffe/layers/lrn_layer.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

/**
 * @brief LRNLayer's ACROSS_CHANNELS on oneDNN, for the CPU in single precision, on
 *        maps in onednn::BlockedOrder, where oneDNN has code of its own for it
 *        (local_size 5, beta 0.75, full blocks); else as in Caffe.
 */
class OneDNNLRNLayer : public LRNLayer<float> {
 public:
  explicit OneDNNLRNLayer(const LayerParameter& param)
      : LRNLayer<float>(param), on_onednn_(false),
        sums_are_kept_(false) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);

 private:
  /// Normalisation of bottoms of one shape, ready to run.
  struct Plan {
    bool made;       // whether the rest has been found out
    bool available;  // whether oneDNN computes it; else it goes as in Caffe
    dnnl::memory::desc order, sums;
    dnnl::primitive inference, training, backward;
    Plan() : made(false), available(false) {}
  };
  const Plan& PlanFor(const vector<int>& shape);
  /// Forward that keeps what backward needs.
  void ForwardKeepingSums(const Plan& plan, Blob<float>* bottom,
      const dnnl::memory& top);

  onednn::PlansByShape<Plan> plans_;
  LargePageVector<float> sums_;
  bool on_onednn_;  // the last forward pass
  bool sums_are_kept_;
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_LRN_LAYER_HPP_
