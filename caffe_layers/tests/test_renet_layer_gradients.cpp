#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/util/math_functions.hpp"

#include "caffe/test/test_gradient_check_util.hpp"
#include "renet_layer_run.hpp"

namespace caffe {

namespace {

template <typename Dtype>
void CheckGradients(const ReNetCase& unit) {
  // The maps are so small that threads would only wait for each other.
  const Threads threads(1);
  const int patches[][2] = {{1, 1}, {2, 2}, {3, 2}};
  // So small for an IRNN that every sum stays on its side of the kink.
  const bool irnn = unit.type == "ReNetIRNN";
  for (const int* patch : patches) {
    for (int vertical = 0; vertical < 2; ++vertical) {
      const ReNetCase c = unit.Direction(vertical).Patch(patch[0], patch[1]);
      SCOPED_TRACE(::testing::Message() << c);
      LayerRun<Dtype> run(c, TRAIN, irnn ? 0.3 : 1);
      for (int scan = 0; scan < 2 && irnn; ++scan) {
        Dtype* bias = run.layer()->blobs()[scan * 3 + 1]->mutable_cpu_data();
        for (int i = 0; i < c.hidden; ++i) bias[i] = i % 2 ? -1.5 : 1.5;
      }
      ASSERT_GT(run.Reference().kink, 0.2);
      run.CheckGradient(std::is_same<Dtype, float>::value ?
          GradientChecker<Dtype>(1e-2, 5e-3) :
          GradientChecker<Dtype>(1e-5, 1e-7));
    }
  }
}

}  // namespace

TYPED_TEST(ReNetLayerTest, GradientLSTM) {
  CheckGradients<typename TypeParam::Dtype>(ReNetUnits()[0]);
}

TYPED_TEST(ReNetLayerTest, GradientLSTMPeephole) {
  CheckGradients<typename TypeParam::Dtype>(ReNetUnits()[1]);
}

TYPED_TEST(ReNetLayerTest, GradientLSTMCell) {
  CheckGradients<typename TypeParam::Dtype>(ReNetUnits()[2]);
}

TYPED_TEST(ReNetLayerTest, GradientLSTMPeepholeCell) {
  CheckGradients<typename TypeParam::Dtype>(ReNetUnits()[3]);
}

TYPED_TEST(ReNetLayerTest, GradientGRU) {
  CheckGradients<typename TypeParam::Dtype>(ReNetUnits()[4]);
}

TYPED_TEST(ReNetLayerTest, GradientIRNN) {
  CheckGradients<typename TypeParam::Dtype>(ReNetUnits()[5]);
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

}  // namespace caffe
