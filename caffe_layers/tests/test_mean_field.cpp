#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/crf/mean_field.hpp"
#include "caffe/crf/permutohedral_lattice.hpp"
#include "caffe/crf/vertex_table.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

namespace {

const int kPoints = 501;
const int kDimensions = 5;
const double kPadding = -1000;  // a class that is not there has no probability
const LatticeNormalization kSymmetric = {true, true};

/// A number of OpenMP's threads, until the end of the block.
class OnThreads {
 public:
  explicit OnThreads(int threads) : before_(omp_get_max_threads()) {
    omp_set_num_threads(threads);
  }
  ~OnThreads() { omp_set_num_threads(before_); }

 private:
  const int before_;
};

/// Points at random: uniform in [0, extent) in every dimension.
struct RandomFeatures {
  explicit RandomFeatures(float extent) : feature(kPoints * kDimensions) {
    std::mt19937 random(7);
    std::uniform_real_distribution<float> uniform(0, extent);
    for (float& value : feature) { value = uniform(random); }
  }
  void Get(int i, float* to) const {
    std::copy_n(&feature[i * kDimensions], kDimensions, to);
  }
  std::vector<float> feature;
};

/// All steps of an iteration once, by one instruction set.
template <typename Dtype>
struct MeanFieldRun {
  MeanFieldRun(const MeanFieldKernels<Dtype>& kernels,
      const PermutohedralLattice<kDimensions>& lattice, int classes)
      : stride(MeanFieldStride<Dtype>(classes)) {
    const PermutohedralFilterPlan plan = lattice.plan();
    const size_t size = static_cast<size_t>(plan.count) * stride;
    std::vector<Dtype> from(size), scores(size, Dtype(kPadding));
    std::vector<Dtype> weight(stride, Dtype(0.75));
    std::mt19937 random(3);
    std::uniform_real_distribution<double> uniform(-4, 4);
    for (int i = 0; i < plan.count; ++i) {
      for (int c = 0; c < classes; ++c) {
        from[i * stride + c] = uniform(random);
        scores[i * stride + c] = uniform(random);
      }
    }
    std::vector<Dtype> values(static_cast<size_t>(plan.vertices + 1) * stride);
    for (int t = 0; t < 2; ++t) {
      BlurredKernel<Dtype> blurred;
      blurred.plan = lattice.plan(t == 1);
      blurred.weight = weight.data();
      blurred.values = values.data();
      kernels.splat_and_blur(blurred.plan, stride, from.data(), values.data());
      message[t].resize(size);
      kernels.slice(&blurred, 1, plan.count, stride, message[t].data());
      probability[t].resize(size);
      logits.resize(size);
      kernels.slice_and_softmax(&blurred, 1, plan.count, stride,
          scores.data(), t == 1 ? logits.data() : NULL, probability[t].data());
    }
    softmax.resize(size);
    kernels.softmax(scores.data(), plan.count, stride, softmax.data());
  }

  int stride;
  std::vector<Dtype> message[2], probability[2], logits, softmax;
};

template <typename Dtype>
void ExpectNear(const std::vector<double>& expected, int expected_stride,
    const std::vector<Dtype>& actual, int stride, int classes) {
  const double tolerance = sizeof(Dtype) == sizeof(float) ? 1e-5 : 1e-12;
  for (int i = 0; i < kPoints; ++i) {
    for (int c = 0; c < classes; ++c) {
      const double value = expected[i * expected_stride + c];
      ASSERT_NEAR(value, actual[i * stride + c],
          tolerance * (1 + std::abs(value))) << "point " << i << ", class " << c;
    }
  }
}

}  // namespace

template <typename Dtype>
class MeanFieldTest : public ::testing::Test {};

TYPED_TEST_CASE(MeanFieldTest, TestDtypes);

