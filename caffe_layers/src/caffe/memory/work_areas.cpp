#include "caffe/memory/work_areas.hpp"

#include <algorithm>

#include "caffe/util/large_page_allocator.hpp"

namespace caffe {

namespace {

struct Area {
  LargePageBuffer<float> values;
  // The most there was: asked for at once where there is nothing yet. Pages
  // that nobody writes take no memory.
  size_t most = 0;
  float* lent = NULL;
  size_t lent_bytes = 0;
  size_t asked = 0;  // the most bytes, since TakeWorkSizes()
};

thread_local Area areas[WORK_AREAS];

}  // namespace

float* Work(WorkArea area, size_t bytes) {
  Area* const work = &areas[area];
  work->asked = std::max(work->asked, bytes);
  if (bytes <= work->lent_bytes) { return work->lent; }
  work->most = std::max(work->most, (bytes + sizeof(float) - 1) / sizeof(float));
  if (work->values.size() < work->most) {
    LargePageBuffer<float>().swap(work->values);
    work->values.resize(work->most);
  }
  return work->values.data();
}

void LendWork(WorkArea area, void* memory, size_t bytes) {
  areas[area].lent = static_cast<float*>(memory);
  areas[area].lent_bytes = bytes;
}

std::array<size_t, WORK_AREAS> TakeWorkSizes() {
  std::array<size_t, WORK_AREAS> sizes;
  for (int area = 0; area < WORK_AREAS; ++area) {
    sizes[area] = areas[area].asked;
    areas[area].asked = 0;
  }
  return sizes;
}

size_t OwnWorkSize() {
  size_t bytes = 0;
  for (const Area& work : areas) { bytes += work.values.size() * sizeof(float); }
  return bytes;
}

void FreeWork() {
  for (Area& work : areas) {
    LargePageBuffer<float>().swap(work.values);
    work.most = 0;
  }
}

}  // namespace caffe
