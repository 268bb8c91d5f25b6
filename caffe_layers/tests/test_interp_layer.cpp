#include "cuda_emulation.hpp"

#include <limits>
#include <vector>

#include "layer_under_test.hpp"

#include "caffe/util/bilinear_interpolation.hpp"
#ifdef CAFFE_CUDA_EMULATION
#include "caffe/util/bilinear_interpolation.cuh"
#endif

namespace caffe {

namespace {

// What is cut off at the top and the left and at the bottom and the right, and
// H x W of the map and of the result.
struct Cut {
  int begin, end;
  int height, width;
  int to_height, to_width;
};

const Cut kCuts[] = {
  {0, 0, 3, 5, 7, 11}, {1, 0, 4, 6, 9, 5}, {0, 2, 5, 7, 3, 12},
  {2, 1, 6, 8, 6, 8}, {1, 1, 3, 3, 4, 2}, {0, 1, 2, 40, 1, 3},
  {1, 2, 9, 4, 1, 1},
};

string Text(const Cut& cut) {
  return "name: 'grow' type: 'Interp' interp_param { pad_beg: " +
      std::to_string(-cut.begin) + " pad_end: " + std::to_string(-cut.end) +
      " height: " + std::to_string(cut.to_height) + " width: " +
      std::to_string(cut.to_width) + " }";
}

// How much input i counts in output o, by the definition with real numbers.
double Weight(int o, int outputs, int i, int inputs, const Cut& cut) {
  const int size = inputs - cut.begin - cut.end;
  const double position = cut.begin +
      (outputs == 1 ? 0 : static_cast<double>(o) * (size - 1) / (outputs - 1));
  return std::max(0., 1 - std::abs(position - i));
}

// The result of a map, or (back) the map's gradient of the result's.
template <typename Dtype>
vector<double> Expected(const Dtype* values, int maps, const Cut& cut,
    bool back) {
  const int from = cut.height * cut.width, to = cut.to_height * cut.to_width;
  vector<double> result(maps * (back ? from : to), 0.);
  for (int map = 0; map < maps; ++map) {
    for (int o = 0; o < to; ++o) {
      for (int i = 0; i < from; ++i) {
        const double weight =
            Weight(o / cut.to_width, cut.to_height, i / cut.width, cut.height,
                cut) *
            Weight(o % cut.to_width, cut.to_width, i % cut.width, cut.width,
                cut);
        if (back) {
          result[map * from + i] += weight * values[map * to + o];
        } else {
          result[map * to + o] += weight * values[map * from + i];
        }
      }
    }
  }
  return result;
}

}  // namespace

template <typename TypeParam>
class InterpLayerTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  vector<int> Shape(const string& param, int height, int width,
      const vector<int>& reference = vector<int>()) {
    LayerUnderTest<Dtype> run("name: 'grow' type: 'Interp' interp_param { " +
        param + " }", reference.empty() ? 1 : 2);
    run.Shape({2, 3, height, width});
    if (!reference.empty()) { run.bottom(1).Reshape(reference); }
    run.SetUp();
    return run.top().shape();
  }
  void ExpectDeath(const string& param, const string& message) {
    EXPECT_DEATH(Shape(param, 5, 5), "Interp layer 'grow': .*" + message);
  }
};

TYPED_TEST_CASE(InterpLayerTest, TestDtypesAndDevices);

TYPED_TEST(InterpLayerTest, TestSizes) {
  typedef vector<int> Sizes;
  EXPECT_EQ(Sizes({2, 3, 7, 9}), this->Shape("height: 7 width: 9", 3, 4));
  // DeepLab's: labels of 321 to 41, scores of 41 to 321; scales of 0.75 and 0.5
  EXPECT_EQ(Sizes({2, 3, 41, 41}), this->Shape("shrink_factor: 8", 321, 321));
  EXPECT_EQ(Sizes({2, 3, 321, 81}), this->Shape("zoom_factor: 8", 41, 11));
  EXPECT_EQ(Sizes({2, 3, 241, 376}),
      this->Shape("shrink_factor: 4 zoom_factor: 3", 321, 501));
  EXPECT_EQ(Sizes({2, 3, 160, 250}),
      this->Shape("shrink_factor: 2 pad_end: -1", 321, 501));
  EXPECT_EQ(Sizes({2, 3, 1, 9}), this->Shape("zoom_factor: 4", 1, 3));
  EXPECT_EQ(Sizes({2, 3, 6, 5}), this->Shape("", 3, 3, {1, 7, 6, 5}));
}

TYPED_TEST(InterpLayerTest, TestValuesAndGradients) {
  typedef typename TypeParam::Dtype Dtype;
  for (const Cut& cut : kCuts) {
    SCOPED_TRACE(Text(cut));
    LayerUnderTest<Dtype> run(Text(cut));
    run.Shape({2, 3, cut.height, cut.width});
    run.SetUp();
    run.Forward();
    run.Backward();
    ExpectNear(Expected(run.bottom().cpu_data(), 6, cut, false),
        run.top().cpu_data(), RoundingOf<Dtype>());
    ExpectNear(Expected(run.top().cpu_diff(), 6, cut, true),
        run.bottom().cpu_diff(), RoundingOf<Dtype>());
  }
}

