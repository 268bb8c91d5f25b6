#ifndef CAFFE_UTIL_BILINEAR_INTERPOLATION_HPP_
#define CAFFE_UTIL_BILINEAR_INTERPOLATION_HPP_

#include "caffe/util/host_device.hpp"

namespace caffe {

/// Where one output coordinate lies between two input coordinates: its value
/// is (1 - weight) * input[low] + weight * input[high].
template <typename Dtype>
struct BilinearTap {
  int low;
  int high;
  Dtype weight;
};

/// The part of an axis that is interpolated: `size` of its `length` input
/// coordinates, from `first` on. The first and last of them are its corners.
struct BilinearWindow {
  int length;
  int first;
  int size;
};

/// The output coordinates begin .. end - 1.
struct BilinearSpan {
  int begin;
  int end;
};

/// quotient and remainder of a * b / divisor; all three are 0 or more, and the
/// quotient fits an int. Sizes of images take the division of 32 bits, which on
/// a device costs a fifth of that of 64.
CAFFE_HOST_DEVICE inline void DivideProduct(int a, int b, int divisor,
    int* quotient, int* remainder) {
  if (a < 65536 && b < 65536) {
    const unsigned int product =
        static_cast<unsigned int>(a) * static_cast<unsigned int>(b);
    *quotient = product / divisor;
    *remainder = product % divisor;
  } else {
    const long long product = static_cast<long long>(a) * b;  // NOLINT
    *quotient = static_cast<int>(product / divisor);
    *remainder = static_cast<int>(product % divisor);
  }
}

/**
 * The tap of output coordinate `output` (0 .. output_size - 1) along one axis,
 * with the first and last input pixels at the first and last output pixels
 * ("align corners"): the position is
 * @f$ output \cdot (input\_size - 1) / (output\_size - 1) @f$, and 0 where
 * output_size is 1. The division is one of integers, so both corners and all
 * other grid points are hit exactly in any precision.
 */
template <typename Dtype>
CAFFE_HOST_DEVICE inline BilinearTap<Dtype> GetBilinearTap(int output,
    int output_size, int input_size) {
  BilinearTap<Dtype> tap = { 0, 0, Dtype(0) };
  if (output_size > 1) {
    const int steps = output_size - 1;
    int remainder;
    DivideProduct(output, input_size - 1, steps, &tap.low, &remainder);
    tap.high = remainder > 0 ? tap.low + 1 : tap.low;
    tap.weight = Dtype(remainder) / Dtype(steps);
  }
  return tap;
}

/// The tap in the whole axis of an output coordinate of the window.
template <typename Dtype>
CAFFE_HOST_DEVICE inline BilinearTap<Dtype> GetBilinearTap(int output,
    int output_size, const BilinearWindow& window) {
  BilinearTap<Dtype> tap =
      GetBilinearTap<Dtype>(output, output_size, window.size);
  tap.low += window.first;
  tap.high += window.first;
  return tap;
}

/// How much input coordinate `input` counts in the output that has this tap.
template <typename Dtype>
CAFFE_HOST_DEVICE inline Dtype GetBilinearWeight(const BilinearTap<Dtype>& tap,
    int input) {
  return (tap.low == input ? 1 - tap.weight : Dtype(0)) +
      (tap.high == input ? tap.weight : Dtype(0));
}

/**
 * The outputs along one axis in which input coordinate `input` counts: those
 * whose position is less than 1 from it,
 * @f$ (input - 1)(output\_size - 1)/(input\_size - 1) < output
 *     < (input + 1)(output\_size - 1)/(input\_size - 1) @f$;
 * where either size is 1 every position is 0. Shrinking leaves some inputs out,
 * and their span is empty.
 */
CAFFE_HOST_DEVICE inline BilinearSpan GetBilinearSpan(int input, int input_size,
    int output_size) {
  BilinearSpan span = { 0, output_size };
  if (input_size == 1 || output_size == 1) {
    if (input > 0) { span.end = 0; }
    return span;
  }
  int quotient, remainder;
  if (input > 0) {
    DivideProduct(input - 1, output_size - 1, input_size - 1, &quotient,
        &remainder);
    span.begin = quotient + 1;
  }
  if (input < input_size - 1) {
    DivideProduct(input + 1, output_size - 1, input_size - 1, &quotient,
        &remainder);
    span.end = remainder > 0 ? quotient + 1 : quotient;
  }
  return span;
}

/// The same for a coordinate of the whole axis; outside of the window it counts
/// in none.
CAFFE_HOST_DEVICE inline BilinearSpan GetBilinearSpan(int input,
    const BilinearWindow& window, int output_size) {
  const BilinearSpan none = { 0, 0 };
  const int inside = input - window.first;
  return inside < 0 || inside >= window.size ? none :
      GetBilinearSpan(inside, window.size, output_size);
}

}  // namespace caffe

#endif  // CAFFE_UTIL_BILINEAR_INTERPOLATION_HPP_
