#ifndef CAFFE_DISTRIBUTED_RANK_GPUS_HPP_
#define CAFFE_DISTRIBUTED_RANK_GPUS_HPP_

#include <string>
#include <vector>

#include "caffe/distributed/collective_queue.hpp"

namespace caffe {

/**
 * @brief Leaves of the GPUs that all ranks are given the one that is this rank's:
 *        the first rank of a machine takes the first, its second the second.
 *
 * One GPU alone is every rank's: each may see another one (Slurm binds them so),
 * or they are to share it.
 *
 * @return a line where a machine has more ranks than GPUs, on all ranks the same;
 *         else nothing
 */
std::string ChooseGpu(const CollectiveQueue& ranks, std::vector<int>* gpus);

/// Whether no two ranks have the same GPU as their current device; all ask.
bool HaveGpusOfTheirOwn(CollectiveQueue* ranks);

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_RANK_GPUS_HPP_
