#ifdef _OPENMP
#include <omp.h>
#endif

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/bilinear_interpolation_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"

namespace caffe {

template <typename TypeParam>
class BilinearInterpolationLayerTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  BilinearInterpolationLayerTest() : layer_(LayerParameter()) {
    bottom_.push_back(&map_);
    bottom_.push_back(&reference_);
    top_.push_back(&result_);
  }

  // Shapes the bottoms, fills the map with noise.
  void Shape(int num, int channels, int height, int width, int target_height,
      int target_width) {
    map_.Reshape(num, channels, height, width);
    reference_.Reshape(num, 3, target_height, target_width);
    FillerParameter filler_param;
    GaussianFiller<Dtype> filler(filler_param);
    filler.Fill(&map_);
  }

  void SetUpAndForward() {
    layer_.SetUp(bottom_, top_);
    layer_.Forward(bottom_, top_);
  }

  // How much input pixel i counts in output pixel o along one axis, by the
  // definition with real numbers: a triangle of width 1 around its position.
  static double Weight(int o, int output_size, int i, int input_size) {
    const double position = output_size == 1 ? 0 :
        static_cast<double>(o) * (input_size - 1) / (output_size - 1);
    return std::max(0., 1 - std::abs(position - i));
  }

  // The result at (n, c, y, x) as the full double sum over the input.
  double Expected(int n, int c, int y, int x) const {
    double sum = 0;
    for (int i = 0; i < map_.height(); ++i) {
      for (int j = 0; j < map_.width(); ++j) {
        sum += Weight(y, reference_.height(), i, map_.height()) *
            Weight(x, reference_.width(), j, map_.width()) *
            map_.data_at(n, c, i, j);
      }
    }
    return sum;
  }

  void ExpectResult() const {
    ASSERT_EQ(map_.num(), result_.num());
    ASSERT_EQ(map_.channels(), result_.channels());
    ASSERT_EQ(reference_.height(), result_.height());
    ASSERT_EQ(reference_.width(), result_.width());
    for (int n = 0; n < result_.num(); ++n) {
      for (int c = 0; c < result_.channels(); ++c) {
        for (int y = 0; y < result_.height(); ++y) {
          for (int x = 0; x < result_.width(); ++x) {
            ASSERT_NEAR(Expected(n, c, y, x), result_.data_at(n, c, y, x), 2e-5)
                << map_.shape_string() << " to " << result_.shape_string()
                << " at " << n << ", " << c << ", " << y << ", " << x;
          }
        }
      }
    }
  }

  // The gradient as the full double sum over the output.
  void ExpectGradient() const {
    for (int n = 0; n < map_.num(); ++n) {
      for (int c = 0; c < map_.channels(); ++c) {
        for (int i = 0; i < map_.height(); ++i) {
          for (int j = 0; j < map_.width(); ++j) {
            double sum = 0, magnitude = 1;
            for (int y = 0; y < result_.height(); ++y) {
              for (int x = 0; x < result_.width(); ++x) {
                const double term =
                    Weight(y, result_.height(), i, map_.height()) *
                    Weight(x, result_.width(), j, map_.width()) *
                    result_.diff_at(n, c, y, x);
                sum += term;
                magnitude += std::abs(term);
              }
            }
            ASSERT_NEAR(sum, map_.diff_at(n, c, i, j), 1e-5 * magnitude)
                << map_.shape_string() << " to " << result_.shape_string()
                << " at " << n << ", " << c << ", " << i << ", " << j;
          }
        }
      }
    }
  }

  // Noise in the result's gradient, rubbish where the map's belongs.
  void FillDiffs() {
    FillerParameter filler_param;
    GaussianFiller<Dtype> filler(filler_param);
    Blob<Dtype> noise(result_.shape());
    filler.Fill(&noise);
    caffe_copy(result_.count(), noise.cpu_data(), result_.mutable_cpu_diff());
    caffe_set(map_.count(), Dtype(777), map_.mutable_cpu_diff());
  }

  vector<bool> OnlyMap() const {
    vector<bool> propagate_down(2, false);
    propagate_down[0] = true;
    return propagate_down;
  }

