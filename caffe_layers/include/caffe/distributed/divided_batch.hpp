#ifndef CAFFE_DISTRIBUTED_DIVIDED_BATCH_HPP_
#define CAFFE_DISTRIBUTED_DIVIDED_BATCH_HPP_

#include "caffe/net.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Lets every data layer of a net read one rank's part of its batch: a
 *        prototxt's batch is that of all ranks together.
 *
 * Dies where ranks does not divide a batch, with a line that says what does,
 * where a layer's type does not know how to read a part, and where it would
 * compute something else on parts than on the whole.
 *
 * @param net whose layers are all used: rules of phases are done with
 */
void DivideBatch(int ranks, NetParameter* net);

/**
 * @brief Whether ranks may test a net on different batches: SegmentationData
 *        then reads those of its rank.
 *
 * Dies where other data layers stand beside it, which would read all.
 */
template <typename Dtype>
bool DividesTest(const Net<Dtype>& net);

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_DIVIDED_BATCH_HPP_
