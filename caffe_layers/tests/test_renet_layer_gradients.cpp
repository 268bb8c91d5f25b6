#include <omp.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/renet_irnn_layer.hpp"
#include "caffe/layers/renet_lstm_layer.hpp"
#include "caffe/util/math_functions.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "renet_reference.hpp"

namespace caffe {

namespace {

/// Sets the number of OpenMP's threads for a scope.
class Threads {
 public:
  explicit Threads(int count) : before_(omp_get_max_threads()) {
    omp_set_num_threads(count);
  }
  ~Threads() { omp_set_num_threads(before_); }

 private:
  const int before_;
};

/// A layer with its maps; parameters, map and top gradient are a function of
/// the case alone.
template <typename Dtype>
class LayerRun {
 public:
  explicit LayerRun(const ReNetCase& c, Phase phase = TRAIN, double gain = 1)
      : case_(c), propagate_down_(1, true) {
    bottom_vector_.push_back(&bottom_);
    top_vector_.push_back(&top_);
    layer_ = LayerRegistry<Dtype>::CreateLayer(c.Parameter(phase));
    bottom_.Reshape(c.num, c.channels, c.height, c.width);
    layer_->SetUp(bottom_vector_, top_vector_);
    FillParameters(c, gain, layer_->blobs());
    ClearDiffs();
    SetMap(c.num, c.height, c.width);
  }

  /// Another map, and another gradient of the top.
  void SetMap(int num, int height, int width) {
    case_ = case_.Map(num, case_.channels, height, width);
    bottom_.Reshape(num, case_.channels, height, width);
    layer_->Reshape(bottom_vector_, top_vector_);
    FillUniform(1, -1, 1, bottom_.count(), bottom_.mutable_cpu_data());
    SetTopDiff(2);
  }
  void SetTopDiff(unsigned int seed) {
    FillUniform(seed, -1, 1, top_.count(), top_.mutable_cpu_diff());
  }
  void ClearDiffs() {
    for (const shared_ptr<Blob<Dtype> >& blob : layer_->blobs()) {
      caffe_set(blob->count(), Dtype(0), blob->mutable_cpu_diff());
    }
  }

  void Forward() { layer_->Forward(bottom_vector_, top_vector_); }
  void Backward() {
    layer_->Backward(top_vector_, propagate_down_, bottom_vector_);
  }
  void PropagateDown(bool propagate) { propagate_down_[0] = propagate; }
  void CheckGradient(GradientChecker<Dtype> checker) {
    checker.CheckGradient(layer_.get(), bottom_vector_, top_vector_);
  }

  vector<Dtype> Top() const { return Data(top_); }
  vector<Dtype> BottomDiff() const { return Diff(bottom_); }
  vector<vector<Dtype> > ParameterDiffs() const {
    vector<vector<Dtype> > diffs;
    for (const shared_ptr<Blob<Dtype> >& blob : layer_->blobs()) {
      diffs.push_back(Diff(*blob));
    }
    return diffs;
  }
  ReNetReference Reference() const {
    return ReferenceForward(case_, bottom_, layer_->blobs());
  }

  Layer<Dtype>* layer() { return layer_.get(); }
  Blob<Dtype>* bottom() { return &bottom_; }
  Blob<Dtype>* top() { return &top_; }

 private:
  static vector<Dtype> Data(const Blob<Dtype>& blob) {
    return vector<Dtype>(blob.cpu_data(), blob.cpu_data() + blob.count());
  }
  static vector<Dtype> Diff(const Blob<Dtype>& blob) {
    return vector<Dtype>(blob.cpu_diff(), blob.cpu_diff() + blob.count());
  }

  ReNetCase case_;
  shared_ptr<Layer<Dtype> > layer_;
  Blob<Dtype> bottom_;
  Blob<Dtype> top_;
  vector<Blob<Dtype>*> bottom_vector_;
  vector<Blob<Dtype>*> top_vector_;
  vector<bool> propagate_down_;
};

/// All units in both directions.
vector<ReNetCase> UnitsAndDirections() {
  vector<ReNetCase> cases;
  for (const ReNetCase& unit : ReNetUnits()) {
    cases.push_back(unit.Direction(true));
    cases.push_back(unit.Direction(false));
  }
  return cases;
}

template <typename Dtype>
double GradientDistance(const vector<Dtype>& actual,
    const vector<Dtype>& expected) {
  CHECK_EQ(actual.size(), expected.size());
  return LargestGradientError(actual.size(), actual.data(), expected.data());
}

}  // namespace

template <typename TypeParam>
class ReNetLayerTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  static bool is_float() { return sizeof(Dtype) == sizeof(float); }

