#ifndef CAFFE_DENSE_CRF_LAYER_HPP_
#define CAFFE_DENSE_CRF_LAYER_HPP_

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/large_page_allocator.hpp"
#include "caffe/crf/mean_field.hpp"
#include "caffe/crf/permutohedral_lattice.hpp"

namespace caffe {

/// What the layer keeps on a GPU.
template <typename Dtype>
struct DenseCRFGpuState;

/**
 * @brief Fully connected CRF over class scores (Kraehenbuehl and Koltun 2011),
 *        solved by mean field; the paper's post-processing (section 4.2).
 *
 * bottom[0]: class scores s, N x C x H x W, before the softmax.
 * bottom[1]: image, N x 3 x H x W, as the network reads it; it gets no
 * gradient.
 * top[0]: N x C x H x W probabilities or their logarithms, or the labels
 * N x 1 x H x W, as output says.
 *
 * With the positional kernel K_1 over (x, y) / pos_xy_std and the bilateral
 * kernel K_2 over (x, y) / bi_xy_std and (R, G, B) / bi_rgb_std, both with the
 * pixel itself and normalised from both sides, N = D^-1/2 K D^-1/2 with
 * D = diag(K 1), every one of the max_iter iterations is
 * @f[
 *   Q^0 = softmax(s), \quad
 *   m^t = w_1 N_1 Q^t + w_2 N_2 Q^t, \quad
 *   Q^{t+1} = softmax(s - \mu m^t)
 * @f]
 * Potts: mu is 1 off its diagonal and 0 on it. With learn three parameter
 * blobs take the place of the settings: w_1 (C), w_2 (C) and mu (C x C).
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
      : Layer<Dtype>(param), kernels_(GetMeanFieldKernels<Dtype>()) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const { return "DenseCRF"; }
  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int ExactNumTopBlobs() const { return 1; }
  virtual inline bool AllowForceBackward(const int bottom_index) const {
    return bottom_index == 0;
  }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom);

 private:
  bool Used(int kernel) const;
  /// @brief How a message begins.
  string Who() const {
    return "DenseCRF layer \"" + this->layer_param_.name() + "\": ";
  }
  /// @brief What is wrong with image n where a lattice could not be built.
  string WhyNoLattice(const vector<Blob<Dtype>*>& bottom, int n) const;
  /// @brief The kernels' weights and the compatibility, in padded rows.
  void LoadParameters();
  /// @brief The lattices of image n.
  void Build(const vector<Blob<Dtype>*>& bottom, int n);
  /// @brief Splat and blur with every kernel that is used: into blurred_.
  void Blur(const Dtype* rows, bool transposed);
  /// @brief One kernel of blurred_ with weight 1: into sliced_.
  void SliceAlone(int kernel);
  /// @brief Q of the next iteration and its logits; with learn leaves the
  ///        message in message_.
  void Iterate(const Dtype* probability, Dtype* logits, Dtype* next);
  /// @brief Q^0 .. of scores_: into history_ with keep_history, else the last
  ///        alone. logits_ ends as the last iteration's.
  void MeanField(bool keep_history);
  /// @brief Rows of all pixels from planes; the padding gets one value.
  void ToRows(const Dtype* planes, Dtype padding, Dtype* rows) const;
  void ToPlanes(const Dtype* rows, Dtype* planes) const;
  DenseCRFGpuState<Dtype>* GpuState();

  DenseCRFParameter crf_;
  const MeanFieldKernels<Dtype>& kernels_;
  int classes_, height_, width_, pixels_;
  /// values of a row: the classes and their padding
  int stride_;
  PermutohedralLattice<2> positional_;
  int positional_height_, positional_width_;
  PermutohedralLattice<5> bilateral_;
  /// the kernels that are used, and where they keep what they blur
  std::vector<BlurredKernel<Dtype> > blurred_;
  LargePageVector<Dtype> values_[2];
  /// of each kernel stride_; stride_ x stride_
  std::vector<Dtype> weight_[2], one_, compatibility_;
  /// all pixels_ x stride_
  LargePageVector<Dtype> scores_, logits_, message_, sliced_;
  std::vector<LargePageVector<Dtype> > history_;
  shared_ptr<DenseCRFGpuState<Dtype> > gpu_state_;  // made when needed
};

}  // namespace caffe

#endif  // CAFFE_DENSE_CRF_LAYER_HPP_
