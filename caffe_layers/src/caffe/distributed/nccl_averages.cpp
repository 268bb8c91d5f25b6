#ifdef USE_NCCL
#include "caffe/distributed/nccl_averages.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>

#include "caffe/distributed/launch.hpp"

namespace caffe {

template <typename Dtype>
NcclAverages<Dtype>::NcclAverages(CollectiveQueue* ranks)
    : ranks_(ranks), patience_(SecondsOfPatience()) {
  ncclUniqueId id;
  if (ranks_->rank() == 0) { NCCL_CHECK(ncclGetUniqueId(&id)); }
  ranks_->Broadcast(&id, sizeof(id));
  NCCL_CHECK(ncclCommInitRank(&communicator_, ranks_->size(), id,
      ranks_->rank()));
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  CUDA_CHECK(cudaEventCreateWithFlags(&computed_, 0));
  CUDA_CHECK(cudaEventCreateWithFlags(&averaged_, 0));
}

template <typename Dtype>
NcclAverages<Dtype>::~NcclAverages() {
  CUDA_CHECK(cudaEventDestroy(averaged_));
  CUDA_CHECK(cudaEventDestroy(computed_));
  CUDA_CHECK(cudaStreamDestroy(stream_));
  NCCL_CHECK(ncclCommDestroy(communicator_));
}

template <typename Dtype>
void NcclAverages<Dtype>::AverageLater(Dtype* values, size_t count) {
  CUDA_CHECK(cudaEventRecord(computed_, 0));
  CUDA_CHECK(cudaStreamWaitEvent(stream_, computed_, 0));
  NCCL_CHECK(ncclAllReduce(values, values, count, nccl::dataType<Dtype>::type,
      ncclAvg, communicator_, stream_));
}

template <typename Dtype>
double NcclAverages<Dtype>::Wait() {
  typedef std::chrono::steady_clock Clock;
  CUDA_CHECK(cudaEventRecord(computed_, 0));
  CUDA_CHECK(cudaEventRecord(averaged_, stream_));
  int64_t come = 1;
  ranks_->Sum(&come, 1);  // from here on NCCL waits for nothing but its network
  CUDA_CHECK(cudaEventSynchronize(computed_));
  const Clock::time_point began = Clock::now();
  while (true) {
    const cudaError_t state = cudaEventQuery(averaged_);
    if (state == cudaSuccess) { break; }
    CHECK_EQ(state, cudaErrorNotReady) << cudaGetErrorString(state);
    ncclResult_t result = ncclSuccess;
    NCCL_CHECK(ncclCommGetAsyncError(communicator_, &result));
    CHECK(result == ncclSuccess || result == ncclInProgress)
        << "NCCL does not reach the GPUs of all processes: "
        << ncclGetErrorString(result);
    const double waited =
        std::chrono::duration<double>(Clock::now() - began).count();
    CHECK_LT(waited, patience_) << "NCCL has not brought the gradients of all "
        "processes' GPUs, and all have come: the network between them is lost";
    std::this_thread::yield();
  }
  float milliseconds = 0;
  CUDA_CHECK(cudaEventElapsedTime(&milliseconds, computed_, averaged_));
  return std::max(0.0, milliseconds / 1e3);
}

INSTANTIATE_CLASS(NcclAverages);

}  // namespace caffe

#endif  // USE_NCCL
