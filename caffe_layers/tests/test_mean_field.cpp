#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/util/mean_field.hpp"
#include "caffe/util/permutohedral_lattice.hpp"
#include "caffe/util/vertex_table.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

namespace {

const int kPoints = 501;
const int kDimensions = 5;
const double kPadding = -1000;  // a class that is not there has no probability

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
      const PermutohedralFilterPlan& plan, int classes)
      : stride(MeanFieldStride<Dtype>(classes)) {
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
    const size_t vertex_size =
        static_cast<size_t>(plan.vertices + 1) * stride;
    std::vector<Dtype> buffer[2];
    for (int b = 0; b < 2; ++b) { buffer[b].resize(vertex_size); }
    Dtype* const buffers[2] = { buffer[0].data(), buffer[1].data() };
    for (int t = 0; t < 2; ++t) {
      BlurredKernel<Dtype> blurred;
      blurred.plan = plan;
      blurred.weight = weight.data();
      blurred.values = kernels.splat_and_blur(plan, stride, t == 1,
          from.data(), buffers);
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
  lattice.Build(RandomFeatures(3), kPoints);
  const MeanFieldKernels<double> generic =
      AvailableMeanFieldKernels<double>().back();
  ASSERT_STREQ("generic", generic.name);
  // around the widths of rows and of the groups of vectors in them
  for (int classes : { 1, 2, 3, 8, 9, 21, 32, 33, 64, 65, 255 }) {
    const MeanFieldRun<double> expected(generic, lattice.plan(), classes);
    for (const MeanFieldKernels<Dtype>& kernels :
         AvailableMeanFieldKernels<Dtype>()) {
      SCOPED_TRACE(::testing::Message() << kernels.name << ", " << classes
          << " classes");
      const MeanFieldRun<Dtype> run(kernels, lattice.plan(), classes);
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
    lattice.Build(RandomFeatures(extent), kPoints);
    const PermutohedralFilterPlan plan = lattice.plan();
    const int stride = MeanFieldStride<Dtype>(classes);
    const MeanFieldKernels<Dtype>& kernels = GetMeanFieldKernels<Dtype>();
    std::vector<Dtype> from(kPoints * stride), to(from.size());
    for (size_t i = 0; i < from.size(); ++i) { from[i] = std::sin(i + 1.); }
    std::vector<Dtype> buffer[2], weight(stride, Dtype(1));
    for (int b = 0; b < 2; ++b) {
      buffer[b].resize(static_cast<size_t>(plan.vertices + 1) * stride);
    }
    Dtype* const buffers[2] = { buffer[0].data(), buffer[1].data() };
    BlurredKernel<Dtype> blurred;
    blurred.plan = plan;
    blurred.weight = weight.data();
    blurred.values =
        kernels.splat_and_blur(plan, stride, false, from.data(), buffers);
    kernels.slice(&blurred, 1, kPoints, stride, to.data());
    for (int i = 0; i < kPoints; ++i) {
      for (int c = 0; c < classes; ++c) {
        EXPECT_NEAR(from[i * stride + c], to[i * stride + c], 2e-5)
            << "extent " << extent << ", point " << i;
      }
    }
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
      ASSERT_EQ(entry.second, table.Find(entry.first));
      ASSERT_TRUE(entry.first == table.key(entry.second));
    }
    EXPECT_EQ(0, table.Find(2));
    EXPECT_EQ(0, table.Find((static_cast<Key>(20001) << shift) + 1));
  }
}

}  // namespace caffe