  void CheckGradients(const ReNetCase& unit) {
    // The maps are so small that threads would only wait for each other.
    const Threads threads(1);
    const int patches[][2] = {{1, 1}, {2, 2}, {3, 2}};
    // So small for an IRNN that every sum stays on its side of the kink.
    const bool irnn = unit.type == "ReNetIRNN";
    for (const int* patch : patches) {
      for (int vertical = 0; vertical < 2; ++vertical) {
        const ReNetCase c =
            unit.Direction(vertical).Patch(patch[0], patch[1]);
        SCOPED_TRACE(::testing::Message() << c);
        LayerRun<Dtype> run(c, TRAIN, irnn ? 0.3 : 1);
        for (int scan = 0; scan < 2 && irnn; ++scan) {
          Dtype* bias = run.layer()->blobs()[scan * 3 + 1]->mutable_cpu_data();
          for (int i = 0; i < c.hidden; ++i) bias[i] = i % 2 ? -1.5 : 1.5;
        }
        ASSERT_GT(run.Reference().kink, 0.2);
        run.CheckGradient(is_float() ? GradientChecker<Dtype>(1e-2, 5e-3) :
            GradientChecker<Dtype>(1e-5, 1e-7));
      }
    }
  }
};

TYPED_TEST_CASE(ReNetLayerTest, TestDtypesAndDevices);

TYPED_TEST(ReNetLayerTest, GradientLSTM) {
  this->CheckGradients(ReNetUnits()[0]);
}

TYPED_TEST(ReNetLayerTest, GradientLSTMPeephole) {
  this->CheckGradients(ReNetUnits()[1]);
}

TYPED_TEST(ReNetLayerTest, GradientLSTMCell) {
  this->CheckGradients(ReNetUnits()[2]);
}

TYPED_TEST(ReNetLayerTest, GradientLSTMPeepholeCell) {
  this->CheckGradients(ReNetUnits()[3]);
}

TYPED_TEST(ReNetLayerTest, GradientGRU) {
  this->CheckGradients(ReNetUnits()[4]);
}

TYPED_TEST(ReNetLayerTest, GradientIRNN) {
  this->CheckGradients(ReNetUnits()[5]);
}

TYPED_TEST(ReNetLayerTest, ForwardIsTheEquations) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& unit : UnitsAndDirections()) {
    const ReNetCase cases[] = {
        unit,
        unit.Map(1, 1, 1, 1).Hidden(1),
        unit.Map(1, 2, 1, 1).Patch(3, 2),
        unit.Map(2, 3, 7, 11).Patch(2, 2).Hidden(5),
        unit.Map(3, 2, 8, 7).Patch(3, 2).Hidden(4),
        unit.Map(2, 1, 3, 120).Hidden(5),   // 240 lines vertically
        unit.Map(2, 2, 40, 19).Hidden(17)};
    for (const ReNetCase& c : cases) {
      SCOPED_TRACE(::testing::Message() << c);
      for (Phase phase : {TRAIN, TEST}) {
        LayerRun<Dtype> run(c, phase);
        run.Forward();
        ASSERT_EQ(c.num, run.top()->num());
        ASSERT_EQ(2 * c.hidden, run.top()->channels());
        ASSERT_EQ(c.rows(), run.top()->height());
        ASSERT_EQ(c.columns(), run.top()->width());
        EXPECT_LE(LargestError(run.top()->count(), run.top()->cpu_data(),
            run.Reference().top.data()), this->is_float() ? 2e-5 : 1e-12);
      }
    }
  }
}

