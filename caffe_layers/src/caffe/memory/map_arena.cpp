#include "caffe/memory/map_arena.hpp"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <vector>

#include "caffe/layers/onednn_conv_layer.hpp"
#include "caffe/memory/arena_plan.hpp"
#include "caffe/net.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

namespace {

/// Gives back what the C library keeps between what is in use.
void Trim() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

template <typename Dtype>
void AppendShapes(const vector<Blob<Dtype>*>& blobs, vector<int>* shapes) {
  for (const Blob<Dtype>* blob : blobs) {
    shapes->insert(shapes->end(), blob->shape().begin(), blob->shape().end());
    shapes->push_back(-1);
  }
}

}  // namespace

template <typename Dtype>
constexpr typename MapArena<Dtype>::Order MapArena<Dtype>::ORDERS[];

template <typename Dtype>
MapArena<Dtype>::MapArena(const Net<Dtype>& net)
    : net_(net), layers_(net.layers().size()), mode_(Caffe::mode()),
      used_at_(net.phase() == TRAIN ? 2 * layers_ : layers_),
      last_use_(2 * net.blobs().size(), -1),
      stays_(2 * net.blobs().size(), false), runs_(false),
      work_(used_at_.size()), planned_work_(used_at_.size()) {
  // What earlier nets of this thread have worked in would stay beside the arena
  // until its plan is made.
  FreeWork();
  const auto use = [this](Values values, int step) {
    vector<Values>* const used = &used_at_[step];
    if (std::find(used->begin(), used->end(), values) == used->end()) {
      used->push_back(values);
    }
    last_use_[values] = std::max(last_use_[values], step);
  };
  const auto keep = [this](int blob) {
    stays_[2 * blob] = stays_[2 * blob + 1] = true;
  };
  for (size_t step = 0; step < used_at_.size(); ++step) {
    const int layer = layer_of(step);
    const bool backward = static_cast<int>(step) >= layers_;
    if (backward && !net.layer_need_backward()[layer]) { continue; }
    for (int blob : net.bottom_ids(layer)) { use(2 * blob, step); }
    for (int blob : net.top_ids(layer)) { use(2 * blob, step); }
    if (!backward) { continue; }
    for (int blob : net.bottom_ids(layer)) { use(2 * blob + 1, step); }
    for (int blob : net.top_ids(layer)) { use(2 * blob + 1, step); }
  }
  for (const shared_ptr<Layer<Dtype> >& layer : net.layers()) {
    OneDNNConvolutionLayer* const convolution =
        dynamic_cast<OneDNNConvolutionLayer*>(layer.get());
    if (net.phase() == TEST && convolution != NULL) { convolution->SaveMemory(); }
  }
  for (int blob : net.input_blob_indices()) { keep(blob); }
  for (int blob : net.output_blob_indices()) { keep(blob); }
  for (int layer = 0; layer < layers_; ++layer) {
    for (int top : net.top_ids(layer)) {
      // a loss's weight is its gradient, set once
      if (net.bottom_ids(layer).empty() || net.blob_loss_weights()[top] != 0) {
        keep(top);
      }
    }
  }
}

template <typename Dtype>
MapArena<Dtype>::~MapArena() {
  for (size_t values = 0; values < stays_.size(); ++values) {
    memory(values)->Keep();
  }
}

template <typename Dtype>
SyncedMemory* MapArena<Dtype>::memory(Values values) const {
  const Blob<Dtype>& blob = *net_.blobs()[values / 2];
  return (values % 2 == 0 ? blob.data() : blob.diff()).get();
}

template <typename Dtype>
int MapArena<Dtype>::layer_of(int step) const {
  return step < layers_ ? step : 2 * layers_ - 1 - step;
}

