#ifndef CAFFE_ONEDNN_MAP_RELEASE_HPP_
#define CAFFE_ONEDNN_MAP_RELEASE_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/onednn/memory_layout.hpp"

namespace caffe {

template <typename Dtype>
class Net;

/**
 * @brief Lets the maps of a net go as its forward pass goes on, so that it needs
 *        the memory of the maps that are read later, not that of all.
 *
 * A map goes when the last layer has run that reads it, or reads another blob
 * with the same memory (behind a Split, say). The buffers of maps in blocks are
 * handed on to later layers, as far as these need ones as large: memory that
 * comes fresh from the system has to be cleared first, which costs as much as
 * some layers. Convolutions are told to save memory, too, and work areas are
 * given back at the end of the net. Weights that are at hand in the order of a library lose their plain copy.
 *
 * Inputs and outputs of the net stay, and what NumPy holds (SyncedMemory's
 * exposed()). Does nothing in GPU mode.
 */
template <typename Dtype>
class MapRelease {
 public:
  explicit MapRelease(const Net<Dtype>& net);
  void BeforeLayer(int layer);
  void AfterLayer(int layer);

 private:
  bool IsReadLater(const SyncedMemory* memory, int layer) const;
  void TakeSpareLayout(SyncedMemory* memory);

  const Net<Dtype>& net_;
  std::vector<int> last_reader_;  // of each blob: a layer
  std::vector<shared_ptr<MemoryLayout> > spare_layouts_;
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_MAP_RELEASE_HPP_
