#ifndef CAFFE_MEMORY_MAP_ARENA_HPP_
#define CAFFE_MEMORY_MAP_ARENA_HPP_

#include <array>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/memory/arena_plan.hpp"
#include "caffe/memory/work_areas.hpp"
#include "caffe/util/large_page_allocator.hpp"

namespace caffe {

template <typename Dtype>
class Net;

/**
 * @brief Lets the maps of a net, and in training their gradients, share memory
 *        with those that are in use at other times.
 *
 * A pass has a step for each layer forward, and in training one for each layer
 * backward. A map is in use from the layer that writes it to the last layer that
 * reads it, forward or backward, by this blob or by another with the same memory
 * (behind a Split, say). What was in use when, in Caffe's order and in a
 * library's (MemoryLayout), is seen in the first pass; from the second on the
 * maps lie in one arena (PlanArena), which is planned anew when shapes change and
 * stays between the passes. The work areas of a step's layer lie there, too
 * (Work()). What a plan did not foresee gets memory of its own: results never
 * depend on the plan.
 *
 * Inputs and outputs of the net stay, what NumPy holds (SyncedMemory's exposed()),
 * what layers without bottoms give, what a layer holds inside, and gradients that
 * are read although no layer writes them, as zeros. All other maps read as zeros
 * after their last use. In a TEST net convolutions are told to save memory, too,
 * and weights that are at hand in the order of a library lose their plain copy.
 * On a GPU its memory is shared so; maps that the host has, too, stay.
 */
template <typename Dtype>
class MapArena {
 public:
  explicit MapArena(const Net<Dtype>& net);
  ~MapArena();
  void BeforeForward(int layer);
  void AfterForward(int layer);
  void BeforeBackward(int layer);
  void AfterBackward(int layer);
  /// Bytes of the arena; 0 before the second pass.
  size_t size() const;

 private:
  /// Where and how values lie: DEVICE on the GPU, the others on the host.
  enum Order { PLAIN, LAYOUT, DEVICE };
  static constexpr Order ORDERS[] = {PLAIN, LAYOUT, DEVICE};
  /// The values of a blob, or its gradients: number 2 * blob, or that + 1.
  typedef int Values;
  typedef std::vector<char, UninitializedAllocator<char> > Arena;

  /// From which step to which values were in use in an order.
  struct Use {
    Values values;
    Order order;
    int first, last;
    bool operator==(const Use& other) const {
      return values == other.values && order == other.order
          && first == other.first && last == other.last;
    }
  };
  /// A use in the pass that runs.
  struct OpenUse {
    Values values;
    int first;
    const char* begin;  // of what was lent; null: it has memory of its own
    const char* end;
  };
  typedef std::map<std::pair<const SyncedMemory*, Order>, OpenUse> OpenUses;
  /// What is true of values, with all that lie in the same memory.
  struct Sharing {
    bool stays;  // whether they stay after the pass
    int last_use;
  };

  SyncedMemory* memory(Values values) const;
  /// The layer of a step.
  int layer_of(int step) const;
  Sharing SharingOf(Values values) const;
  size_t Bytes(const Use& use) const;
  /// Places what is planned_, as large as it is now.
  void Plan();
  /// The first byte of the arena.
  char* Begin() const;
  void BeginPass();
  /// Forgets what was seen and planned in the other mode.
  void ChangeMode();
  void Lend(size_t index, int step);
  /// Whether nothing that is in use lies between two places.
  bool IsFree(const char* begin, const char* end) const;
  void LendWorkAreas(int step);
  void EndWork(int step);
  void Before(int step);
  void After(int step);
  void Close(const SyncedMemory* memory, Order order, int step);

  const Net<Dtype>& net_;
  const int layers_;
  Caffe::Brew mode_;  // of the passes that were seen
  std::vector<std::vector<Values> > used_at_;  // by step
  std::vector<int> last_use_;                  // a step, by values
  std::vector<bool> stays_;                    // by values
  bool runs_;  // whether a pass has begun with the first layer

  /// Where the work areas of the step that runs lie.
  std::vector<std::pair<const char*, const char*> > lent_work_;
  /// The most bytes that a step's layer has asked of each, so far and as planned.
  std::vector<std::array<size_t, WORK_AREAS> > work_, planned_work_;

  OpenUses open_;
  std::vector<Use> seen_;  // in this pass
  std::vector<SyncedMemory*> lent_for_new_values_;  // at this step
  std::vector<uint64_t> versions_;  // before this step, of what it uses

  std::vector<Use> planned_;  // what was seen in an earlier pass
  std::vector<ArenaPiece> pieces_;  // of planned_, then of planned_work_ by step
  std::vector<std::vector<int> > starting_at_;  // pieces, by step
  std::vector<std::vector<int> > shapes_;  // that are planned for, of each layer's bottoms
  shared_ptr<Arena> arena_;
  shared_ptr<SyncedMemory> device_arena_;  // on the GPU, in its mode
  std::vector<shared_ptr<void> > earlier_arenas_;  // of this pass
};

}  // namespace caffe

#endif  // CAFFE_MEMORY_MAP_ARENA_HPP_
