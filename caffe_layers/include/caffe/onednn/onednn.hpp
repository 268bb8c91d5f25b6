#ifndef CAFFE_ONEDNN_ONEDNN_HPP_
#define CAFFE_ONEDNN_ONEDNN_HPP_

#include <oneapi/dnnl/dnnl.hpp>

#include <list>
#include <string>
#include <utility>
#include <vector>

#include "caffe/memory/work_areas.hpp"
#include "caffe/syncedmem.hpp"
#include "caffe/util/large_page_allocator.hpp"
#include "caffe/onednn/memory_layout.hpp"

namespace caffe {

/**
 * What Caffe's layers on oneDNN share: the switches, the order of maps in
 * memory, and how maps pass from layer to layer in that order.
 *
 * oneDNN computes convolutions on maps whose channels lie in blocks of the
 * vector's width: N x C/16 x H x W x 16 with AVX-512, N x C/8 x H x W x 8 with
 * AVX2. A map in that order hangs on the blob's SyncedMemory as its layout()
 * and costs nothing to hand on; a layer of another kind, or a person, who asks
 * the blob for a pointer gets Caffe's order (see MemoryLayout).
 */
namespace onednn {

/// The version of oneDNN that is loaded, such as "2.6.0".
std::string Version();
/// Whether Caffe's layers may run on oneDNN: CAFFE_ONEDNN, 1 unless it is 0.
bool Allowed();
/// Whether convolutions may be computed as Winograd's: CAFFE_WINOGRAD, 1 unless
/// it is 0.
bool WinogradAllowed();
/// What a switch's value says: "1" or null: yes, "0": no, else it is fatal.
bool ParseSwitch(const char* name, const char* value);

const dnnl::engine& Engine();
/// This thread's queue of work. Work is done when it has been submitted.
dnnl::stream& Stream();

/// Caffe's order: the last axis changes fastest.
dnnl::memory::desc PlainOrder(const std::vector<int>& shape);
/// N x C x H x W with channels in blocks as wide as this processor's vectors.
dnnl::memory::desc BlockedOrder(const std::vector<int>& shape);

/// A map in an order of oneDNN's, with the buffer that it lies in.
class MapLayout : public MemoryLayout {
 public:
  MapLayout() : lent_(NULL), lent_bytes_(0), rectified_(false) {}
  /// Lies in somebody else's memory as long as it is large enough.
  MapLayout(float* memory, size_t bytes)
      : lent_(memory), lent_bytes_(bytes), rectified_(false) {}
  /// Makes room for a map in another order or of another size.
  void Reset(const dnnl::memory::desc& order);
  virtual void ToPlain(void* plain) const;
  virtual bool is_lent() const { return lent_ != NULL; }
  const dnnl::memory::desc& order() const { return order_; }
  const dnnl::memory& memory() const { return memory_; }
  float* values() { return static_cast<float*>(memory_.get_data_handle()); }
  /// Number of floats, with those that fill up the last block of channels.
  size_t count() const { return order_.get_size() / sizeof(float); }
  /// Whether no value is negative, as behind a ReLU.
  bool rectified() const { return rectified_; }
  void set_rectified(bool rectified) { rectified_ = rectified; }

 private:
  dnnl::memory::desc order_;
  dnnl::memory memory_;
  float* const lent_;
  const size_t lent_bytes_;
  LargePageBuffer<float> buffer_;
  bool rectified_;
};

/// A map's layout where it has one at hand; else null.
MapLayout* LayoutOf(SyncedMemory* map);

/// How many channels of a map lie side by side (ChannelOrder): those of a block
/// where it is at hand in onednn::BlockedOrder, else 1.
int WidthOf(SyncedMemory* map, const std::vector<int>& shape);
/// The order with so many channels side by side.
dnnl::memory::desc OrderOfWidth(const std::vector<int>& shape, int width);
/// Where a map's values begin.
inline float* Values(const dnnl::memory& map) {
  return static_cast<float*>(map.get_data_handle());
}

/**
 * @brief A map's values in a certain order: where they lie already if that is
 *        their order, else copied.
 *
 * A map in Caffe's order whose pointer is in nobody's hands gets the copy as its
 * layout, so that the next reader finds it; otherwise it goes to the work area.
 *
 * @param shape the map's N, C, H, W.
 */
dnnl::memory Read(SyncedMemory* map, const std::vector<int>& shape,
    const dnnl::memory::desc& order, WorkArea area);

/// Where a map is to be written in a certain order. Finish(), called when all
/// values are there, makes them the map's.
class Writer {
 public:
  Writer(SyncedMemory* map, const std::vector<int>& shape,
      const dnnl::memory::desc& order);
  const dnnl::memory& memory() const { return memory_; }
  /// @param rectified whether no value is negative.
  void Finish(bool rectified = false);

 private:
  SyncedMemory* map_;
  shared_ptr<MapLayout> layout_;  // null: written in Caffe's order at once
  dnnl::memory memory_;
};

/**
 * @brief What layers have found out for the latest few shapes of their bottoms:
 *        nets that see images of all sizes change between a few in a batch of
 *        images, or never see one again, and making a plan takes a millisecond.
 */
template <typename Plan>
class PlansByShape {
 public:
  /// The plan for a shape; where none is kept a new one, as Plan() makes it.
  Plan* Find(const std::vector<int>& shape) {
    typename std::list<Entry>::iterator entry = entries_.begin();
    while (entry != entries_.end() && entry->first != shape) { ++entry; }
    if (entry != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, entry);
    } else {
      const size_t kShapes = 8;
      if (entries_.size() == kShapes) { entries_.pop_back(); }
      entries_.push_front(Entry(shape, Plan()));
    }
    return &entries_.front().second;
  }

 private:
  typedef std::pair<std::vector<int>, Plan> Entry;
  std::list<Entry> entries_;  // the one used last comes first
};

/// Dies of an error, unless it only says that oneDNN has no code for what a layer
/// asked of it.
void CheckOnlyMissing(const dnnl::error& error, const std::string& layer);
/// Whether a primitive is oneDNN's reference, which is slower than Caffe's code.
bool IsReference(const std::string& code);

/// Copies between orders.
void Reorder(const dnnl::memory& from, const dnnl::memory& to);
/// Adds to what is there, whichever orders the two are in.
void Accumulate(const dnnl::memory& from, const dnnl::memory& to);

/**
 * @brief A layer's weights in the orders that its primitives take, made anew
 *        only when the weights have changed.
 *
 * An order that can be turned back hangs on the weights as their layout(), so
 * that a net for predictions can do without Caffe's order (MapArena).
 */
class PackedWeights {
 public:
  /// @param plain the weights as they lie in Caffe's order.
  /// @param learns whether they change in each pass: then they lie in the work
  ///        area for weights, and nothing is kept.
  /// @param saves_memory whether to do without Caffe's order at once where it is
  ///        large, and so without the memory for both.
  dnnl::memory Get(SyncedMemory* weights, const dnnl::memory::desc& plain,
      const dnnl::memory::desc& order, bool learns, bool saves_memory = false);

 private:
  struct Packed {
    shared_ptr<MapLayout> layout;
    uint64_t version;
  };
  std::vector<Packed> packed_;
};

}  // namespace onednn
}  // namespace caffe

#endif  // CAFFE_ONEDNN_ONEDNN_HPP_
