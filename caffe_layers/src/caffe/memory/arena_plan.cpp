#include "caffe/memory/arena_plan.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

namespace caffe {

namespace {

const size_t kAlignment = 64;

size_t Aligned(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

size_t PlanArena(std::vector<ArenaPiece>* pieces) {
  std::vector<size_t> by_size(pieces->size());
  std::iota(by_size.begin(), by_size.end(), 0);
  std::stable_sort(by_size.begin(), by_size.end(), [pieces](size_t a, size_t b) {
    return (*pieces)[a].bytes > (*pieces)[b].bytes;
  });
  size_t total = 0;
  std::vector<const ArenaPiece*> placed;  // by offset
  for (size_t index : by_size) {
    ArenaPiece* const piece = &(*pieces)[index];
    const size_t bytes = Aligned(piece->bytes);
    size_t end = 0;  // of the pieces in use with this one so far
    bool found = false;
    size_t smallest = 0;
    for (const ArenaPiece* other : placed) {
      if (other->last < piece->first || piece->last < other->first) { continue; }
      if (other->offset >= end + bytes
          && (!found || other->offset - end < smallest)) {
        found = true;
        smallest = other->offset - end;
        piece->offset = end;
      }
      end = std::max(end, other->offset + Aligned(other->bytes));
    }
    if (!found) { piece->offset = end; }
    total = std::max(total, piece->offset + bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), piece,
        [](const ArenaPiece* a, const ArenaPiece* b) {
          return a->offset < b->offset;
        }), piece);
  }
  return total;
}

}  // namespace caffe
