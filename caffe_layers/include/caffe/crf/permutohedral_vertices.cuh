#ifndef CAFFE_CRF_PERMUTOHEDRAL_VERTICES_CUH_
#define CAFFE_CRF_PERMUTOHEDRAL_VERTICES_CUH_

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/crf/permutohedral_simplex.hpp"

namespace caffe {

/// A thread for each point, entry or vertex.
const int kVertexThreads = 256;

/// The factors of the features on their way into the lattice.
template <int kDimensions>
struct PermutohedralScales {
  float scale[kDimensions];
};

/// A vertex: its first d coordinates (the last one makes the sum 0).
template <int kDimensions>
struct VertexKey {
  int coordinate[kDimensions];

  CUDA_INLINE unsigned Hash() const {
    unsigned long long hash = 0;
    CUDA_UNROLL
    for (int k = 0; k < kDimensions; ++k) {
      hash = (hash + static_cast<unsigned>(coordinate[k])) *
          0x9E3779B97F4A7C15ull;
      hash ^= hash >> 29;
    }
    return static_cast<unsigned>(hash);
  }
  CUDA_INLINE bool operator==(const VertexKey& other) const {
    bool equal = true;
    CUDA_UNROLL
    for (int k = 0; k < kDimensions; ++k) {
      equal = equal && coordinate[k] == other.coordinate[k];
    }
    return equal;
  }
};

/// A point's simplex as it is kept: what its corners' keys are made from.
template <int kDimensions>
struct PackedSimplex {
  int origin[kDimensions];
  int ranks;  // of the first d coordinates, 4 bits each

  CUDA_INLINE void Pack(const PermutohedralSimplex<kDimensions>& simplex) {
    ranks = 0;
    CUDA_UNROLL
    for (int k = 0; k < kDimensions; ++k) {
      origin[k] = simplex.origin[k];
      ranks |= simplex.rank[k] << (4 * k);
    }
  }
  CUDA_INLINE VertexKey<kDimensions> Corner(int remainder) const {
    VertexKey<kDimensions> key;
    CUDA_UNROLL
    for (int k = 0; k < kDimensions; ++k) {
      const int rank = ranks >> (4 * k) & 15;
      key.coordinate[k] = origin[k] + remainder -
          (rank + remainder > kDimensions ? kDimensions + 1 : 0);
    }
    return key;
  }
};

/**
 * @brief The vertices that points have, in a table with open addresses.
 *
 * Entry e = point * corners + remainder is a corner of a point's simplex. A
 * vertex stands in the table as one of its entries, and its key is computed
 * from that one: so the table is one int wide whatever the key is. With at
 * least twice as many slots as entries a search always meets its vertex or an
 * empty slot.
 */
template <int kDimensions>
struct DeviceVertexTable {
  static constexpr int kCorners = kDimensions + 1;
  static constexpr int kEmpty = -1;

  const PackedSimplex<kDimensions>* simplex;  // of every point
  int* slots;
  unsigned mask;  // slots - 1; their number is a power of two

  CUDA_INLINE VertexKey<kDimensions> Key(int entry) const {
    return simplex[entry / kCorners].Corner(entry % kCorners);
  }
  /// The entry that stands for a vertex, or kEmpty.
  CUDA_INLINE int Find(const VertexKey<kDimensions>& key) const {
    for (unsigned slot = key.Hash() & mask; ; slot = (slot + 1) & mask) {
      const int found = slots[slot];
      if (found == kEmpty || Key(found) == key) { return found; }
    }
  }
  /// The slot of an entry's vertex, where the vertex's lowest entry stands when
  /// all have been inserted: whichever thread came first.
  CUDA_INLINE int Insert(int entry) {
    const VertexKey<kDimensions> key = Key(entry);
    for (unsigned slot = key.Hash() & mask; ; slot = (slot + 1) & mask) {
      // an old value is as good: a slot is claimed once, and for one vertex
      int found = slots[slot];
      if (found == kEmpty) {
        found = atomicCAS(&slots[slot], kEmpty, entry);
        if (found == kEmpty) { return slot; }
      }
      if (Key(found) == key) {
        if (found > entry) { atomicMin(&slots[slot], entry); }
        return slot;
      }
    }
  }
};

/// to[i] = value.
template <typename T>
__global__ void FillKernel(int count, T value, T* to) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) { to[i] = value; }
}

