#ifndef CAFFE_DENSE_CRF_LAYER_HPP_
#define CAFFE_DENSE_CRF_LAYER_HPP_

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/large_page_allocator.hpp"
#include "caffe/crf/class_mixing.hpp"
#include "caffe/crf/mean_field.hpp"
#include "caffe/crf/permutohedral_lattice.hpp"

namespace caffe {

/// What the layer keeps on a GPU, and what it solves there.
template <typename Dtype>
struct DenseCRFGpuState;
template <typename Dtype>
struct DenseCRFProblem;

/**
 * @brief Fully connected CRF over class scores (Kraehenbuehl and Koltun 2011),
 *        solved by mean field; the paper's post-processing (section 4.2).
 *
 * bottom[0]: class scores s, N x C x H x W, before the softmax.
 * bottom[1]: image, N x 3 x H x W, as the network reads it; it gets no
 * gradient.
 * top[0]: N x C x H x W probabilities, their logarithms or what the last
 * softmax would be taken of, or the labels N x 1 x H x W, as output says.
 *
 * With the positional kernel K_1 over (x, y) / pos_xy_std and the bilateral
 * kernel K_2 over (x, y) / bi_xy_std and (R, G, B) / bi_rgb_std, both with the
 * pixel itself, every one of the max_iter iterations is
 * @f[
 *   Q^0 = softmax(s), \quad
 *   m^t = W_1 N_1 Q^t + W_2 N_2 Q^t, \quad
 *   Q^{t+1} = softmax(s - \mu m^t)
 * @f]
 * with N_k = D^-1/2 K_k D^-1/2, D = diag(K_k 1), or as normalization says
 * D^-1 K_k (AFTER), K_k D^-1 (BEFORE), K_k (NONE).
 *
 * W_1 is pos_w times the identity and W_2 bi_w times it, and mu is Potts', 1
 * off its diagonal and 0 on it. Parameter blobs, always in this order, take
 * their place:
 *
 * | | W_1, W_2 | mu |
 * |---|---|---|
 * | learn | diagonals, C and C, from pos_w and bi_w | C x C, from Potts |
 * | kernel_weights: MATRIX | 1 x 1 x C x C each, from W_1 and W_2 | |
 * | compatibility: MATRIX | | 1 x 1 x C x C, from -1 on its diagonal |
 *
 * Both MATRIX are CRF-as-RNN's three matrices (Zheng et al. 2015). Where mu is
 * -1 on its diagonal and 0 off it, it is Potts': they differ by what is the
 * same for all classes, which the softmax does not see. SCORE has that of mu as
 * it is, with Potts that of -1 on the diagonal.
 *
 * Scores may be -infinity: a class that a pixel cannot have. Where a pixel's
 * scores are not numbers (NaN, +infinity, -infinity for all classes) its result
 * is NaN, the label too, and so is that of the pixels that its message reaches.
 * An image that is not of numbers has no lattice and ends the program.
 *
 * Backward runs an image's iterations again and keeps their Q, so the history
 * takes max_iter x C x H x W values whatever the batch is.
 */
template <typename Dtype>
class DenseCRFLayer : public Layer<Dtype> {
 public:
  explicit DenseCRFLayer(const LayerParameter& param)
      : Layer<Dtype>(param), kernels_(GetMeanFieldKernels<Dtype>()),
        mixing_() {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "DenseCRF"; }
  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int ExactNumTopBlobs() const { return 1; }
  virtual inline bool AllowForceBackward(const int bottom_index) const {
    return bottom_index < ExactNumBottomBlobs() - 1;
  }

 protected:
  /// @brief The settings; another layer's are brought into this form.
  virtual DenseCRFParameter Settings() const {
    return this->layer_param_.dense_crf_param();
  }
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);

  /// @brief How a message begins.
  string Who() const {
    return string(type()) + " layer \"" + this->layer_param_.name() + "\": ";
  }

 private:
  /// @brief The shapes that the parameter blobs have, or must have.
  vector<vector<int> > BlobShapes() const;
  void FillBlobs();
  void CheckBlobs() const;
  /// @brief Which blob is mu, or -1.
  int CompatibilityBlob() const;
  /// @brief mixing_ with the blobs' data on the CPU or the GPU.
  const ClassMixing<Dtype>& Mixing(bool on_gpu);
  /// @brief What is wrong with image n where a lattice could not be built.
  string WhyNoLattice(const vector<Blob<Dtype>*>& bottom, int n) const;
  /// @brief What the blobs and settings say of classes, in padded rows; room
  ///        for the maps.
  void LoadParameters();
  /// @brief The lattices of image n.
  void Build(const vector<Blob<Dtype>*>& bottom, int n);
  /// @brief Splat and blur with every kernel that is used: into blurred_.
  void Blur(const Dtype* rows, bool transposed);
  /// @brief Multiplies the vertices' values in blurred_ with the matrices G_k.
  void Mix();
  /// @brief What one iteration gives to gain_diff_, and the gradient of the Q
  ///        that it began with; blurred_ is of the logits' gradient.
  void LearnedDiffs(const Dtype* probability, Dtype* diff);
  /// @brief Adds what follows from gain_diff_ to the gradients of the blobs.
  void AddParameterDiffs();
  /// @brief Scores of image n into scores_, and all Q^t of them: into history_
  ///        with keep_history, else the last alone. logits_ ends as the last
  ///        iteration's.
  void MeanField(const vector<Blob<Dtype>*>& bottom, int n, bool keep_history);
  /// @brief Rows of all pixels from planes; the padding gets one value.
  void ToRows(const Dtype* planes, Dtype padding, Dtype* rows) const;
  void ToPlanes(const Dtype* rows, Dtype* planes) const;
  DenseCRFGpuState<Dtype>* GpuState();
  /// @brief Image n's problem on a GPU.
  DenseCRFProblem<Dtype> Pose(const vector<Blob<Dtype>*>& bottom, int n);

  DenseCRFParameter crf_;
  bool learned_weights_;
  const MeanFieldKernels<Dtype>& kernels_;
  ClassMixing<Dtype> mixing_;
  int classes_, height_, width_, pixels_;
  /// values of a row: the classes and their padding
  int stride_;
  PermutohedralLattice<2> positional_;
  int positional_height_, positional_width_;
  PermutohedralLattice<5> bilateral_;
  /// the kernels that are used, in their order
  std::vector<BlurredKernel<Dtype> > blurred_;
  /// what they blur, and mixed
  LargePageVector<Dtype> values_[2], mixed_[2];
  /// of each kernel stride_; stride_ x stride_ each
  std::vector<Dtype> weight_[2], gain_[2], gain_diff_[2];
  /// all pixels_ x stride_
  LargePageVector<Dtype> scores_, logits_, sliced_;
  std::vector<LargePageVector<Dtype> > history_;
  shared_ptr<DenseCRFGpuState<Dtype> > gpu_state_;  // made when needed
};

}  // namespace caffe

#endif  // CAFFE_DENSE_CRF_LAYER_HPP_