  BilinearInterpolationLayer<Dtype> layer_;
  Blob<Dtype> map_, reference_, result_;
  vector<Blob<Dtype>*> bottom_, top_;
};

TYPED_TEST_CASE(BilinearInterpolationLayerTest, TestDtypesAndDevices);

namespace {

// height, width, target height, target width: enlarging, shrinking, one axis
// each way, odd and even sizes, sizes of one, the identity.
const int kSizes[][4] = {
  {1, 1, 1, 1}, {1, 1, 5, 4}, {5, 4, 1, 1}, {1, 7, 3, 7}, {4, 1, 9, 3},
  {2, 2, 3, 3}, {3, 5, 3, 5}, {3, 5, 7, 11}, {4, 6, 16, 33}, {9, 8, 4, 3},
  {30, 7, 2, 19}, {5, 40, 31, 6}, {7, 1, 3, 2}, {2, 3, 1, 8}, {50, 50, 2, 2},
};

}  // namespace

TYPED_TEST(BilinearInterpolationLayerTest, TestIsRegistered) {
  typedef typename TypeParam::Dtype Dtype;
  LayerParameter param;
  param.set_type("BilinearInterpolation");
  EXPECT_STREQ("BilinearInterpolation",
      LayerRegistry<Dtype>::CreateLayer(param)->type());
}

TYPED_TEST(BilinearInterpolationLayerTest, TestByHand) {
  typedef typename TypeParam::Dtype Dtype;
  this->Shape(1, 1, 2, 3, 3, 5);
  const Dtype input[] = {0, 2, 8, 4, 10, -4};
  std::copy(input, input + 6, this->map_.mutable_cpu_data());
  this->SetUpAndForward();
  const Dtype expected[] = {
    0, 1, 2, 5, 8,
    2, 4, 6, 4, 2,
    4, 7, 10, 3, -4};
  for (int i = 0; i < 15; ++i) {
    EXPECT_EQ(expected[i], this->result_.cpu_data()[i]) << "at " << i;
  }
}

TYPED_TEST(BilinearInterpolationLayerTest, TestOnePixelIsTheFirst) {
  typedef typename TypeParam::Dtype Dtype;
  this->Shape(1, 1, 3, 4, 1, 1);
  this->map_.mutable_cpu_data()[0] = Dtype(4.25);
  this->SetUpAndForward();
  EXPECT_EQ(1, this->result_.count());
  EXPECT_EQ(Dtype(4.25), this->result_.cpu_data()[0]);
}

TYPED_TEST(BilinearInterpolationLayerTest, TestCornersAreExact) {
  for (const int* size : kSizes) {
    this->Shape(1, 1, size[0], size[1], size[2], size[3]);
    this->SetUpAndForward();
    const int bottom = size[2] > 1 ? size[0] - 1 : 0;
    const int right = size[3] > 1 ? size[1] - 1 : 0;
    EXPECT_EQ(this->map_.data_at(0, 0, 0, 0),
        this->result_.data_at(0, 0, 0, 0));
    EXPECT_EQ(this->map_.data_at(0, 0, bottom, right),
        this->result_.data_at(0, 0, size[2] - 1, size[3] - 1));
  }
}

TYPED_TEST(BilinearInterpolationLayerTest, TestSameSizeIsACopy) {
  this->Shape(2, 3, 5, 7, 5, 7);
  this->SetUpAndForward();
  for (int i = 0; i < this->map_.count(); ++i) {
    EXPECT_EQ(this->map_.cpu_data()[i], this->result_.cpu_data()[i]);
  }
}

TYPED_TEST(BilinearInterpolationLayerTest, TestForward) {
  for (const int* size : kSizes) {
    this->Shape(2, 3, size[0], size[1], size[2], size[3]);
    this->SetUpAndForward();
    this->ExpectResult();
  }
}

TYPED_TEST(BilinearInterpolationLayerTest, TestBackward) {
  for (const int* size : kSizes) {
    this->Shape(2, 3, size[0], size[1], size[2], size[3]);
    this->SetUpAndForward();
    this->FillDiffs();
    this->layer_.Backward(this->top_, this->OnlyMap(), this->bottom_);
    this->ExpectGradient();
  }
}

