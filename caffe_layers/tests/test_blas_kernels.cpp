#include "gtest/gtest.h"

#include "caffe/util/blas_kernels.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

TEST(BlasKernelsTest, OldOnesAreReplacedByWhatTheProcessorHas) {
  for (const char* old : {"Unknown", "Prescott", "Nehalem"}) {
    EXPECT_STREQ("HASWELL", BetterBlasKernels(old, AVX2));
    EXPECT_STREQ("SKYLAKEX", BetterBlasKernels(old, AVX512));
    EXPECT_STREQ("SKYLAKEX", BetterBlasKernels(old, AMX));
    EXPECT_EQ(NULL, BetterBlasKernels(old, GENERIC));
  }
}

TEST(BlasKernelsTest, OthersStay) {
  for (const char* chosen : {"Haswell", "Zen", "SkylakeX", "Cooperlake"}) {
    EXPECT_EQ(NULL, BetterBlasKernels(chosen, AVX512));
  }
}

}  // namespace caffe