// A gradient check of maps that are too large for one of every element: the
// slope along one random direction of each blob.
TYPED_TEST(ReNetLayerTest, GradientAlongRandomDirections) {
  typedef typename TypeParam::Dtype Dtype;
  if (this->is_float()) return;  // slopes of a large map need a double's digits
  for (const ReNetCase& unit : UnitsAndDirections()) {
    const ReNetCase cases[] = {
        unit.Map(2, 1, 3, 120).Hidden(5),
        unit.Map(2, 3, 40, 19).Hidden(20),
        unit.Map(3, 2, 19, 38).Patch(1, 2).Hidden(7)};
    for (const ReNetCase& c : cases) {
      SCOPED_TRACE(::testing::Message() << c);
      LayerRun<Dtype> run(c);
      run.Forward();
      run.Backward();
      const double step = 1e-7;
      ASSERT_GT(run.Reference().kink, 20 * step);
      vector<Blob<Dtype>*> blobs(1, run.bottom());
      for (const shared_ptr<Blob<Dtype> >& blob : run.layer()->blobs()) {
        blobs.push_back(blob.get());
      }
      const vector<Dtype> weights(run.top()->cpu_diff(),
          run.top()->cpu_diff() + run.top()->count());
      for (size_t i = 0; i < blobs.size(); ++i) {
        const int count = blobs[i]->count();
        vector<Dtype> direction(count);
        FillUniform(50 + i, -1, 1, count, direction.data());
        const double slope =
            caffe_cpu_dot(count, direction.data(), blobs[i]->cpu_diff());
        double loss[2];
        for (int side = 0; side < 2; ++side) {
          const double shift = side ? -2 * step : step;
          caffe_axpy(count, Dtype(shift), direction.data(),
              blobs[i]->mutable_cpu_data());
          run.Forward();
          loss[side] = caffe_cpu_dot(run.top()->count(), weights.data(),
              run.top()->cpu_data());
        }
        caffe_axpy(count, Dtype(step), direction.data(),
            blobs[i]->mutable_cpu_data());
        const double measured = (loss[0] - loss[1]) / (2 * step);
        EXPECT_NEAR(measured, slope, 1e-5 * std::max(1., std::abs(slope)))
            << "blob " << i << " (0: the map)";
      }
    }
  }
}

TYPED_TEST(ReNetLayerTest, GradientsNearThoseInDouble) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& unit : UnitsAndDirections()) {
    const ReNetCase cases[] = {
        unit.Map(1, 1, 1, 1).Hidden(1),
        unit.Map(3, 2, 8, 7).Patch(3, 2).Hidden(5),
        unit.Map(2, 3, 35, 18).Hidden(13)};
    for (const ReNetCase& c : cases) {
      SCOPED_TRACE(::testing::Message() << c);
      LayerRun<Dtype> run(c);
      LayerRun<double> expected(c);
      // Or a rounding could decide about the gradient.
      ASSERT_GT(expected.Reference().kink, 1e-6);
      run.Forward();
      run.Backward();
      expected.Forward();
      expected.Backward();
      EXPECT_LE(LargestGradientError(run.bottom()->count(),
          run.bottom()->cpu_diff(), expected.bottom()->cpu_diff()), 2e-3);
      for (size_t i = 0; i < run.layer()->blobs().size(); ++i) {
        EXPECT_LE(LargestGradientError(run.layer()->blobs()[i]->count(),
            run.layer()->blobs()[i]->cpu_diff(),
            expected.layer()->blobs()[i]->cpu_diff()), 2e-3)
            << "parameter blob " << i;
      }
    }
  }
}

// A state depends on the steps before it and on nothing else: so a scan over
// the whole map begins as a scan over its beginning alone.
TYPED_TEST(ReNetLayerTest, ScansOfAPartAreParts) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& unit : UnitsAndDirections()) {
    const int total = 21, channels = 2, lines = 6, d = 3;
    const ReNetCase whole_case = unit.vertical ?
        unit.Map(2, channels, total, lines) :
        unit.Map(2, channels, lines, total);
    LayerRun<Dtype> whole(whole_case);
    whole.Forward();
    for (int part_steps : {1, 2, 17, 20}) {
      SCOPED_TRACE(::testing::Message() << part_steps << " steps of "
          << whole_case);
      const ReNetCase part_case = unit.vertical ?
          unit.Map(2, channels, part_steps, lines) :
          unit.Map(2, channels, lines, part_steps);
      // The forward scan from the beginning, the backward scan from the end.
      for (int scan = 0; scan < 2; ++scan) {
        const int offset = scan == 0 ? 0 : total - part_steps;
        LayerRun<Dtype> part(part_case);
        const auto in_whole = [&](const Blob<Dtype>& blob, int n, int c,
            int line, int step) {
          return unit.vertical ? blob.data_at(n, c, step + offset, line) :
              blob.data_at(n, c, line, step + offset);
        };
        for (int n = 0; n < 2; ++n) {
          for (int c = 0; c < channels; ++c) {
            for (int line = 0; line < lines; ++line) {
              for (int step = 0; step < part_steps; ++step) {
                const int y = unit.vertical ? step : line;
                const int x = unit.vertical ? line : step;
                part.bottom()->mutable_cpu_data()[
                    part.bottom()->offset(n, c, y, x)] =
                    in_whole(*whole.bottom(), n, c, line, step);
              }
            }
          }
        }
        part.Forward();
        for (int n = 0; n < 2; ++n) {
          for (int c = scan * d; c < (scan + 1) * d; ++c) {
            for (int line = 0; line < lines; ++line) {
              for (int step = 0; step < part_steps; ++step) {
                const int y = unit.vertical ? step : line;
                const int x = unit.vertical ? line : step;
                ASSERT_NEAR(in_whole(*whole.top(), n, c, line, step),
                    part.top()->data_at(n, c, y, x), 1e-6);
              }
            }
          }
        }
      }
    }
  }
}

