#ifndef CAFFE_DISTRIBUTED_BATCH_STATISTICS_HPP_
#define CAFFE_DISTRIBUTED_BATCH_STATISTICS_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/// Puts the means over the whole batch in the place of those over a rank's part
/// of it; with the scope LOCAL, nothing.
/// @param layer a BatchNorm
template <typename Dtype>
void AverageOverBatch(const LayerParameter& layer, int count, Dtype* values);
template <typename Dtype>
void AverageOverBatch(const LayerParameter& layer, Blob<Dtype>* values);

/**
 * @brief Adds a training pass's statistics to the running ones of a BatchNorm.
 *
 * With the scope LOCAL those of all ranks, one after another, as iter_size adds
 * those of its passes: so all ranks keep the same, and tests do not hang on which
 * of them computes.
 *
 * @param layer a BatchNorm
 * @param count samples of a channel in a rank's part of the batch
 * @param mean, variance of each channel, after AverageOverBatch
 * @param running the layer's blobs: sums of means and of variances, and their
 *        number, each with what is left of the older ones
 */
template <typename Dtype>
void AddToRunning(const LayerParameter& layer, int count, const Dtype* mean,
    const Dtype* variance, const vector<shared_ptr<Blob<Dtype> > >& running);
/// The same, which without other ranks leaves on the GPU what is there.
template <typename Dtype>
void AddToRunning(const LayerParameter& layer, int count,
    const Blob<Dtype>& mean, const Blob<Dtype>& variance,
    const vector<shared_ptr<Blob<Dtype> > >& running);

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_BATCH_STATISTICS_HPP_
