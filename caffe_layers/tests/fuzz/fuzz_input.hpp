#ifndef CAFFE_TEST_FUZZ_FUZZ_INPUT_HPP_
#define CAFFE_TEST_FUZZ_FUZZ_INPUT_HPP_

#include <glog/logging.h>

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <string>

namespace caffe {

/// Decisions, one byte each, from the end, so that a file stays a file before
/// them; where the bytes are used up, the first of all.
class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  /// 0 to below `bound`, which is at most 256.
  int Below(int bound) {
    if (left_ == 0) { return 0; }
    return data_[--left_] % bound;
  }
  template <typename Value, size_t count>
  Value Pick(const Value (&values)[count]) { return values[Below(count)]; }
  /// All bytes that are left.
  std::string Rest() {
    const std::string rest(reinterpret_cast<const char*>(data_), left_);
    left_ = 0;
    return rest;
  }

 private:
  const uint8_t* const data_;
  size_t left_;
};

/// Where a CHECK that fails goes on, in EndsInCheck.
inline std::jmp_buf& AfterCheck() {
  static std::jmp_buf place;
  return place;
}

[[noreturn]] inline void JumpAfterCheck() { std::longjmp(AfterCheck(), 1); }

/**
 * @brief Runs something that may end in a CHECK, on this thread; whether it did.
 *
 * glog's message is in the middle of its destructor then, which lets no exception
 * through: so what was made on the way stays in memory.
 */
template <typename Work>
bool EndsInCheck(const Work& work) {
  const int level = FLAGS_minloglevel;
  FLAGS_minloglevel = google::NUM_SEVERITIES;  // not a word
  google::InstallFailureFunction(
      reinterpret_cast<google::logging_fail_func_t>(&JumpAfterCheck));
  bool failed = true;
  if (setjmp(AfterCheck()) == 0) {
    work();
    failed = false;
  }
  google::InstallFailureFunction(
      reinterpret_cast<google::logging_fail_func_t>(&std::abort));
  FLAGS_minloglevel = level;
  return failed;
}

}  // namespace caffe

#endif  // CAFFE_TEST_FUZZ_FUZZ_INPUT_HPP_