/**
 * Finds the simplex of each of PlacedPoints(points).
 *
 * @param weight placed points x corners: barycentric
 * @param in_reach becomes 0 where a point is out of reach (see PlacePoint)
 */
template <class Features>
__global__ void PlacePointsKernel(int points, Features features,
    PermutohedralScales<Features::kDimensions> scales,
    PackedSimplex<Features::kDimensions>* packed, float* weight,
    int* in_reach) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= PlacedPoints(points)) { return; }
  PermutohedralSimplex<Features::kDimensions> simplex;
  if (!PlacePointOf<Features::kDimensions>(features, points, i, scales.scale,
      &simplex)) {
    *in_reach = 0;
  }
  PackedSimplex<Features::kDimensions> own;
  own.Pack(simplex);
  packed[i] = own;
  const int kCorners = Features::kDimensions + 1;
  CUDA_UNROLL
  for (int r = 0; r < kCorners; ++r) {
    weight[static_cast<size_t>(i) * kCorners + r] = simplex.weight[r];
  }
}

/// slot[e] = where the table has entry e's vertex.
template <int kDimensions>
__global__ void InsertVerticesKernel(int entries,
    DeviceVertexTable<kDimensions> table, int* slot) {
  const int e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e < entries) { slot[e] = table.Insert(e); }
}

/// 1 for an entry that stands for its vertex, else 0. Their prefix sum numbers
/// the vertices in the order in which points come to them. Where a point lies
/// out of reach there are none.
struct StandsForVertex {
  const int* slots;  // of the table
  const int* slot;   // of every entry
  const int* in_reach;  // not 0: all points are
  CUDA_INLINE int operator()(int e) const {
    return *in_reach != 0 && slots[slot[e]] == e;
  }
};

/**
 * @param number of the vertices that entries stand for
 * @param vertex before: the slot of each entry; after: its vertex
 * @param standing the entry that stands for each vertex
 */
template <int kDimensions>
__global__ void NumberVerticesKernel(int entries,
    DeviceVertexTable<kDimensions> table, const int* __restrict__ number,
    int* vertex, int* standing) {
  const int e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= entries) { return; }
  const int found = table.slots[vertex[e]];
  vertex[e] = number[found];
  if (found == e) { standing[number[e]] = e; }
}

/// The vertices before and after a vertex along one axis; kNoVertex where no
/// point has that vertex.
struct __align__(8) Neighbours {  // read in one
  int below;
  int above;
};
const int kNoVertex = -1;

/// neighbours: corners x vertices. A thread for each, the axis in blockIdx.y.
template <int kDimensions>
__global__ void FindNeighboursKernel(int vertices,
    DeviceVertexTable<kDimensions> table, const int* __restrict__ vertex,
    const int* __restrict__ standing, Neighbours* neighbours) {
  const int v = blockIdx.x * blockDim.x + threadIdx.x;
  const int axis = blockIdx.y;
  if (v >= vertices) { return; }
  const VertexKey<kDimensions> own = table.Key(standing[v]);
  VertexKey<kDimensions> above, below;
  CUDA_UNROLL
  for (int k = 0; k < kDimensions; ++k) {
    const int step = k == axis ? -kDimensions : 1;
    above.coordinate[k] = own.coordinate[k] + step;
    below.coordinate[k] = own.coordinate[k] - step;
  }
  const int entry_below = table.Find(below);
  const int entry_above = table.Find(above);
  Neighbours found;
  found.below =
      entry_below == table.kEmpty ? kNoVertex : vertex[entry_below];
  found.above =
      entry_above == table.kEmpty ? kNoVertex : vertex[entry_above];
  neighbours[static_cast<size_t>(axis) * vertices + v] = found;
}

}  // namespace caffe

#endif  // CAFFE_CRF_PERMUTOHEDRAL_VERTICES_CUH_
