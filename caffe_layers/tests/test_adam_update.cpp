#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/solvers/adam_update.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
class AdamUpdateTest : public ::testing::Test {};

typedef ::testing::Types<float, double> AdamUpdateTypes;
TYPED_TEST_CASE(AdamUpdateTest, AdamUpdateTypes);

// Sizes around those of vectors, and one that several threads share.
TYPED_TEST(AdamUpdateTest, EqualsItsEquations) {
  const double beta1 = 0.9, beta2 = 0.99, eps = 1e-8, rate = 0.03;
  const double tolerance = 20 * std::numeric_limits<TypeParam>::epsilon();
  for (const int count : {1, 3, 8, 17, 10007}) {
    std::vector<TypeParam> g(count), m(count, 0), v(count, 0), gradient(count);
    std::vector<double> mean(count, 0), square(count, 0);
    for (int step = 0; step < 3; ++step) {
      caffe_rng_gaussian<TypeParam>(count, 0, 1e-3, gradient.data());
      g = gradient;
      adam_update_cpu<TypeParam>(count, g.data(), m.data(), v.data(), beta1, beta2,
          eps, rate);
      for (int i = 0; i < count; ++i) {
        const double x = gradient[i];
        mean[i] = beta1 * mean[i] + (1 - beta1) * x;
        square[i] = beta2 * square[i] + (1 - beta2) * x * x;
        const double expected = rate * mean[i] / (std::sqrt(square[i]) + eps);
        ASSERT_NEAR(mean[i], m[i], tolerance * 5e-3);
        ASSERT_NEAR(square[i], v[i], tolerance * 2.5e-5);
        ASSERT_NEAR(expected, g[i], tolerance) << i << " of " << count;
      }
    }
  }
}

TYPED_TEST(AdamUpdateTest, WhatIsNoNumberStaysWhereItIs) {
  const int count = 50;
  const TypeParam nan = std::numeric_limits<TypeParam>::quiet_NaN();
  std::vector<TypeParam> g(count, 1), m(count, 0), v(count, 0);
  g[21] = nan;
  adam_update_cpu<TypeParam>(count, g.data(), m.data(), v.data(), 0.9, 0.99, 1e-8, 1);
  for (int i = 0; i < count; ++i) {
    EXPECT_EQ(i == 21, std::isnan(g[i])) << i;
    EXPECT_EQ(i == 21, std::isnan(m[i])) << i;
    EXPECT_EQ(i == 21, std::isnan(v[i])) << i;
  }
}

TYPED_TEST(AdamUpdateTest, SquaresAndRootsArePowers) {
  const std::vector<TypeParam> values = {0, 1e-3, 0.5, 1, 2, 3, 1e4};
  const int count = values.size();
  for (const double power : {2., 0.5, 3., -0.75}) {
    std::vector<TypeParam> found(count);
    caffe_powx<TypeParam>(count, values.data(), power, found.data());
    for (int i = 0; i < count; ++i) {
      const double expected = std::pow(static_cast<double>(values[i]), power);
      if (std::isinf(expected)) {
        EXPECT_TRUE(std::isinf(found[i]));
      } else {
        EXPECT_NEAR(1, expected == 0 ? 1 + found[i] : found[i] / expected,
            4 * std::numeric_limits<TypeParam>::epsilon()) << values[i] << "^" << power;
      }
    }
  }
}

}  // namespace caffe