template <typename Dtype>
typename MapArena<Dtype>::Sharing MapArena<Dtype>::SharingOf(
    Values values) const {
  const Blob<Dtype>& blob = *net_.blobs()[values / 2];
  const shared_ptr<SyncedMemory>& memory =
      values % 2 == 0 ? blob.data() : blob.diff();
  Sharing sharing = {memory->exposed() || stays_[values], last_use_[values]};
  long others = memory.use_count() - 1;
  for (size_t i = 0; others > 0 && !sharing.stays && i < stays_.size(); ++i) {
    if (static_cast<Values>(i) == values || this->memory(i) != memory.get()) {
      continue;
    }
    --others;
    sharing.stays = stays_[i];
    sharing.last_use = std::max(sharing.last_use, last_use_[i]);
  }
  // the rest is a layer's own, which may need it at any time
  sharing.stays = sharing.stays || others > 0;
  return sharing;
}

template <typename Dtype>
size_t MapArena<Dtype>::Bytes(const Use& use) const {
  if (use.order != LAYOUT) { return memory(use.values)->size(); }
  const vector<int>& shape = net_.blobs()[use.values / 2]->shape();
  const bool is_map = shape.size() == 4
      && *std::min_element(shape.begin(), shape.end()) > 0;
  return is_map ? onednn::BlockedOrder(shape).get_size() : 0;
}

template <typename Dtype>
void MapArena<Dtype>::Plan() {
  vector<ArenaPiece> pieces;
  starting_at_.assign(used_at_.size(), vector<int>());
  for (const Use& use : planned_) {
    const ArenaPiece piece = {Bytes(use), use.first, use.last, 0};
    starting_at_[use.first].push_back(pieces.size());
    pieces.push_back(piece);
  }
  planned_work_ = work_;
  for (size_t step = 0; step < planned_work_.size(); ++step) {
    for (size_t bytes : planned_work_[step]) {
      const int at = static_cast<int>(step);
      const ArenaPiece piece = {bytes, at, at, 0};
      pieces.push_back(piece);
    }
  }
  const size_t total = PlanArena(&pieces);
  pieces_.swap(pieces);
  shapes_.assign(layers_, vector<int>());
  for (int layer = 0; layer < layers_; ++layer) {
    AppendShapes(net_.bottom_vecs()[layer], &shapes_[layer]);
  }
  if (total <= size()) { return; }
  // Of the old one there may be parts in use.
  if (!open_.empty()) {
    earlier_arenas_.push_back(arena_);
    earlier_arenas_.push_back(device_arena_);
  }
  arena_.reset();
  device_arena_.reset();
  if (mode_ == Caffe::GPU) {
    device_arena_.reset(new SyncedMemory(total));
    device_arena_->mutable_gpu_data();
  } else {
    arena_.reset(new Arena(total));
  }
}

template <typename Dtype>
size_t MapArena<Dtype>::size() const {
  return device_arena_ ? device_arena_->size() : arena_ ? arena_->size() : 0;
}

template <typename Dtype>
char* MapArena<Dtype>::Begin() const {
  return device_arena_ ? static_cast<char*>(device_arena_->mutable_gpu_data())
      : arena_->data();
}

template <typename Dtype>
void MapArena<Dtype>::ChangeMode() {
  mode_ = Caffe::mode();
  seen_.clear();
  planned_.clear();
  pieces_.clear();
  work_.assign(used_at_.size(), std::array<size_t, WORK_AREAS>());
  planned_work_ = work_;
  arena_.reset();
  device_arena_.reset();
}

template <typename Dtype>
void MapArena<Dtype>::BeginPass() {
  for (size_t values = 0; values < stays_.size(); ++values) {
    SyncedMemory* const memory = this->memory(values);
    // also where it grows, into memory that nobody holds yet
    if (memory->exposed()) { stays_[values] = true; }
    if (memory->head() == SyncedMemory::UNINITIALIZED
        || (values % 2 == 1 && net_.phase() == TEST)) {
      continue;
    }
    if (SharingOf(values).stays) {
      memory->Keep();
    } else {
      memory->Release();
    }
  }
  while (!open_.empty()) {
    Close(open_.begin()->first.first, open_.begin()->first.second,
        used_at_.size() - 1);
  }
  earlier_arenas_.clear();
  if (mode_ != Caffe::mode()) { ChangeMode(); }
  if (seen_ != planned_ || work_ != planned_work_) {
    planned_.swap(seen_);
    FreeWork();
    Trim();
    Plan();
  }
  seen_.clear();
  runs_ = true;
}

