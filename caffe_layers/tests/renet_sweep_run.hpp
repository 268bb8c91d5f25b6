#ifndef CAFFE_TEST_RENET_SWEEP_RUN_HPP_
#define CAFFE_TEST_RENET_SWEEP_RUN_HPP_

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/util/math_functions.hpp"
#include "caffe/renet/sweep.hpp"

#include "renet_reference.hpp"

namespace caffe {

/// All memory of one sweep and its gradients, for calls of the kernels
/// themselves.
template <typename Dtype>
class SweepRun {
 public:
  explicit SweepRun(const ReNetCase& c)
      : case_(c), bottom_(c.num, c.channels, c.height, c.width),
        top_(c.num, 2 * c.hidden, c.rows(), c.columns()), sweep_() {
    const int d = c.hidden, rows = c.gates() * d;
    for (int scan = 0; scan < 2; ++scan) {
      blobs_.push_back(New(rows, c.inputs()));
      blobs_.push_back(New(rows, 1));
      blobs_.push_back(New(rows, d));
      if (c.peephole) blobs_.push_back(New(3, d));
    }
    FillParameters(c, 1, blobs_);
    FillUniform(1, -1, 1, bottom_.count(), bottom_.mutable_cpu_data());
    FillUniform(2, -1, 1, top_.count(), top_.mutable_cpu_diff());
    sweep_.unit = c.type == "ReNetLSTM" ? RENET_LSTM :
        c.type == "ReNetGRU" ? RENET_GRU : RENET_IRNN;
    sweep_.vertical = c.vertical;
    sweep_.patch_height = c.patch_height;
    sweep_.patch_width = c.patch_width;
    sweep_.num = c.num;
    sweep_.channels = c.channels;
    sweep_.height = c.height;
    sweep_.width = c.width;
    sweep_.hidden = d;
    sweep_.cell_output = c.cell_output;
    sweep_.bottom = bottom_.cpu_data();
    sweep_.bottom_diff = bottom_.mutable_cpu_diff();
    sweep_.top = top_.mutable_cpu_data();
    sweep_.top_diff = top_.cpu_diff();
    for (int scan = 0; scan < 2; ++scan) {
      const int first = scan * c.scan_blobs();
      sweep_.input_weights[scan] = blobs_[first]->cpu_data();
      sweep_.bias[scan] = blobs_[first + 1]->cpu_data();
      sweep_.recurrent_weights[scan] = blobs_[first + 2]->cpu_data();
      sweep_.input_weights_diff[scan] = blobs_[first]->mutable_cpu_diff();
      sweep_.bias_diff[scan] = blobs_[first + 1]->mutable_cpu_diff();
      sweep_.recurrent_weights_diff[scan] =
          blobs_[first + 2]->mutable_cpu_diff();
      if (c.peephole) {
        sweep_.peephole[scan] = blobs_[first + 3]->cpu_data();
        sweep_.peephole_diff[scan] = blobs_[first + 3]->mutable_cpu_diff();
      }
    }
  }

  /// Forward and Backward on `kernels` (ReNetKernels, or what offers the same);
  /// memory that they do not promise to keep clean holds NaN before.
  template <class Kernels>
  void Run(const Kernels& kernels) {
    kernels.plan(&sweep_);
    history_.assign(kernels.history_size(sweep_), NAN);
    sweep_.history = history_.data();
    Forward(kernels);
    workspace_.assign(kernels.workspace_size(sweep_, true), NAN);
    sweep_.workspace = workspace_.data();
    kernels.backward(sweep_);
  }
  /// Forward as in a TEST net.
  template <class Kernels>
  void RunWithoutHistory(const Kernels& kernels) {
    kernels.plan(&sweep_);
    sweep_.history = NULL;
    Forward(kernels);
  }

  /// Lets all that the sweep reads be bfloat16s, so that rounding keeps it.
  void RoundToBfloat16() {
    Round(bottom_.count(), bottom_.mutable_cpu_data());
    Round(top_.count(), top_.mutable_cpu_diff());
    for (const shared_ptr<Blob<Dtype> >& blob : blobs_) {
      Round(blob->count(), blob->mutable_cpu_data());
    }
  }

  void SpoilBottom() { bottom_.mutable_cpu_data()[0] = Dtype(NAN); }

  void set_precision(ReNetPrecision precision) {
    sweep_.precision = precision;
  }

  ReNetReference Reference() const {
    return ReferenceForward(case_, bottom_, blobs_);
  }
  const Blob<Dtype>& bottom() const { return bottom_; }
  const Blob<Dtype>& top() const { return top_; }
  const vector<shared_ptr<Blob<Dtype> > >& blobs() const { return blobs_; }

 private:
  template <class Kernels>
  void Forward(const Kernels& kernels) {
    workspace_.assign(kernels.workspace_size(sweep_, false), NAN);
    sweep_.workspace = workspace_.data();
    caffe_set(top_.count(), Dtype(NAN), top_.mutable_cpu_data());
    kernels.forward(sweep_);
  }
  static void Round(int count, Dtype* values) {
    for (int i = 0; i < count; ++i) {
      int exponent;
      std::frexp(values[i], &exponent);
      const double unit = std::ldexp(1., exponent - 8);
      values[i] = std::nearbyint(values[i] / unit) * unit;
    }
  }
  static shared_ptr<Blob<Dtype> > New(int rows, int columns) {
    vector<int> shape(2);
    shape[0] = rows;
    shape[1] = columns;
    return shared_ptr<Blob<Dtype> >(new Blob<Dtype>(shape));
  }

  const ReNetCase case_;
  Blob<Dtype> bottom_;
  Blob<Dtype> top_;
  vector<shared_ptr<Blob<Dtype> > > blobs_;
  vector<Dtype> history_;
  vector<Dtype> workspace_;
  ReNetSweep<Dtype> sweep_;
};

template <typename Dtype> double ForwardTolerance();
template <> inline double ForwardTolerance<float>() { return 2e-5; }
template <> inline double ForwardTolerance<double>() { return 1e-12; }
template <typename Dtype> double GradientTolerance();
template <> inline double GradientTolerance<float>() { return 2e-3; }
template <> inline double GradientTolerance<double>() { return 1e-10; }

/// Top against the reference, gradients against those of another run.
template <typename Dtype>
void ExpectEqualRuns(const SweepRun<Dtype>& run,
    const ReNetReference& reference, const SweepRun<double>& expected,
    double tolerance, double gradient_tolerance) {
  EXPECT_LE(LargestError(run.top().count(), run.top().cpu_data(),
      reference.top.data()), tolerance);
  EXPECT_LE(LargestGradientError(run.bottom().count(),
      run.bottom().cpu_diff(), expected.bottom().cpu_diff()),
      gradient_tolerance);
  for (size_t i = 0; i < run.blobs().size(); ++i) {
    EXPECT_LE(LargestGradientError(run.blobs()[i]->count(),
        run.blobs()[i]->cpu_diff(), expected.blobs()[i]->cpu_diff()),
        gradient_tolerance) << "parameter blob " << i;
  }
}

}  // namespace caffe

#endif  // CAFFE_TEST_RENET_SWEEP_RUN_HPP_
