#include "caffe/util/permutohedral_lattice.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "caffe/common.hpp"

namespace caffe {

namespace {

size_t Hash(const int* key, int dimensions) {
  uint64_t hash = 0;
  for (int k = 0; k < dimensions; ++k) {
    hash = (hash + static_cast<uint32_t>(key[k])) * 0x9E3779B97F4A7C15ull;
    hash ^= hash >> 29;
  }
  return hash;
}

// Coordinate k of the corner with this remainder.
inline int CornerCoordinate(int origin, int rank, int remainder, int corners) {
  return origin + remainder - (rank + remainder >= corners ? corners : 0);
}

}  // namespace

void PermutohedralLattice::Build(const float* features, int count,
    int dimensions) {
  CHECK_GT(count, 0) << "a lattice needs points";
  CHECK_GT(dimensions, 0) << "a lattice needs features";
  count_ = count;
  corners_ = dimensions + 1;
  const size_t size = static_cast<size_t>(count) * corners_;
  vertex_.resize(size);
  weight_.resize(size);
  origin_.resize(size);
  rank_.resize(size);
  PlacePoints(features);
  NumberVertices();
  FindNeighbours();
}

void PermutohedralLattice::PlacePoints(const float* features) {
  const int corners = corners_;
  const int dimensions = corners - 1;
  // standard deviation of splat, blur and slice together
  const float deviation = std::sqrt(2. / 3.) * corners;
  std::vector<float> scale(dimensions);
  for (int k = 0; k < dimensions; ++k) {
    scale[k] = 1. / std::sqrt(static_cast<double>((k + 2) * (k + 1))) *
        deviation;
  }
  const float inverse = 1.f / corners;
#pragma omp parallel
  {
    std::vector<float> elevated(corners), by_rank(corners);
#pragma omp for schedule(static)
    for (int i = 0; i < count_; ++i) {
      const float* feature = features + static_cast<size_t>(i) * dimensions;
      int* origin = &origin_[static_cast<size_t>(i) * corners];
      int* rank = &rank_[static_cast<size_t>(i) * corners];
      float* weight = &weight_[static_cast<size_t>(i) * corners];
      // onto the plane of coordinates that add up to 0
      float sum = 0;
      for (int k = dimensions; k > 0; --k) {
        const float scaled = feature[k - 1] * scale[k - 1];
        elevated[k] = sum - k * scaled;
        sum += scaled;
      }
      elevated[0] = sum;
      int excess = 0;
      for (int k = 0; k < corners; ++k) {
        const float rounded = std::nearbyint(inverse * elevated[k]);
        origin[k] = static_cast<int>(rounded) * corners;
        excess += static_cast<int>(rounded);
        rank[k] = 0;
      }
      for (int k = 0; k < dimensions; ++k) {
        const float difference = elevated[k] - origin[k];
        for (int l = k + 1; l < corners; ++l) {
          ++rank[difference < elevated[l] - origin[l] ? k : l];
        }
      }
      for (int k = 0; k < corners; ++k) {
        rank[k] += excess;
        const int wrap = rank[k] < 0 ? corners :
            rank[k] >= corners ? -corners : 0;
        rank[k] += wrap;
        origin[k] += wrap;
        by_rank[rank[k]] = (elevated[k] - origin[k]) * inverse;
      }
      weight[0] = by_rank[dimensions] + (1 - by_rank[0]);
      for (int r = 1; r < corners; ++r) {
        weight[r] = by_rank[dimensions - r] - by_rank[corners - r];
      }
    }
  }
}

int PermutohedralLattice::Find(const int* key) const {
  const int dimensions = corners_ - 1;
  const size_t mask = table_.size() - 1;
  for (size_t slot = Hash(key, dimensions) & mask; ; slot = (slot + 1) & mask) {
    const int vertex = table_[slot];
    if (vertex == 0 || std::equal(key, key + dimensions,
        &keys_[static_cast<size_t>(vertex - 1) * dimensions])) {
      return vertex;
    }
  }
}

void PermutohedralLattice::NumberVertices() {
  const int corners = corners_;
  const int dimensions = corners - 1;
  vertices_ = 0;
  keys_.clear();
  table_.assign(1 << 16, 0);
  std::vector<int> key(dimensions);
  for (int i = 0; i < count_; ++i) {
    const int* origin = &origin_[static_cast<size_t>(i) * corners];
    const int* rank = &rank_[static_cast<size_t>(i) * corners];
    int* vertex = &vertex_[static_cast<size_t>(i) * corners];
    // neighbouring pixels often lie in one simplex
    if (i > 0 && std::equal(origin, origin + corners, origin - corners) &&
        std::equal(rank, rank + corners, rank - corners)) {
      std::copy(vertex - corners, vertex, vertex);
      continue;
    }
    for (int remainder = 0; remainder < corners; ++remainder) {
      for (int k = 0; k < dimensions; ++k) {
        key[k] = CornerCoordinate(origin[k], rank[k], remainder, corners);
      }
      vertex[remainder] = Find(key.data());
      if (vertex[remainder] != 0) { continue; }
      vertex[remainder] = ++vertices_;
      keys_.insert(keys_.end(), key.begin(), key.end());
      const bool full = 2 * static_cast<size_t>(vertices_) > table_.size();
      if (full) { table_.assign(2 * table_.size(), 0); }
      const size_t mask = table_.size() - 1;
      for (int v = full ? 1 : vertices_; v <= vertices_; ++v) {
        size_t slot = Hash(&keys_[static_cast<size_t>(v - 1) * dimensions],
            dimensions) & mask;
        while (table_[slot] != 0) { slot = (slot + 1) & mask; }
        table_[slot] = v;
      }
    }
  }
  // counting sort of the points by vertex
  first_entry_.assign(vertices_ + 2, 0);
  for (size_t e = 0; e < vertex_.size(); ++e) { ++first_entry_[vertex_[e] + 1]; }
  for (int v = 1; v <= vertices_ + 1; ++v) {
    first_entry_[v] += first_entry_[v - 1];
  }
  entries_.resize(vertex_.size());
  std::vector<int> next(first_entry_);
  for (size_t e = 0; e < vertex_.size(); ++e) {
    entries_[next[vertex_[e]]++] = e;
  }
}

void PermutohedralLattice::FindNeighbours() {
  const int dimensions = corners_ - 1;
  // a vertex that is found above has its finder below it: half the searches
  neighbours_.assign(static_cast<size_t>(corners_) * vertices_ * 2, 0);
#pragma omp parallel
  {
    std::vector<int> key(dimensions);
#pragma omp for schedule(static)
    for (int v = 0; v < vertices_; ++v) {
      const int* own = &keys_[static_cast<size_t>(v) * dimensions];
      for (int axis = 0; axis < corners_; ++axis) {
        int* pairs =
            &neighbours_[static_cast<size_t>(axis) * vertices_ * 2];
        for (int k = 0; k < dimensions; ++k) { key[k] = own[k] + 1; }
        if (axis < dimensions) { key[axis] = own[axis] - dimensions; }
        const int above = Find(key.data());
        if (above != 0) {
          pairs[2 * v + 1] = above;
          pairs[2 * (above - 1)] = v + 1;
        }
      }
    }
  }
}

template <typename Dtype>
void PermutohedralLattice::Filter(const Dtype* from, const Dtype* factor,
    int channels, bool transposed, Dtype* to,
    std::vector<Dtype>* scratch) const {
  const size_t size = static_cast<size_t>(vertices_ + 1) * channels;
  for (int b = 0; b < 2; ++b) {
    if (scratch[b].size() < size) { scratch[b].resize(size); }
    // the empty vertex
    std::fill_n(scratch[b].begin(), channels, Dtype(0));
  }
  Dtype* values = scratch[0].data();
  Dtype* blurred = scratch[1].data();
#pragma omp parallel for schedule(static)
  for (int v = 1; v <= vertices_; ++v) {
    Dtype* value = values + static_cast<size_t>(v) * channels;
    std::fill_n(value, channels, Dtype(0));
    for (int e = first_entry_[v]; e < first_entry_[v + 1]; ++e) {
      const int i = entries_[e] / corners_;
      const Dtype weight =
          weight_[entries_[e]] * (factor == NULL ? Dtype(1) : factor[i]);
      const Dtype* point = from + static_cast<size_t>(i) * channels;
#pragma omp simd
      for (int c = 0; c < channels; ++c) { value[c] += weight * point[c]; }
    }
  }
  for (int step = 0; step < corners_; ++step) {
    const int axis = transposed ? corners_ - 1 - step : step;
    const int* neighbours =
        &neighbours_[static_cast<size_t>(axis) * vertices_ * 2];
#pragma omp parallel for schedule(static)
    for (int v = 0; v < vertices_; ++v) {
      const Dtype* own = values + static_cast<size_t>(v + 1) * channels;
      const Dtype* below =
          values + static_cast<size_t>(neighbours[2 * v]) * channels;
      const Dtype* above =
          values + static_cast<size_t>(neighbours[2 * v + 1]) * channels;
      Dtype* result = blurred + static_cast<size_t>(v + 1) * channels;
#pragma omp simd
      for (int c = 0; c < channels; ++c) {
        result[c] = own[c] + Dtype(0.5) * (below[c] + above[c]);
      }
    }
    std::swap(values, blurred);
  }
  const Dtype alpha = 1 / (1 + std::pow(Dtype(2), 1 - corners_));
#pragma omp parallel for schedule(static)
  for (int i = 0; i < count_; ++i) {
    Dtype* result = to + static_cast<size_t>(i) * channels;
    std::fill_n(result, channels, Dtype(0));
    for (int k = 0; k < corners_; ++k) {
      const size_t e = static_cast<size_t>(i) * corners_ + k;
      const Dtype weight =
          weight_[e] * alpha * (factor == NULL ? Dtype(1) : factor[i]);
      const Dtype* value = values + static_cast<size_t>(vertex_[e]) * channels;
#pragma omp simd
      for (int c = 0; c < channels; ++c) { result[c] += weight * value[c]; }
    }
  }
}

template void PermutohedralLattice::Filter<float>(const float*, const float*,
    int, bool, float*, std::vector<float>*) const;
template void PermutohedralLattice::Filter<double>(const double*,
    const double*, int, bool, double*, std::vector<double>*) const;

}  // namespace caffe