TYPED_TEST(ReNetLayerTest, HorizontalIsVerticalOfTheTransposedMap) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& unit : ReNetUnits()) {
    const ReNetCase cases[] = {unit, unit.Patch(3, 2),
        unit.Map(1, 3, 19, 40).Hidden(5)};
    for (const ReNetCase& c : cases) {
      SCOPED_TRACE(::testing::Message() << c);
      LayerRun<Dtype> vertical(c);
      ReNetCase turned = c.Map(c.num, c.channels, c.width, c.height)
          .Patch(c.patch_width, c.patch_height).Direction(false);
      LayerRun<Dtype> horizontal(turned);
      const auto transpose = [](const Blob<Dtype>& from, const Dtype* source,
          Dtype* to) {
        int i = 0;
        for (int nc = 0; nc < from.shape(0) * from.shape(1); ++nc) {
          for (int x = 0; x < from.shape(3); ++x) {
            for (int y = 0; y < from.shape(2); ++y, ++i) {
              to[i] = source[(nc * from.shape(2) + y) * from.shape(3) + x];
            }
          }
        }
      };
      transpose(*vertical.bottom(), vertical.bottom()->cpu_data(),
          horizontal.bottom()->mutable_cpu_data());
      transpose(*vertical.top(), vertical.top()->cpu_diff(),
          horizontal.top()->mutable_cpu_diff());
      // Columns of W_x follow their pixels.
      const auto turn_weights = [&](const Dtype* from, Dtype* to) {
        const int rows = c.gates() * c.hidden;
        const int s = c.patch_height, t = c.patch_width;
        for (int rc = 0; rc < rows * c.channels; ++rc) {
          for (int dy = 0; dy < s; ++dy) {
            for (int dx = 0; dx < t; ++dx) {
              to[(rc * t + dx) * s + dy] = from[(rc * s + dy) * t + dx];
            }
          }
        }
      };
      for (int scan = 0; scan < 2; ++scan) {
        const int blob = scan * c.scan_blobs();
        turn_weights(vertical.layer()->blobs()[blob]->cpu_data(),
            horizontal.layer()->blobs()[blob]->mutable_cpu_data());
      }
      vertical.Forward();
      vertical.Backward();
      horizontal.Forward();
      horizontal.Backward();
      const double tolerance = this->is_float() ? 1e-5 : 1e-12;
      vector<Dtype> expected(vertical.top()->count());
      transpose(*vertical.top(), vertical.top()->cpu_data(), expected.data());
      EXPECT_LE(LargestError(expected.size(), horizontal.top()->cpu_data(),
          expected.data()), tolerance);
      expected.resize(vertical.bottom()->count());
      transpose(*vertical.bottom(), vertical.bottom()->cpu_diff(),
          expected.data());
      EXPECT_LE(LargestGradientError(expected.size(),
          horizontal.bottom()->cpu_diff(), expected.data()), 100 * tolerance);
      vector<vector<Dtype> > diffs = vertical.ParameterDiffs();
      for (size_t i = 0; i < diffs.size(); ++i) {
        expected = diffs[i];
        if (i % c.scan_blobs() == 0) {
          turn_weights(diffs[i].data(), expected.data());
        }
        EXPECT_LE(GradientDistance(horizontal.ParameterDiffs()[i], expected),
            100 * tolerance) << "parameter blob " << i;
      }
    }
  }
}

TYPED_TEST(ReNetLayerTest, ShapesMayChangeBetweenCalls) {
  typedef typename TypeParam::Dtype Dtype;
  const int maps[][3] = {
      {2, 6, 7}, {1, 23, 40}, {1, 1, 1}, {3, 5, 90}, {2, 6, 7}, {1, 40, 3}};
  for (const ReNetCase& unit : UnitsAndDirections()) {
    const ReNetCase c = unit.Patch(2, 1).Hidden(5);
    LayerRun<Dtype> changing(c);
    for (const int* map : maps) {
      SCOPED_TRACE(::testing::Message()
          << c.Map(map[0], c.channels, map[1], map[2]));
      changing.SetMap(map[0], map[1], map[2]);
      changing.ClearDiffs();
      changing.Forward();
      changing.Backward();
      LayerRun<Dtype> fresh(c.Map(map[0], c.channels, map[1], map[2]));
      fresh.Forward();
      fresh.Backward();
      EXPECT_TRUE(fresh.Top() == changing.Top());
      EXPECT_TRUE(fresh.BottomDiff() == changing.BottomDiff());
      EXPECT_TRUE(fresh.ParameterDiffs() == changing.ParameterDiffs());
    }
  }
}

