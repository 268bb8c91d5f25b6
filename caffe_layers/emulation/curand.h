#ifndef CAFFE_EMULATION_CURAND_H_
#define CAFFE_EMULATION_CURAND_H_

/// The functions of cuRAND that Caffe calls, with other numbers (cuda_runtime.h).
#include <cstddef>
#include <random>

enum curandStatus_t {
  CURAND_STATUS_SUCCESS,
  CURAND_STATUS_VERSION_MISMATCH,
  CURAND_STATUS_NOT_INITIALIZED,
  CURAND_STATUS_ALLOCATION_FAILED,
  CURAND_STATUS_TYPE_ERROR,
  CURAND_STATUS_OUT_OF_RANGE,
  CURAND_STATUS_LENGTH_NOT_MULTIPLE,
  CURAND_STATUS_DOUBLE_PRECISION_REQUIRED,
  CURAND_STATUS_LAUNCH_FAILURE,
  CURAND_STATUS_PREEXISTING_FAILURE,
  CURAND_STATUS_INITIALIZATION_FAILED,
  CURAND_STATUS_ARCH_MISMATCH,
  CURAND_STATUS_INTERNAL_ERROR
};
enum curandRngType_t { CURAND_RNG_PSEUDO_DEFAULT };
typedef std::mt19937_64* curandGenerator_t;

inline curandStatus_t curandCreateGenerator(curandGenerator_t* generator,
    curandRngType_t /* type */) {
  *generator = new std::mt19937_64;
  return CURAND_STATUS_SUCCESS;
}
inline curandStatus_t curandDestroyGenerator(curandGenerator_t generator) {
  delete generator;
  return CURAND_STATUS_SUCCESS;
}
inline curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t generator,
    unsigned long long seed) {  // NOLINT(runtime/int)
  generator->seed(seed);
  return CURAND_STATUS_SUCCESS;
}
inline curandStatus_t curandSetGeneratorOffset(curandGenerator_t generator,
    unsigned long long offset) {  // NOLINT(runtime/int)
  generator->discard(offset);
  return CURAND_STATUS_SUCCESS;
}

template <typename T, typename Distribution>
curandStatus_t EmulatedDraws(curandGenerator_t generator, T* values, size_t count,
    Distribution distribution) {
  for (size_t i = 0; i < count; ++i) { values[i] = distribution(*generator); }
  return CURAND_STATUS_SUCCESS;
}
inline curandStatus_t curandGenerate(curandGenerator_t generator, unsigned* values,
    size_t count) {
  return EmulatedDraws(generator, values, count,
      std::uniform_int_distribution<unsigned>());
}
/// Of (0, 1]: cuRAND leaves out 0, and not 1.
template <typename T>
curandStatus_t EmulatedUniform(curandGenerator_t generator, T* values, size_t count) {
  std::uniform_real_distribution<T> distribution(0, 1);
  for (size_t i = 0; i < count; ++i) { values[i] = 1 - distribution(*generator); }
  return CURAND_STATUS_SUCCESS;
}
inline curandStatus_t curandGenerateUniform(curandGenerator_t generator,
    float* values, size_t count) {
  return EmulatedUniform(generator, values, count);
}
inline curandStatus_t curandGenerateUniformDouble(curandGenerator_t generator,
    double* values, size_t count) {
  return EmulatedUniform(generator, values, count);
}
/// cuRAND draws normal numbers in pairs.
template <typename T>
curandStatus_t EmulatedNormal(curandGenerator_t generator, T* values, size_t count,
    T mean, T deviation) {
  if (count % 2 == 1) { return CURAND_STATUS_LENGTH_NOT_MULTIPLE; }
  return EmulatedDraws(generator, values, count,
      std::normal_distribution<T>(mean, deviation));
}
inline curandStatus_t curandGenerateNormal(curandGenerator_t generator, float* values,
    size_t count, float mean, float deviation) {
  return EmulatedNormal(generator, values, count, mean, deviation);
}
inline curandStatus_t curandGenerateNormalDouble(curandGenerator_t generator,
    double* values, size_t count, double mean, double deviation) {
  return EmulatedNormal(generator, values, count, mean, deviation);
}

#endif  // CAFFE_EMULATION_CURAND_H_
