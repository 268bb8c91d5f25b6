#ifndef CAFFE_ONEDNN_CONV_LAYER_HPP_
#define CAFFE_ONEDNN_CONV_LAYER_HPP_

#include <string>
#include <unordered_map>
#include <vector>

#include "caffe/layers/conv_layer.hpp"
#include "caffe/onednn/bfloat16_convolution.hpp"
#include "caffe/onednn/onednn.hpp"
#include "caffe/onednn/sub_images.hpp"
#include "caffe/util/bfloat16.hpp"
#include "caffe/util/large_page_allocator.hpp"
#include "caffe/util/layer_fusion.hpp"
#include "caffe/util/row_bands.hpp"

namespace caffe {

/**
 * @brief ConvolutionLayer on oneDNN, for the CPU in single precision: the same
 *        parameters, blobs and results, in a third to half of the time.
 *
 * 3x3 kernels of stride 1 are computed as Winograd's F(4x4, 3x3), which takes a
 * quarter of the products, or F(2x2, 3x3), as oneDNN sees fit, where this
 * processor has AVX-512, the bottom more than four channels, and the map fills
 * most tiles; a dilated one is first taken apart into undilated sub-images
 * (SubImages). Everything else goes as direct convolution, and what oneDNN has
 * no code of its own for as ConvolutionLayer does it. CAFFE_WINOGRAD=0 leaves
 * Winograd's out, whose sums differ from the direct ones' by about 1e-6 of the
 * largest value; CAFFE_ONEDNN=0, or `engine: CAFFE` in the prototxt, leaves out
 * this layer.
 *
 * Maps are read and written in oneDNN's order (onednn::BlockedOrder) and so
 * passed on. In a TEST net, layers in place behind this one are computed along:
 * BatchNorm and Scale are folded into a copy of the weights, made anew when any
 * of these have changed; direct convolution with many weights to a value of its top
 * scales and shifts what it writes, without a copy. A ReLU is part of Winograd's
 * code.
 *
 * Where AllowBfloat16() lets them, passes round to bfloat16 (Bfloat16Convolution):
 * without groups, with 16 channels or more (of what is summed over; to the weights,
 * of both), and back with a stride of 1. By AMX's tiles all of these do, in about
 * half of the time; by AVX512_BF16's vectors those that are not Winograd's and fill
 * three quarters of the vectors.
 */
class OneDNNConvolutionLayer : public ConvolutionLayer<float>,
    public FusingLayer {
 public:
  explicit OneDNNConvolutionLayer(const LayerParameter& param)
      : ConvolutionLayer<float>(param), saves_memory_(false),
        may_round_(AllowBfloat16()) {}

  virtual bool CanFuse(const Followers& /*followers*/) const {
    return this->layer_param_.top_size() == 1;
  }

  /// From the next new shape on, takes less memory for its forward passes, and up to
  /// a sixth longer.
  void SaveMemory() { saves_memory_ = true; }

  /// Whether passes may round the factors of products to bfloat16, in the place of
  /// AllowBfloat16().
  void AllowRounding(bool may_round) { may_round_ = may_round; }

  enum Pass {
    FORWARD, FORWARD_RECTIFIED, FORWARD_SCALED, BACKWARD_DATA, BACKWARD_WEIGHTS,
    PASSES
  };
  /// How a pass is computed on bottoms of a shape: "Winograd" or "direct", each
  /// also "on sub-images" and "in pieces"; "bfloat16"; else "as in Caffe".
  std::string Describe(Pass pass, const vector<int>& bottom_shape);

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top);
  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom);

 private:
  struct Method {
    dnnl::algorithm algorithm;
    int dilation;  // d: on the d * d sub-images of a map; 1: on the map itself
    bool blocked;  // on maps in onednn::BlockedOrder; else as the primitive likes
  };
  /// A pass over bottoms of one shape, ready to run.
  struct Plan {
    bool made;       // whether the rest has been found out
    bool available;  // whether oneDNN computes it; else it goes as in Caffe
    Pass pass;
    Method method;
    dnnl::primitive primitive;
    // orders in memory: of the maps on the blobs, of what a primitive for all of it
    // would take (the same without sub-images), and of its weights
    dnnl::memory::desc bottom, top, source, target, weights;
    // What the primitive computes at a time, so many channels of the top (of the
    // bottom, if backward to it), or so many images, of one of them so many of the
    // top's rows (on sub-images of theirs), and its orders.
    int channels, images, rows;
    bool in_pieces;  // whether that is not all
    dnnl::memory::desc piece_source, piece_target, piece_weights, bias;
    dnnl::memory::desc scratch;  // the primitive's work area
    SubImages bottom_parts, top_parts;  // of a piece
    Plan() : made(false), available(false), in_pieces(false) {}
    bool is_winograd() const {
      return available
          && method.algorithm == dnnl::algorithm::convolution_winograd;
    }
  };
  struct Plans { Plan passes[PASSES]; };

  /// The plan for a pass over bottoms of a shape.
  const Plan& PlanFor(Pass pass, const vector<int>& shape);
  /// The methods for bottoms of a shape, the fastest first.
  vector<Method> Methods(const vector<int>& shape) const;
  /// Fills in a plan; false: oneDNN has no code of its own for this.
  bool Try(Pass pass, const vector<int>& shape, const Method& method, Plan* plan) const;
  dnnl::memory::desc PlainWeights() const;
  /// A value for each channel of the top.
  dnnl::memory::desc OfChannels() const;
  bool WeightsLearn() const {
    return this->phase_ == TRAIN && this->param_propagate_down_[0];
  }
  /// The weights of a forward pass, and what it adds to the products.
  struct Parameters {
    SyncedMemory* weights;
    const float* bias;   // NULL: the plan takes none
    const float* scale;  // of what the plan writes, before the bias; else NULL
    onednn::PackedWeights* packed;
  };
  /// This layer's own, or with layers that follow folded in.
  Parameters ParametersFor(const Followers& followers);
  /// This layer's own weights, and layers that follow as a scale and a bias.
  Parameters UnfoldedParameters(const Followers& followers);
  /// Runs a plan's primitive, with its scratch in the work area for that.
  static void Execute(const Plan& plan,
      std::unordered_map<int, dnnl::memory> arguments);
  /// The weights of the piece that begins with a channel.
  dnnl::memory WeightsFor(const Plan& plan, const Parameters& parameters,
      int channel);
  /// Whether a pass over bottoms of a shape rounds to bfloat16.
  bool Rounds(Pass pass, const vector<int>& shape);
  /// The convolution of bottoms of a shape.
  Bfloat16Convolution Rounded(const vector<int>& shape) const;
  void ForwardRounded(const Followers& followers, Blob<float>* bottom,
      Blob<float>* top);
  void BackwardDataRounded(Blob<float>* top, Blob<float>* bottom);
  void BackwardWeightsRounded(Blob<float>* top, Blob<float>* bottom);
  /// The channels of a top from `channel` on, some of its images, or a band of rows.
  void ForwardPiece(const Plan& plan, const Parameters& parameters, int channel,
      const dnnl::memory& source, const dnnl::memory& target);
  /// Image by image, or a few, each in bands of rows where that is the plan.
  void ForwardImages(const Plan& plan, const Parameters& parameters,
      const Blob<float>& bottom, const Blob<float>& top, const dnnl::memory& source,
      const dnnl::memory& target);
  void ForwardPlan(const Plan& plan, const Parameters& parameters, bool rectified,
      Blob<float>* bottom, Blob<float>* top);
  void BackwardData(const Plan& plan, Blob<float>* top, Blob<float>* bottom);
  void BackwardWeights(const Plan& plan, Blob<float>* top, Blob<float>* bottom);

  /// Weights rounded to bfloat16, in tiles, and what they are of.
  struct Tiles {
    LargePageBuffer<float> values;
    uint64_t version;
    Tiles() : version(0) {}  // no memory has this one
  };
  /// Weights and bias with layers that follow folded in, and what they are of.
  struct Folded {
    Blob<float> weights;
    vector<float> bias, scale;
    uint64_t version;
    onednn::PackedWeights packed;
    Tiles tiles;
    Folded() : version(0) {}  // no memory has this one
  };

  bool saves_memory_, may_round_;
  Tiles tiles_;
  onednn::PlansByShape<Plans> plans_;
  onednn::PackedWeights packed_;
  Folded folded_;
  // what layers that follow bring, where it is not folded; with room for what fills
  // up the last block
  vector<float> scale_, shift_;
  vector<float> channel_sums_, channel_products_;  // of the top's gradient
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_CONV_LAYER_HPP_
