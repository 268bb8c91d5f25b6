#ifndef CAFFE_CRF_MEAN_FIELD_DEVICE_SOLVER_CUH_
#define CAFFE_CRF_MEAN_FIELD_DEVICE_SOLVER_CUH_

#include <cstddef>

#include "caffe/proto/caffe.pb.h"
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
  bool used[2];  // the positional and the bilateral kernel
  KernelWeight<Dtype> weight[2];
  const Dtype* compatibility;  // classes x classes; NULL: Potts
  const Dtype* scores;         // classes x pixels
};

/// The problem that parameters, scores (classes x height x width) and image
/// (3 x height x width) pose, without what is learned.
template <typename Dtype>
DenseCRFProblem<Dtype> PoseDenseCRF(const DenseCRFParameter& crf, int classes,
    int height, int width, const Dtype* scores, const Dtype* image) {
  DenseCRFProblem<Dtype> problem = {};
  problem.classes = classes;
  problem.height = height;
  problem.width = width;
  problem.iterations = crf.max_iter();
  problem.output = crf.output();
  problem.scores = scores;
  problem.positional = MakePositionalFeatures(crf, width);
  problem.bilateral = MakeBilateralFeatures(crf, image, height, width);
  problem.weight[0].common = crf.pos_w();
  problem.weight[1].common = crf.bi_w();
  for (int k = 0; k < 2; ++k) {
    problem.used[k] = crf.learn() || problem.weight[k].common > 0;
  }
  return problem;
}

/// Gradients that are asked for; the others are NULL.
template <typename Dtype>
struct DenseCRFDiffs {
  const Dtype* top;      // classes x pixels
  Dtype* scores;         // classes x pixels: overwritten
  Dtype* weight[2];      // classes: added to
  Dtype* compatibility;  // classes x classes: added to
};