TYPED_TEST(ReNetLayerTest, GradientsOfTwoPassesAddUp) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& c : UnitsAndDirections()) {
    SCOPED_TRACE(::testing::Message() << c);
    LayerRun<Dtype> run(c);
    run.Forward();
    run.Backward();
    const vector<vector<Dtype> > first = run.ParameterDiffs();
    run.ClearDiffs();
    run.SetMap(3, 4, 9);
    run.Forward();
    run.Backward();
    const vector<vector<Dtype> > second = run.ParameterDiffs();
    run.ClearDiffs();
    run.SetMap(c.num, c.height, c.width);
    run.Forward();
    run.Backward();
    run.SetMap(3, 4, 9);
    run.Forward();
    run.Backward();
    const vector<vector<Dtype> > both = run.ParameterDiffs();
    for (size_t i = 0; i < both.size(); ++i) {
      vector<Dtype> sum = first[i];
      for (size_t j = 0; j < sum.size(); ++j) sum[j] += second[i][j];
      EXPECT_LE(GradientDistance(both[i], sum), 1e-4) << "blob " << i;
      EXPECT_GT(GradientDistance(both[i], second[i]), 1e-2) << "blob " << i;
    }
  }
}

TYPED_TEST(ReNetLayerTest, BackwardMayRunTwice) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& c : UnitsAndDirections()) {
    SCOPED_TRACE(::testing::Message() << c);
    LayerRun<Dtype> run(c.Hidden(5));
    run.Forward();
    const vector<Dtype> top = run.Top();
    run.Backward();
    const vector<Dtype> bottom_diff = run.BottomDiff();
    vector<vector<Dtype> > diffs = run.ParameterDiffs();
    run.Backward();
    EXPECT_TRUE(bottom_diff == run.BottomDiff());
    EXPECT_TRUE(top == run.Top());
    for (size_t i = 0; i < diffs.size(); ++i) {
      for (size_t j = 0; j < diffs[i].size(); ++j) diffs[i][j] *= 2;
      EXPECT_LE(GradientDistance(run.ParameterDiffs()[i], diffs[i]), 1e-5);
    }
    // Another gradient of the top gives another gradient, not the first again.
    run.SetTopDiff(9);
    run.Backward();
    EXPECT_FALSE(bottom_diff == run.BottomDiff());
  }
}

TYPED_TEST(ReNetLayerTest, PropagateDownFalse) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& c : UnitsAndDirections()) {
    SCOPED_TRACE(::testing::Message() << c);
    LayerRun<Dtype> full(c), run(c);
    full.Forward();
    full.Backward();
    caffe_set(run.bottom()->count(), Dtype(7),
        run.bottom()->mutable_cpu_diff());
    run.PropagateDown(false);
    run.Forward();
    run.Backward();
    EXPECT_TRUE(vector<Dtype>(run.bottom()->count(), 7) == run.BottomDiff());
    EXPECT_TRUE(full.ParameterDiffs() == run.ParameterDiffs());
  }
}

TYPED_TEST(ReNetLayerTest, ParameterPropagateDownFalse) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& c : UnitsAndDirections()) {
    SCOPED_TRACE(::testing::Message() << c);
    LayerRun<Dtype> full(c);
    full.Forward();
    full.Backward();
    const int blobs = full.layer()->blobs().size();
    // The last round does without all of them.
    for (int off = 0; off <= blobs; ++off) {
      LayerRun<Dtype> run(c);
      vector<vector<Dtype> > expected = full.ParameterDiffs();
      for (int i = 0; i < blobs; ++i) {
        if (off != blobs && off != i) continue;
        run.layer()->set_param_propagate_down(i, false);
        Blob<Dtype>* blob = run.layer()->blobs()[i].get();
        caffe_set(blob->count(), Dtype(7), blob->mutable_cpu_diff());
        expected[i].assign(blob->count(), 7);
      }
      run.Forward();
      run.Backward();
      EXPECT_TRUE(expected == run.ParameterDiffs()) << "without blob " << off;
      EXPECT_TRUE(full.BottomDiff() == run.BottomDiff());
    }
  }
}

TYPED_TEST(ReNetLayerTest, NothingToPropagate) {
  typedef typename TypeParam::Dtype Dtype;
  LayerRun<Dtype> run(ReNetUnits()[1]);
  run.Forward();
  run.PropagateDown(false);
  for (size_t i = 0; i < run.layer()->blobs().size(); ++i) {
    run.layer()->set_param_propagate_down(i, false);
  }
  const vector<Dtype> bottom_diff = run.BottomDiff();
  const vector<vector<Dtype> > diffs = run.ParameterDiffs();
  run.Backward();
  EXPECT_TRUE(bottom_diff == run.BottomDiff());
  EXPECT_TRUE(diffs == run.ParameterDiffs());
}

