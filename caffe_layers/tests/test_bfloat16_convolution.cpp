#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "caffe/onednn/bfloat16_convolution.hpp"
#include "caffe/util/bfloat16.hpp"

namespace caffe {

namespace {

const int kBlock = 16;

// A map in onednn::BlockedOrder.
struct Map {
  int num, channels, height, width;
  std::vector<float> values;

  Map(int n, int c, int h, int w, float fill = 0)
      : num(n), channels(c), height(h), width(w),
        values(static_cast<size_t>(n) * blocks() * h * w * kBlock, fill) {}
  int blocks() const { return (channels + kBlock - 1) / kBlock; }
  float& at(int n, int c, int y, int x) {
    return values[(((static_cast<size_t>(n) * blocks() + c / kBlock) * height + y)
        * width + x) * kBlock + c % kBlock];
  }
};

float Rounded(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000u;
  std::memcpy(&x, &bits, sizeof(bits));
  return x;
}

struct Case { int num, channels, height, width, outputs, kernel, stride, pad, dilation; };

Bfloat16Convolution Of(const Case& c) {
  const int reach = c.dilation * (c.kernel - 1) + 1;
  return {c.num, c.channels, c.height, c.width, c.outputs,
      (c.height + 2 * c.pad - reach) / c.stride + 1,
      (c.width + 2 * c.pad - reach) / c.stride + 1, c.kernel, c.kernel, c.stride,
      c.stride, c.pad, c.pad, c.dilation, c.dilation};
}

// Odd sizes, lines shorter and longer than tiles, blocks that are not full, odd
// numbers of blocks, all of a kernel's settings.
const Case kCases[] = {
    {2, 20, 9, 13, 37, 3, 1, 1, 1}, {1, 40, 11, 50, 33, 3, 2, 1, 1},
    {1, 64, 20, 35, 16, 1, 1, 0, 1}, {2, 17, 23, 40, 50, 3, 1, 4, 4},
    {1, 33, 15, 19, 70, 5, 1, 2, 1}, {1, 32, 7, 7, 64, 1, 2, 0, 1},
    {3, 16, 1, 1, 1, 3, 1, 1, 1}, {1, 96, 5, 67, 21, 3, 3, 0, 2},
    {1, 350, 4, 33, 18, 1, 1, 0, 1}, {1, 16, 2, 300, 40, 7, 2, 3, 1}};

class Bfloat16ConvolutionTest : public ::testing::TestWithParam<Case> {
 protected:
  Bfloat16ConvolutionTest()
      : convolution_(Of(GetParam())),
        bottom_(GetParam().num, GetParam().channels, GetParam().height, GetParam().width),
        weights_(static_cast<size_t>(GetParam().outputs) * GetParam().channels
            * GetParam().kernel * GetParam().kernel),
        bias_(GetParam().outputs), generator_(7) {
    Fill(&weights_);
    Fill(&bias_);
    for (int n = 0; n < bottom_.num; ++n) {
      for (int c = 0; c < bottom_.channels; ++c) {
        for (int i = 0; i < bottom_.height * bottom_.width; ++i) {
          bottom_.at(n, c, i / bottom_.width, i % bottom_.width) = Draw();
        }
      }
    }
  }
  float Draw() { return std::uniform_real_distribution<float>(-1, 1)(generator_); }
  void Fill(std::vector<float>* values) {
    for (float& value : *values) { value = Draw(); }
  }
  Map Top(const float* bias, bool rectify) {
    std::vector<char> packed(convolution_.packed_bytes()), work(convolution_.work_bytes(), -1);
    convolution_.Pack(weights_.data(), packed.data());
    Map top(convolution_.num, convolution_.out_channels, convolution_.out_height,
        convolution_.out_width, -7);
    convolution_.Forward(bottom_.values.data(), packed.data(), bias, rectify,
        top.values.data(), work.data());
    return top;
  }
  // In double precision, of factors that are rounded or not.
  double Expected(int n, int o, int y, int x, const float* bias, bool rounded) {
    const Case& c = GetParam();
    double sum = bias == NULL ? 0 : bias[o];
    for (int channel = 0; channel < c.channels; ++channel) {
      for (int i = 0; i < c.kernel; ++i) {
        for (int j = 0; j < c.kernel; ++j) {
          const int row = y * c.stride + i * c.dilation - c.pad;
          const int column = x * c.stride + j * c.dilation - c.pad;
          if (row < 0 || column < 0 || row >= c.height || column >= c.width) { continue; }
          const float weight = weights_[((o * c.channels + channel) * c.kernel + i) * c.kernel + j];
          const float value = bottom_.at(n, channel, row, column);
          sum += rounded ? double(Rounded(weight)) * Rounded(value) : double(weight) * value;
        }
      }
    }
    return sum;
  }
  // The largest difference from that, of the largest value.
  double Difference(Map* top, const float* bias, bool rectify, bool rounded) {
    double largest = 1e-30, difference = 0;
    for (int n = 0; n < top->num; ++n) {
      for (int o = 0; o < top->channels; ++o) {
        for (int i = 0; i < top->height * top->width; ++i) {
          const int y = i / top->width, x = i % top->width;
          double expected = Expected(n, o, y, x, bias, rounded);
          if (rectify) { expected = std::max(expected, 0.); }
          largest = std::max(largest, std::abs(expected));
          const double d = std::abs(top->at(n, o, y, x) - expected);
          difference = d <= difference ? difference : d;  // a NaN stays
        }
      }
    }
    return difference / largest;
  }

