#ifndef CAFFE_GPU_DEFAULT_STREAM_CUH_
#define CAFFE_GPU_DEFAULT_STREAM_CUH_

#include <string>

#include "caffe/gpu/cuda_check.hpp"

namespace caffe {

/// The default stream, where Caffe's own work is.
class DefaultStream {
 public:
  /// @param who the layer, for messages
  explicit DefaultStream(const string& who) : who_(who) {}

  template <typename... P, typename... A>
  void Launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
      A... args) {
    kernel<<<grid, block, shared_bytes>>>(args...);
    CUDA_CHECK_OF(who_, cudaPeekAtLastError());
  }

 private:
  const string who_;
};

}  // namespace caffe

#endif  // CAFFE_GPU_DEFAULT_STREAM_CUH_
