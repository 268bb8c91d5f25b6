#ifndef CAFFE_CRF_PERMUTOHEDRAL_FILTER_CUH_
#define CAFFE_CRF_PERMUTOHEDRAL_FILTER_CUH_

#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/crf/lattice_normalization.hpp"
#include "caffe/crf/permutohedral_vertices.cuh"

namespace caffe {

/**
 * Rows of channels lie `stride` apart: whole sectors of 32 bytes where there
 * are many channels. What is between the last channel and the next row may be
 * anything; it is filtered along and meets no channel.
 */
inline int RowStride(int channels) {
  if (channels > 8) { return (channels + 7) / 8 * 8; }
  return channels > 4 ? 8 : channels > 2 ? 4 : channels;
}

/// Blocks for kernels with a thread for each element of such rows: the channel
/// in x, the row in y.
const int kRowThreads = 512;  // two such blocks a multiprocessor: 64 registers
inline dim3 RowBlock(int stride) {
  const int channels = stride < 128 ? stride : 128;
  const int rows = 256 / channels / 4 * 4;  // whole warps
  return dim3(channels, rows < 4 ? 4 : rows);
}
inline dim3 RowGrid(int rows, int stride) {
  return dim3((rows - 1) / RowBlock(stride).y + 1);
}
CUDA_INLINE int BlockRow() {
  return blockIdx.x * blockDim.y + threadIdx.y;
}

/// The entries of a lattice (corners of the points' simplices) in the order of
/// their vertices, and of their points within a vertex.
template <typename Dtype>
struct SortedEntries {
  int count;
  const int* vertex;
  const int* point;
  const Dtype* weight;
  const int* begin;  // vertices + 1: where a vertex's entries begin
};

/// A thread splats a chunk of entries that follow each other, so that threads
/// have equal work however the points are spread over the vertices.
const int kSplatChunk = 32;
const int kSplatBatch = 4;  // loads that are under way together
CUDA_HOST_INLINE int SplatChunks(int entries) {
  return (entries - 1) / kSplatChunk + 1;
}

/**
 * Fills in the entries' order and weights.
 *
 * @param sorted       entries in their order
 * @param vertex       of every entry
 * @param weight       of every entry: barycentric
 * @param slice_weight of every entry: alpha * weight
 */
template <typename Dtype, int kCorners>
__global__ void ArrangeEntriesKernel(int points, int entries, int vertices,
    const int* __restrict__ sorted, const int* __restrict__ vertex,
    const float* __restrict__ weight, Dtype alpha, int* splat_vertex,
    int* splat_point, Dtype* splat_weight, int* begin, Dtype* slice_weight) {
  const int s = blockIdx.x * blockDim.x + threadIdx.x;
  if (s >= entries) { return; }
  const int e = sorted[s];
  const int v = vertex[e];
  splat_vertex[s] = v;
  // the point that fills up has no values: 0 times those of the last one
  splat_point[s] = min(e / kCorners, points - 1);
  splat_weight[s] = weight[e];
  if (s == 0 || vertex[sorted[s - 1]] != v) { begin[v] = s; }
  if (s == entries - 1) { begin[vertices] = entries; }
  slice_weight[s] = weight[s] * alpha;
}

/**
 * values_v = the sum of weight * from over the entries of vertex v; no `from`
 * is a `from` of 1.
 *
 * A thread for each channel of a chunk. What a chunk adds to a vertex that the
 * chunk before has begun goes to `carried` (chunks x stride) and is added by
 * AddCarriedKernel: all sums have one order, and every run gives the same bits.
 */
template <typename Dtype>
__global__ void __launch_bounds__(kRowThreads, 2) SplatKernel(
    SortedEntries<Dtype> entries, int stride, const Dtype* __restrict__ from,
    Dtype* __restrict__ values, Dtype* __restrict__ carried) {
  const int chunk = BlockRow();
  if (chunk >= SplatChunks(entries.count)) { return; }
  const int begin = chunk * kSplatChunk;
  const int end = min(begin + kSplatChunk, entries.count);
  for (int c = threadIdx.x; c < stride; c += blockDim.x) {
    int vertex = entries.vertex[begin];
    Dtype* to = begin > 0 && entries.vertex[begin - 1] == vertex ?
        carried + static_cast<size_t>(chunk) * stride :
        values + static_cast<size_t>(vertex) * stride;
    Dtype sum = 0;
    for (int first = begin; first < end; first += kSplatBatch) {
      int vertices[kSplatBatch];
      Dtype terms[kSplatBatch];
      CUDA_UNROLL
      for (int k = 0; k < kSplatBatch; ++k) {
        const int s = min(first + k, end - 1);
        vertices[k] = entries.vertex[s];
        terms[k] = entries.weight[s] * (from == NULL ? Dtype(1) :
            from[static_cast<size_t>(entries.point[s]) * stride + c]);
      }
      CUDA_UNROLL
      for (int k = 0; k < kSplatBatch; ++k) {
        if (first + k >= end) { break; }
        if (vertices[k] != vertex) {
          to[c] = sum;
          sum = 0;
          vertex = vertices[k];
          to = values + static_cast<size_t>(vertex) * stride;
        }
        sum += terms[k];
      }
    }
    to[c] = sum;
  }
}

/// Adds what SplatKernel carried, at the chunk in which a vertex begins.
template <typename Dtype>
__global__ void __launch_bounds__(kRowThreads, 1) AddCarriedKernel(
    SortedEntries<Dtype> entries, int stride,
    const Dtype* __restrict__ carried, Dtype* __restrict__ values) {
  const int chunk = BlockRow();
  if (chunk >= SplatChunks(entries.count) - 1) { return; }
  const int begin = chunk * kSplatChunk;
  const int end = begin + kSplatChunk;
  const int vertex = entries.vertex[end - 1];
  if (entries.vertex[end] != vertex || entries.begin[vertex] < begin) {
    return;
  }
  const int last = (entries.begin[vertex + 1] - 1) / kSplatChunk;
  const int kSums = 8;  // for as many loads under way together
  for (int c = threadIdx.x; c < stride; c += blockDim.x) {
    Dtype sums[kSums];
    CUDA_UNROLL
    for (int k = 0; k < kSums; ++k) { sums[k] = 0; }
    for (int first = chunk + 1; first <= last; first += kSums) {
      CUDA_UNROLL
      for (int k = 0; k < kSums; ++k) {
        if (first + k <= last) {
          sums[k] += carried[static_cast<size_t>(first + k) * stride + c];
        }
      }
    }
    Dtype sum = 0;
    CUDA_UNROLL
    for (int k = 0; k < kSums; ++k) { sum += sums[k]; }
    values[static_cast<size_t>(vertex) * stride + c] += sum;
  }
}

/**
 * [1/2 1 1/2] along one axis. A thread for each value.
 *
 * @param neighbours of every vertex along the axis
 */
template <typename Dtype>
__global__ void __launch_bounds__(kRowThreads, 2) BlurKernel(int vertices,
    int stride, const Neighbours* __restrict__ neighbours,
    const Dtype* __restrict__ from, Dtype* __restrict__ to) {
  const int v = BlockRow();
  if (v >= vertices) { return; }
  const Neighbours of = neighbours[v];
  for (int c = threadIdx.x; c < stride; c += blockDim.x) {
    const Dtype below = of.below == kNoVertex ? Dtype(0) :
        from[static_cast<size_t>(of.below) * stride + c];
    const Dtype above = of.above == kNoVertex ? Dtype(0) :
        from[static_cast<size_t>(of.above) * stride + c];
    const size_t own = static_cast<size_t>(v) * stride + c;
    to[own] = from[own] + Dtype(0.5) * (below + above);
  }
}

/// A lattice's values after the blur, and how points read them.
template <typename Dtype, int kCorners>
struct BlurredLattice {
  const Dtype* values;  // vertices x stride; NULL: there is no lattice
  const int* vertex;    // points x corners
  const Dtype* weight;  // points x corners

