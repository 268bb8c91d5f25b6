#ifndef CAFFE_UTIL_L2_NORMALIZATION_HPP_
#define CAFFE_UTIL_L2_NORMALIZATION_HPP_

#include <cmath>

#include "caffe/util/host_device.hpp"

namespace caffe {

/**
 * How a map x of norm n becomes one of norm `scale`, and what its gradient is:
 *
 * @f$ y = \lambda x / n, \quad
 *     \frac{\partial E}{\partial x} = \frac{\lambda}{n} \left(
 *     \frac{\partial E}{\partial y} - \frac{x}{n^2}
 *     \left( x \cdot \frac{\partial E}{\partial y} \right) \right) @f$
 *
 * Sums are of double precision: a map has a million values. A map of zeros has
 * no direction; it stays 0 and gets no gradient.
 */
struct L2Factors {
  double map;   // y = map * x
  double same;  // dx = same * dy - along * x
  double along;
};

/// squares: x . x; product: x . dy (0 where only `map` is of interest).
CAFFE_HOST_DEVICE inline L2Factors GetL2Factors(double scale, double squares,
    double product) {
  L2Factors factors = { 0., 0., 0. };
  if (squares > 0) {
    factors.map = scale / sqrt(squares);
    factors.same = factors.map;
    factors.along = factors.map * product / squares;
  }
  return factors;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_L2_NORMALIZATION_HPP_