template <typename Dtype>
void MapArena<Dtype>::Lend(size_t index, int step) {
  const Use& use = planned_[index];
  SyncedMemory* const memory = this->memory(use.values);
  const size_t bytes = Bytes(use);
  if (bytes == 0 || bytes > pieces_[index].bytes || SharingOf(use.values).stays) {
    return;
  }
  char* const begin = Begin() + pieces_[index].offset;
  if (!IsFree(begin, begin + bytes)) { return; }
  if (use.order == DEVICE) {
    if (!memory->LendDevice(begin)) { return; }
    lent_for_new_values_.push_back(memory);
  } else if (use.order == PLAIN) {
    const bool is_new = memory->head() == SyncedMemory::UNINITIALIZED;
    if (!memory->LendPlain(begin)) { return; }
    if (is_new) { lent_for_new_values_.push_back(memory); }
  } else if (!memory->LendLayout(shared_ptr<MemoryLayout>(
      new onednn::MapLayout(reinterpret_cast<float*>(begin), bytes)))) {
    return;
  }
  const OpenUse open = {use.values, step, begin, begin + bytes};
  open_[std::make_pair(memory, use.order)] = open;
}

template <typename Dtype>
bool MapArena<Dtype>::IsFree(const char* begin, const char* end) const {
  for (const typename OpenUses::value_type& other : open_) {
    if (begin < other.second.end && other.second.begin < end) { return false; }
  }
  for (const std::pair<const char*, const char*>& other : lent_work_) {
    if (begin < other.second && other.first < end) { return false; }
  }
  return true;
}

template <typename Dtype>
void MapArena<Dtype>::LendWorkAreas(int step) {
  for (int area = 0; area < WORK_AREAS; ++area) {
    const ArenaPiece& piece =
        pieces_[planned_.size() + step * WORK_AREAS + area];
    if (piece.bytes == 0) { continue; }
    char* const begin = Begin() + piece.offset;
    if (!IsFree(begin, begin + piece.bytes)) { continue; }
    LendWork(static_cast<WorkArea>(area), begin, piece.bytes);
    lent_work_.push_back(std::make_pair(begin, begin + piece.bytes));
  }
}

template <typename Dtype>
void MapArena<Dtype>::EndWork(int step) {
  for (int area = 0; area < WORK_AREAS; ++area) {
    LendWork(static_cast<WorkArea>(area), NULL, 0);
  }
  lent_work_.clear();
  const std::array<size_t, WORK_AREAS> sizes = TakeWorkSizes();
  if (mode_ == Caffe::GPU) { return; }  // the host's, of layers without a GPU's form
  for (int area = 0; area < WORK_AREAS; ++area) {
    work_[step][area] = std::max(work_[step][area], sizes[area]);
  }
}

template <typename Dtype>
void MapArena<Dtype>::Before(int step) {
  lent_for_new_values_.clear();
  if (!pieces_.empty()) {
    for (int index : starting_at_[step]) { Lend(index, step); }
    LendWorkAreas(step);
  }
  TakeWorkSizes();  // what others have asked for is no matter of this net
  versions_.clear();
  for (Values values : used_at_[step]) {
    versions_.push_back(memory(values)->version());
  }
}

template <typename Dtype>
void MapArena<Dtype>::Close(const SyncedMemory* memory, Order order, int step) {
  const typename OpenUses::iterator found =
      open_.find(std::make_pair(memory, order));
  if (found == open_.end()) { return; }
  const Use use = {found->second.values, order, found->second.first, step};
  seen_.push_back(use);
  open_.erase(found);
}

