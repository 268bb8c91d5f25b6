#ifndef CAFFE_RENET_GPU_PATCHES_CUH_
#define CAFFE_RENET_GPU_PATCHES_CUH_

#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"

/**
 * Between Caffe's maps (N x C x H x W) and the sweep's own order, in which a
 * position is a row: position = row * L + line, see ReNetScan. Both ways go
 * through a tile in shared memory, so that either side is read and written in
 * runs: along the width of the map and along the features of a position.
 */
namespace caffe {
namespace renet {

const int kTile = 32;
const int kTileRows = 8;  // threads: kTile x kTileRows

/// A map, its patches of s x t pixels and the sweep over them.
struct Patches {
  int num;           // N
  int channels;      // C
  int height;        // H
  int width;         // W
  int patch_height;  // s
  int patch_width;   // t
  bool vertical;
  int row_size;  // elements of a position, at least C * s * t

  CUDA_HOST_INLINE int rows() const {
    return (height + patch_height - 1) / patch_height;
  }
  CUDA_HOST_INLINE int columns() const {
    return (width + patch_width - 1) / patch_width;
  }
  CUDA_HOST_INLINE int features() const {
    return channels * patch_height * patch_width;
  }
  CUDA_HOST_INLINE int lines() const {
    return num * (vertical ? columns() : rows());
  }
  CUDA_HOST_INLINE size_t Position(int n, int row, int column) const {
    return vertical ?
        static_cast<size_t>(row) * lines() + n * columns() + column :
        static_cast<size_t>(column) * lines() + n * rows() + row;
  }
};

/// The part of a map that one block moves: 32 patches of one row of patches,
/// and 32 of their features.
struct PatchTile {
  int n, row, first_column, first_feature;

  /// Blocks in a grid of one dimension, for row_size elements a position.
  static size_t Blocks(const Patches& map) {
    return static_cast<size_t>(map.num) * map.rows() *
        ((map.columns() + kTile - 1) / kTile) *
        ((map.row_size + kTile - 1) / kTile);
  }
  CUDA_INLINE explicit PatchTile(const Patches& map) {
    const int column_tiles = (map.columns() + kTile - 1) / kTile;
    const int feature_tiles = (map.row_size + kTile - 1) / kTile;
    int rest = blockIdx.x;
    first_column = rest % column_tiles * kTile;
    rest /= column_tiles;
    first_feature = rest % feature_tiles * kTile;
    rest /= feature_tiles;
    row = rest % map.rows();
    n = rest / map.rows();
  }
};

/// Where a feature of a patch lies in its map; y and x may be beyond it.
struct PatchPixel {
  int channel, y, x;

  CUDA_INLINE PatchPixel(const Patches& map, int row, int column, int feature) {
    const int dx = feature % map.patch_width;
    const int rest = feature / map.patch_width;
    channel = rest / map.patch_height;
    y = row * map.patch_height + rest % map.patch_height;
    x = column * map.patch_width + dx;
  }
  CUDA_INLINE bool InMap(const Patches& map) const {
    return channel < map.channels && y < map.height && x < map.width;
  }
  CUDA_INLINE size_t Index(const Patches& map, int n) const {
    return ((static_cast<size_t>(n) * map.channels + channel) * map.height +
        y) * map.width + x;
  }
};

/**
 * @brief rows[position] = the features of the patch, in the order channel, row,
 *        column; zeros beyond the map. Where row_size is larger, a 1 follows
 *        (so that the bias is one more column of W_x) and then zeros.
 */
template <typename Dtype>
__global__ void GatherPatches(const Patches map, const Dtype* from,
    Dtype* rows) {
  __shared__ Dtype tile[kTile][kTile + 1];  // feature, column
  const PatchTile part(map);
  for (int f = threadIdx.y; f < kTile; f += kTileRows) {
    const int feature = part.first_feature + f;
    const int column = part.first_column + threadIdx.x;
    Dtype value = feature == map.features() ? Dtype(1) : Dtype(0);
    if (feature < map.features() && column < map.columns()) {
      const PatchPixel pixel(map, part.row, column, feature);
      if (pixel.InMap(map)) value = from[pixel.Index(map, part.n)];
    }
    tile[f][threadIdx.x] = value;
  }
  __syncthreads();
  for (int c = threadIdx.y; c < kTile; c += kTileRows) {
    const int feature = part.first_feature + threadIdx.x;
    const int column = part.first_column + c;
    if (feature < map.row_size && column < map.columns()) {
      rows[map.Position(part.n, part.row, column) * map.row_size + feature] =
          tile[threadIdx.x][c];
    }
  }
}

/// The way back: every pixel of the map is written, from the one patch that
/// holds it.
template <typename Dtype>
__global__ void ScatterPatches(const Patches map, const Dtype* rows,
    Dtype* to) {
  __shared__ Dtype tile[kTile][kTile + 1];  // feature, column
  const PatchTile part(map);
  for (int c = threadIdx.y; c < kTile; c += kTileRows) {
    const int feature = part.first_feature + threadIdx.x;
    const int column = part.first_column + c;
    if (feature < map.features() && column < map.columns()) {
      tile[threadIdx.x][c] = rows[map.Position(part.n, part.row, column) *
          map.row_size + feature];
    }
  }
  __syncthreads();
  for (int f = threadIdx.y; f < kTile; f += kTileRows) {
    const int feature = part.first_feature + f;
    const int column = part.first_column + threadIdx.x;
    if (feature < map.features() && column < map.columns()) {
      const PatchPixel pixel(map, part.row, column, feature);
      if (pixel.InMap(map)) to[pixel.Index(map, part.n)] = tile[f][threadIdx.x];
    }
  }
}

/// W_x and b of both scans as one matrix, 2 * rows x row_size: columns W_x, b,
/// zeros. One thread an element.
template <typename Dtype>
__global__ void PackInputWeights(int rows, int inputs, int row_size,
    const Dtype* weights0, const Dtype* bias0, const Dtype* weights1,
    const Dtype* bias1, Dtype* packed) {
  const size_t index =
      static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= static_cast<size_t>(2) * rows * row_size) return;
  const int column = index % row_size;
  const int packed_row = index / row_size;
  const int row = packed_row % rows;
  const bool second = packed_row >= rows;
  Dtype value = 0;
  if (column < inputs) {
    value = (second ? weights1 : weights0)[
        static_cast<size_t>(row) * inputs + column];
  } else if (column == inputs) {
    value = (second ? bias1 : bias0)[row];
  }
  packed[index] = value;
}

/// Adds the gradient of the packed matrix to those of its parts; a NULL part is
/// left out.
template <typename Dtype>
__global__ void AddInputWeightDiffs(int rows, int inputs, int row_size,
    const Dtype* packed, Dtype* weights0, Dtype* bias0, Dtype* weights1,
    Dtype* bias1) {
  const size_t index =
      static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= static_cast<size_t>(2) * rows * row_size) return;
  const int column = index % row_size;
  const int packed_row = index / row_size;
  const int row = packed_row % rows;
  const bool second = packed_row >= rows;
  Dtype* const weights = second ? weights1 : weights0;
  Dtype* const bias = second ? bias1 : bias0;
  if (column < inputs) {
    if (weights != NULL) {
      weights[static_cast<size_t>(row) * inputs + column] += packed[index];
    }
  } else if (column == inputs && bias != NULL) {
    bias[row] += packed[index];
  }
}

}  // namespace renet
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_PATCHES_CUH_