TYPED_TEST(ReNetLayerTest, BackwardInATestNet) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& c : UnitsAndDirections()) {
    SCOPED_TRACE(::testing::Message() << c);
    LayerRun<Dtype> train(c, TRAIN), test(c, TEST);
    train.Forward();
    train.Backward();
    test.Forward();
    EXPECT_TRUE(train.Top() == test.Top());
    // As a layer in place would: Backward does not write the top.
    caffe_set(test.top()->count(), Dtype(7), test.top()->mutable_cpu_data());
    test.Backward();
    EXPECT_TRUE(vector<Dtype>(test.top()->count(), 7) == test.Top());
    EXPECT_TRUE(train.BottomDiff() == test.BottomDiff());
    EXPECT_TRUE(train.ParameterDiffs() == test.ParameterDiffs());
    // A second map: the first one's history is not taken for its own.
    train.SetMap(1, 9, 4);
    test.SetMap(1, 9, 4);
    train.ClearDiffs();
    test.ClearDiffs();
    train.Forward();
    train.Backward();
    test.Forward();
    test.Backward();
    EXPECT_TRUE(train.ParameterDiffs() == test.ParameterDiffs());
  }
}

TYPED_TEST(ReNetLayerTest, NumberOfThreads) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& unit : UnitsAndDirections()) {
    const ReNetCase cases[] = {unit, unit.Map(2, 3, 50, 61).Hidden(6)};
    for (const ReNetCase& c : cases) {
      vector<Dtype> top, bottom_diff;
      vector<vector<Dtype> > diffs;
      for (int count : {1, 2, 3, 5}) {
        SCOPED_TRACE(::testing::Message() << count << " threads, " << c);
        const Threads threads(count);
        LayerRun<Dtype> run(c), again(c);
        run.Forward();
        run.Backward();
        again.Forward();
        again.Backward();
        // Equal runs give equal bits.
        EXPECT_TRUE(run.Top() == again.Top());
        EXPECT_TRUE(run.BottomDiff() == again.BottomDiff());
        EXPECT_TRUE(run.ParameterDiffs() == again.ParameterDiffs());
        if (count == 1) {
          top = run.Top();
          bottom_diff = run.BottomDiff();
          diffs = run.ParameterDiffs();
          continue;
        }
        EXPECT_TRUE(top == run.Top());
        EXPECT_LE(GradientDistance(run.BottomDiff(), bottom_diff), 1e-3);
        for (size_t i = 0; i < diffs.size(); ++i) {
          EXPECT_LE(GradientDistance(run.ParameterDiffs()[i], diffs[i]), 1e-3);
        }
      }
    }
  }
}

// Backward goes on with the plan of its Forward.
TYPED_TEST(ReNetLayerTest, NumberOfThreadsChangesBeforeBackward) {
  typedef typename TypeParam::Dtype Dtype;
  const ReNetCase c = ReNetUnits()[0].Map(2, 3, 20, 61);
  LayerRun<Dtype> expected(c), run(c);
  {
    const Threads threads(2);
    expected.Forward();
    expected.Backward();
    run.Forward();
  }
  const Threads threads(5);
  run.Backward();
  EXPECT_TRUE(expected.BottomDiff() == run.BottomDiff());
  EXPECT_TRUE(expected.ParameterDiffs() == run.ParameterDiffs());
}

TYPED_TEST(ReNetLayerTest, ParameterShapes) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& unit : ReNetUnits()) {
    const ReNetCase c = unit.Map(1, 5, 4, 4).Patch(3, 2).Hidden(7);
    SCOPED_TRACE(::testing::Message() << c);
    LayerRun<Dtype> run(c);
    const vector<shared_ptr<Blob<Dtype> > >& blobs = run.layer()->blobs();
    ASSERT_EQ(2 * c.scan_blobs(), blobs.size());
    const int rows = c.gates() * 7;
    for (int scan = 0; scan < 2; ++scan) {
      const int first = scan * c.scan_blobs();
      EXPECT_TRUE((vector<int>{rows, 30}) == blobs[first]->shape());
      EXPECT_TRUE((vector<int>{rows}) == blobs[first + 1]->shape());
      EXPECT_TRUE((vector<int>{rows, 7}) == blobs[first + 2]->shape());
      if (c.peephole) {
        EXPECT_TRUE((vector<int>{3, 7}) == blobs[first + 3]->shape());
      }
    }
  }
}

