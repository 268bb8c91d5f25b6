#ifndef CAFFE_TEST_FUZZ_GCC_BUILTINS_HPP_
#define CAFFE_TEST_FUZZ_GCC_BUILTINS_HPP_

// What GCC has built in and clang, which compiles the fuzzer's programs, has not.

/// Lane i of the result is lane index[i] of a and b, one behind the other.
template <typename Vector, typename Index>
inline __attribute__((always_inline)) Vector __builtin_shuffle(Vector a, Vector b, Index index) {
  Vector result;
  const int lanes = sizeof(Vector) / sizeof(a[0]);
  for (int i = 0; i < lanes; ++i) { result[i] = index[i] < lanes ? a[index[i]] : b[index[i] - lanes]; }
  return result;
}

#endif  // CAFFE_TEST_FUZZ_GCC_BUILTINS_HPP_
