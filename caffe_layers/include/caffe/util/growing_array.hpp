#ifndef CAFFE_UTIL_GROWING_ARRAY_HPP_
#define CAFFE_UTIL_GROWING_ARRAY_HPP_

#include <algorithm>
#include <cstddef>
#include <memory>

namespace caffe {

/**
 * @brief An array in a device's memory that is only ever enlarged.
 *
 * The device's Allocate(bytes) gives memory as a std::shared_ptr<void>.
 */
template <typename T>
class GrowingArray {
 public:
  GrowingArray() : capacity_(0) {}

  /// Room for count elements; where it grows, it grows by a quarter at least,
  /// and what was there is lost.
  template <class Device>
  T* Reserve(Device* device, size_t count) {
    if (count > capacity_) {
      memory_.reset();
      capacity_ = std::max(count, capacity_ + capacity_ / 4);
      memory_ = device->Allocate(capacity_ * sizeof(T));
    }
    return get();
  }
  T* get() const { return static_cast<T*>(memory_.get()); }

 private:
  std::shared_ptr<void> memory_;
  size_t capacity_;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_GROWING_ARRAY_HPP_
