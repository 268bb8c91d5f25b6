#ifndef CAFFE_UTIL_HASH_BYTES_HPP_
#define CAFFE_UTIL_HASH_BYTES_HPP_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "caffe/util/mix_bits.hpp"

namespace caffe {

/// A checksum of bytes, `hash` that of those before them. It finds what differs
/// by accident, not by intent.
inline uint64_t HashBytes(const void* bytes, size_t count, uint64_t hash = 0) {
  const unsigned char* from = static_cast<const unsigned char*>(bytes);
  for (size_t i = 0; i < count; i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, from + i, std::min(count - i, sizeof(word)));
    hash = MixBits(hash ^ word);
  }
  return hash;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_HASH_BYTES_HPP_
