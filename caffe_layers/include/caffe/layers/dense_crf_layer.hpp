#ifndef CAFFE_DENSE_CRF_LAYER_HPP_
#define CAFFE_DENSE_CRF_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/permutohedral_lattice.hpp"

namespace caffe {

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
 * Backward runs an image's iterations again and keeps their Q, so the history
 * takes max_iter x C x H x W values whatever the batch is.
 */
template <typename Dtype>
class DenseCRFLayer : public Layer<Dtype> {
 public:
  explicit DenseCRFLayer(const LayerParameter& param)
      : Layer<Dtype>(param) {}
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

 private:
  /// One Gaussian kernel of an image: its lattice and D^-1/2.
  struct Kernel {
    PermutohedralLattice lattice;
    std::vector<Dtype> normalisation;
  };

  void BuildKernel(const std::vector<float>& features, int dimensions,
      Kernel* kernel);
  void BuildPositional();
  void BuildBilateral(const Dtype* image);
  /// @brief to = N from, or its transpose; both pixels x classes
  void Apply(const Kernel& kernel, const Dtype* from, bool transposed,
      Dtype* to);
  bool Used(int kernel) const;
  Dtype Weight(int kernel, int label) const;
  /// @brief m of one iteration into message_
  void Message(const Dtype* probability);
  void Logits(const Dtype* message, Dtype* logits) const;
  void Softmax(const Dtype* logits, Dtype* probability) const;
  /// @brief Q^0 .. of one image; into history_ with keep_history, else the
  ///        last alone. logits_ ends as the last iteration's.
  void MeanField(const Dtype* scores, bool keep_history);
  const Dtype* Scores(const Dtype* planes);

  DenseCRFParameter crf_;
  int classes_, height_, width_, pixels_;
  int positional_height_, positional_width_;
  Kernel kernels_[2];
  /// all pixels x classes
  std::vector<Dtype> scores_, logits_, message_, filtered_;
  /// of the kernel at hand, per class
  std::vector<Dtype> weight_;
  std::vector<std::vector<Dtype> > history_;
  std::vector<float> features_;
  std::vector<Dtype> scratch_[2];
};

}  // namespace caffe

#endif  // CAFFE_DENSE_CRF_LAYER_HPP_
