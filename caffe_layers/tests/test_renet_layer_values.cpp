#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"

#include "renet_layer_run.hpp"

namespace caffe {

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

}  // namespace caffe
