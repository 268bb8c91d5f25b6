#include "caffe/crf/permutohedral_lattice.hpp"

#include <climits>
#include <cmath>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "caffe/common.hpp"

namespace caffe {

namespace {

/// Bits of a key that hold the remainder; d + 1 is at most 8.
const int kRemainderBits = 3;
/// A band is worth a thread from about this many points.
const int kBandPoints = 4096;
/// Whole lines of about this many vertices together are worth a thread's turn.
const int kChunkEntries = 1024;
/// So many points before its vertices are searched for, a point's keys are made.
const int kKeysAhead = 4;
/// The same of a band's vertices, which have their keys.
const int kVerticesAhead = 16;
/// Bits of a key that one pass of sorting looks at.
const int kDigitBits = 11;

int BandCount(int count) {
#ifdef _OPENMP
  return std::max(1, std::min(omp_get_max_threads(), count / kBandPoints));
#else
  return 1;
#endif
}

int BandBegin(int band, int bands, int count) {
  return static_cast<int64_t>(count) * band / bands;
}

}  // namespace

template <int kDimensions>
void PermutohedralLattice<kDimensions>::Resize(int count) {
  CHECK_GT(count, 0) << "a lattice needs points";
  CHECK_LT(count, INT_MAX / kCorners) << "too many points for one lattice";
  count_ = count;
  placed_ = PlacedPoints(count);
  const size_t size = static_cast<size_t>(placed_) * kCorners;
  places_.resize(placed_);
  weight_.resize(size);
  // so that loops over the points and over the entries may look a little ahead
  vertex_.assign(size + PermutohedralFilterPlan::kPointsAhead * kCorners, 0);
  entry_point_.assign(size + PermutohedralFilterPlan::kEntriesAhead, 0);
  entry_weight_.resize(size);
  normalisation_.resize(count);
  std::fill_n(lowest_, kDimensions, INT_MAX);
  std::fill_n(highest_, kDimensions, INT_MIN);
}

template <int kDimensions>
void PermutohedralLattice<kDimensions>::Connect() {
  int bits[kDimensions];
  int sum = kRemainderBits;
  for (int k = 0; k < kDimensions; ++k) {
    // a corner may lie one below the origin, and a neighbour one further out
    int64_t values = static_cast<int64_t>(highest_[k]) - lowest_[k] + 4;
    for (bits[k] = 1; values > 1; values = (values + 1) / 2) { ++bits[k]; }
    sum += bits[k];
  }
  // 25 bits each are enough for all that is within reach
  DCHECK_LE(sum, 128);
  if (sum <= 64) {
    ConnectWith(&numbering_, bits);
  } else {
    ConnectWith(&wide_numbering_, bits);
  }
}

template <int kDimensions>
template <typename Key>
void PermutohedralLattice<kDimensions>::ConnectWith(Numbering<Key>* numbering,
    const int* bits) {
  int shift = kRemainderBits;
  for (int k = 0; k < kDimensions; ++k) {
    numbering->step[k] = Key(1) << shift;
    shift += bits[k];
  }
  numbering->step[kDimensions] = 0;
  const int key_bits = shift;
  const int bands = BandCount(placed_);
  numbering->bands.resize(bands);
#pragma omp parallel for schedule(static, 1)
  for (int b = 0; b < bands; ++b) {
    NumberBand(*numbering, BandBegin(b, bands, placed_),
        BandBegin(b + 1, bands, placed_), &numbering->bands[b]);
  }
  MergeBands(numbering);
#pragma omp parallel for schedule(static, 1)
  for (int b = 0; b < bands; ++b) {
    ListEntries(BandBegin(b, bands, placed_),
        BandBegin(b + 1, bands, placed_), &numbering->bands[b]);
  }
  SortVertices(numbering, key_bits);
  FindNeighbours(*numbering);
  ListLines();
  Normalise();
}

template <int kDimensions>
template <typename Key>
void PermutohedralLattice<kDimensions>::NumberBand(
    const Numbering<Key>& numbering, int begin, int end, Band<Key>* band) {
  const Key* step = numbering.step;
  band->table.Clear();
  band->entries.assign(1, 0);
  // neighbouring pixels often lie in one simplex
  const auto repeats = [&](int i) {
    return i > begin && places_[i] == places_[i - 1];
  };
  // keys of the points to come, whose searches' memory is on its way
  Key ring[kKeysAhead][kCorners];
  for (int i = begin - kKeysAhead; i < end; ++i) {
    if (i >= begin) {
      int* vertex = &vertex_[static_cast<size_t>(i) * kCorners];
      if (repeats(i)) {
        std::copy(vertex - kCorners, vertex, vertex);
      } else {
        const Key* corner = ring[i % kKeysAhead];
        for (int remainder = 0; remainder < kCorners; ++remainder) {
          vertex[remainder] = band->table.FindOrAdd(corner[remainder]);
        }
        band->entries.resize(band->table.size() + 1, 0);
      }
      for (int remainder = 0; remainder < kCorners; ++remainder) {
        ++band->entries[vertex[remainder]];
      }
    }
    const int coming = i + kKeysAhead;
    if (coming >= end || repeats(coming)) { continue; }
    Key* corner = ring[coming % kKeysAhead];
    corner[0] = 0;
    for (int k = 0; k < kDimensions; ++k) {
      corner[0] += (places_[coming].quotient[k] - lowest_[k] + 2) * step[k];
    }
    // from one remainder to the next every coordinate grows by 1, but the one
    // whose turn it is falls back by d
    for (int remainder = 1; remainder < kCorners; ++remainder) {
      const int rank = kCorners - remainder;
      corner[remainder] = corner[remainder - 1] + 1 -
          step[(places_[coming].order >> (3 * rank)) & 7];
    }
    for (int remainder = 0; remainder < kCorners; ++remainder) {
      band->table.Prefetch(corner[remainder]);
    }
  }
}

template <int kDimensions>
template <typename Key>
void PermutohedralLattice<kDimensions>::MergeBands(Numbering<Key>* numbering) {
  std::vector<Band<Key> >& bands = numbering->bands;
  VertexTable<Key>& table = numbering->table;
  // the first band's numbers are the lattice's
  table.swap(bands[0].table);
  for (size_t b = 0; b < bands.size(); ++b) {
    Band<Key>& band = bands[b];
    const int vertices = band.entries.size() - 1;
    band.vertex.resize(vertices + 1);
    for (int v = 1; v <= vertices; ++v) {
      if (b == 0) {
        band.vertex[v] = v;
        continue;
      }
      table.Prefetch(band.table.key(std::min(v + kVerticesAhead, vertices)));
      band.vertex[v] = table.FindOrAdd(band.table.key(v));
    }
  }
  vertices_ = table.size();
  // a vertex's entries are those of the first band, then the second's, ..
  first_entry_.assign(vertices_ + 2, 0);
  for (size_t b = 0; b < bands.size(); ++b) {
    for (size_t v = 1; v < bands[b].entries.size(); ++v) {
      int& before = first_entry_[bands[b].vertex[v] + 1];
      std::swap(before, bands[b].entries[v]);
      before += bands[b].entries[v];
    }
  }
  for (int v = 1; v <= vertices_ + 1; ++v) {
    first_entry_[v] += first_entry_[v - 1];
  }
}

template <int kDimensions>
template <typename Key>
void PermutohedralLattice<kDimensions>::ListEntries(int begin, int end,
    Band<Key>* band) {
  for (size_t v = 1; v < band->entries.size(); ++v) {
    band->entries[v] += first_entry_[band->vertex[v]];
  }
  for (int i = begin; i < end; ++i) {
    for (int remainder = 0; remainder < kCorners; ++remainder) {
      const size_t e = static_cast<size_t>(i) * kCorners + remainder;
      const int entry = band->entries[vertex_[e]]++;
      // the point that fills up has no values: 0 times those of the last one
      entry_point_[entry] = std::min(i, count_ - 1);
      entry_weight_[entry] = weight_[e];
      vertex_[e] = band->vertex[vertex_[e]];
    }
  }
}

template <int kDimensions>
template <typename Key>
void PermutohedralLattice<kDimensions>::SortVertices(Numbering<Key>* numbering,
    int bits) {
  const VertexTable<Key>& table = numbering->table;
  const Key remainder_mask = (1 << kRemainderBits) - 1;
  for (int r = 0; r < kCorners; ++r) { numbering->sorted[r].clear(); }
  for (int v = 1; v <= vertices_; ++v) {
    const KeyedVertex<Key> keyed = {table.key(v), v};
    numbering->sorted[keyed.key & remainder_mask].push_back(keyed);
  }
#pragma omp parallel for schedule(dynamic)
  for (int r = 0; r < kCorners; ++r) {
    std::vector<KeyedVertex<Key> >& from = numbering->sorted[r];
    std::vector<KeyedVertex<Key> >& to = numbering->unsorted[r];
    to.resize(from.size());
    // digit by digit from the lowest, each time without changing the order of
    // equal ones
    for (int shift = kRemainderBits; shift < bits; shift += kDigitBits) {
      const Key mask = (1 << kDigitBits) - 1;
      int place[1 << kDigitBits] = {};
      for (const KeyedVertex<Key>& keyed : from) {
        ++place[static_cast<int>((keyed.key >> shift) & mask)];
      }
      int before = 0;
      for (int& count : place) {
        std::swap(before, count);
        before += count;
      }
      for (const KeyedVertex<Key>& keyed : from) {
        to[place[static_cast<int>((keyed.key >> shift) & mask)]++] = keyed;
      }
      from.swap(to);
    }
  }
}

template <int kDimensions>
template <typename Key>
void PermutohedralLattice<kDimensions>::FindNeighbours(
    const Numbering<Key>& numbering) {
  Key all_steps = 0;
  for (int k = 0; k < kDimensions; ++k) { all_steps += numbering.step[k]; }
  const size_t pitch = vertices_ + 1;
  above_.resize(kCorners * pitch);
  has_below_.resize(kCorners * pitch);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int axis = 0; axis < kCorners; ++axis) {
    for (int r = 0; r < kCorners; ++r) {
      // The neighbour above is one up in every coordinate, to the next
      // remainder or around it, and d + 1 down in the axis's. So the same
      // number lies between the keys of all that have this remainder and their
      // neighbours, and both come in the same order.
      const bool around = r == kDimensions;
      const Key between = (around ? all_steps - kDimensions : Key(1)) -
          numbering.step[axis];
      const std::vector<KeyedVertex<Key> >& lower = numbering.sorted[r];
      const std::vector<KeyedVertex<Key> >& upper =
          numbering.sorted[around ? 0 : r + 1];
      int* above = &above_[axis * pitch];
      char* has_below = &has_below_[axis * pitch];
      const size_t lower_size = lower.size(), upper_size = upper.size();
      size_t l = 0, u = 0;
      // no branch: none could be foreseen. What is written for a pair of which
      // one stays is written again.
      while (l < lower_size && u < upper_size) {
        const Key wanted = lower[l].key + between;
        const Key present = upper[u].key;
        const bool met = wanted == present;
        above[lower[l].vertex] = met ? upper[u].vertex : 0;
        has_below[upper[u].vertex] = met;
        l += wanted <= present;
        u += present <= wanted;
      }
      for (; l < lower_size; ++l) { above[lower[l].vertex] = 0; }
      for (; u < upper_size; ++u) { has_below[upper[u].vertex] = 0; }
    }
  }
}

