#ifndef CAFFE_CRF_MEAN_FIELD_DEVICE_SOLVER_CUH_
#define CAFFE_CRF_MEAN_FIELD_DEVICE_SOLVER_CUH_

#include <cstddef>

#include "caffe/proto/caffe.pb.h"
#include "caffe/crf/class_mixing.hpp"
#include "caffe/crf/dense_crf_features.hpp"
#include "caffe/util/growing_array.hpp"
#include "caffe/crf/mean_field.cuh"
#include "caffe/crf/permutohedral_device_lattice.cuh"
#include "caffe/renet/gpu/scan.hpp"

namespace caffe {

/// One image's fully connected CRF; pointers are the device's.
template <typename Dtype>
struct DenseCRFProblem {
  int classes;
  int height;
  int width;
  int iterations;
  DenseCRFParameter_Output output;
  PositionalFeatures positional;
  BilateralFeatures<Dtype> bilateral;
  LatticeNormalization normalization;
  ClassMixing<Dtype> mixing;
  const Dtype* scores;  // classes x pixels
  const Dtype* start;   // Q^0's logits, classes x pixels; NULL: the scores
};

/// The problem that parameters, scores (classes x height x width) and image
/// (3 x height x width) pose.
template <typename Dtype>
DenseCRFProblem<Dtype> PoseDenseCRF(const DenseCRFParameter& crf,
    const ClassMixing<Dtype>& mixing, int height, int width,
    const Dtype* scores, const Dtype* image) {
  DenseCRFProblem<Dtype> problem = {};
  problem.classes = mixing.classes;
  problem.height = height;
  problem.width = width;
  problem.iterations = crf.max_iter();
  problem.output = crf.output();
  problem.scores = scores;
  problem.positional = MakePositionalFeatures(crf, width);
  problem.bilateral = MakeBilateralFeatures(crf, image, height, width);
  problem.normalization = MakeNormalization(crf);
  problem.mixing = mixing;
  return problem;
}

/// Gradients that are asked for; the others are NULL.
template <typename Dtype>
struct DenseCRFDiffs {
  const Dtype* top;      // classes x pixels
  Dtype* scores;         // classes x pixels: overwritten
  Dtype* start;          // the same, where the problem has a start
  Dtype* weight[2];      // classes, or classes x classes: added to
  Dtype* compatibility;  // classes x classes: added to
};

/**
 * @brief Mean field on a device: what DenseCRFLayer does for one image, forward
 *        and backward (see there for the equations).
 *
 * An iteration is a splat, the blurs and one kernel that slices, weighs and
 * takes the softmax; what is learned is multiplied into the lattice's values
 * before that. Nothing waits for the device after the lattices' Build.
 * The positional lattice is kept while the size stays. Maps are
 * pixels x RowStride(classes).
 *
 * Device offers Launch, Product, Allocate, Fetch and its limits: that of the
 * layer, and the tests' emulation.
 */
template <typename Dtype, class Device>
class MeanFieldDeviceSolver {
 public:
  explicit MeanFieldDeviceSolver(Device* device)
      : device_(device), positional_height_(0), positional_width_(0),
        positional_normalization_() {}

  /// @param top classes x pixels, or the labels of the pixels
  /// @return false, and nothing is done, where the image gives no lattice (see
  ///         PermutohedralDeviceLattice::Build)
  bool Forward(const DenseCRFProblem<Dtype>& problem, Dtype* top) {
    if (!SetUp(problem)) { return false; }
    Dtype* const q = q_.Reserve(device_, size_);
    for (int t = 0; t <= problem.iterations; ++t) {
      MeanFieldStep<Dtype> step = Step(t, q);
      const bool last = t == problem.iterations;
      if (last && problem.output == DenseCRFParameter_Output_LOG_PROBABILITY) {
        step.log_probability = q;
      } else if (last && problem.output == DenseCRFParameter_Output_LABEL) {
        step.label = top;
      } else if (last && problem.output == DenseCRFParameter_Output_SCORE) {
        step.logit = q;
      } else {
        step.probability = q;
      }
      Launch(step);
    }
    if (problem.output != DenseCRFParameter_Output_LABEL) { Planes(q, top); }
    return true;
  }

