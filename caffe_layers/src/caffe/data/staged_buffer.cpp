#include "caffe/data/staged_buffer.hpp"

#include <cstdlib>
#include <string>

namespace caffe {

StagedBuffer::StagedBuffer(int device, const std::string& owner)
    : device_id_(device), owner_(owner), capacity_(0), host_(NULL) {
#ifdef CPU_ONLY
  CHECK_EQ(device, static_cast<int>(NO_DEVICE)) << owner
      << ": this is a build for the CPU alone; there is no device to copy to";
#else
  device_ = NULL;
  if (device_id_ == NO_DEVICE) { return; }
  Check(cudaSetDevice(device_id_), "choosing the device");
  // Not blocking: it has no part in the default stream's waiting for others.
  Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
      "creating a stream");
  // Who waits for the copy sleeps and leaves the processor to decoding.
  Check(cudaEventCreateWithFlags(&copied_,
      cudaEventDisableTiming | cudaEventBlockingSync), "creating an event");
  Check(cudaEventCreateWithFlags(&read_,
      cudaEventDisableTiming | cudaEventBlockingSync), "creating an event");
#endif
}

StagedBuffer::~StagedBuffer() {
  Free();
#ifndef CPU_ONLY
  if (device_id_ == NO_DEVICE) { return; }
  Check(cudaEventDestroy(read_), "destroying an event");
  Check(cudaEventDestroy(copied_), "destroying an event");
  Check(cudaStreamDestroy(stream_), "destroying a stream");
#endif
}

void StagedBuffer::Reserve(size_t bytes) {
  if (bytes <= capacity_) { return; }
  Free();
  capacity_ = bytes;
#ifndef CPU_ONLY
  if (device_id_ != NO_DEVICE) {
    Check(cudaSetDevice(device_id_), "choosing the device");
    Check(cudaMallocHost(&host_, bytes), "allocating page-locked memory");
    Check(cudaMalloc(&device_, bytes), "allocating device memory");
    return;
  }
#endif
  host_ = std::malloc(bytes);
  CHECK(host_) << owner_ << ": allocating " << bytes << " bytes failed";
}

void StagedBuffer::Free() {
  capacity_ = 0;
#ifndef CPU_ONLY
  if (device_id_ != NO_DEVICE) {
    if (host_) {
      Check(cudaEventSynchronize(read_), "waiting for the last use");
      Check(cudaFree(device_), "freeing device memory");
      Check(cudaFreeHost(host_), "freeing page-locked memory");
    }
    host_ = device_ = NULL;
    return;
  }
#endif
  std::free(host_);
  host_ = NULL;
}

#ifndef CPU_ONLY
void StagedBuffer::Push(size_t bytes) {
  CHECK_NE(device_id_, static_cast<int>(NO_DEVICE)) << owner_
      << ": the buffer was made without a device";
  CHECK_LE(bytes, capacity_) << owner_ << ": more than the buffer holds";
  Check(cudaSetDevice(device_id_), "choosing the device");
  Check(cudaStreamWaitEvent(stream_, read_, 0), "waiting for the last use");
  Check(cudaMemcpyAsync(device_, host_, bytes, cudaMemcpyHostToDevice, stream_),
      "copying to the device");
  Check(cudaEventRecord(copied_, stream_), "copying to the device");
  Check(cudaEventSynchronize(copied_), "copying to the device");
}

void StagedBuffer::MarkRead() {
  Check(cudaEventRecord(read_, 0), "marking the last use");
}

void StagedBuffer::Check(cudaError_t status, const char* action) const {
  // The process is ending, and a thread that still copies must not turn that
  // into a failure: nobody asks for its copy any more.
  if (status == cudaErrorCudartUnloading) { return; }
  CHECK_EQ(status, cudaSuccess) << owner_ << ": " << action << " (GPU "
      << device_id_ << ", a buffer of " << capacity_ << " bytes): "
      << cudaGetErrorString(status);
}
#endif

}  // namespace caffe