  Bfloat16Convolution convolution_;
  Map bottom_;
  std::vector<float> weights_, bias_;
  std::mt19937 generator_;
};

}  // namespace

TEST_P(Bfloat16ConvolutionTest, EqualsDoublePrecisionOfRoundedFactors) {
  if (!Bfloat16Convolution::Available()) { return; }
  for (const float* bias : {static_cast<const float*>(NULL),
       static_cast<const float*>(bias_.data())}) {
    for (const bool rectify : {false, true}) {
      Map top = Top(bias, rectify);
      EXPECT_LT(Difference(&top, bias, rectify, true), 2e-6);
      EXPECT_LT(Difference(&top, bias, rectify, false), 0.01);
    }
  }
}

TEST_P(Bfloat16ConvolutionTest, FillingStaysZeroAndBitsAreTheSameAgain) {
  if (!Bfloat16Convolution::Available()) { return; }
  Map top = Top(bias_.data(), false);
  for (int o = top.channels; o < top.blocks() * kBlock; ++o) {
    for (int i = 0; i < top.height * top.width; ++i) {
      ASSERT_EQ(0, top.at(0, o, i / top.width, i % top.width));
    }
  }
  EXPECT_EQ(top.values, Top(bias_.data(), false).values);
}

TEST_P(Bfloat16ConvolutionTest, NaNStaysNaNAndWhereItIs) {
  if (!Bfloat16Convolution::Available()) { return; }
  Map whole = Top(bias_.data(), true);
  const int row = bottom_.height / 2, column = bottom_.width / 2;
  bottom_.at(0, 0, row, column) = std::numeric_limits<float>::quiet_NaN();
  Map top = Top(bias_.data(), true);
  for (int o = 0; o < top.channels; ++o) {
    for (int i = 0; i < top.height * top.width; ++i) {
      const int y = i / top.width, x = i % top.width;
      if (std::isnan(Expected(0, o, y, x, bias_.data(), false))) {
        ASSERT_TRUE(std::isnan(top.at(0, o, y, x)));
      } else {
        ASSERT_EQ(whole.at(0, o, y, x), top.at(0, o, y, x));
      }
    }
  }
}

TEST_P(Bfloat16ConvolutionTest, BackwardIsTheTransposeOfForward) {
  const Case& c = GetParam();
  EXPECT_EQ(c.stride == 1 && c.pad <= c.dilation * (c.kernel - 1),
      convolution_.HasBackward());
  if (!Bfloat16Convolution::Available() || !convolution_.HasBackward()) { return; }
  Map gradient(c.num, c.outputs, convolution_.out_height, convolution_.out_width);
  std::vector<double> expected(bottom_.values.size(), 0);
  for (int n = 0; n < c.num; ++n) {
    for (int o = 0; o < c.outputs; ++o) {
      for (int y = 0; y < gradient.height; ++y) {
        for (int x = 0; x < gradient.width; ++x) {
          const float value = gradient.at(n, o, y, x) = Draw();
          for (int channel = 0; channel < c.channels; ++channel) {
            for (int tap = 0; tap < c.kernel * c.kernel; ++tap) {
              const int row = y + tap / c.kernel * c.dilation - c.pad;
              const int column = x + tap % c.kernel * c.dilation - c.pad;
              if (row < 0 || column < 0 || row >= c.height || column >= c.width) { continue; }
              const float weight =
                  weights_[(o * c.channels + channel) * c.kernel * c.kernel + tap];
              expected[&bottom_.at(n, channel, row, column) - bottom_.values.data()]
                  += double(Rounded(weight)) * Rounded(value);
            }
          }
        }
      }
    }
  }
  const Bfloat16Convolution backward = convolution_.Backward();
  std::vector<char> packed(backward.packed_bytes()), work(backward.work_bytes(), -1);
  backward.PackTurned(weights_.data(), packed.data());
  std::vector<float> result(expected.size(), -7);
  backward.Forward(gradient.values.data(), packed.data(), NULL, false,
      result.data(), work.data());
  double largest = 1e-30, difference = 0;
  for (size_t i = 0; i < result.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    const double d = std::abs(result[i] - expected[i]);
    difference = d <= difference ? difference : d;  // a NaN stays
  }
  EXPECT_LT(difference / largest, 2e-6);
}

TEST_P(Bfloat16ConvolutionTest, WeightGradientAddsToWhatIsThere) {
  const Case& c = GetParam();
  const int in_tiles = (convolution_.out_width + 31) / 32 * 32;
  EXPECT_EQ(c.stride == 1 && 2 * convolution_.out_width >= in_tiles,
      convolution_.HasWeightGradient());
  if (!Bfloat16Convolution::Available() || c.stride != 1) { return; }
  Map gradient(c.num, c.outputs, convolution_.out_height, convolution_.out_width);
  for (int n = 0; n < c.num; ++n) {
    for (int o = 0; o < c.outputs; ++o) {
      for (int i = 0; i < gradient.height * gradient.width; ++i) {
        gradient.at(n, o, i / gradient.width, i % gradient.width) = Draw();
      }
    }
  }
  std::vector<float> result(weights_.size(), 0.5f), again(weights_.size(), 0.5f);
  for (std::vector<float>* each : {&result, &again}) {
    std::vector<char> work(convolution_.gradient_work_bytes(), -1);
    convolution_.AddWeightGradient(bottom_.values.data(), gradient.values.data(),
        each->data(), work.data());
  }
  EXPECT_EQ(result, again);
  double largest = 1e-30, difference = 0;
  const int taps = c.kernel * c.kernel;
  for (size_t i = 0; i < result.size(); ++i) {
    const int o = i / taps / c.channels, channel = i / taps % c.channels;
    const int down = i % taps / c.kernel * c.dilation - c.pad;
    const int right = i % taps % c.kernel * c.dilation - c.pad;
    double expected = 0.5;
    for (int n = 0; n < c.num; ++n) {
      for (int y = 0; y < gradient.height; ++y) {
        for (int x = 0; x < gradient.width; ++x) {
          if (y + down < 0 || x + right < 0 || y + down >= c.height
              || x + right >= c.width) {
            continue;
          }
          expected += double(Rounded(gradient.at(n, o, y, x)))
              * Rounded(bottom_.at(n, channel, y + down, x + right));
        }
      }
    }
    largest = std::max(largest, std::abs(expected));
    const double d = std::abs(result[i] - expected);
    difference = d <= difference ? difference : d;  // a NaN stays
  }
  EXPECT_LT(difference / largest, 2e-6);
}

INSTANTIATE_TEST_CASE_P(Shapes, Bfloat16ConvolutionTest, ::testing::ValuesIn(kCases));

TEST(AllowBfloat16Test, IsZeroOrOne) {
  EXPECT_FALSE(ParseAllowBfloat16(NULL));
  EXPECT_FALSE(ParseAllowBfloat16(""));
  EXPECT_FALSE(ParseAllowBfloat16("0"));
  EXPECT_TRUE(ParseAllowBfloat16("1"));
  EXPECT_DEATH(ParseAllowBfloat16("yes"), "CAFFE_ALLOW_BF16 is \"yes\"; 1 lets");
}

}  // namespace caffe
