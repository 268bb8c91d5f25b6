#ifndef CAFFE_CRF_DENSE_CRF_FEATURES_HPP_
#define CAFFE_CRF_DENSE_CRF_FEATURES_HPP_

#include <cmath>
#include <cstddef>

#include "caffe/proto/caffe.pb.h"
#include "caffe/crf/lattice_normalization.hpp"
#include "caffe/crf/permutohedral_simplex.hpp"

namespace caffe {

/// Features of the positional kernel: (x, y) / deviation.
struct PositionalFeatures {
  static constexpr int kDimensions = 2;

  int width;
  float deviation;

  PERMUTOHEDRAL_FUNCTION void Get(int pixel, float* feature) const {
    feature[0] = (pixel % width) / deviation;
    feature[1] = (pixel / width) / deviation;
  }
};

/**
 * @brief Features of the bilateral kernel: (x, y) / xy_deviation and
 *        (R, G, B) / color_deviation of the image as it was before its mean was
 *        taken off and before it was scaled.
 */
template <typename Dtype>
struct BilateralFeatures {
  static constexpr int kDimensions = 5;

  const Dtype* image;  // 3 x pixels
  int pixels;
  int width;
  float xy_deviation;
  float color_deviation;
  float scale;     // what the image was multiplied with
  int channel[3];  // where red, green and blue are in the image
  float mean[3];   // what was taken off red, green and blue
  bool undone;     // whether there is a scale or a mean

  PERMUTOHEDRAL_FUNCTION void Get(int pixel, float* feature) const {
    feature[0] = (pixel % width) / xy_deviation;
    feature[1] = (pixel / width) / xy_deviation;
    for (int k = 0; k < 3; ++k) {
      const float value = static_cast<float>(
          image[channel[k] * static_cast<size_t>(pixels) + pixel] / scale +
          mean[k]);
      // A mean that has been taken off an 8-bit value and added back leaves
      // rounding errors far below 0.01; what lies further away is meant.
      const float whole = NearestWhole(value);
      feature[2 + k] = (undone && fabsf(value - whole) < 0.01f ? whole :
          value) / color_deviation;
    }
  }
};

inline PositionalFeatures MakePositionalFeatures(const DenseCRFParameter& crf,
    int width) {
  PositionalFeatures features;
  features.width = width;
  features.deviation = crf.pos_xy_std();
  return features;
}

/// @param image 3 x height x width
template <typename Dtype>
BilateralFeatures<Dtype> MakeBilateralFeatures(const DenseCRFParameter& crf,
    const Dtype* image, int height, int width) {
  BilateralFeatures<Dtype> features;
  features.image = image;
  features.pixels = height * width;
  features.width = width;
  features.xy_deviation = crf.bi_xy_std();
  features.color_deviation = crf.bi_rgb_std();
  features.scale = crf.scale();
  const int means = crf.mean_value_size();
  features.undone = means > 0 || crf.scale() != 1;
  for (int k = 0; k < 3; ++k) {
    const int c = crf.order() == DenseCRFParameter_Order_RGB ? k : 2 - k;
    features.channel[k] = c;
    features.mean[k] = means == 0 ? 0 : crf.mean_value(means == 1 ? 0 : c);
  }
  return features;
}

inline LatticeNormalization MakeNormalization(const DenseCRFParameter& crf) {
  const DenseCRFParameter_Normalization of = crf.normalization();
  const bool both = of == DenseCRFParameter_Normalization_SYMMETRIC;
  const LatticeNormalization normalization = {
      both || of == DenseCRFParameter_Normalization_BEFORE,
      both || of == DenseCRFParameter_Normalization_AFTER};
  return normalization;
}

}  // namespace caffe

#endif  // CAFFE_CRF_DENSE_CRF_FEATURES_HPP_
