#ifndef CAFFE_TEST_NCCL_EMULATION_HPP_
#define CAFFE_TEST_NCCL_EMULATION_HPP_

/**
 * The part of NCCL that Caffe uses, on the host, for builds without it: the GPUs
 * are threads of one process, a sum over them is work of their streams, which
 * meet in it.
 */
#include <atomic>
#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/distributed/local_collective.hpp"

#include "cuda_runtime_emulation.hpp"

// Caffe's own header of NCCL's macros is empty without NCCL, and comes first
#include "caffe/util/nccl.hpp"

enum ncclResult_t { ncclSuccess = 0, ncclRemoteError = 6, ncclInProgress = 7 };
enum ncclDataType_t { ncclFloat = 7, ncclDouble = 8 };
enum ncclRedOp_t { ncclAvg = 4 };
struct ncclUniqueId { char internal[128]; };

namespace caffe {
namespace emulation {

/// Of the one network that all have.
struct Network {
  std::atomic<bool> is_cut;  ///< nothing comes through
  std::atomic<bool> opens_when_asked;  ///< is cut until somebody asks for faults
  std::atomic<int> fault;    ///< which all are told
};

inline Network* NetworkState() {
  static Network network = {};
  return &network;
}

/// Those who have one id.
class Groups {
 public:
  int New() {
    std::lock_guard<std::mutex> lock(mutex_);
    return ++last_;
  }
  std::unique_ptr<Collective> Join(int id, int size, int rank) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::unique_ptr<Collective> >& group = groups_[id];
    if (group.empty()) { group = LocalCollective::Make(size); }
    return std::move(group[rank]);
  }
  static Groups* Get() {
    static Groups instance;
    return &instance;
  }

 private:
  std::mutex mutex_;
  std::map<int, std::vector<std::unique_ptr<Collective> > > groups_;
  int last_ = 0;
};

}  // namespace emulation

namespace nccl {
template <typename Dtype> class dataType;
template <> class dataType<float> {
 public:
  static const ncclDataType_t type = ncclFloat;
};
template <> class dataType<double> {
 public:
  static const ncclDataType_t type = ncclDouble;
};
}  // namespace nccl
}  // namespace caffe

typedef caffe::Collective* ncclComm_t;

#define NCCL_CHECK(condition) CHECK_EQ(condition, ncclSuccess)

inline const char* ncclGetErrorString(ncclResult_t /* result */) {
  return "a fault of NCCL";
}
inline ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const int number = caffe::emulation::Groups::Get()->New();
  std::memcpy(id->internal, &number, sizeof(number));
  return ncclSuccess;
}
inline ncclResult_t ncclCommInitRank(ncclComm_t* communicator, int size,
    ncclUniqueId id, int rank) {
  int number;
  std::memcpy(&number, id.internal, sizeof(number));
  *communicator =
      caffe::emulation::Groups::Get()->Join(number, size, rank).release();
  return ncclSuccess;
}
inline ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  delete communicator;
  return ncclSuccess;
}
inline ncclResult_t ncclCommGetAsyncError(ncclComm_t /* communicator */,
    ncclResult_t* result) {
  *result = static_cast<ncclResult_t>(
      caffe::emulation::NetworkState()->fault.load());
  if (caffe::emulation::NetworkState()->opens_when_asked) {
    caffe::emulation::NetworkState()->is_cut = false;
  }
  return ncclSuccess;
}
inline ncclResult_t ncclAllReduce(const void* from, void* to, size_t count,
    ncclDataType_t type, ncclRedOp_t /* average */, ncclComm_t communicator,
    cudaStream_t stream) {
  EmulatedStream(stream)->Put([=]() {
    caffe::emulation::TakeTime();
    while (caffe::emulation::NetworkState()->is_cut) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    CHECK_EQ(type, ncclFloat);
    const float* const values = static_cast<const float*>(from);
    std::vector<float> sum(values, values + count);
    communicator->Sum(sum.data(), count);
    for (size_t i = 0; i < count; ++i) {
      static_cast<float*>(to)[i] = sum[i] / communicator->size();
    }
  });
  return ncclSuccess;
}

#endif  // CAFFE_TEST_NCCL_EMULATION_HPP_
