#ifndef CAFFE_CRF_VERTEX_TABLE_HPP_
#define CAFFE_CRF_VERTEX_TABLE_HPP_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "caffe/util/large_page_allocator.hpp"

namespace caffe {

/**
 * @brief Numbers keys 1, 2, 3, .. in the order in which they come. The key 0
 *        cannot be numbered.
 *
 * Open addressing with the key beside the number, so that a search mostly
 * touches one cache line. Key: an unsigned integer of 64 or 128 bits.
 */
template <typename Key>
class VertexTable {
 public:
  /// @brief Forgets all keys and keeps the memory.
  void Clear() {
    keys_.clear();
    if (slots_.empty()) { slots_.resize(1 << 12); }
    slots_.assign(slots_.size(), Slot());
    Measure();
  }

  int FindOrAdd(Key key) {
    for (size_t slot = First(key); ; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) { return slots_[slot].vertex; }
      if (slots_[slot].key == 0) {
        keys_.push_back(key);
        const int vertex = size();
        slots_[slot].key = key;
        slots_[slot].vertex = vertex;
        if (2 * keys_.size() > slots_.size()) { Grow(); }
        return vertex;
      }
    }
  }

  /// @brief Fetches the line that a search for this key starts at.
  void Prefetch(Key key) const { __builtin_prefetch(&slots_[First(key)]); }

  int size() const { return static_cast<int>(keys_.size()); }
  Key key(int vertex) const { return keys_[vertex - 1]; }
  void swap(VertexTable& other) {
    keys_.swap(other.keys_);
    slots_.swap(other.slots_);
    Measure();
    other.Measure();
  }

 private:
  struct Slot {
    Slot() : key(0), vertex(0) {}
    Key key;
    int vertex;
  };

  size_t First(Key key) const {
    // the parts of a wide key are folded with different odd factors
    const uint64_t folded = static_cast<uint64_t>(key) +
        static_cast<uint64_t>(key >> (sizeof(Key) * 4)) * kSecondFactor;
    return (folded * kFirstFactor) >> shift_;
  }

  void Measure() {
    mask_ = slots_.size() - 1;
    shift_ = 64;
    for (size_t size = slots_.size(); size > 1; size /= 2) { --shift_; }
  }

  void Grow() {
    slots_.assign(2 * slots_.size(), Slot());
    Measure();
    for (int vertex = 1; vertex <= size(); ++vertex) {
      size_t slot = First(key(vertex));
      while (slots_[slot].key != 0) { slot = (slot + 1) & mask_; }
      slots_[slot].key = key(vertex);
      slots_[slot].vertex = vertex;
    }
  }

  static const uint64_t kFirstFactor = 0x9E3779B97F4A7C15ull;
  static const uint64_t kSecondFactor = 0xC2B2AE3D27D4EB4Full;

  std::vector<Key> keys_;
  LargePageVector<Slot> slots_;
  size_t mask_ = 0;
  int shift_ = 64;
};

}  // namespace caffe

#endif  // CAFFE_CRF_VERTEX_TABLE_HPP_