// One layer object whose sizes grow and shrink between the calls, as with whole
// images of different sizes; and backward twice after one forward pass.
TYPED_TEST(BilinearInterpolationLayerTest, TestChangingShapes) {
  this->Shape(1, 1, 1, 1, 1, 1);
  this->layer_.SetUp(this->bottom_, this->top_);
  int batch = 1;
  for (const int* size : kSizes) {
    this->Shape(batch, 4 - batch, size[0], size[1], size[2], size[3]);
    this->layer_.Forward(this->bottom_, this->top_);
    this->ExpectResult();
    for (int round = 0; round < 2; ++round) {
      this->FillDiffs();
      this->layer_.Backward(this->top_, this->OnlyMap(), this->bottom_);
      this->ExpectGradient();
    }
    batch = batch % 3 + 1;
  }
}

TYPED_TEST(BilinearInterpolationLayerTest, TestGradient) {
  typedef typename TypeParam::Dtype Dtype;
  const int sizes[][4] = {{3, 4, 5, 7}, {5, 4, 2, 3}, {1, 3, 2, 1}};
  for (const int* size : sizes) {
    this->Shape(2, 2, size[0], size[1], size[2], size[3]);
    BilinearInterpolationLayer<Dtype> layer((LayerParameter()));
    GradientChecker<Dtype> checker(1e-2, 1e-3);
    checker.CheckGradientExhaustive(&layer, this->bottom_, this->top_, 0);
  }
}

TYPED_TEST(BilinearInterpolationLayerTest, TestNoGradientWhereNoneIsAsked) {
  typedef typename TypeParam::Dtype Dtype;
  this->Shape(1, 2, 3, 3, 6, 6);
  this->SetUpAndForward();
  this->FillDiffs();
  this->layer_.Backward(this->top_, vector<bool>(2, false), this->bottom_);
  for (int i = 0; i < this->map_.count(); ++i) {
    EXPECT_EQ(Dtype(777), this->map_.cpu_diff()[i]);
  }
}

TYPED_TEST(BilinearInterpolationLayerTest, TestTheReferenceGetsNothing) {
  typedef typename TypeParam::Dtype Dtype;
  this->Shape(2, 2, 3, 3, 6, 6);
  this->SetUpAndForward();
  this->FillDiffs();
  caffe_set(this->reference_.count(), Dtype(777),
      this->reference_.mutable_cpu_diff());
  this->layer_.Backward(this->top_, vector<bool>(2, true), this->bottom_);
  this->ExpectGradient();
  EXPECT_EQ(0, this->reference_.asum_diff());
}

#ifdef _OPENMP
TYPED_TEST(BilinearInterpolationLayerTest, TestThreadsDoNotChangeTheResult) {
  typedef typename TypeParam::Dtype Dtype;
  const int threads_before = omp_get_max_threads();
  this->Shape(3, 5, 9, 11, 40, 50);
  vector<Dtype> results, gradients;
  for (int threads = 1; threads <= 4; ++threads) {
    omp_set_num_threads(threads);
    this->SetUpAndForward();
    if (threads == 1) { this->FillDiffs(); }
    this->layer_.Backward(this->top_, this->OnlyMap(), this->bottom_);
    const Dtype* result = this->result_.cpu_data();
    const Dtype* gradient = this->map_.cpu_diff();
    if (threads == 1) {
      results.assign(result, result + this->result_.count());
      gradients.assign(gradient, gradient + this->map_.count());
    } else {
      EXPECT_TRUE(std::equal(results.begin(), results.end(), result));
      EXPECT_TRUE(std::equal(gradients.begin(), gradients.end(), gradient));
    }
  }
  omp_set_num_threads(threads_before);
}
#endif

TYPED_TEST(BilinearInterpolationLayerTest, TestBadInput) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  this->Shape(1, 2, 3, 3, 6, 6);
  this->SetUpAndForward();
  this->reference_.Reshape(vector<int>(2, 6));
  EXPECT_DEATH(this->layer_.Forward(this->bottom_, this->top_),
      "bottom 1 has shape 6 6 \\(36\\); expected N x C x H x W");
}

}  // namespace caffe