template <int kDimensions>
void PermutohedralLattice<kDimensions>::ListLines() {
  const size_t pitch = vertices_ + 1;
  const size_t room = vertices_ + PermutohedralLines::kAhead;
  line_entry_.resize(kCorners * room);
#pragma omp parallel for schedule(dynamic)
  for (int axis = 0; axis < kCorners; ++axis) {
    const int* above = &above_[axis * pitch];
    const char* has_below = &has_below_[axis * pitch];
    int* const entry = &line_entry_[axis * room];
    std::vector<int>& chunk_begin = chunk_begin_[axis];
    chunk_begin.assign(1, 0);
    int end = 0;
    for (int first = 1; first <= vertices_; ++first) {
      if (has_below[first] || above[first] == 0) { continue; }
      int v = first;
      for (; above[v] != 0; v = above[v]) { entry[end++] = v; }
      entry[end++] = ~v;
      if (end - chunk_begin.back() >= kChunkEntries) {
        chunk_begin.push_back(end);
      }
    }
    if (chunk_begin.back() < end) { chunk_begin.push_back(end); }
    std::fill_n(entry + end, static_cast<int>(PermutohedralLines::kAhead), 0);
  }
}

template <int kDimensions>
void PermutohedralLattice<kDimensions>::Normalise() {
  values_.resize(vertices_ + 1);
  const PermutohedralFilterPlan plan = this->plan();
  // what the slice adds so that the kernel's middle is 1
  const float alpha = 1 / (1 + std::pow(2.f, -kDimensions));
  const bool one_sided = normalization_.OneSided();
  const bool both_sides = normalization_.before && normalization_.after;
  if (one_sided) {
    one_sided_weight_.resize(weight_.size());
    one_sided_entry_weight_.resize(entry_weight_.size());
  }
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int v = 1; v <= vertices_; ++v) {
      float sum = 0;
      for (int e = first_entry_[v]; e < first_entry_[v + 1]; ++e) {
        sum += entry_weight_[e];
      }
      values_[v] = sum;
    }
    for (int axis = 0; axis < kCorners; ++axis) {
      const PermutohedralLines& lines = plan.lines[axis];
#pragma omp for schedule(dynamic, 4)
      for (int chunk = 0; chunk < lines.chunks; ++chunk) {
        float below = 0;
        for (int e = lines.chunk_begin[chunk];
             e < lines.chunk_begin[chunk + 1]; ++e) {
          float& value = values_[PermutohedralLines::Vertex(lines.entry[e])];
          const float own = value;
          const bool last = lines.entry[e] < 0;
          const float above = last ? 0 :
              values_[PermutohedralLines::Vertex(lines.entry[e + 1])];
          value = own + 0.5f * (below + above);
          below = last ? 0 : own;
        }
      }
    }
