#ifndef CAFFE_UTIL_LAYER_AT_WORK_HPP_
#define CAFFE_UTIL_LAYER_AT_WORK_HPP_

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Says, while it lives, which layer this thread works for: a CHECK that
 *        fails then is followed by a line on stderr with the layer's name, type
 *        and phase, unless its own message has the name.
 */
class LayerAtWork {
 public:
  /// @param layer must live as long
  /// @param doing what is done: "set-up"
  LayerAtWork(const LayerParameter& layer, const char* doing);
  ~LayerAtWork();

  LayerAtWork(const LayerAtWork&) = delete;
  LayerAtWork& operator=(const LayerAtWork&) = delete;

 private:
  friend class LayerTeller;

  const LayerParameter& layer_;
  const char* const doing_;
  const LayerAtWork* const outer_;  // a net within a layer has layers, too
};

}  // namespace caffe

#endif  // CAFFE_UTIL_LAYER_AT_WORK_HPP_