  CUDA_INLINE Dtype Slice(int point, int stride, int c) const {
    const size_t first = static_cast<size_t>(point) * kCorners;
    Dtype sum = 0;
    CUDA_UNROLL
    for (int k = 0; k < kCorners; ++k) {
      sum += weight[first + k] *
          values[static_cast<size_t>(vertex[first + k]) * stride + c];
    }
    return sum;
  }
};

/// The factors of the points, of D = diag(K 1): `blurred` is of 1.
template <typename Dtype, int kCorners>
__global__ void NormalisationKernel(int points,
    LatticeNormalization normalization,
    BlurredLattice<Dtype, kCorners> blurred, Dtype* factor) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < points) {
    factor[i] = normalization.Factor(blurred.Slice(i, 1, 0));
  }
}

/// The weights of splat and slice times the points' factors; the results may
/// take their place.
template <typename Dtype, int kCorners>
__global__ void NormaliseWeightsKernel(int entries,
    const Dtype* __restrict__ factor, const int* __restrict__ splat_point,
    const Dtype* splat_weight, const Dtype* slice_weight,
    Dtype* normalised_splat_weight, Dtype* normalised_slice_weight) {
  const int e = blockIdx.x * blockDim.x + threadIdx.x;
  if (e >= entries) { return; }
  normalised_splat_weight[e] = splat_weight[e] * factor[splat_point[e]];
  normalised_slice_weight[e] = slice_weight[e] * factor[e / kCorners];
}

}  // namespace caffe

#endif  // CAFFE_CRF_PERMUTOHEDRAL_FILTER_CUH_
