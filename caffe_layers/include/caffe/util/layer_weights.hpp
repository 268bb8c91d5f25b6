#ifndef CAFFE_UTIL_LAYER_WEIGHTS_HPP_
#define CAFFE_UTIL_LAYER_WEIGHTS_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Copies a layer's weights out of a file into the blobs that the layer
 *        has made for them. Other weights than the layer wants, in number, shape
 *        or values, end the program with a message that names layer and blob.
 *
 * @param from  the layer as the file has it
 * @param blobs the layer's own
 */
template <typename Dtype>
void CopyWeights(const LayerParameter& from,
    const vector<shared_ptr<Blob<Dtype> > >& blobs);

/// The layer as it is before it has learned.
LayerParameter WithoutWeights(LayerParameter layer);

}  // namespace caffe

#endif  // CAFFE_UTIL_LAYER_WEIGHTS_HPP_
