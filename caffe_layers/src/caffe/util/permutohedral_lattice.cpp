#include "caffe/util/permutohedral_lattice.hpp"

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
  CHECK_LE(count, INT_MAX / kCorners) << "too many points for one lattice";
  count_ = count;
  const size_t size = static_cast<size_t>(count) * kCorners;
  places_.resize(count);
  weight_.resize(size);
  vertex_.resize(size);
  // so that a loop over the entries may look a little ahead
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
  CHECK_LE(sum, 128) << "the points spread over too many standard deviations "
      << "for a permutohedral lattice; a standard deviation is too small";
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
  const int bands = BandCount(count_);
  numbering->bands.resize(bands);
#pragma omp parallel for schedule(static, 1)
  for (int b = 0; b < bands; ++b) {
    NumberBand(*numbering, BandBegin(b, bands, count_),
        BandBegin(b + 1, bands, count_), &numbering->bands[b]);
  }
  MergeBands(numbering);
#pragma omp parallel for schedule(static, 1)
  for (int b = 0; b < bands; ++b) {
    ListEntries(BandBegin(b, bands, count_), BandBegin(b + 1, bands, count_),
        &numbering->bands[b]);
  }
  FindNeighbours(*numbering);
  Normalise();
}

template <int kDimensions>
template <typename Key>
void PermutohedralLattice<kDimensions>::NumberBand(
    const Numbering<Key>& numbering, int begin, int end, Band<Key>* band) {
  const Key* step = numbering.step;
  band->table.Clear();
  band->entries.assign(1, 0);
  for (int i = begin; i < end; ++i) {
    int* vertex = &vertex_[static_cast<size_t>(i) * kCorners];
    // neighbouring pixels often lie in one simplex
    if (i > begin && places_[i] == places_[i - 1]) {
      std::copy(vertex - kCorners, vertex, vertex);
    } else {
      Key corner[kCorners];
      corner[0] = 0;
      for (int k = 0; k < kDimensions; ++k) {
        corner[0] += (places_[i].quotient[k] - lowest_[k] + 2) * step[k];
      }
      band->table.Prefetch(corner[0]);
      // from one remainder to the next every coordinate grows by 1, but the
      // one whose turn it is falls back by d
      for (int remainder = 1; remainder < kCorners; ++remainder) {
        const int rank = kCorners - remainder;
        corner[remainder] = corner[remainder - 1] + 1 -
            step[(places_[i].order >> (3 * rank)) & 7];
        band->table.Prefetch(corner[remainder]);
      }
      for (int remainder = 0; remainder < kCorners; ++remainder) {
        vertex[remainder] = band->table.FindOrAdd(corner[remainder]);
      }
      band->entries.resize(band->table.size() + 1, 0);
    }
    for (int remainder = 0; remainder < kCorners; ++remainder) {
      ++band->entries[vertex[remainder]];
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
      band.vertex[v] = b == 0 ? v : table.FindOrAdd(band.table.key(v));
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
      entry_point_[entry] = i;
      entry_weight_[entry] = weight_[e];
      vertex_[e] = band->vertex[vertex_[e]];
    }
  }
}

template <int kDimensions>
template <typename Key>
void PermutohedralLattice<kDimensions>::FindNeighbours(
    const Numbering<Key>& numbering) {
  const VertexTable<Key>& table = numbering.table;
  const Key remainder_mask = (1 << kRemainderBits) - 1;
  Key all_steps = 0;
  for (int k = 0; k < kDimensions; ++k) { all_steps += numbering.step[k]; }
  // a vertex that is found above has its finder below it: half the searches
  neighbours_.resize(static_cast<size_t>(kCorners) * vertices_ * 2);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int e = 0; e < 2 * kCorners * vertices_; ++e) { neighbours_[e] = 0; }
#pragma omp for schedule(static)
    for (int v = 1; v <= vertices_; ++v) {
      const Key own = table.key(v);
      // one up in every coordinate, to the next remainder or around it
      const Key up = (own & remainder_mask) < Key(kDimensions) ? own + 1 :
          own - kDimensions + all_steps;
      Key above[kCorners];
      for (int axis = 0; axis < kCorners; ++axis) {
        above[axis] = up - numbering.step[axis];
        table.Prefetch(above[axis]);
      }
      for (int axis = 0; axis < kCorners; ++axis) {
        const int found = table.Find(above[axis]);
        if (found != 0) {
          int* pairs = &neighbours_[static_cast<size_t>(axis) * vertices_ * 2];
          pairs[2 * (v - 1) + 1] = found;
          pairs[2 * (found - 1)] = v;
        }
      }
    }
  }
}

template <int kDimensions>
void PermutohedralLattice<kDimensions>::Normalise() {
  values_.resize(vertices_ + 1);
  blurred_.resize(vertices_ + 1);
  values_[0] = blurred_[0] = 0;
  // what the slice adds so that the kernel's middle is 1
  const float alpha = 1 / (1 + std::pow(2.f, -kDimensions));
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
    float* values = values_.data();
    float* blurred = blurred_.data();
    for (int axis = 0; axis < kCorners; ++axis) {
      const int* neighbours =
          &neighbours_[static_cast<size_t>(axis) * vertices_ * 2] - 2;
#pragma omp for schedule(static)
      for (int v = 1; v <= vertices_; ++v) {
        blurred[v] = values[v] + 0.5f * (values[neighbours[2 * v]] +
            values[neighbours[2 * v + 1]]);
      }
      std::swap(values, blurred);
    }
#pragma omp for schedule(static)
    for (int i = 0; i < count_; ++i) {
      const size_t at = static_cast<size_t>(i) * kCorners;
      float sum = 0;
      for (int k = 0; k < kCorners; ++k) {
        sum += weight_[at + k] * alpha * values[vertex_[at + k]];
      }
      normalisation_[i] = 1 / std::sqrt(sum + 1e-20f);
      for (int k = 0; k < kCorners; ++k) {
        weight_[at + k] *= alpha * normalisation_[i];
      }
    }
#pragma omp for schedule(static)
    for (int e = 0; e < count_ * kCorners; ++e) {
      entry_weight_[e] *= normalisation_[entry_point_[e]];
    }
  }
}

template <int kDimensions>
PermutohedralFilterPlan PermutohedralLattice<kDimensions>::plan() const {
  PermutohedralFilterPlan plan;
  plan.count = count_;
  plan.corners = kCorners;
  plan.vertices = vertices_;
  plan.first_entry = first_entry_.data();
  plan.entry_point = entry_point_.data();
  plan.entry_weight = entry_weight_.data();
  plan.vertex = vertex_.data();
  plan.weight = weight_.data();
  plan.neighbours = neighbours_.data();
  return plan;
}

template class PermutohedralLattice<2>;
template class PermutohedralLattice<5>;

}  // namespace caffe
