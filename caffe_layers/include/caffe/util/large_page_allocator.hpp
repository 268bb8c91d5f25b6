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
    const size_t bytes = count * sizeof(T);
    void* const memory = bytes < kLarge
        ? std::aligned_alloc(64, (bytes + 63) / 64 * 64) : Map(bytes);
    if (memory == NULL) { throw std::bad_alloc(); }
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t count) {
    const size_t bytes = count * sizeof(T);
    if (bytes < kLarge) {
      std::free(memory);
    } else {
      munmap(memory, Pages(bytes));
    }
  }

  template <typename Other>
  bool operator==(const LargePageAllocator<Other>& /*other*/) const {
    return true;
  }
  template <typename Other>
  bool operator!=(const LargePageAllocator<Other>& /*other*/) const {
    return false;
  }

 private:
  static const size_t kPage = 2 << 20;
  static const size_t kLarge = 2 * kPage;

  static size_t Pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
  // Straight from the system, to which it goes back at once: malloc keeps what
  // lies between arrays that stay.
  static void* Map(size_t bytes) {
    const size_t size = Pages(bytes);
    char* const memory = static_cast<char*>(mmap(NULL, size + kPage,
        PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory == MAP_FAILED) { return NULL; }
    const size_t before =
        (kPage - reinterpret_cast<size_t>(memory) % kPage) % kPage;
    if (before > 0) { munmap(memory, before); }
    if (before < kPage) { munmap(memory + before + size, kPage - before); }
#ifdef MADV_HUGEPAGE
    madvise(memory + before, size, MADV_HUGEPAGE);
#endif
    return memory + before;
  }
};

template <typename T>
using LargePageVector = std::vector<T, LargePageAllocator<T> >;

/// Leaves new values as the system gives them, and memory that is not written
/// untouched.
template <typename T>
class UninitializedAllocator : public LargePageAllocator<T> {
 public:
  template <typename Other>
  struct rebind { typedef UninitializedAllocator<Other> other; };

  UninitializedAllocator() {}
  template <typename Other>
  UninitializedAllocator(const UninitializedAllocator<Other>& /*other*/) {}
  template <typename Other>
  void construct(Other* value) { ::new (static_cast<void*>(value)) Other; }
};

template <typename T>
using LargePageBuffer = std::vector<T, UninitializedAllocator<T> >;

}  // namespace caffe

#endif  // CAFFE_UTIL_LARGE_PAGE_ALLOCATOR_HPP_
