#ifndef CAFFE_UTIL_DROPOUT_MASK_HPP_
#define CAFFE_UTIL_DROPOUT_MASK_HPP_

#include <cstdint>

#include "caffe/util/host_device.hpp"
#include "caffe/util/mix_bits.hpp"

namespace caffe {

/**
 * @brief Which values of a batch are dropped: a pure function of a key, of each
 *        sample's number and of the value's place in the sample.
 *
 * Sample i of the batch has the number first_sample + i. Nothing is stored and
 * no generator has a state, so that Backward knows what Forward dropped, a
 * training that goes on from a snapshot drops what an unbroken one would, and
 * ranks drop what one machine with their whole batch would.
 */
struct DropoutMask {
  uint64_t key;
  int64_t first_sample;
  uint64_t threshold;  ///< of 2^32: what is drawn below it is dropped

  /// What all draws of sample i start from.
  CAFFE_HOST_DEVICE uint64_t OfSample(int64_t i) const {
    return MixBits(key ^ MixBits(first_sample + i));
  }

  /// Whether a sample's value number `place` is kept.
  CAFFE_HOST_DEVICE bool Keeps(uint64_t of_sample, uint64_t place) const {
    return (MixBits(of_sample + place * kMixBitsStep) >> 32) >= threshold;
  }
};

}  // namespace caffe

#endif  // CAFFE_UTIL_DROPOUT_MASK_HPP_
