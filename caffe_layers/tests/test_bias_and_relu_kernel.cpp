#include "cuda_emulation.hpp"

#ifdef CAFFE_CUDA_EMULATION

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/common.hpp"
#include "caffe/gpu/bias_and_relu.cuh"
#include "caffe/util/math_functions.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

template <typename Dtype>
class BiasAndReluKernelTest : public ::testing::Test {
 protected:
  virtual void TearDown() { emulation::settings() = emulation::Settings(); }

  static vector<Dtype> Noise(int count) {
    vector<Dtype> values(count);
    caffe_rng_gaussian<Dtype>(count, Dtype(0), Dtype(1), values.data());
    return values;
  }

  // In a grid of this many rows, which take turns.
  static vector<Dtype> Run(int maps, int channels, int area, const Dtype* bias,
      vector<Dtype> values, int threads, int rows) {
    emulation::Launch(BiasAndReluKernel<Dtype>,
        dim3(BiasAndReluBlocks(area, threads), rows), threads, 0, maps,
        channels, area, bias, values.data());
    return values;
  }
};

TYPED_TEST_CASE(BiasAndReluKernelTest, TestDtypes);

TYPED_TEST(BiasAndReluKernelTest, TestEqualsBiasAndRelu) {
  const int shapes[][3] = {{1, 1, 1}, {2, 3, 7}, {1, 5, 128}, {3, 2, 129},
      {2, 4, 300}, {1, 1, 1025}};
  for (const int* shape : shapes) {
    const int channels = shape[1], maps = shape[0] * channels, area = shape[2];
    const vector<TypeParam> bias = this->Noise(channels),
        values = this->Noise(maps * area);
    for (const bool has_bias : {true, false}) {
      vector<TypeParam> expected(values);
      for (int i = 0; i < maps * area; ++i) {
        const TypeParam sum =
            values[i] + (has_bias ? bias[i / area % channels] : 0);
        expected[i] = std::max(sum, TypeParam(0));
      }
      for (const int threads : {32, 256}) {
        for (const int rows : {1, 2, maps}) {
          EXPECT_EQ(expected, this->Run(maps, channels, area,
              has_bias ? bias.data() : NULL, values, threads, rows))
              << maps << " maps of " << area << ", " << rows << " rows";
        }
      }
    }
  }
}

TYPED_TEST(BiasAndReluKernelTest, TestNaNStays) {
  const TypeParam nan = std::numeric_limits<TypeParam>::quiet_NaN();
  const TypeParam bias[] = {1, nan};
  const vector<TypeParam> found =
      this->Run(2, 2, 2, bias, {nan, -3, 1, -1}, 32, 1);
  EXPECT_TRUE(std::isnan(found[0]));
  EXPECT_EQ(0, found[1]);
  EXPECT_TRUE(std::isnan(found[2]) && std::isnan(found[3]));
}

}  // namespace caffe

#endif  // CAFFE_CUDA_EMULATION
