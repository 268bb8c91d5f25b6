#include "cuda_emulation.hpp"

#ifdef CAFFE_CUDA_EMULATION

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/bilinear_interpolation_layer.hpp"
#include "caffe/util/bilinear_interpolation.cuh"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

namespace {

// N, C, h, w, H, W: one group of maps and several, whole and not; enlarging,
// shrinking, each axis its own way, sizes of one; more threads than one block.
const int kShapes[][6] = {
  {1, 1, 1, 1, 1, 1}, {1, 3, 1, 1, 5, 4}, {2, 4, 5, 4, 1, 1},
  {1, 9, 1, 7, 3, 7}, {3, 3, 4, 1, 9, 3}, {1, 8, 2, 2, 3, 3},
  {2, 5, 3, 5, 7, 11}, {1, 2, 4, 6, 16, 33}, {1, 17, 9, 8, 4, 3},
  {1, 4, 30, 7, 2, 19}, {2, 3, 5, 40, 31, 6}, {5, 2, 7, 1, 3, 2},
  {1, 1, 50, 50, 2, 2}, {1, 11, 2, 3, 1, 8}, {10, 2, 12, 16, 24, 32},
  {1, 8, 15, 20, 60, 80}, {1, 2, 1, 1, 37, 51},
};

template <typename Dtype>
void Poison(vector<Dtype>* values) {
  std::fill(values->begin(), values->end(),
      std::numeric_limits<Dtype>::quiet_NaN());
}

unsigned int Blocks(unsigned int threads, int block) {
  return (threads - 1) / block + 1;
}

}  // namespace

/// The layer on the CPU, and the kernels' source on the same numbers.
template <typename Dtype>
class BilinearInterpolationKernelTest : public ::testing::Test {
 protected:
  BilinearInterpolationKernelTest() : layer_(LayerParameter()) {
    Caffe::set_mode(Caffe::CPU);
    bottom_.push_back(&map_);
    bottom_.push_back(&reference_);
    top_.push_back(&result_);
  }
  virtual void TearDown() {
    emulation::settings() = emulation::Settings();
  }

  // The layer's answers for noise of this shape.
  void RunLayer(const int* shape) {
    map_.Reshape(shape[0], shape[1], shape[2], shape[3]);
    reference_.Reshape(1, 1, shape[4], shape[5]);
    FillerParameter filler_param;
    GaussianFiller<Dtype> filler(filler_param);
    filler.Fill(&map_);
    layer_.SetUp(bottom_, top_);
    layer_.Forward(bottom_, top_);
    Blob<Dtype> noise(result_.shape());
    filler.Fill(&noise);
    caffe_copy(noise.count(), noise.cpu_data(), result_.mutable_cpu_diff());
    vector<bool> propagate_down(2, false);
    propagate_down[0] = true;
    layer_.Backward(top_, propagate_down, bottom_);
  }

  static BilinearWindow Whole(int length) {
    const BilinearWindow window = { length, 0, length };
    return window;
  }
  int maps() const { return map_.num() * map_.channels(); }

  vector<Dtype> Forward(int block) {
    vector<Dtype> output(result_.count());
    Poison(&output);
    const int places = result_.height() * result_.width();
    emulation::Launch(BilinearForwardKernel<Dtype>,
        Blocks(BilinearThreads(maps(), places), block), block, 0, maps(),
        Whole(map_.height()), Whole(map_.width()), result_.height(),
        result_.width(), map_.cpu_data(), output.data());
    return output;
  }

  vector<Dtype> Backward(int block) {
    BilinearAxis axes[2];
    GetBilinearBackward(maps(), Whole(map_.height()), Whole(map_.width()),
        result_.height(), result_.width(), axes);
    EXPECT_LE(axes[0].Count(), std::max(map_.count(), result_.count()));
    EXPECT_EQ(map_.count(), axes[1].Count());
    vector<Dtype> intermediate(axes[0].Count()), input_diff(map_.count());
    Poison(&intermediate);
    Poison(&input_diff);
    Transpose(axes[0], block, result_.cpu_diff(), intermediate.data());
    Transpose(axes[1], block, intermediate.data(), input_diff.data());
    return input_diff;
  }

  static void Transpose(const BilinearAxis& axis, int block,
      const Dtype* output_diff, Dtype* input_diff) {
    emulation::Launch(BilinearTransposeKernel<Dtype>,
        Blocks(axis.Threads(), block), block, 0, axis.maps, axis.window,
        axis.output_size, axis.inner, output_diff, input_diff);
  }