TYPED_TEST(MeanFieldTest, InstructionSetsAgree) {
  typedef TypeParam Dtype;
  PermutohedralLattice<kDimensions> lattice;
  lattice.Build(RandomFeatures(3), kPoints, kSymmetric);
  const MeanFieldKernels<double> generic =
      AvailableMeanFieldKernels<double>().back();
  ASSERT_STREQ("generic", generic.name);
  // around the widths of rows and of the groups of vectors in them
  for (int classes : { 1, 2, 3, 8, 9, 21, 32, 33, 64, 65, 255 }) {
    const MeanFieldRun<double> expected(generic, lattice, classes);
    for (const MeanFieldKernels<Dtype>& kernels :
         AvailableMeanFieldKernels<Dtype>()) {
      SCOPED_TRACE(::testing::Message() << kernels.name << ", " << classes
          << " classes");
      const MeanFieldRun<Dtype> run(kernels, lattice, classes);
      for (int t = 0; t < 2; ++t) {
        ExpectNear(expected.message[t], expected.stride, run.message[t],
            run.stride, classes);
        ExpectNear(expected.probability[t], expected.stride,
            run.probability[t], run.stride, classes);
      }
      ExpectNear(expected.logits, expected.stride, run.logits, run.stride,
          classes);
      ExpectNear(expected.softmax, expected.stride, run.softmax, run.stride,
          classes);
    }
  }
}

// Deviations far below the points' distances: coordinates that take more than
// 64 bits together, and every point for itself. The normalised filter leaves
// such points as they are; keys that run into each other would mix them.
TYPED_TEST(MeanFieldTest, DistantPointsKeepTheirValues) {
  typedef TypeParam Dtype;
  const int classes = 3;
  PermutohedralLattice<kDimensions> lattice;
  for (float extent : { 3e2f, 1e5f, 1e6f }) {
    lattice.Build(RandomFeatures(extent), kPoints, kSymmetric);
    const PermutohedralFilterPlan plan = lattice.plan();
    const int stride = MeanFieldStride<Dtype>(classes);
    const MeanFieldKernels<Dtype>& kernels = GetMeanFieldKernels<Dtype>();
    std::vector<Dtype> from(kPoints * stride), to(from.size());
    for (size_t i = 0; i < from.size(); ++i) { from[i] = std::sin(i + 1.); }
    std::vector<Dtype> weight(stride, Dtype(1));
    std::vector<Dtype> values(static_cast<size_t>(plan.vertices + 1) * stride);
    BlurredKernel<Dtype> blurred;
    blurred.plan = plan;
    blurred.weight = weight.data();
    blurred.values = values.data();
    kernels.splat_and_blur(plan, stride, from.data(), values.data());
    kernels.slice(&blurred, 1, kPoints, stride, to.data());
    for (int i = 0; i < kPoints; ++i) {
      for (int c = 0; c < classes; ++c) {
        EXPECT_NEAR(from[i * stride + c], to[i * stride + c], 2e-5)
            << "extent " << extent << ", point " << i;
      }
    }
  }
}

/// Points at random in a box of kDims dimensions with these extents.
template <int kDims>
struct BoxFeatures {
  BoxFeatures(int count, float first_extent, float extent)
      : feature(count * kDims) {
    std::mt19937 random(11);
    std::uniform_real_distribution<float> uniform(0, 1);
    for (size_t i = 0; i < feature.size(); ++i) {
      feature[i] = uniform(random) * (i % kDims == 0 ? first_extent : extent);
    }
  }
  void Get(int i, float* to) const {
    std::copy_n(&feature[i * kDims], kDims, to);
  }
  std::vector<float> feature;
};

/// Splat, blur and slice by their definition, in double and with a map.
template <int kDims>
struct DefinedFilter {
  typedef std::vector<int> Vertex;
  typedef std::map<Vertex, double> Values;

  explicit DefinedFilter(const BoxFeatures<kDims>& features, int count)
      : simplices(count) {
    float scale[kDims], feature[kDims];
    for (int k = 0; k < kDims; ++k) { scale[k] = PermutohedralScale(k, kDims); }
    for (int i = 0; i < count; ++i) {
      features.Get(i, feature);
      PlacePoint<kDims>(feature, scale, &simplices[i]);
    }
    std::fill_n(feature, kDims, 0.f);
    PlacePoint<kDims>(feature, scale, &origin);
    sums = Run(std::vector<double>(count, 1), false);
  }

  static Vertex Corner(const PermutohedralSimplex<kDims>& simplex,
      int remainder) {
    Vertex corner;
    for (int k = 0; k <= kDims; ++k) {
      corner.push_back(simplex.Coordinate(k, remainder));
    }
    return corner;
  }

