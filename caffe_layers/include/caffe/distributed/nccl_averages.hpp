#ifndef CAFFE_DISTRIBUTED_NCCL_AVERAGES_HPP_
#define CAFFE_DISTRIBUTED_NCCL_AVERAGES_HPP_
#ifdef USE_NCCL

#include <cstddef>

#include "caffe/common.hpp"
#include "caffe/distributed/collective_queue.hpp"
#include "caffe/util/nccl.hpp"

namespace caffe {

/**
 * @brief Means over the GPUs of several ranks, each of which has one for itself.
 *
 * NCCL computes them in a stream of its own while the GPU computes on. All ranks
 * make the same calls in the same order.
 */
template <typename Dtype>
class NcclAverages {
 public:
  /// Connects the GPUs that the ranks have as their current device.
  /// @param ranks outlives this
  explicit NcclAverages(CollectiveQueue* ranks);
  ~NcclAverages();

  /// Begins to put the means over all ranks in the place of values in device
  /// memory, once all is done that the default stream was given until now.
  void AverageLater(Dtype* values, size_t count);

  /**
   * @brief Waits until all means are there.
   *
   * A rank that does not come is named, as CollectiveQueue does. Dies where NCCL
   * cannot reach a GPU, or says nothing for as long as a rank waits for another.
   *
   * @return seconds for which this GPU had nothing else to do
   */
  double Wait();

 private:
  CollectiveQueue* const ranks_;
  const double patience_;  ///< seconds
  ncclComm_t communicator_;
  cudaStream_t stream_;
  cudaEvent_t computed_;  ///< what the default stream was given is done
  cudaEvent_t averaged_;  ///< so is what NCCL was given

  DISABLE_COPY_AND_ASSIGN(NcclAverages);
};

}  // namespace caffe

#endif  // USE_NCCL
#endif  // CAFFE_DISTRIBUTED_NCCL_AVERAGES_HPP_