template <typename Dtype>
void MapArena<Dtype>::After(int step) {
  EndWork(step);
  for (size_t i = 0; i < used_at_[step].size(); ++i) {
    const Values values = used_at_[step][i];
    SyncedMemory* const memory = this->memory(values);
    const bool was_written = memory->version() != versions_[i];
    if (mode_ == Caffe::GPU && (memory->has_plain() || memory->spare_layout())) {
      stays_[values] = true;
    }
    const Sharing sharing = SharingOf(values);
    if (sharing.stays) {
      memory->Keep();
      for (Order order : ORDERS) { open_.erase(std::make_pair(memory, order)); }
      continue;
    }
    const bool is_unwritten = !was_written
        && std::find(lent_for_new_values_.begin(), lent_for_new_values_.end(),
            memory) != lent_for_new_values_.end();
    const bool ends = sharing.last_use <= step;
    if (!ends && !is_unwritten) { memory->ReleaseStale(); }
    const bool is_current[] = {memory->plain_is_current(),
        memory->layout() != NULL,
        mode_ == Caffe::GPU && memory->device_is_current()};
    bool is_known = was_written;
    for (Order order : ORDERS) {
      is_known |= open_.count(std::make_pair(memory, order)) > 0;
    }
    if (is_unwritten || ends) {
      memory->Release();
      for (Order order : ORDERS) {
        if (open_.count(std::make_pair(memory, order)) > 0) {
          Close(memory, order, step);
        } else if (is_current[order] && is_known && !is_unwritten) {
          // for the last reader alone, which takes another order
          const Use use = {values, order, step, step};
          seen_.push_back(use);
        }
      }
      continue;
    }
    if ((is_current[PLAIN] || is_current[LAYOUT] || is_current[DEVICE])
        && !is_known) {
      stays_[values] = true;  // read, and no layer has written it
      continue;
    }
    for (Order order : ORDERS) {
      if (!is_current[order]) {
        Close(memory, order, step);
      } else if (open_.count(std::make_pair(memory, order)) == 0) {
        const OpenUse open = {values, step, NULL, NULL};
        open_[std::make_pair(memory, order)] = open;
      }
    }
  }
}

template <typename Dtype>
void MapArena<Dtype>::BeforeForward(int layer) {
  if (layer == 0) { BeginPass(); }
  if (!runs_) { return; }
  if (!pieces_.empty()) {
    vector<int> shapes;
    AppendShapes(net_.bottom_vecs()[layer], &shapes);
    if (shapes != shapes_[layer]) {
      for (int later = layer; later < layers_; ++later) {
        net_.layers()[later]->Reshape(net_.bottom_vecs()[later],
            net_.top_vecs()[later]);
      }
      Plan();
    }
  }
  Before(layer);
}

template <typename Dtype>
void MapArena<Dtype>::AfterForward(int layer) {
  if (!runs_) { return; }
  After(layer);
  if (net_.phase() == TRAIN) {
    // what a layer notes there on the way forward is for its way back
    for (const vector<int>* ids : {&net_.bottom_ids(layer), &net_.top_ids(layer)}) {
      for (int blob : *ids) {
        if (memory(2 * blob + 1)->head() != SyncedMemory::UNINITIALIZED) {
          stays_[2 * blob + 1] = true;
        }
      }
    }
    return;
  }
  bool weights_are_less = false;
  for (const shared_ptr<Blob<Dtype> >& blob : net_.layers()[layer]->blobs()) {
    // not those that a net in training has, too
    if (blob->data().use_count() == 1) {
      weights_are_less |= blob->data()->ReleasePlain();
    }
  }
  if (weights_are_less) { Trim(); }
}

template <typename Dtype>
void MapArena<Dtype>::BeforeBackward(int layer) {
  CHECK_EQ(net_.phase(), TRAIN)
      << "maps that backward needs were let go (ShareMaps)";
  if (runs_) { Before(2 * layers_ - 1 - layer); }
}

template <typename Dtype>
void MapArena<Dtype>::AfterBackward(int layer) {
  if (runs_) { After(2 * layers_ - 1 - layer); }
}

template class MapArena<float>;
template class MapArena<double>;

}  // namespace caffe