  std::vector<double> Run(const std::vector<double>& from,
      bool transposed) const {
    Values values;
    // in fours, the last filled up at the origin
    for (int r = 0; r <= kDims && from.size() % 4 != 0; ++r) {
      values[Corner(origin, r)] = 0;
    }
    for (size_t i = 0; i < from.size(); ++i) {
      for (int r = 0; r <= kDims; ++r) {
        values[Corner(simplices[i], r)] += simplices[i].weight[r] * from[i];
      }
    }
    for (int step = 0; step <= kDims; ++step) {
      const int axis = transposed ? kDims - step : step;
      Values blurred = values;
      for (std::pair<const Vertex, double>& entry : blurred) {
        for (int sign = -1; sign <= 1; sign += 2) {
          Vertex neighbour = entry.first;
          for (int& coordinate : neighbour) { coordinate += sign; }
          neighbour[axis] -= sign * (kDims + 1);
          const Values::const_iterator found = values.find(neighbour);
          if (found != values.end()) { entry.second += found->second / 2; }
        }
      }
      values.swap(blurred);
    }
    std::vector<double> to(from.size());
    const double alpha = 1 / (1 + std::pow(2., -kDims));
    for (size_t i = 0; i < from.size(); ++i) {
      for (int r = 0; r <= kDims; ++r) {
        to[i] += simplices[i].weight[r] * alpha *
            values[Corner(simplices[i], r)];
      }
    }
    return to;
  }

  std::vector<double> Normalised(std::vector<double> from,
      const LatticeNormalization& of, bool transposed) const {
    const double power = of.before && of.after ? -0.5 : -1;
    for (size_t i = 0; i < from.size(); ++i) {
      if (transposed ? of.after : of.before) {
        from[i] *= std::pow(sums[i], power);
      }
    }
    std::vector<double> to = Run(from, transposed);
    for (size_t i = 0; i < to.size(); ++i) {
      if (transposed ? of.before : of.after) {
        to[i] *= std::pow(sums[i], power);
      }
    }
    return to;
  }

  std::vector<PermutohedralSimplex<kDims> > simplices;
  PermutohedralSimplex<kDims> origin;
  std::vector<double> sums;  // K 1
};

/// The same with every number of threads, to the last bit.
template <typename Dtype, int kDims>
void ExpectDefinedFilter(int count, float first_extent, float extent) {
  SCOPED_TRACE(::testing::Message() << count << " points of " << kDims
      << " dimensions, extents " << first_extent << " and " << extent);
  const BoxFeatures<kDims> features(count, first_extent, extent);
  const DefinedFilter<kDims> defined(features, count);
  const int stride = MeanFieldStride<Dtype>(1);
  std::vector<double> from(count);
  std::vector<Dtype> rows(count * stride), weight(stride, Dtype(1));
  for (int i = 0; i < count; ++i) {
    from[i] = std::sin(i + 1.);
    rows[i * stride] = from[i];
  }
  const MeanFieldKernels<Dtype>& kernels = GetMeanFieldKernels<Dtype>();
  for (int run = 0; run < 8; ++run) {
    const bool transposed = run % 2;
    const LatticeNormalization normalization = {run / 2 % 2 == 0, run < 4};
    SCOPED_TRACE(::testing::Message() << (transposed ? "transposed, " : "")
        << "normalised before: " << normalization.before << ", after: "
        << normalization.after);
    const std::vector<double> expected =
        defined.Normalised(from, normalization, transposed);
    std::vector<Dtype> first;
    for (int threads : { 1, 2, 5 }) {
      OnThreads on_threads(threads);
      PermutohedralLattice<kDims> lattice;
      lattice.Build(features, count, normalization);
      std::vector<Dtype> values((lattice.vertices() + 1) * stride);
      std::vector<Dtype> to(rows.size());
      BlurredKernel<Dtype> blurred;
      blurred.plan = lattice.plan(transposed);
      blurred.weight = weight.data();
      blurred.values = values.data();
      kernels.splat_and_blur(blurred.plan, stride, rows.data(), values.data());
      kernels.slice(&blurred, 1, count, stride, to.data());
      if (first.empty()) { first = to; }
      ASSERT_TRUE(first == to) << threads << " threads";
      if (run > 1) { break; }  // one way of sharing out, whatever the sides
    }
    for (int i = 0; i < count; ++i) {
      // without factors the terms that cancel each other are large
      const bool none = !normalization.before && !normalization.after;
      ASSERT_NEAR(expected[i], first[i * stride],
          2e-5 + (none ? 1e-6 * defined.sums[i] : 0)) << "point " << i;
    }
  }
}