  // In this form a NaN, which no thread overwrote, is a failure.
  static void ExpectNear(const vector<Dtype>& actual, const Dtype* expected,
      double tolerance) {
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_TRUE(std::abs(actual[i] - expected[i]) <=
          tolerance * std::max(1., std::abs(double(expected[i]))))
          << actual[i] << " instead of " << expected[i] << " at " << i;
    }
  }

  BilinearInterpolationLayer<Dtype> layer_;
  Blob<Dtype> map_, reference_, result_;
  vector<Blob<Dtype>*> bottom_, top_;
};

TYPED_TEST_CASE(BilinearInterpolationKernelTest, TestDtypes);

TYPED_TEST(BilinearInterpolationKernelTest, TestEqualsTheLayer) {
  const double tolerance = sizeof(TypeParam) == 4 ? 2e-6 : 1e-14;
  for (const int* shape : kShapes) {
    SCOPED_TRACE(::testing::Message() << shape[0] << " x " << shape[1] << " x "
        << shape[2] << " x " << shape[3] << " to " << shape[4] << " x "
        << shape[5]);
    this->RunLayer(shape);
    for (int block : {256, 32}) {
      this->ExpectNear(this->Forward(block), this->result_.cpu_data(),
          tolerance);
      // Sums over many outputs; 1x1 to 37x51 adds 1887 of them.
      this->ExpectNear(this->Backward(block), this->map_.cpu_diff(),
          20 * tolerance);
    }
  }
}

// The order in which threads run changes no bit: no two write one place.
TYPED_TEST(BilinearInterpolationKernelTest, TestOrderOfThreads) {
  const int shape[] = {3, 5, 7, 9, 13, 22};
  this->RunLayer(shape);
  const vector<TypeParam> output = this->Forward(256);
  const vector<TypeParam> input_diff = this->Backward(256);
  emulation::settings().order = emulation::Settings::DESCENDING;
  EXPECT_TRUE(output == this->Forward(256));
  EXPECT_TRUE(input_diff == this->Backward(256));
}

// The span of an input holds just those outputs whose taps name it, also where
// products of sizes take more than 32 bits.
TEST(BilinearSpanTest, TestHoldsAllTapsAndNoOthers) {
  const int sizes[] = {1, 2, 3, 4, 5, 7, 8, 13, 30, 31, 64, 97};
  for (int input_size : sizes) {
    for (int output_size : sizes) {
      vector<std::set<int> > users(input_size);
      for (int o = 0; o < output_size; ++o) {
        const BilinearTap<double> tap =
            GetBilinearTap<double>(o, output_size, input_size);
        users[tap.low].insert(o);
        users[tap.high].insert(o);
      }
      for (int i = 0; i < input_size; ++i) {
        const BilinearSpan span = GetBilinearSpan(i, input_size, output_size);
        std::set<int> expected;
        for (int o = span.begin; o < span.end; ++o) { expected.insert(o); }
        EXPECT_EQ(expected, users[i]) << "input " << i << " of " << input_size
            << ", " << output_size << " outputs";
      }
    }
  }
}

TEST(BilinearSpanTest, TestLongAxes) {
  const int lengths[][2] = {{65536, 65537}, {65537, 65538}, {70000, 65537},
      {65537, 70000}, {70000, 140000}, {2000000000, 3}, {3, 2000000000},
      {1999999999, 2000000000}};
  for (const int* length : lengths) {
    const int input_size = length[0], output_size = length[1];
    for (double part : {0., 0.25, 0.5, 0.9, 1.}) {
      const int o = static_cast<int>(part * (output_size - 1));
      const BilinearTap<double> tap =
          GetBilinearTap<double>(o, output_size, input_size);
      const double position =
          static_cast<double>(o) * (input_size - 1) / (output_size - 1);
      EXPECT_NEAR(position, tap.low + tap.weight, 1e-6);
      for (int i : {tap.low, tap.high}) {
        const BilinearSpan span = GetBilinearSpan(i, input_size, output_size);
        EXPECT_LE(span.begin, o);
        EXPECT_GT(span.end, o);
        // And the outputs just outside of it do not use the input.
        for (int outside : {span.begin - 1, span.end}) {
          if (outside < 0 || outside >= output_size) { continue; }
          EXPECT_EQ(0, GetBilinearWeight(GetBilinearTap<double>(outside,
              output_size, input_size), i));
        }
      }
    }
  }
}

}  // namespace caffe

#endif  // CAFFE_CUDA_EMULATION
