#ifndef CAFFE_UTIL_BFLOAT16_HPP_
#define CAFFE_UTIL_BFLOAT16_HPP_

namespace caffe {

/**
 * Whether products on the CPU may have their factors rounded to bfloat16 (7 bits
 * of mantissa instead of 23) where no layer says otherwise: the environment
 * variable CAFFE_ALLOW_BF16 says so with 1, and 0 or nothing forbids it.
 * Anything else is fatal. Convolutions and ReNet layers without a precision of
 * their own ask this function.
 */
bool AllowBfloat16();

/// AllowBfloat16() for a variable's value; null where it is not set.
bool ParseAllowBfloat16(const char* value);

}  // namespace caffe

#endif  // CAFFE_UTIL_BFLOAT16_HPP_