TYPED_TEST(InterpLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run("type: 'Interp' interp_param { zoom_factor: 2 "
      "pad_beg: -1 }");
  run.Shape({2, 2, 3, 4});
  run.CheckGradient();
}

// A label at a multiple of the factor is itself, to the bit.
TYPED_TEST(InterpLayerTest, TestShrinkingPicksValues) {
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run("type: 'Interp' interp_param { shrink_factor: 8 }");
  run.Shape({2, 1, 321, 25});
  run.SetUp();
  run.Forward();
  for (int n = 0; n < 2; ++n) {
    for (int y = 0; y < 41; ++y) {
      for (int x = 0; x < 4; ++x) {
        EXPECT_EQ(run.bottom().data_at(n, 0, 8 * y, 8 * x),
            run.top().data_at(n, 0, y, x));
      }
    }
  }
}

TYPED_TEST(InterpLayerTest, TestSizesThatChange) {
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run("type: 'Interp'", 2);
  run.Shape({1, 1, 1, 1});
  run.bottom(1).Reshape(1, 1, 1, 1);
  run.SetUp();
  for (const Cut& cut : kCuts) {
    const Cut whole = {0, 0, cut.height, cut.width, cut.to_height,
        cut.to_width};
    run.Shape({3, 2, cut.height, cut.width});
    run.bottom(1).Reshape(1, 5, cut.to_height, cut.to_width);
    run.Forward();
    run.Backward();
    ExpectNear(Expected(run.bottom().cpu_data(), 6, whole, false),
        run.top().cpu_data(), RoundingOf<Dtype>());
    ExpectNear(Expected(run.top().cpu_diff(), 6, whole, true),
        run.bottom().cpu_diff(), RoundingOf<Dtype>());
  }
}

TYPED_TEST(InterpLayerTest, TestBadParametersAreNamed) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  this->ExpectDeath("", "the size of the result is said in one way");
  this->ExpectDeath("height: 3 width: 3 zoom_factor: 2", "in one way");
  this->ExpectDeath("height: 3", "height and width must both be 1 or more, "
      "not 3 and 0");
  this->ExpectDeath("zoom_factor: 0", "must be 1 or more, not 0 and 1");
  this->ExpectDeath("zoom_factor: 2 pad_beg: 1", "must be 0 or less, not 1");
  this->ExpectDeath("zoom_factor: 2 pad_beg: -2 pad_end: -3",
      "leave nothing of a map of 5");
}

#ifdef CAFFE_CUDA_EMULATION

template <typename Dtype>
class InterpKernelTest : public ::testing::Test {};

TYPED_TEST_CASE(InterpKernelTest, TestDtypes);

TYPED_TEST(InterpKernelTest, TestValuesAndGradients) {
  const int maps = 11;
  for (const Cut& cut : kCuts) {
    SCOPED_TRACE(Text(cut));
    Blob<TypeParam> map(1, maps, cut.height, cut.width);
    Blob<TypeParam> result(1, maps, cut.to_height, cut.to_width);
    LayerUnderTest<TypeParam>::Fill(&map);
    LayerUnderTest<TypeParam>::Fill(&result, true);
    const BilinearWindow rows = {cut.height, cut.begin,
        cut.height - cut.begin - cut.end};
    const BilinearWindow columns = {cut.width, cut.begin,
        cut.width - cut.begin - cut.end};
    const int places = cut.to_height * cut.to_width;
    const TypeParam nothing = std::numeric_limits<TypeParam>::quiet_NaN();
    vector<TypeParam> output(result.count(), nothing);
    emulation::Launch(BilinearForwardKernel<TypeParam>,
        (BilinearThreads(maps, places) - 1) / 64 + 1, 64, 0, maps, rows,
        columns, cut.to_height, cut.to_width, map.cpu_data(), output.data());
    ExpectNear(Expected(map.cpu_data(), maps, cut, false), output.data(),
        RoundingOf<TypeParam>());
    BilinearAxis axes[2];
    GetBilinearBackward(maps, rows, columns, cut.to_height, cut.to_width, axes);
    vector<TypeParam> between(axes[0].Count(), nothing);
    vector<TypeParam> gradient(map.count(), nothing);
    for (int i = 0; i < 2; ++i) {
      emulation::Launch(BilinearTransposeKernel<TypeParam>,
          (axes[i].Threads() - 1) / 64 + 1, 64, 0, axes[i].maps, axes[i].window,
          axes[i].output_size, axes[i].inner,
          i == 0 ? result.cpu_diff() : between.data(),
          i == 0 ? between.data() : gradient.data());
    }
    ExpectNear(Expected(result.cpu_diff(), maps, cut, true), gradient.data(),
        RoundingOf<TypeParam>());
  }
}

#endif  // CAFFE_CUDA_EMULATION

}  // namespace caffe
