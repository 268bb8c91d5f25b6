#ifndef CAFFE_DISTRIBUTED_EMULATED_COLLECTIVE_HPP_
#define CAFFE_DISTRIBUTED_EMULATED_COLLECTIVE_HPP_

#include <cstdint>
#include <cstdlib>
#include <string>

#include "caffe/distributed/collective.hpp"

namespace caffe {

/**
 * @brief One of a number of ranks without the others, as if they had what it
 *        has: to see what one computes and when it would exchange what.
 */
class EmulatedCollective : public Collective {
 public:
  explicit EmulatedCollective(int size) : size_(size) {}

  virtual int rank() const { return 0; }
  virtual int size() const { return size_; }
  virtual std::string host(int /* rank */) const { return "localhost"; }
  virtual void Broadcast(void* /* values */, size_t /* bytes */) {}
  virtual void Sum(float* values, size_t count) { SumOf(values, count); }
  virtual void Sum(double* values, size_t count) { SumOf(values, count); }
  virtual void Sum(int64_t* values, size_t count) {
    // of checksums, too, whose sum has no room
    for (size_t i = 0; i < count; ++i) {
      values[i] = static_cast<uint64_t>(values[i]) * size_;
    }
  }
  [[noreturn]] virtual void Abort(int status) { std::_Exit(status); }

 private:
  template <typename T>
  void SumOf(T* values, size_t count) {
    for (size_t i = 0; i < count; ++i) { values[i] *= size_; }
  }

  const int size_;
};

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_EMULATED_COLLECTIVE_HPP_