/**
 * @brief Mean field on a device: what DenseCRFLayer does for one image, forward
 *        and backward (see there for the equations).
 *
 * An iteration is a splat, the blurs and one kernel that slices, weighs and
 * takes the softmax; nothing waits for the device after the lattices' Build.
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
      : device_(device), positional_height_(0), positional_width_(0) {}

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
    // with compatibility the messages are a loss, else a gain
    const bool learned = problem.compatibility != NULL;
    Dtype* const diff = q_.Reserve(device_, size_);
    Dtype* const logit_diff = logit_diff_.Reserve(device_, size_);
    SoftmaxDiff<Dtype> step = {pixels_, problem.classes, stride_,
        PixelLanes(problem.classes), NULL, diff, false,
        Dtype(learned ? -1 : 1), logit_diff,
        score_diff_.Reserve(device_, size_), false};
    Rows(diffs.top, diff);
    for (int t = iterations; t >= 0; --t) {
      step.probability = history + size_ * t;
      step.of_logarithm = t == iterations &&
          problem.output == DenseCRFParameter_Output_LOG_PROBABILITY;
      step.add = t < iterations;
      device_->Launch(&SoftmaxDiffKernel<Dtype>,
          PixelGrid(pixels_, step.lanes), dim3(kPixelThreads), 0, step);
      if (t == 0) { break; }
      const Dtype* const message_diff = learned ?
          LearnedDiffs(diffs, history + size_ * (t - 1), logit_diff) :
          logit_diff;
      Message(Blur(message_diff, true), diff);
    }
    if (diffs.scores != NULL) { Planes(score_diff_.get(), diffs.scores); }
    return true;
  }

 private:
  bool SetUp(const DenseCRFProblem<Dtype>& problem) {
    problem_ = problem;
    pixels_ = problem.height * problem.width;
    stride_ = RowStride(problem.classes);
    size_ = static_cast<size_t>(pixels_) * stride_;
    Rows(problem.scores, scores_.Reserve(device_, size_));
    const bool kept = positional_height_ == problem.height &&
        positional_width_ == problem.width;
    if (problem.used[0] && !kept) {
      positional_height_ = positional_width_ = 0;
      if (!positional_.Build(device_, pixels_, problem.positional, &scratch_)) {
        return false;
      }
      positional_height_ = problem.height;
      positional_width_ = problem.width;
    }
    return !problem.used[1] ||
        bilateral_.Build(device_, pixels_, problem.bilateral, &scratch_);
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

  /// The kernels that are used, on `from` or transposed.
  Messages<Dtype> Blur(const Dtype* from, bool transposed) {
    Messages<Dtype> messages = {};
    for (int k = 0; k < 2; ++k) { messages.weight[k] = problem_.weight[k]; }
    if (problem_.used[0]) {
      messages.positional =
          positional_.Blur(device_, from, stride_, transposed);
    }
    if (problem_.used[1]) {
      messages.bilateral = bilateral_.Blur(device_, from, stride_, transposed);
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
    step.scores = scores_.get();
    if (t == 0) { return step; }
    const Messages<Dtype> messages = Blur(q, false);
    if (problem_.compatibility == NULL) {
      step.gain = messages;
      return step;
    }
    Dtype* const message = message_.Reserve(device_, size_);
    Dtype* const penalty = penalty_.Reserve(device_, size_);
    Message(messages, message);
    device_->Product(false, true, pixels_, problem_.classes, problem_.classes,
        static_cast<const Dtype*>(message), stride_, problem_.compatibility,
        problem_.classes, Dtype(0), penalty, stride_, RENET_FLOAT32);
    step.penalty = penalty;
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
   * @brief Adds the gradients of compatibility and weights of one iteration.
   *
   * @param q               what the iteration began with
   * @param negative_diff   minus the gradient of its logits
   * @return the gradient of its messages
   */
  const Dtype* LearnedDiffs(const DenseCRFDiffs<Dtype>& diffs, const Dtype* q,
      const Dtype* negative_diff) {
    const int classes = problem_.classes;
    Dtype* const message = message_.Reserve(device_, size_);
    Dtype* const message_diff = penalty_.Reserve(device_, size_);
    const Messages<Dtype> messages = Blur(q, false);
    if (diffs.compatibility != NULL) {
      Message(messages, message);
      device_->Product(true, false, classes, classes, pixels_, negative_diff,
          stride_, static_cast<const Dtype*>(message), stride_, Dtype(1),
          diffs.compatibility, classes, RENET_FLOAT32);
    }
    device_->Product(false, false, pixels_, classes, classes, negative_diff,
        stride_, problem_.compatibility, classes, Dtype(0), message_diff,
        stride_, RENET_FLOAT32);
    WeightDiff(messages.positional, message_diff, diffs.weight[0]);
    WeightDiff(messages.bilateral, message_diff, diffs.weight[1]);
    return message_diff;
  }
  template <int kCorners>
  void WeightDiff(const BlurredLattice<Dtype, kCorners>& blurred,
      const Dtype* message_diff, Dtype* weight_diff) {
    if (weight_diff == NULL) { return; }
    Dtype* const parts = parts_.Reserve(device_,
        static_cast<size_t>(kWeightDiffParts) * stride_);
    device_->Launch(&WeightDiffPartsKernel<Dtype, kCorners>,
        RowGrid(kWeightDiffParts, stride_), RowBlock(stride_), 0, pixels_,
        problem_.classes, stride_, message_diff, blurred, parts);
    device_->Launch(&AddWeightDiffKernel<Dtype>, dim3(problem_.classes),
        dim3(32), 0, stride_, static_cast<const Dtype*>(parts), weight_diff);
  }

  Device* device_;
  DenseCRFProblem<Dtype> problem_;
  int pixels_, stride_;
  size_t size_;  // of a map
  PermutohedralDeviceLattice<Dtype, 2> positional_;
  int positional_height_, positional_width_;
  PermutohedralDeviceLattice<Dtype, 5> bilateral_;
  LatticeScratch<Dtype> scratch_;
  GrowingArray<Dtype> scores_, q_, message_, penalty_;
  GrowingArray<Dtype> history_, score_diff_, logit_diff_, parts_;
};

}  // namespace caffe

#endif  // CAFFE_CRF_MEAN_FIELD_DEVICE_SOLVER_CUH_
