#ifndef CAFFE_DISTRIBUTED_RANK_COMPARISON_HPP_
#define CAFFE_DISTRIBUTED_RANK_COMPARISON_HPP_

#include <string>

#include "caffe/distributed/collective_queue.hpp"
#include "caffe/net.hpp"
#include "caffe/solver.hpp"

namespace caffe {

/**
 * @brief Looks whether all ranks have the same text.
 *
 * @param what the text is, for the message
 * @return empty where they do; else a line, the same on all ranks, that names
 *         the first rank that differs from rank 0, its machine, and the first
 *         line of the text in which it does
 */
string FindDifference(const string& what, const string& own,
    CollectiveQueue* ranks);

/// As above, of what ranks must have alike that begin to train together: the
/// library of Caffe, the solver, its networks and their data, the iteration to go
/// on from, and the number of threads.
template <typename Dtype>
string FindDifference(Solver<Dtype>* solver, CollectiveQueue* ranks);

/// As above, of the data of a net, whose layers are alike.
template <typename Dtype>
string FindDifferenceOfData(const Net<Dtype>& net, CollectiveQueue* ranks);

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_RANK_COMPARISON_HPP_