// Few vertices and many, short lines and lines of thousands of vertices, and
// more of them than a thread takes at a time.
TYPED_TEST(MeanFieldTest, FilterIsThatOfItsDefinition) {
  typedef TypeParam Dtype;
  ExpectDefinedFilter<Dtype, 2>(1, 1, 1);
  ExpectDefinedFilter<Dtype, 2>(20000, 5, 5);
  ExpectDefinedFilter<Dtype, 2>(20000, 80, 80);
  ExpectDefinedFilter<Dtype, 2>(20000, 3000, 1e-3f);
  ExpectDefinedFilter<Dtype, 5>(9000, 4, 4);
  ExpectDefinedFilter<Dtype, 5>(9000, 30, 3);
  // few points, among which the empty vertices at the origin lie
  for (int count : { 47, 48, 49, 50 }) {
    ExpectDefinedFilter<Dtype, 2>(count, 5, 5);
    ExpectDefinedFilter<Dtype, 5>(count, 1, 1);
  }
  ExpectDefinedFilter<Dtype, 5>(9001, 30, 3);
}

/// Points that all have the same features.
template <int kDims>
struct EqualFeatures {
  void Get(int /* i */, float* to) const { std::fill_n(to, kDims, value); }
  float value;
};

// What is filled up to four points makes vertices at the origin, no values.
TYPED_TEST(MeanFieldTest, PointsAreFilledUpToFour) {
  const EqualFeatures<5> far = {40}, at_origin = {0};
  PermutohedralLattice<5> lattice;
  for (int count = 1; count <= 9; ++count) {
    ASSERT_TRUE(lattice.Build(far, count, kSymmetric));
    EXPECT_EQ(count % 4 == 0 ? 6 : 12, lattice.vertices()) << count;
    EXPECT_EQ(count, lattice.plan().count);
    ASSERT_TRUE(lattice.Build(at_origin, count, kSymmetric));
    EXPECT_EQ(6, lattice.vertices()) << count;
  }
}

TYPED_TEST(MeanFieldTest, PointsOutOfReachHaveNoLattice) {
  const float wrong[] = {NAN, INFINITY, -INFINITY, 1e38f, -1e30f, 1e8f, -1e8f};
  for (float value : wrong) {
    const EqualFeatures<5> features = {value};
    const EqualFeatures<2> plane = {value};
    EXPECT_FALSE(PermutohedralLattice<5>().Build(features, 9, kSymmetric))
        << value;
    EXPECT_FALSE(PermutohedralLattice<2>().Build(plane, 9, kSymmetric))
        << value;
  }
  // one of many, in any thread's share, and the next lattice is whole again
  BoxFeatures<5> features(20001, 30, 3);
  PermutohedralLattice<5> lattice;
  for (int i : { 0, 12345, 20000 }) {
    const float good = features.feature[5 * i + 4];
    features.feature[5 * i + 4] = NAN;
    EXPECT_FALSE(lattice.Build(features, 20001, kSymmetric));
    features.feature[5 * i + 4] = good;
    EXPECT_TRUE(lattice.Build(features, 20001, kSymmetric));
  }
}

template <typename Key>
class VertexTableTest : public ::testing::Test {};

typedef ::testing::Types<uint64_t, unsigned __int128> KeyTypes;
TYPED_TEST_CASE(VertexTableTest, KeyTypes);

// Numbers are those of a map that is asked in the same order, through growth
// and after Clear; wide keys differ in their upper half alone.
TYPED_TEST(VertexTableTest, NumbersAsAMapDoes) {
  typedef TypeParam Key;
  const int shift = sizeof(Key) > 8 ? 70 : 20;
  VertexTable<Key> table;
  for (int round = 0; round < 2; ++round) {
    table.Clear();
    std::map<Key, int> expected;
    std::mt19937 random(round);
    for (int i = 0; i < 60000; ++i) {
      const Key key = (static_cast<Key>(random() % 20000) << shift) + 1;
      const int number =
          expected.insert(std::make_pair(key, expected.size() + 1))
          .first->second;
      ASSERT_EQ(number, table.FindOrAdd(key));
    }
    ASSERT_EQ(static_cast<int>(expected.size()), table.size());
    for (const std::pair<const Key, int>& entry : expected) {
      ASSERT_EQ(entry.second, table.FindOrAdd(entry.first));
      ASSERT_TRUE(entry.first == table.key(entry.second));
    }
  }
}

}  // namespace caffe