#pragma omp for schedule(static)
    for (int i = 0; i < count_; ++i) {
      const size_t at = static_cast<size_t>(i) * kCorners;
      float sum = 0;
      for (int k = 0; k < kCorners; ++k) {
        sum += weight_[at + k] * alpha * values_[vertex_[at + k]];
      }
      normalisation_[i] = normalization_.Factor(sum);
      const float factor = alpha * normalisation_[i];
      for (int k = 0; k < kCorners; ++k) {
        if (one_sided) { one_sided_weight_[at + k] = weight_[at + k] * factor; }
        weight_[at + k] *= both_sides ? factor : alpha;
      }
    }
#pragma omp for schedule(static)
    for (int e = 0; e < placed_ * kCorners; ++e) {
      const float normalised =
          entry_weight_[e] * normalisation_[entry_point_[e]];
      if (one_sided) { one_sided_entry_weight_[e] = normalised; }
      if (both_sides) { entry_weight_[e] = normalised; }
    }
  }
}

template <int kDimensions>
PermutohedralFilterPlan PermutohedralLattice<kDimensions>::plan(
    bool transposed) const {
  const LatticeNormalization normalization =
      transposed ? normalization_.Transposed() : normalization_;
  const bool one_sided = normalization.OneSided();
  PermutohedralFilterPlan plan;
  plan.count = count_;
  plan.corners = kCorners;
  plan.vertices = vertices_;
  plan.first_entry = first_entry_.data();
  plan.entry_point = entry_point_.data();
  plan.entry_weight = one_sided && normalization.before ?
      one_sided_entry_weight_.data() : entry_weight_.data();
  plan.vertex = vertex_.data();
  plan.weight = one_sided && normalization.after ?
      one_sided_weight_.data() : weight_.data();
  for (int axis = 0; axis < kCorners; ++axis) {
    PermutohedralLines& lines =
        plan.lines[transposed ? kCorners - 1 - axis : axis];
    lines.entry = line_entry_.data() + static_cast<size_t>(axis) *
        (vertices_ + PermutohedralLines::kAhead);
    lines.chunk_begin = chunk_begin_[axis].data();
    lines.chunks = chunk_begin_[axis].size() - 1;
  }
  return plan;
}

template class PermutohedralLattice<2>;
template class PermutohedralLattice<5>;

}  // namespace caffe
