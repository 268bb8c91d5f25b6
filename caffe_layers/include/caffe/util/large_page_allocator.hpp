#ifndef CAFFE_UTIL_LARGE_PAGE_ALLOCATOR_HPP_
#define CAFFE_UTIL_LARGE_PAGE_ALLOCATOR_HPP_

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <new>
#include <vector>

namespace caffe {

/**
 * @brief Asks the system for large pages where an array spans several: arrays
 *        that are read here and there then miss the translation of addresses
 *        less often.
 *
 * A wish only: where the system has no large pages to give, the array lies in
 * ordinary ones.
 */
template <typename T>
class LargePageAllocator {
 public:
  typedef T value_type;

  LargePageAllocator() {}
  template <typename Other>
  LargePageAllocator(const LargePageAllocator<Other>& /*other*/) {}

  T* allocate(size_t count) {
    const size_t kPage = 2 << 20;
    size_t bytes = count * sizeof(T);
    const bool large = bytes >= 2 * kPage;
    const size_t alignment = large ? kPage : 64;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    void* const memory = std::aligned_alloc(alignment, bytes);
    if (memory == NULL) { throw std::bad_alloc(); }
#ifdef MADV_HUGEPAGE
    if (large) { madvise(memory, bytes, MADV_HUGEPAGE); }
#endif
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t /*count*/) { std::free(memory); }

  template <typename Other>
  bool operator==(const LargePageAllocator<Other>& /*other*/) const {
    return true;
  }
  template <typename Other>
  bool operator!=(const LargePageAllocator<Other>& /*other*/) const {
    return false;
  }
};

template <typename T>
using LargePageVector = std::vector<T, LargePageAllocator<T> >;

}  // namespace caffe

#endif  // CAFFE_UTIL_LARGE_PAGE_ALLOCATOR_HPP_
