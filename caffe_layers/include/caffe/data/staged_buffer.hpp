#ifndef CAFFE_DATA_STAGED_BUFFER_HPP_
#define CAFFE_DATA_STAGED_BUFFER_HPP_

#include <cstddef>
#include <string>

#include "caffe/common.hpp"

namespace caffe {

/**
 * @brief Main memory that any thread fills and, where a device is named, a
 *        copy of it there that is made beside the device's other work.
 *
 * With a device the main memory is page-locked, and Push copies it on a stream
 * of its own, which runs at the same time as what is on the default stream.
 * The order of use is: fill host(), Push, read device() in work that is put on
 * the default stream, MarkRead, and again. Neither side can meet the other:
 *  - Push comes back when the copy is done, so that host() may be filled again
 *    and device() be read by all work that is put on a stream from then on;
 *  - the copy that the next Push makes waits, on the device, for the work that
 *    was on the default stream at MarkRead. That work waits for nobody, so
 *    neither does the copy for ever.
 *
 * The calls for one buffer must not overlap each other; they may come from
 * different threads, and nothing of a thread's own Caffe context (mode,
 * handles) is touched. Memory is only ever enlarged.
 */
class StagedBuffer {
 public:
  enum { NO_DEVICE = -1 };

  /// owner: how messages begin, such as a layer's type and name.
  StagedBuffer(int device, const std::string& owner);
  /// Waits for the work that was on the default stream at the last MarkRead.
  ~StagedBuffer();

  int device_id() const { return device_id_; }

  /// Makes room for `bytes`; what was in the buffer is lost where it grows.
  void Reserve(size_t bytes);
  void* host() { return host_; }

#ifndef CPU_ONLY
  /// Copies the first `bytes` to the device and waits for the copy.
  void Push(size_t bytes);
  const void* device() const { return device_; }
  /// To be called when the last work that reads device() is on the default
  /// stream, with the device being the thread's current one.
  void MarkRead();
#endif

 private:
  StagedBuffer(const StagedBuffer&);
  StagedBuffer& operator=(const StagedBuffer&);

  void Free();

  const int device_id_;
  const std::string owner_;
  size_t capacity_;
  void* host_;
#ifndef CPU_ONLY
  void Check(cudaError_t status, const char* action) const;

  void* device_;
  cudaStream_t stream_;
  cudaEvent_t copied_;
  cudaEvent_t read_;
#endif
};

}  // namespace caffe

#endif  // CAFFE_DATA_STAGED_BUFFER_HPP_
