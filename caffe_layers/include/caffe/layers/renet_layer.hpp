#ifndef CAFFE_RENET_LAYER_HPP_
#define CAFFE_RENET_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/renet/sweep.hpp"

namespace caffe {

/**
 * @brief What the ReNet layers share: one sweep axis over a map, with a
 *        forward and a backward scan of independent weights (Section 3 and
 *        Equation 1 of "Combining the Best of Convolutional Layers and
 *        Recurrent Layers", arXiv 1603.04871).
 *
 * The map is cut into h x w patches of s x t pixels, @f$ h = \lceil H / s
 * \rceil, w = \lceil W / t \rceil @f$; patches that reach over the border are
 * filled with zeros at the bottom and the right. A vertical sweep runs one
 * recurrence down and one up each column of patches; a horizontal sweep one to
 * the right and one to the left along each row. Each scan starts from a zero
 * state. Two layers with orthogonal directions make a recurrent layer group,
 * whose output sees the whole image.
 *
 * bottom: N x C x H x W. top: N x 2d x h x w, channels [forward d | backward d].
 * Parameter blobs, forward scan first: see the units' own layers.
 *
 * A TRAIN net keeps the gates of a forward pass for the backward pass; a TEST
 * net keeps nothing, and its Backward runs the forward pass again first, as
 * does one after a change between CPU and GPU.
 *
 * On a GPU the factors of products are rounded to renet_param.precision; sums,
 * states and cells are float32.
 */
template <typename Dtype>
class ReNetLayer : public Layer<Dtype> {
 public:
  ReNetLayer(const LayerParameter& param, ReNetUnit unit)
      : Layer<Dtype>(param), unit_(unit), sweep_(), history_engine_(NULL) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);

  virtual inline int ExactNumBottomBlobs() const { return 1; }
  virtual inline int ExactNumTopBlobs() const { return 1; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom);

  /// G, the gates of the unit.
  virtual int Gates() const = 0;
  /// Fills W_x, b, W_h of one scan (and what follows); shapes are set.
  virtual void FillParameters(int scan);

  /// Blobs of one scan: W_x, b, W_h and, where asked for, the peepholes.
  int ScanBlobs() const { return peephole_ ? 4 : 3; }
  Blob<Dtype>* ScanBlob(int scan, int i) {
    return this->blobs_[scan * ScanBlobs() + i].get();
  }
  /// The weight filler, the paper's uniform distribution unless given.
  FillerParameter WeightFiller() const;

  ReNetUnit unit_;
  int hidden_;  // d
  int inputs_;  // P = C * s * t
  int channels_;
  bool peephole_;

 private:
  enum Place { ON_CPU, ON_GPU };
  void SweepForward(Place place, const vector<Blob<Dtype>*>& bottom,
      const vector<Blob<Dtype>*>& top);
  void SweepBackward(Place place, const vector<Blob<Dtype>*>& top,
      const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom);
  ReNetEngine<Dtype>* Engine(Place place);
  static const Dtype* Data(Place place, const Blob<Dtype>& blob) {
    return place == ON_GPU ? blob.gpu_data() : blob.cpu_data();
  }
  static Dtype* MutableData(Place place, Blob<Dtype>* blob) {
    return place == ON_GPU ? blob->mutable_gpu_data() :
        blob->mutable_cpu_data();
  }
  static const Dtype* Diff(Place place, const Blob<Dtype>& blob) {
    return place == ON_GPU ? blob.gpu_diff() : blob.cpu_diff();
  }
  static Dtype* MutableDiff(Place place, Blob<Dtype>* blob) {
    return place == ON_GPU ? blob->mutable_gpu_diff() :
        blob->mutable_cpu_diff();
  }
  /// Points sweep_ at the maps and parameters.
  void SetSweep(Place place, const Blob<Dtype>& bottom);
  /// The sweep, with or without the history that SweepBackward reads; top may
  /// be NULL where the history alone is wanted.
  void Sweep(Place place, const Blob<Dtype>& bottom, Blob<Dtype>* top,
      bool keep_history);
  /// Makes room for at least count elements; never gives room back.
  static void Grow(size_t count, Blob<Dtype>* blob);
  /// Room for so many elements that no pass reads again: on the CPU the work
  /// area that all layers share.
  Dtype* Workspace(Place place, size_t count);

  ReNetSweep<Dtype> sweep_;
  shared_ptr<ReNetEngine<Dtype> > engines_[2];  // by Place, made when needed
  const ReNetEngine<Dtype>* history_engine_;    // whose history it is, or NULL
  Blob<Dtype> history_;
  Blob<Dtype> workspace_;  // a GPU's
};

}  // namespace caffe

#endif  // CAFFE_RENET_LAYER_HPP_
