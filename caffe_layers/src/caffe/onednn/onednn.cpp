#include "caffe/onednn/onednn.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace caffe {
namespace onednn {

using dnnl::memory;

std::string Version() {
  const dnnl_version_t& version = *dnnl::version();
  return std::to_string(version.major) + "." + std::to_string(version.minor)
      + "." + std::to_string(version.patch);
}

bool ParseSwitch(const char* name, const char* value) {
  if (value == NULL || std::strcmp(value, "1") == 0) { return true; }
  CHECK_EQ(std::strcmp(value, "0"), 0)
      << name << " is '" << value << "'; 0 or 1 is expected";
  return false;
}

bool Allowed() {
  static const bool allowed =
      ParseSwitch("CAFFE_ONEDNN", std::getenv("CAFFE_ONEDNN"));
  return allowed;
}

bool WinogradAllowed() {
  static const bool allowed =
      ParseSwitch("CAFFE_WINOGRAD", std::getenv("CAFFE_WINOGRAD"));
  return allowed;
}

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& Stream() {
  static thread_local dnnl::stream stream(Engine());
  return stream;
}

memory::desc PlainOrder(const std::vector<int>& shape) {
  static const memory::format_tag kTags[] = {
      memory::format_tag::undef, memory::format_tag::a, memory::format_tag::ab,
      memory::format_tag::abc, memory::format_tag::abcd,
      memory::format_tag::abcde};
  CHECK(!shape.empty() && shape.size() <= 5) << shape.size() << " axes";
  return memory::desc(memory::dims(shape.begin(), shape.end()),
      memory::data_type::f32, kTags[shape.size()]);
}

memory::desc BlockedOrder(const std::vector<int>& shape) {
  static const bool wide =
      dnnl::get_effective_cpu_isa() >= dnnl::cpu_isa::avx512_mic;
  return memory::desc(memory::dims(shape.begin(), shape.end()),
      memory::data_type::f32,
      wide ? memory::format_tag::nChw16c : memory::format_tag::nChw8c);
}

void MapLayout::Reset(const memory::desc& order) {
  if (order == order_) { return; }
  float* values = lent_;
  if (order.get_size() > lent_bytes_) {
    const size_t count = order.get_size() / sizeof(float);
    if (count > buffer_.capacity()) {
      LargePageBuffer<float>().swap(buffer_);  // no copy of the old values
    }
    buffer_.resize(count);
    values = buffer_.data();
  }
  order_ = order;
  memory_ = dnnl::memory(order, Engine(), values);
}

void MapLayout::ToPlain(void* plain) const {
  const memory::dims dims = order_.dims();
  Reorder(memory_, dnnl::memory(
      PlainOrder(std::vector<int>(dims.begin(), dims.end())),
      Engine(), plain));
}

MapLayout* LayoutOf(SyncedMemory* map) {
  // only this file gives maps a layout
  return static_cast<MapLayout*>(map->exposed() ? NULL : map->layout());
}

int WidthOf(SyncedMemory* map, const std::vector<int>& shape) {
  const MapLayout* const layout = LayoutOf(map);
  if (layout == NULL || shape.size() != 4) { return 1; }
  const memory::desc blocked = BlockedOrder(shape);
  return layout->order() == blocked
      ? static_cast<int>(blocked.data.format_desc.blocking.inner_blks[0]) : 1;
}

memory::desc OrderOfWidth(const std::vector<int>& shape, int width) {
  return width > 1 ? BlockedOrder(shape) : PlainOrder(shape);
}

namespace {

/// A layout to write a map into: the one that hangs on it already, if any.
shared_ptr<MapLayout> LayoutFor(SyncedMemory* map, const memory::desc& order) {
  shared_ptr<MapLayout> layout =
      boost::static_pointer_cast<MapLayout>(map->spare_layout());
  if (!layout) { layout.reset(new MapLayout()); }
  layout->Reset(order);
  return layout;
}

}  // namespace

memory Read(SyncedMemory* map, const std::vector<int>& shape,
    const memory::desc& order, WorkArea area) {
  const memory::desc plain = PlainOrder(shape);
  MapLayout* const layout = LayoutOf(map);
  if (layout != NULL && layout->order().dims() == plain.dims()) {
    if (layout->order() == order) { return layout->memory(); }
    if (order != plain) {
      const memory copy(order, Engine(), Work(area, order.get_size()));
      Reorder(layout->memory(), copy);
      return copy;
    }
  }
  const memory here(plain, Engine(), const_cast<void*>(map->cpu_data()));
  if (order == plain) { return here; }
  if (map->exposed()) {
    const memory copy(order, Engine(), Work(area, order.get_size()));
    Reorder(here, copy);
    return copy;
  }
  const shared_ptr<MapLayout> copy = LayoutFor(map, order);
  copy->set_rectified(false);
  Reorder(here, copy->memory());
  map->set_layout(copy, false);
  return copy->memory();
}

Writer::Writer(SyncedMemory* map, const std::vector<int>& shape,
    const memory::desc& order) : map_(map) {
  const memory::desc plain = PlainOrder(shape);
  if (order == plain) {
    memory_ = dnnl::memory(plain, Engine(), map->mutable_cpu_data());
  } else {
    layout_ = LayoutFor(map, order);
    memory_ = layout_->memory();
  }
}

void Writer::Finish(bool rectified) {
  if (!layout_) { return; }
  layout_->set_rectified(rectified);
  map_->set_layout(layout_, true);
  if (map_->exposed()) { map_->mutable_cpu_data(); }
}

void CheckOnlyMissing(const dnnl::error& error, const std::string& layer) {
  CHECK(error.status == dnnl_unimplemented
      || error.status == dnnl_invalid_arguments)
      << "Layer " << layer << ": oneDNN: " << error.what();
}

bool IsReference(const std::string& code) {
  return code.find("ref") != std::string::npos;
}

void Reorder(const memory& from, const memory& to) {
  memory source = from;
  memory target = to;
  dnnl::reorder(source, target).execute(Stream(), source, target);
}

void Accumulate(const memory& from, const memory& to) {
  dnnl::post_ops sum;
  sum.append_sum();
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(sum);
  memory source = from;
  memory target = to;
  dnnl::reorder(source, target, attributes).execute(Stream(), source, target);
}

namespace {

// Weights as large as this are worth the care.
const size_t kLargeWeights = 4 << 20;
// Outputs that are packed at a time: whole blocks in every order.
const int kOutputs = 64;

/// Copies weights of N x C x H x W into an order with these outermost, and gives
/// back the pages of what has been copied, whose values are lost.
void Move(float* from, const memory& to) {
  const memory::dims dims = to.get_desc().dims();
  const memory::desc plain = PlainOrder(vector<int>(dims.begin(), dims.end()));
  const size_t page = sysconf(_SC_PAGESIZE);
  const size_t bytes = plain.get_size() / dims[0] * kOutputs;
  char* released = reinterpret_cast<char*>(
      (reinterpret_cast<uintptr_t>(from) + page - 1) / page * page);
  for (int64_t output = 0; output < dims[0]; output += kOutputs) {
    const memory::dims piece = {kOutputs, dims[1], dims[2], dims[3]};
    const memory::dims first = {output, 0, 0, 0};
    Reorder(memory(plain.submemory_desc(piece, first), Engine(), from),
        memory(to.get_desc().submemory_desc(piece, first), Engine(),
            to.get_data_handle()));
    char* const end =
        reinterpret_cast<char*>(from) + (output / kOutputs + 1) * bytes;
    const size_t whole = end > released ? (end - released) / page * page : 0;
    if (whole > 0) { madvise(released, whole, MADV_DONTNEED); }
    released += whole;
  }
}

}  // namespace

memory PackedWeights::Get(SyncedMemory* weights, const memory::desc& plain,
    const memory::desc& order, bool learns, bool saves_memory) {
  if (order == plain) {
    return memory(plain, Engine(), const_cast<void*>(weights->cpu_data()));
  }
  if (learns) {
    const memory copy(order, Engine(), Work(WORK_WEIGHTS, order.get_size()));
    Reorder(memory(plain, Engine(), const_cast<void*>(weights->cpu_data())), copy);
    return copy;
  }
  const size_t kOrders = 4;  // forward and backward, for two kinds of shapes
  size_t i = 0;
  while (i < packed_.size() && packed_[i].layout->order() != order) { ++i; }
  if (i == packed_.size()) {
    if (packed_.size() == kOrders) { packed_.erase(packed_.begin()); }
    i = packed_.size();
    packed_.push_back(Packed());
    packed_[i].version = 0;  // no memory has this one
  }
  Packed* const packed = &packed_[i];
  // behind a pointer in somebody's hands, weights may have changed unseen
  if (packed->version == 0 || weights->exposed()
      || packed->version != weights->version()) {
    const memory here(plain, Engine(), const_cast<void*>(weights->cpu_data()));
    // not into a buffer that other weights still have their values in
    if (!packed->layout || (packed->layout.use_count() > 1
        && packed->layout != weights->spare_layout())) {
      packed->layout.reset(new MapLayout());
      packed->layout->Reset(order);
    }
    // what ToPlain() could turn back
    const memory::dims dims = order.dims();
    const bool turns_back = order.data.format_kind != dnnl_format_kind_wino
        && plain == PlainOrder(std::vector<int>(dims.begin(), dims.end()));
    bool moves = saves_memory && turns_back && !weights->exposed()
        && plain.get_size() >= kLargeWeights && dims.size() == 4
        && dims[0] % kOutputs == 0;
#ifndef CPU_ONLY
    moves = false;  // memory that is pinned for a GPU keeps its pages
#endif
    if (moves) {
      Move(static_cast<float*>(here.get_data_handle()), packed->layout->memory());
    } else {
      Reorder(here, packed->layout->memory());
    }
    packed->version = weights->version();
    if (turns_back && !weights->exposed()) {
      weights->set_layout(packed->layout, false);
    }
    if (moves) {
      CHECK(weights->ReleasePlain()) << "weights whose pages are gone are kept";
    }
  }
  return packed->layout->memory();
}

}  // namespace onednn
}  // namespace caffe
