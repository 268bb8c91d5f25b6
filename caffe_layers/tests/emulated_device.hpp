#ifndef CAFFE_TEST_EMULATED_DEVICE_HPP_
#define CAFFE_TEST_EMULATED_DEVICE_HPP_

#include "cuda_emulation.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "caffe/renet/gpu/scan.hpp"
#include "caffe/gpu/tensor_core.cuh"

namespace caffe {

/// A device of the emulation: what CudaDevice offers, on the host. Products are
/// plain loops in double, so that their order of summation hides nothing.
class EmulatedDevice {
 public:
  EmulatedDevice() : launches_(0), repeats_(0) {}

  int multiprocessors() const { return multiprocessors_; }
  int compute_capability_major() const { return compute_capability_major_; }
  size_t shared_memory_per_block() const { return shared_memory_; }
  void set_multiprocessors(int count) { multiprocessors_ = count; }
  void set_shared_memory(size_t bytes) { shared_memory_ = bytes; }
  void set_compute_capability_major(int major) {
    compute_capability_major_ = major;
  }

  template <typename... P, typename... A>
  void Launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
      A... args) {
    ++launches_;
    emulation::Launch(kernel, grid, block, shared_bytes, args...);
  }
  template <typename... P>
  int BlocksPerMultiprocessor(void (* /* kernel */)(P...), int threads,
      size_t shared_bytes) const {
    return std::min<int>(1024 / threads,
        shared_bytes == 0 ? 32 : shared_memory_ / shared_bytes);
  }

  template <typename Dtype>
  void Product(bool transpose_a, bool transpose_b, int m, int n, int k,
      const Dtype* a, int lda, const Dtype* b, int ldb, Dtype beta, Dtype* c,
      int ldc, ReNetPrecision precision) {
    for (int row = 0; row < m; ++row) {
      for (int column = 0; column < n; ++column) {
        double sum = 0;
        for (int i = 0; i < k; ++i) {
          sum += Factor(precision,
              a[transpose_a ? i * lda + row : row * lda + i]) *
              Factor(precision,
              b[transpose_b ? column * ldb + i : i * ldb + column]);
        }
        Dtype& to = c[row * ldc + column];
        to = beta == 0 ? sum : beta * to + sum;
      }
    }
  }
  template <typename Dtype>
  void BatchedProduct(bool transpose_a, bool transpose_b, int m, int n, int k,
      const Dtype* a, int lda, ptrdiff_t stride_a, const Dtype* b, int ldb,
      ptrdiff_t stride_b, Dtype beta, Dtype* c, int ldc, ptrdiff_t stride_c,
      int count, ReNetPrecision precision) {
    for (int i = 0; i < count; ++i) {
      Product(transpose_a, transpose_b, m, n, k, a + i * stride_a, lda,
          b + i * stride_b, ldb, beta, c + i * stride_c, ldc, precision);
    }
  }
  template <typename Dtype>
  void Copy(size_t count, const Dtype* from, Dtype* to) {
    std::copy(from, from + count, to);
  }
  template <typename Key, typename Body>
  void Repeat(const Key& /* key */, Body body) {
    ++repeats_;
    body();
  }

  int launches() const { return launches_; }
  /// How many recurrences went step by step.
  int repeats() const { return repeats_; }

 private:
  template <typename Dtype>
  static double Factor(ReNetPrecision precision, Dtype value) {
    return precision == RENET_TF32 ?
        emulation::BitCast<float>(RoundToTf32(value)) :
        precision == RENET_BF16 ? emulation::BitCast<float>(
            static_cast<uint32_t>(RoundToBf16(value)) << 16) : value;
  }

  int multiprocessors_ = 132;
  size_t shared_memory_ = 232448;
  int compute_capability_major_ = 9;
  int launches_;
  int repeats_;
};

}  // namespace caffe

#endif  // CAFFE_TEST_EMULATED_DEVICE_HPP_