template <typename TypeParam>
class ReNetInitialisationTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  const vector<shared_ptr<Blob<Dtype> > >& SetUp(
      const LayerParameter& parameter) {
    bottom_.Reshape(1, 6, 4, 5);
    layer_ = LayerRegistry<Dtype>::CreateLayer(parameter);
    layer_->SetUp(vector<Blob<Dtype>*>(1, &bottom_),
        vector<Blob<Dtype>*>(1, &top_));
    return layer_->blobs();
  }

  /// Uniform over [-0.2, 0.2]: its bounds are kept and nearly reached.
  static void ExpectUniform(const Blob<Dtype>& blob) {
    const Dtype* data = blob.cpu_data();
    const Dtype low = *std::min_element(data, data + blob.count());
    const Dtype high = *std::max_element(data, data + blob.count());
    EXPECT_GE(low, -0.2 - 1e-6);
    EXPECT_LE(high, 0.2 + 1e-6);
    EXPECT_LT(low, -0.15);
    EXPECT_GT(high, 0.15);
  }
  static void ExpectAll(double value, int begin, int end,
      const Blob<Dtype>& blob) {
    for (int i = begin; i < end; ++i) {
      EXPECT_EQ(Dtype(value), blob.cpu_data()[i]) << "element " << i;
    }
  }

 private:
  shared_ptr<Layer<Dtype> > layer_;
  Blob<Dtype> bottom_;
  Blob<Dtype> top_;
};

TYPED_TEST_CASE(ReNetInitialisationTest, TestDtypesAndDevices);

TYPED_TEST(ReNetInitialisationTest, Default) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& unit : ReNetUnits()) {
    SCOPED_TRACE(::testing::Message() << unit);
    const ReNetCase c = unit.Hidden(20);
    const vector<shared_ptr<Blob<Dtype> > >& blobs =
        this->SetUp(c.Parameter(TRAIN));
    for (int scan = 0; scan < 2; ++scan) {
      const int first = scan * c.scan_blobs();
      this->ExpectUniform(*blobs[first]);
      this->ExpectAll(0, 0, c.gates() * 20, *blobs[first + 1]);
      if (c.peephole) this->ExpectUniform(*blobs[first + 3]);
      if (c.type != "ReNetIRNN") {
        this->ExpectUniform(*blobs[first + 2]);
        continue;
      }
      for (int i = 0; i < 400; ++i) {
        EXPECT_EQ(Dtype(i % 21 == 0), blobs[first + 2]->cpu_data()[i]);
      }
    }
    // The scans have weights of their own.
    EXPECT_NE(blobs[0]->cpu_data()[0],
        blobs[c.scan_blobs()]->cpu_data()[0]);
  }
}

TYPED_TEST(ReNetInitialisationTest, ForgetBias) {
  typedef typename TypeParam::Dtype Dtype;
  LayerParameter parameter = ReNetUnits()[0].Hidden(5).Parameter(TRAIN);
  parameter.mutable_renet_param()->set_forget_bias(2);
  FillerParameter* filler =
      parameter.mutable_renet_param()->mutable_bias_filler();
  filler->set_type("constant");
  filler->set_value(0.5);
  const vector<shared_ptr<Blob<Dtype> > >& blobs = this->SetUp(parameter);
  for (int scan = 0; scan < 2; ++scan) {
    const Blob<Dtype>& bias = *blobs[scan * 3 + 1];
    this->ExpectAll(0.5, 0, 5, bias);
    this->ExpectAll(2.5, 5, 10, bias);
    this->ExpectAll(0.5, 10, 20, bias);
  }
}

TYPED_TEST(ReNetInitialisationTest, WeightFiller) {
  typedef typename TypeParam::Dtype Dtype;
  for (const ReNetCase& c : ReNetUnits()) {
    LayerParameter parameter = c.Parameter(TRAIN);
    FillerParameter* filler =
        parameter.mutable_renet_param()->mutable_weight_filler();
    filler->set_type("constant");
    filler->set_value(0.25);
    const vector<shared_ptr<Blob<Dtype> > >& blobs = this->SetUp(parameter);
    for (int i = 0; i < 2 * c.scan_blobs(); ++i) {
      const int kind = i % c.scan_blobs();
      if (kind == 1 || (kind == 2 && c.type == "ReNetIRNN")) continue;
      this->ExpectAll(0.25, 0, blobs[i]->count(), *blobs[i]);
    }
  }
}

