#ifndef CAFFE_UTIL_BILINEAR_INTERPOLATION_HPP_
#define CAFFE_UTIL_BILINEAR_INTERPOLATION_HPP_

#ifdef __CUDACC__
#define CAFFE_HOST_DEVICE __host__ __device__
#else
#define CAFFE_HOST_DEVICE
#endif

namespace caffe {

/// Where one output coordinate lies between two input coordinates: its value
/// is (1 - weight) * input[low] + weight * input[high].
template <typename Dtype>
struct BilinearTap {
  int low;
  int high;
  Dtype weight;
};

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
    const long long steps = output_size - 1;  // NOLINT(runtime/int)
    const long long position =                // NOLINT(runtime/int)
        static_cast<long long>(output) * (input_size - 1);  // NOLINT
    const int remainder = static_cast<int>(position % steps);
    tap.low = static_cast<int>(position / steps);
    tap.high = remainder > 0 ? tap.low + 1 : tap.low;
    tap.weight = Dtype(remainder) / Dtype(steps);
  }
  return tap;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_BILINEAR_INTERPOLATION_HPP_
