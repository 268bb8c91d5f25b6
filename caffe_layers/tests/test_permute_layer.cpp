#include "cuda_emulation.hpp"

#include <vector>

#include "layer_under_test.hpp"
#ifdef CAFFE_CUDA_EMULATION
#include "caffe/util/permutation.cuh"
#endif

namespace caffe {

namespace {

struct Case {
  vector<int> shape;
  vector<int> order;  // as the field has it
  vector<int> whole;  // with the axes that it leaves out
};

// SSD's, all axes turned round, one axis, sizes of one, five axes, as it was.
const Case kCases[] = {
  {{2, 3, 4, 5}, {0, 2, 3, 1}, {0, 2, 3, 1}},
  {{3, 2, 5, 7}, {3, 2, 1, 0}, {3, 2, 1, 0}},
  {{2, 3, 4}, {1}, {1, 0, 2}}, {{4, 1, 3, 1}, {2, 3}, {2, 3, 0, 1}},
  {{2, 3, 2, 3, 2}, {4, 0, 3}, {4, 0, 3, 1, 2}}, {{6}, {}, {0}},
  {{2, 300, 3}, {0, 1, 2}, {0, 1, 2}}, {{1, 1}, {1, 0}, {1, 0}},
};

string Text(const vector<int>& order) {
  string text = "name: 'turn' type: 'Permute' permute_param {";
  for (int axis : order) { text += " order: " + std::to_string(axis); }
  return text + " }";
}

// The place in the array of each value of the result, by counting through the
// result's coordinates.
vector<int> Places(const Case& test) {
  const int axes = test.shape.size();
  vector<int> coordinates(axes, 0), places;
  int count = 1;
  for (int size : test.shape) { count *= size; }
  for (int i = 0; i < count; ++i) {
    int place = 0;
    for (int axis = 0; axis < axes; ++axis) {
      int own = 0;
      for (int a = 0; a < axes; ++a) {
        if (test.whole[a] == axis) { own = coordinates[a]; }
      }
      place = place * test.shape[axis] + own;
    }
    places.push_back(place);
    for (int a = axes - 1; a >= 0; --a) {
      if (++coordinates[a] < test.shape[test.whole[a]]) { break; }
      coordinates[a] = 0;
    }
  }
  return places;
}

}  // namespace

template <typename TypeParam>
class PermuteLayerTest : public MultiDeviceTest<TypeParam> {};

TYPED_TEST_CASE(PermuteLayerTest, TestDtypesAndDevices);

TYPED_TEST(PermuteLayerTest, TestValuesAndGradients) {
  typedef typename TypeParam::Dtype Dtype;
  for (const Case& test : kCases) {
    SCOPED_TRACE(Text(test.order));
    LayerUnderTest<Dtype> run(Text(test.order));
    run.Shape(test.shape);
    run.SetUp();
    run.Forward();
    run.Backward();
    for (size_t a = 0; a < test.shape.size(); ++a) {
      EXPECT_EQ(test.shape[test.whole[a]], run.top().shape(a));
    }
    const vector<int> places = Places(test);
    for (size_t i = 0; i < places.size(); ++i) {
      ASSERT_EQ(run.bottom().cpu_data()[places[i]], run.top().cpu_data()[i]);
      ASSERT_EQ(run.top().cpu_diff()[i], run.bottom().cpu_diff()[places[i]]);
    }
  }
}

TYPED_TEST(PermuteLayerTest, TestSizesThatChange) {
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run(Text({0, 2, 3, 1}));
  run.Shape({1, 1, 1, 1});
  run.SetUp();
  for (const vector<int>& shape : vector<vector<int> >(
      {{2, 3, 4, 5}, {1, 1, 2, 1}, {3, 5, 2, 7}})) {
    run.Shape(shape);
    run.Forward();
    const Case test = {shape, {}, {0, 2, 3, 1}};
    const vector<int> places = Places(test);
    for (size_t i = 0; i < places.size(); ++i) {
      ASSERT_EQ(run.bottom().cpu_data()[places[i]], run.top().cpu_data()[i]);
    }
  }
}

TYPED_TEST(PermuteLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  LayerUnderTest<Dtype> run(Text({2, 0}));
  run.Shape({2, 3, 4});
  run.CheckGradient();
}

TYPED_TEST(PermuteLayerTest, TestBadParametersAreNamed) {
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  LayerUnderTest<Dtype> twice(Text({1, 1})), beyond(Text({0, 4}));
  twice.Shape({2, 3, 4, 5});
  beyond.Shape({2, 3, 4, 5});
  EXPECT_DEATH(twice.SetUp(), "Permute layer 'turn': permute_param's order "
      "names axis 1 twice");
  EXPECT_DEATH(beyond.SetUp(), "Permute layer 'turn': permute_param's order "
      "names axis 4; expected each of 0 to 3 at most once");
  EXPECT_DEATH(twice.layer()->SetUp(twice.bottom_vector(),
      twice.bottom_vector()), "Permute layer 'turn': cannot work in place");
}

#ifdef CAFFE_CUDA_EMULATION

TEST(PermutationKernelTest, TestBothWays) {
  for (const Case& test : kCases) {
    const vector<int> places = Places(test);
    const int count = places.size();
    vector<double> array(count), result(count, -1), again(count, -1);
    for (int i = 0; i < count; ++i) { array[i] = i; }
    const Permutation permutation = GetPermutation(test.shape, test.whole);
    for (bool back : {false, true}) {
      emulation::Launch(PermutationKernel<double>,
          dim3((count - 1) / kPermutationThreads + 1),
          dim3(kPermutationThreads), 0, count, permutation, back,
          back ? result.data() : array.data(),
          back ? again.data() : result.data());
    }
    for (int i = 0; i < count; ++i) { ASSERT_EQ(places[i], result[i]); }
    EXPECT_TRUE(array == again);
  }
}

// As CropLayer takes a part of an array, and puts it back among zeros.
TEST(PermutationKernelTest, TestParts) {
  const struct { vector<int> shape, sizes, begin; } kParts[] = {
    {{2, 3, 7, 9}, {2, 3, 4, 5}, {0, 0, 1, 3}}, {{2, 3, 7, 9}, {1, 2, 7, 9}, {1, 1, 0, 0}},
    {{2, 3, 7, 9}, {2, 3, 7, 9}, {0, 0, 0, 0}}, {{5, 4}, {1, 1}, {4, 2}},
    {{3, 4, 5, 6, 7}, {3, 2, 5, 3, 7}, {0, 1, 0, 2, 0}}, {{40, 30}, {33, 30}, {7, 0}},
  };
  for (const auto& test : kParts) {
    Blob<double> whole(test.shape), part(test.sizes);
    for (int i = 0; i < whole.count(); ++i) { whole.mutable_cpu_data()[i] = i; }
    caffe_set(whole.count(), 0., whole.mutable_cpu_diff());
    const int begin = whole.offset(test.begin);
    const Permutation crop = GetCrop(test.shape, test.sizes);
    const dim3 blocks((part.count() - 1) / kPermutationThreads + 1);
    emulation::Launch(PermutationKernel<double>, blocks, dim3(kPermutationThreads), 0,
        part.count(), crop, false, whole.cpu_data() + begin,
        part.mutable_cpu_data());
    emulation::Launch(PermutationKernel<double>, blocks, dim3(kPermutationThreads), 0,
        part.count(), crop, true, part.cpu_data(),
        whole.mutable_cpu_diff() + begin);
    const int axes = test.shape.size();
    int taken = 0;
    for (int i = 0; i < whole.count(); ++i) {
      bool is_in = true;
      for (int axis = 0, rest = i; axis < axes; ++axis) {
        const int at = rest / whole.count(axis + 1);
        rest %= whole.count(axis + 1);
        is_in &= at >= test.begin[axis] && at < test.begin[axis] + test.sizes[axis];
      }
      ASSERT_EQ(is_in ? i : 0, whole.cpu_diff()[i]);
      // they come in the order of the whole
      if (is_in) { ASSERT_EQ(i, part.cpu_data()[taken++]); }
    }
    EXPECT_EQ(part.count(), taken);
  }
}

#endif  // CAFFE_CUDA_EMULATION

}  // namespace caffe
