#ifndef CAFFE_ONEDNN_DECONV_LAYER_HPP_
#define CAFFE_ONEDNN_DECONV_LAYER_HPP_

#include <vector>

#include "caffe/layers/deconv_layer.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

/**
 * @brief DeconvolutionLayer whose forward pass is oneDNN's, for the CPU in single
 *        precision, on maps in onednn::BlockedOrder, 3x3 kernels of stride 1 as
 *        Winograd's; backward, and what oneDNN has no code of its own for, as in
 *        Caffe.
 */
class OneDNNDeconvolutionLayer : public DeconvolutionLayer<float> {
 public:
  explicit OneDNNDeconvolutionLayer(const LayerParameter& param)
      : DeconvolutionLayer<float>(param) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);

 private:
  /// A forward pass over bottoms of one shape, ready to run.
  struct Plan {
    bool made;       // whether the rest has been found out
    bool available;  // whether oneDNN computes it; else it goes as in Caffe
    dnnl::memory::desc source, target, weights;
    dnnl::primitive primitive;
    Plan() : made(false), available(false) {}
  };
  const Plan& PlanFor(const Blob<float>& bottom, const Blob<float>& top);
  /// Caffe's: channels of the bottom come first.
  dnnl::memory::desc PlainWeights() const;

  onednn::PlansByShape<Plan> plans_;
  onednn::PackedWeights packed_;
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_DECONV_LAYER_HPP_
