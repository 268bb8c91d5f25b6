#ifndef CAFFE_ONEDNN_MEMORY_LAYOUT_HPP_
#define CAFFE_ONEDNN_MEMORY_LAYOUT_HPP_

#include <cstddef>

namespace caffe {

/**
 * @brief The values of a SyncedMemory in another order than Caffe's own
 *        N x C x H x W: the one in which a library computes fastest.
 *
 * Such values go from layer to layer as they are. Whoever asks SyncedMemory for
 * a pointer gets Caffe's order, made when it is asked for.
 */
class MemoryLayout {
 public:
  virtual ~MemoryLayout() {}
  /// Writes the values in Caffe's order.
  virtual void ToPlain(void* plain) const = 0;
  /// Whether they may lie in memory that is somebody else's (MapArena).
  virtual bool is_lent() const = 0;
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_MEMORY_LAYOUT_HPP_
