#ifndef CAFFE_UTIL_MIX_BITS_HPP_
#define CAFFE_UTIL_MIX_BITS_HPP_

#include <cstdint>

#include "caffe/util/host_device.hpp"

namespace caffe {

/// What the states of a splitmix64 generator are apart.
const uint64_t kMixBitsStep = 0x9e3779b97f4a7c15ULL;

/**
 * @brief One step of the splitmix64 generator (Steele, Lea and Flood, 2014): a
 *        bijection of 64 bits that passes for random.
 *
 * So MixBits(key + i * kMixBitsStep), i = 0, 1, ..., is what that generator
 * gives from the state `key`, each value by itself.
 */
CAFFE_HOST_DEVICE inline uint64_t MixBits(uint64_t value) {
  value += kMixBitsStep;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

}  // namespace caffe

#endif  // CAFFE_UTIL_MIX_BITS_HPP_