  /// @return as Forward
  bool Backward(const DenseCRFProblem<Dtype>& problem,
      const DenseCRFDiffs<Dtype>& diffs) {
    if (!SetUp(problem)) { return false; }
    const int iterations = problem.iterations;
    Dtype* const history = history_.Reserve(device_, size_ * (iterations + 1));
    for (int t = 0; t <= iterations; ++t) {
      MeanFieldStep<Dtype> step =
          Step(t, t == 0 ? NULL : history + size_ * (t - 1));
      step.probability = history + size_ * t;
      Launch(step);
    }
    Dtype* const diff = q_.Reserve(device_, size_);
    Dtype* const logit_diff = logit_diff_.Reserve(device_, size_);
    Dtype* const score_diff = score_diff_.Reserve(device_, size_);
    SoftmaxDiff<Dtype> step = {pixels_, problem.classes, stride_,
        PixelLanes(problem.classes), NULL, diff, false, false, logit_diff,
        score_diff, false};
    Rows(diffs.top, diff);
    for (int t = iterations; t >= 0; --t) {
      const bool last = t == iterations;
      step.probability = history + size_ * t;
      step.of_logarithm = last &&
          problem.output == DenseCRFParameter_Output_LOG_PROBABILITY;
      step.of_logit =
          last && problem.output == DenseCRFParameter_Output_SCORE;
      step.add = !last;
      const bool of_start = t == 0 && problem.start != NULL;
      if (of_start) { step.score_diff = NULL; }
      device_->Launch(&SoftmaxDiffKernel<Dtype>,
          PixelGrid(pixels_, step.lanes), dim3(kPixelThreads), 0, step);
      if (of_start && diffs.start != NULL) { Planes(logit_diff, diffs.start); }
      if (t == 0) { break; }
      const Messages<Dtype> messages = Blur(logit_diff, true);
      if (problem.mixing.Learned()) {
        LearnedDiffs(messages, history + size_ * (t - 1), last, diff);
      } else {
        Message(messages, diff);
      }
    }
    if (diffs.scores != NULL && iterations == 0 && problem.start != NULL) {
      const int count = problem.classes * pixels_;
      device_->Launch(&FillKernel<Dtype>, dim3((count - 1) / kVertexThreads + 1),
          dim3(kVertexThreads), 0, count, Dtype(0), diffs.scores);
    } else if (diffs.scores != NULL) {
      Planes(score_diff, diffs.scores);
    }
    for (int k = 0; k < 2 && iterations > 0; ++k) {
      if (problem.mixing.Uses(k)) { AddParameterDiffs(diffs, k); }
    }
    return true;
  }

 private:
  bool SetUp(const DenseCRFProblem<Dtype>& problem) {
    problem_ = problem;
    pixels_ = problem.height * problem.width;
    stride_ = RowStride(problem.classes);
    size_ = static_cast<size_t>(pixels_) * stride_;
    Rows(problem.scores, scores_.Reserve(device_, size_));
    if (problem.start != NULL) {
      Rows(problem.start, start_.Reserve(device_, size_));
    }
    const ClassMixing<Dtype>& mixing = problem.mixing;
    const int classes = problem.classes;
    for (int k = 0; k < 2 && mixing.Learned(); ++k) {
      if (!mixing.Uses(k)) { continue; }
      device_->Launch(&GainKernel<Dtype>, MatrixGrid(classes),
          dim3(kMatrixThreads), 0, mixing, k,
          gain_[k].Reserve(device_, classes * classes));
    }
    const bool kept = positional_height_ == problem.height &&
        positional_width_ == problem.width &&
        positional_normalization_ == problem.normalization;
    if (mixing.Uses(0) && !kept) {
      positional_height_ = positional_width_ = 0;
      if (!positional_.Build(device_, pixels_, problem.positional,
          problem.normalization, &scratch_)) {
        return false;
      }
      positional_height_ = problem.height;
      positional_width_ = problem.width;
      positional_normalization_ = problem.normalization;
    }
    return !mixing.Uses(1) || bilateral_.Build(device_, pixels_,
        problem.bilateral, problem.normalization, &scratch_);
  }

  void Rows(const Dtype* planes, Dtype* rows) {
    device_->Launch(&TransposePlanesKernel<Dtype, false>,
        TransposeGrid(pixels_, problem_.classes),
        dim3(kTransposeTile, kTransposeRows), 0, pixels_, problem_.classes,
        stride_, planes, rows);
  }
  void Planes(const Dtype* rows, Dtype* planes) {
    device_->Launch(&TransposePlanesKernel<Dtype, true>,
        TransposeGrid(pixels_, problem_.classes),
        dim3(kTransposeTile, kTransposeRows), 0, pixels_, problem_.classes,
        stride_, rows, planes);
  }

  /// The kernels that are used, on `from`; transposed ones are not mixed.
  Messages<Dtype> Blur(const Dtype* from, bool transposed) {
    const ClassMixing<Dtype>& mixing = problem_.mixing;
    const bool learned = mixing.Learned();
    Messages<Dtype> messages = {};
    for (int k = 0; k < 2; ++k) {
      messages.weight[k] = learned ? Dtype(1) : mixing.weights[k].common;
    }
    if (mixing.Uses(0)) {
      messages.positional =
          positional_.Blur(device_, from, stride_, transposed);
    }
    if (mixing.Uses(1)) {
      messages.bilateral = bilateral_.Blur(device_, from, stride_, transposed);
    }
    if (learned && !transposed && mixing.Uses(0)) {
      messages.positional = positional_.Mix(device_, messages.positional,
          stride_, problem_.classes, gain_[0].get());
    }
    if (learned && !transposed && mixing.Uses(1)) {
      messages.bilateral = bilateral_.Mix(device_, messages.bilateral, stride_,
          problem_.classes, gain_[1].get());
    }
    return messages;
  }
  void Message(const Messages<Dtype>& messages, Dtype* message) {
    device_->Launch(&MessageKernel<Dtype>, RowGrid(pixels_, stride_),
        RowBlock(stride_), 0, pixels_, problem_.classes, stride_, messages,
        message);
  }

