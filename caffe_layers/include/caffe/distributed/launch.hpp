#ifndef CAFFE_DISTRIBUTED_LAUNCH_HPP_
#define CAFFE_DISTRIBUTED_LAUNCH_HPP_

#include <memory>
#include <string>

#include "caffe/distributed/collective_queue.hpp"

namespace caffe {

/**
 * @brief Joins the processes that mpirun or srun has started together with this
 *        one: CollectiveQueue::Current() from then on.
 *
 * MPI is known by a library of its own, libcaffe_mpi.so beside libcaffe.so,
 * which is loaded here and nowhere else.
 *
 * @param fault gets a line where that cannot be done
 * @return NULL where this process is the only one, or on a fault
 */
std::unique_ptr<CollectiveQueue> JoinRanks(std::string* fault);

/// How long a rank waits for another one: what CAFFE_MPI_SECONDS says, which
/// JoinRanks has looked at.
double SecondsOfPatience();

/// The file of libcaffe.so.
std::string LibraryOfCaffe();

/// Lets a message that ends this process be followed by one that names its
/// rank, machine and iteration, and all other ranks end, too.
void NameRankWhereItFails();

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_LAUNCH_HPP_
