#ifndef CAFFE_UTIL_LAYER_VALUES_HPP_
#define CAFFE_UTIL_LAYER_VALUES_HPP_

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Ends the program with a message that names layer and field where a
 *        value makes no sense whatever the layer's bottoms are: a number that is
 *        none, one too large for Caffe's int, sizes of Caffe's own layers that
 *        they divide by or allocate.
 */
void CheckLayerValues(const LayerParameter& layer);

}  // namespace caffe

#endif  // CAFFE_UTIL_LAYER_VALUES_HPP_