  /// Iteration t (0: the softmax of the scores) up to its results.
  MeanFieldStep<Dtype> Step(int t, const Dtype* q) {
    MeanFieldStep<Dtype> step = {};
    step.pixels = pixels_;
    step.classes = problem_.classes;
    step.stride = stride_;
    step.lanes = PixelLanes(problem_.classes);
    const bool starts = t == 0 && problem_.start != NULL;
    step.scores = starts ? start_.get() : scores_.get();
    if (t > 0) { step.gain = Blur(q, false); }
    return step;
  }
  void Launch(const MeanFieldStep<Dtype>& step) {
    const size_t shared_bytes =
        kPixelThreads / step.lanes * step.classes * sizeof(Dtype);
    CHECK_LE(shared_bytes, device_->shared_memory_per_block())
        << "DenseCRF: " << step.classes << " classes are more than a block of "
        << "this GPU has memory for";
    device_->Launch(&MeanFieldStepKernel<Dtype>, PixelGrid(pixels_, step.lanes),
        dim3(kPixelThreads), shared_bytes, step);
  }

  /**
   * @brief What one iteration gives to the gradients of the matrices G_k, and
   *        the gradient of the Q that it began with: with g that of the logits
   *        dG_k = (N_k^T g)^T Q, dQ = sum_k (N_k^T g) G_k.
   *
   * @param messages of g, transposed
   * @param q        what the iteration began with
   * @param first    whether the gradients of the matrices begin with it
   */
  void LearnedDiffs(const Messages<Dtype>& messages, const Dtype* q, bool first,
      Dtype* diff) {
    const int classes = problem_.classes;
    Dtype* const sliced = message_.Reserve(device_, size_);
    bool begun = false;
    for (int k = 0; k < 2; ++k) {
      if (!problem_.mixing.Uses(k)) { continue; }
      Messages<Dtype> alone = messages;
      (k == 0 ? alone.bilateral.values : alone.positional.values) = NULL;
      Message(alone, sliced);
      device_->Product(true, false, classes, classes, pixels_,
          static_cast<const Dtype*>(sliced), stride_, q, stride_,
          Dtype(first ? 0 : 1),
          gain_diff_[k].Reserve(device_, classes * classes), classes,
          RENET_FLOAT32);
      device_->Product(false, false, pixels_, classes, classes,
          static_cast<const Dtype*>(sliced), stride_,
          static_cast<const Dtype*>(gain_[k].get()), classes,
          Dtype(begun ? 1 : 0), diff, stride_, RENET_FLOAT32);
      begun = true;
    }
    if (!begun) { Message(messages, diff); }  // of no kernel: 0
  }
  void AddParameterDiffs(const DenseCRFDiffs<Dtype>& diffs, int k) {
    const dim3 grid = MatrixGrid(problem_.classes);
    const Dtype* const gain_diff = gain_diff_[k].get();
    if (diffs.weight[k] != NULL) {
      device_->Launch(&AddWeightDiffKernel<Dtype>, grid, dim3(kMatrixThreads),
          0, problem_.mixing, k, gain_diff, diffs.weight[k]);
    }
    if (diffs.compatibility != NULL) {
      device_->Launch(&AddCompatibilityDiffKernel<Dtype>, grid,
          dim3(kMatrixThreads), 0, problem_.mixing, k, gain_diff,
          diffs.compatibility);
    }
  }

  Device* device_;
  DenseCRFProblem<Dtype> problem_;
  int pixels_, stride_;
  size_t size_;  // of a map
  PermutohedralDeviceLattice<Dtype, 2> positional_;
  int positional_height_, positional_width_;
  LatticeNormalization positional_normalization_;
  PermutohedralDeviceLattice<Dtype, 5> bilateral_;
  LatticeScratch<Dtype> scratch_;
  GrowingArray<Dtype> scores_, start_, q_, message_;
  GrowingArray<Dtype> history_, score_diff_, logit_diff_;
  GrowingArray<Dtype> gain_[2], gain_diff_[2];  // classes x classes
};

}  // namespace caffe

#endif  // CAFFE_CRF_MEAN_FIELD_DEVICE_SOLVER_CUH_