// What a person gets to read who wrote a wrong prototxt.
class ReNetParameterDeathTest : public ::testing::Test {
 protected:
  ReNetParameterDeathTest() : bottom_(1, 3, 4, 5) {
    Caffe::set_mode(Caffe::CPU);
    ::testing::FLAGS_gtest_death_test_style = "fast";
  }

  static LayerParameter Parameter(const string& type) {
    ReNetCase c = ReNetUnits()[0];
    c.type = type;
    LayerParameter parameter = c.Parameter(TRAIN);
    parameter.set_name("renet1");
    return parameter;
  }
  void SetUpLayer(const LayerParameter& parameter) {
    shared_ptr<Layer<float> > layer =
        LayerRegistry<float>::CreateLayer(parameter);
    layer->SetUp(vector<Blob<float>*>(1, &bottom_),
        vector<Blob<float>*>(1, &top_));
  }

  Blob<float> bottom_;
  Blob<float> top_;
};

TEST_F(ReNetParameterDeathTest, NumOutput) {
  for (const char* type : {"ReNetLSTM", "ReNetGRU", "ReNetIRNN"}) {
    LayerParameter parameter = Parameter(type);
    parameter.mutable_renet_param()->clear_num_output();
    EXPECT_DEATH(SetUpLayer(parameter), string(type) +
        " layer \"renet1\": renet_param.num_output.* must be given and"
        " positive");
    parameter.mutable_renet_param()->set_num_output(0);
    EXPECT_DEATH(SetUpLayer(parameter), "renet1.*num_output");
  }
}

TEST_F(ReNetParameterDeathTest, Patch) {
  LayerParameter parameter = Parameter("ReNetLSTM");
  parameter.mutable_renet_param()->set_patch_height(0);
  EXPECT_DEATH(SetUpLayer(parameter),
      "ReNetLSTM layer \"renet1\": .*patch_height must be at least 1");
  parameter.mutable_renet_param()->set_patch_height(1);
  parameter.mutable_renet_param()->set_patch_width(0);
  EXPECT_DEATH(SetUpLayer(parameter),
      "ReNetLSTM layer \"renet1\": .*patch_width must be at least 1");
}

TEST_F(ReNetParameterDeathTest, OptionsOfOtherUnits) {
  for (const char* type : {"ReNetGRU", "ReNetIRNN"}) {
    const string layer = string(type) + " layer \"renet1\": ";
    LayerParameter parameter = Parameter(type);
    parameter.mutable_renet_param()->set_peephole(true);
    EXPECT_DEATH(SetUpLayer(parameter),
        layer + "renet_param.peephole is for ReNetLSTM alone");
    parameter = Parameter(type);
    parameter.mutable_renet_param()->set_output(ReNetParameter::CELL);
    EXPECT_DEATH(SetUpLayer(parameter),
        layer + "renet_param.output: CELL is for ReNetLSTM alone");
    parameter = Parameter(type);
    parameter.mutable_renet_param()->set_forget_bias(1);
    EXPECT_DEATH(SetUpLayer(parameter),
        layer + "renet_param.forget_bias is for ReNetLSTM alone");
  }
}

TEST_F(ReNetParameterDeathTest, ForgetBiasIsNoNumber) {
  for (const float bias : {NAN, INFINITY}) {
    LayerParameter parameter = Parameter("ReNetLSTM");
    parameter.mutable_renet_param()->set_forget_bias(bias);
    EXPECT_DEATH(SetUpLayer(parameter), "ReNetLSTM layer \"renet1\": "
        "renet_param.forget_bias must be a finite number, not");
  }
}

TEST_F(ReNetParameterDeathTest, BottomShape) {
  bottom_.Reshape(vector<int>(2, 3));
  EXPECT_DEATH(SetUpLayer(Parameter("ReNetGRU")), "ReNetGRU layer \"renet1\":"
      " the bottom must be N x C x H x W, but its shape is 3 3");
  bottom_.Reshape(1, 3, 0, 4);
  EXPECT_DEATH(SetUpLayer(Parameter("ReNetGRU")),
      "ReNetGRU layer \"renet1\": the bottom is empty: 1 3 0 4");
}

TEST_F(ReNetParameterDeathTest, OtherChannelsLater) {
  shared_ptr<Layer<float> > layer =
      LayerRegistry<float>::CreateLayer(Parameter("ReNetIRNN"));
  const vector<Blob<float>*> bottom(1, &bottom_), top(1, &top_);
  layer->SetUp(bottom, top);
  bottom_.Reshape(1, 4, 4, 5);
  EXPECT_DEATH(layer->Reshape(bottom, top), "ReNetIRNN layer \"renet1\": the"
      " weights are for 3 channels, but the bottom's shape is 1 4 4 5");
}

}  // namespace caffe
