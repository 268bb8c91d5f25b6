/**
 * The ReNet sweeps on the CPU, written once for every instruction set.
 *
 * No include guard: renet_sweep_<set>.cpp includes this file once, after
 * it has set
 *   RENET_SET           the name of the set, a namespace of its own,
 *   RENET_VECTOR_BYTES  the width of a vector register,
 *   RENET_PANEL_ROWS    rows of a register tile (a multiple of 4): with three
 *                       vectors of lines the accumulators must fit the
 *                       register file.
 * Nothing in here may be an ordinary inline function: the linker would keep
 * one copy of it for all sets, maybe one that this processor cannot run.
 */
#include <omp.h>

#include "caffe/renet/cell.hpp"
#include "caffe/renet/sweep.hpp"

#define RENET_INLINE inline __attribute__((always_inline))

namespace caffe {
namespace RENET_SET {
namespace {

template <typename Dtype> struct Simd;

template <> struct Simd<float> {
  typedef float Vector __attribute__((vector_size(RENET_VECTOR_BYTES)));
  typedef float Memory __attribute__((vector_size(RENET_VECTOR_BYTES),
                                      aligned(4), may_alias));
  typedef int Index __attribute__((vector_size(RENET_VECTOR_BYTES)));
  typedef int Integer;
};

template <> struct Simd<double> {
  typedef double Vector __attribute__((vector_size(RENET_VECTOR_BYTES)));
  typedef double Memory __attribute__((vector_size(RENET_VECTOR_BYTES),
                                       aligned(8), may_alias));
  typedef long long Index  // NOLINT(runtime/int): what the shuffle takes
      __attribute__((vector_size(RENET_VECTOR_BYTES)));
  typedef long long Integer;  // NOLINT(runtime/int)
};

template <typename Dtype>
struct Width {
  static constexpr int kLanes = RENET_VECTOR_BYTES / sizeof(Dtype);
};

/// Rows of a register tile, and the most vectors of lines in a tile.
constexpr int kRows = RENET_PANEL_ROWS;
constexpr int kMaxVectors = 3;
/// Cache line, in bytes: where every buffer starts.
constexpr size_t kAlignment = 64;
/// What a step's operands of a weight gradient may take of the second cache.
constexpr size_t kChunkBytes = 256 * 1024;

RENET_INLINE int Min(int a, int b) { return a < b ? a : b; }
RENET_INLINE int Max(int a, int b) { return a > b ? a : b; }
RENET_INLINE int CeilDivide(int a, int b) { return (a + b - 1) / b; }
RENET_INLINE int RoundUp(int a, int b) { return CeilDivide(a, b) * b; }

template <typename Dtype>
RENET_INLINE size_t Aligned(size_t count) {
  const size_t unit = kAlignment / sizeof(Dtype);
  return (count + unit - 1) / unit * unit;
}

template <typename Dtype>
RENET_INLINE typename Simd<Dtype>::Vector Load(const Dtype* from) {
  return *reinterpret_cast<const typename Simd<Dtype>::Memory*>(from);
}

template <typename Dtype>
RENET_INLINE void Store(typename Simd<Dtype>::Vector value, Dtype* to) {
  *reinterpret_cast<typename Simd<Dtype>::Memory*>(to) = value;
}

template <typename Dtype>
RENET_INLINE void SetZero(size_t count, Dtype* to) {
  memset(to, 0, count * sizeof(Dtype));
}

/// Hands out consecutive, aligned pieces of a buffer; with a NULL base it only
/// counts.
template <typename Dtype>
class Carver {
 public:
  explicit Carver(Dtype* base) : base_(base), used_(0) {}
  RENET_INLINE Dtype* Take(size_t count) {
    Dtype* piece = base_ ? base_ + used_ : NULL;
    used_ += Aligned<Dtype>(count);
    return piece;
  }
  RENET_INLINE size_t used() const { return used_; }

 private:
  Dtype* base_;
  size_t used_;
};

template <typename Dtype>
RENET_INLINE Dtype* AlignPointer(Dtype* pointer) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  return reinterpret_cast<Dtype*>(
      (address + kAlignment - 1) / kAlignment * kAlignment);
}

// ---------------------------------------------------------------------------
// Units

/**
 * A unit's gates come in phases: a phase's products can be formed once the
 * state that they multiply is known. The candidate of a GRU is a phase of its
 * own, since it multiplies the reset state. kHistory counts the rows (of d)
 * that a step leaves for Backward.
 */
template <int kUnit> struct Unit;

template <> struct Unit<RENET_LSTM> {  // history: i, f, o, g, c
  static constexpr int kGates = 4, kPhases = 1, kHistory = 5;
  static constexpr int GatesOf(int) { return 4; }
};
template <> struct Unit<RENET_GRU> {  // history: z, r, n, h
  static constexpr int kGates = 3, kPhases = 2, kHistory = 4;
  static constexpr int GatesOf(int phase) { return phase == 0 ? 2 : 1; }
};
template <> struct Unit<RENET_IRNN> {  // history: h
  static constexpr int kGates = 1, kPhases = 1, kHistory = 1;
  static constexpr int GatesOf(int) { return 1; }
};

RENET_INLINE int Gates(int unit) {
  return unit == RENET_LSTM ? 4 : unit == RENET_GRU ? 3 : 1;
}
RENET_INLINE int HistoryRows(int unit) {
  return unit == RENET_LSTM ? 5 : unit == RENET_GRU ? 4 : 1;
}
RENET_INLINE int Phases(int unit) { return unit == RENET_GRU ? 2 : 1; }
RENET_INLINE int PhaseGates(int unit, int phase) {
  return unit == RENET_LSTM ? 4 : unit == RENET_IRNN ? 1 : phase == 0 ? 2 : 1;
}

// ---------------------------------------------------------------------------
// Geometry

/// A sweep's shape in the terms of the recursion.
struct Shape {
  int steps;        // T
  int lines;        // L, of one image
  int total_lines;  // N * L
  int inputs;       // P
  int hidden;       // d
  int gates;        // G
  int phases;
  int phase_rows[2];    // G_phase * d
  int phase_offset[2];  // first row of the phase in a block of gate gradients
  int gate_rows;        // rows of that block; phases begin at register tiles
  int vectors;          // vectors that hold all lines
  int block_steps;      // steps whose input and output are moved together
  int chunk_steps;      // steps whose weight gradient is formed together
};

template <typename Dtype>
RENET_INLINE Shape GetShape(const ReNetSweep<Dtype>& sweep) {
  Shape shape;
  const int rows = CeilDivide(sweep.height, sweep.patch_height);
  const int columns = CeilDivide(sweep.width, sweep.patch_width);
  shape.steps = sweep.vertical ? rows : columns;
  shape.lines = sweep.vertical ? columns : rows;
  shape.total_lines = sweep.num * shape.lines;
  shape.inputs = sweep.channels * sweep.patch_height * sweep.patch_width;
  shape.hidden = sweep.hidden;
  shape.gates = Gates(sweep.unit);
  shape.phases = Phases(sweep.unit);
  shape.gate_rows = 0;
  for (int phase = 0; phase < 2; ++phase) {
    const bool exists = phase < shape.phases;
    shape.phase_rows[phase] =
        exists ? PhaseGates(sweep.unit, phase) * sweep.hidden : 0;
    shape.phase_offset[phase] = shape.gate_rows;
    shape.gate_rows += RoundUp(shape.phase_rows[phase], kRows);
  }
  const int lanes = Width<Dtype>::kLanes;
  shape.vectors = CeilDivide(shape.total_lines, lanes);
  // A horizontal sweep reads columns of the map: a block of a cache line's
  // width uses what each line brings.
  shape.block_steps = Max(16, lanes);
  const size_t step_bytes = sizeof(Dtype) * kMaxVectors * lanes *
      (shape.gate_rows + shape.inputs + 2 * shape.hidden);
  shape.chunk_steps = shape.block_steps;
  while (shape.chunk_steps > 1 && shape.chunk_steps * step_bytes > kChunkBytes)
    shape.chunk_steps /= 2;
  return shape;
}

/// Vectors of lines before tile i: the lines are spread evenly.
RENET_INLINE int TileBegin(int vectors, int tiles, int i) {
  return static_cast<int>(static_cast<int64_t>(vectors) * i / tiles);
}

/// The lines of one tile; a lane beyond the last line has image -1.
template <typename Dtype>
struct Tile {
  int lanes;
  int vector_begin;
  int image[kMaxVectors * Width<Dtype>::kLanes];
  int line[kMaxVectors * Width<Dtype>::kLanes];
};

template <typename Dtype>
RENET_INLINE void LocateTile(const Shape& shape, int tiles, int i,
    Tile<Dtype>* tile) {
  const int lanes = Width<Dtype>::kLanes;
  const int begin = TileBegin(shape.vectors, tiles, i);
  tile->vector_begin = begin;
  tile->lanes = (TileBegin(shape.vectors, tiles, i + 1) - begin) * lanes;
  for (int lane = 0; lane < tile->lanes; ++lane) {
    const int line = begin * lanes + lane;
    const bool exists = line < shape.total_lines;
    tile->image[lane] = exists ? line / shape.lines : -1;
    tile->line[lane] = exists ? line % shape.lines : 0;
  }
}

// ---------------------------------------------------------------------------
// Moving blocks between maps (N x C x H x W) and tiles (step, row, lane)

/// A map as patches: row p of a tile is (channel, row, column) in the patch.
template <typename Dtype>
struct Map {
  Dtype* data;  // first channel to use of image 0
  size_t image_stride;
  int channels;
  int height;
  int width;
  bool vertical;
  int patch_height;
  int patch_width;
};

template <typename Dtype>
struct ShuffleTables {
  static constexpr int kLanes = Width<Dtype>::kLanes;
  typename Simd<Dtype>::Integer low[5][kLanes];
  typename Simd<Dtype>::Integer high[5][kLanes];
  constexpr ShuffleTables() : low(), high() {
    for (int stage = 0, s = 1; s < kLanes; ++stage, s *= 2) {
      for (int j = 0; j < kLanes; ++j) {
        low[stage][j] = (j & s) ? kLanes + j - s : j;
        high[stage][j] = (j & s) ? kLanes + j : j + s;
      }
    }
  }
};

template <typename Dtype>
struct Shuffle {
  alignas(64) static constexpr ShuffleTables<Dtype> kTables =
      ShuffleTables<Dtype>();
};
template <typename Dtype>
alignas(64) constexpr ShuffleTables<Dtype> Shuffle<Dtype>::kTables;

/// Transposes a square of kLanes x kLanes in registers, by butterflies.
template <typename Dtype>
RENET_INLINE void Transpose(typename Simd<Dtype>::Vector* m) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  typedef typename Simd<Dtype>::Index Index;
#pragma GCC unroll 5
  for (int stage = 0; (1 << stage) < kLanes; ++stage) {
    const int s = 1 << stage;
    Index low, high;
    memcpy(&low, Shuffle<Dtype>::kTables.low[stage], sizeof(low));
    memcpy(&high, Shuffle<Dtype>::kTables.high[stage], sizeof(high));
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (i & s) continue;
      const Vector a = m[i], b = m[i + s];
      m[i] = __builtin_shuffle(a, b, low);
      m[i + s] = __builtin_shuffle(a, b, high);
    }
  }
}

/// Which way Move goes between a map and a block of a tile.
enum Transfer { GATHER, SCATTER, SCATTER_ADD };

/// One value, or one vector of neighbours, between map and block.
template <Transfer kTransfer, typename MapValue, typename BlockValue>
RENET_INLINE void MoveValue(MapValue* map, BlockValue* block) {
  if constexpr (kTransfer == GATHER) {
    *block = *map;
  } else if constexpr (kTransfer == SCATTER) {
    *map = *block;
  } else {
    *map += *block;
  }
}

/**
 * @brief Moves rows of the map that are columns of the block, a square in
 *        registers at a time: horizontal sweeps over patches one pixel wide.
 *
 * rows: where the lanes' rows of the map start; NULL for a lane without one,
 * which gathers zeros.
 */
template <typename Dtype, Transfer kTransfer, typename MapValue,
    typename BlockValue>
RENET_INLINE void MoveTransposed(MapValue* const* rows, int begin, int end,
    size_t step_stride, BlockValue* block) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  int t = begin;
  for (; t + kLanes <= end; t += kLanes) {
    BlockValue* column = block + (t - begin) * step_stride;
    Vector square[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      if constexpr (kTransfer == GATHER) {
        square[i] = rows[i] ? Load<Dtype>(rows[i] + t) : Vector{};
      } else {
        square[i] = Load<Dtype>(column + i * step_stride);
      }
    }
    Transpose<Dtype>(square);
    for (int i = 0; i < kLanes; ++i) {
      if constexpr (kTransfer == GATHER) {
        Store(square[i], column + i * step_stride);
      } else if (rows[i]) {
        if (kTransfer == SCATTER_ADD) square[i] += Load<Dtype>(rows[i] + t);
        Store(square[i], rows[i] + t);
      }
    }
  }
  for (; t < end; ++t) {
    for (int i = 0; i < kLanes; ++i) {
      BlockValue* value = block + (t - begin) * step_stride + i;
      if (rows[i]) {
        MoveValue<kTransfer>(rows[i] + t, value);
      } else if constexpr (kTransfer == GATHER) {
        *value = Dtype(0);
      }
    }
  }
}

/**
 * @brief Moves steps [begin, end) of a tile's lines between a map and a block
 *        [(t - begin), p, lane].
 *
 * Gathering fills lanes without a line, and what lies beyond the map's border,
 * with zeros; scattering leaves them out.
 */
template <typename Dtype, Transfer kTransfer, typename MapValue,
    typename BlockValue>
void Move(const Map<MapValue>& map, const Tile<Dtype>& tile, int begin,
    int end, BlockValue* block) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  const int lanes = tile.lanes;
  const int inputs = map.channels * map.patch_height * map.patch_width;
  const size_t step_stride = static_cast<size_t>(inputs) * lanes;
  const size_t plane = static_cast<size_t>(map.height) * map.width;
  for (int p = 0; p < inputs; ++p) {
    const int dx = p % map.patch_width;
    const int dy = p / map.patch_width % map.patch_height;
    MapValue* channel =
        map.data + p / (map.patch_width * map.patch_height) * plane;
    BlockValue* rows = block + static_cast<size_t>(p) * lanes;
    if (!map.vertical && map.patch_width == 1) {
      for (int group = 0; group < lanes; group += kLanes) {
        MapValue* starts[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          const int lane = group + i;
          const int y = tile.line[lane] * map.patch_height + dy;
          starts[i] = tile.image[lane] < 0 || y >= map.height ? NULL :
              channel + tile.image[lane] * map.image_stride +
              static_cast<size_t>(y) * map.width;
        }
        MoveTransposed<Dtype, kTransfer>(starts, begin, end, step_stride,
            rows + group);
      }
      continue;
    }
    // Distance in the map between neighbouring lines.
    const size_t stride = map.vertical ? map.patch_width :
        static_cast<size_t>(map.patch_height) * map.width;
    for (int first = 0; first < lanes;) {
      // A run of lanes whose lines are neighbours in one image.
      int last = first + 1;
      while (last < lanes && tile.image[last] == tile.image[first]) ++last;
      const int image = tile.image[first];
      for (int t = begin; t < end; ++t) {
        BlockValue* row = rows + (t - begin) * step_stride + first;
        const int y =
            (map.vertical ? t : tile.line[first]) * map.patch_height + dy;
        const int x =
            (map.vertical ? tile.line[first] : t) * map.patch_width + dx;
        // How many lanes of the run lie within the map.
        int inside = 0;
        if (image >= 0 && y < map.height && x < map.width) {
          inside = Min(last - first, map.vertical ?
              CeilDivide(map.width - x, map.patch_width) :
              CeilDivide(map.height - y, map.patch_height));
          MapValue* pixel = channel + image * map.image_stride +
              static_cast<size_t>(y) * map.width + x;
          if (stride == 1) {
            for (int i = 0; i < inside; ++i) {
              MoveValue<kTransfer>(pixel + i, row + i);
            }
          } else {
            for (int i = 0; i < inside; ++i) {
              MoveValue<kTransfer>(pixel + i * stride, row + i);
            }
          }
        }
        if constexpr (kTransfer == GATHER) {
          SetZero(last - first - inside, row + inside);
        }
      }
      first = last;
    }
  }
}

// ---------------------------------------------------------------------------
// Products on register tiles

/**
 * @brief acc (kTileRows x lanes) += panel (depth x kRows, transposed) * b
 *        (depth x lanes): the one product that all of a step is made of.
 */
template <typename Dtype, int kTileRows, int kVectors>
RENET_INLINE void MultiplyPanel(const Dtype* __restrict__ panel,
    const Dtype* __restrict__ b, int depth,
    typename Simd<Dtype>::Vector (&acc)[kTileRows][kVectors]) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  for (int k = 0; k < depth; ++k) {
    Vector column[kVectors];
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) column[j] = Load(b + j * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) acc[r][j] += column[j] * panel[r];
    }
    panel += kRows;
    b += kVectors * kLanes;
  }
}

/// rows x lanes of out = (or +=) a packed matrix times b; rows need not be a
/// multiple of the register tile.
template <typename Dtype, int kTileRows, int kVectors>
RENET_INLINE void MultiplyRows(const Dtype* panel, const Dtype* const* b,
    const int* depth, int segments, bool add, int rows, Dtype* out) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  Vector acc[kTileRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) acc[r][j] = Vector{};
  }
  for (int segment = 0; segment < segments; ++segment) {
    MultiplyPanel<Dtype, kTileRows, kVectors>(panel, b[segment],
        depth[segment], acc);
    panel += static_cast<size_t>(depth[segment]) * kRows;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kTileRows; ++r) {
    if (r >= rows) continue;
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      Dtype* to = out + (r * kVectors + j) * kLanes;
      Store(add ? acc[r][j] + Load<Dtype>(to) : acc[r][j], to);
    }
  }
}

template <typename Dtype, int kVectors>
void MultiplyMatrix(const Dtype* packed, const Dtype* const* b,
    const int* depth, int segments, bool add, int rows, Dtype* out) {
  constexpr int kTileLanes = kVectors * Width<Dtype>::kLanes;
  int total_depth = 0;
  for (int i = 0; i < segments; ++i) total_depth += depth[i];
  for (int row = 0; row < rows; row += kRows) {
    const Dtype* panel = packed + static_cast<size_t>(row) * total_depth;
    Dtype* to = out + static_cast<size_t>(row) * kTileLanes;
    const int left = rows - row;
    if (left > kRows / 2) {
      MultiplyRows<Dtype, kRows, kVectors>(panel, b, depth, segments, add,
          left, to);
    } else {
      MultiplyRows<Dtype, kRows / 2, kVectors>(panel, b, depth, segments, add,
          left, to);
    }
  }
}

/// Size of a matrix of rows x depth when packed for MultiplyMatrix.
RENET_INLINE size_t PackedSize(int rows, int depth) {
  return static_cast<size_t>(RoundUp(rows, kRows)) * depth;
}

/// Packs transposed weights: rows are columns of the matrix, depth its rows.
template <typename Dtype>
void PackTransposed(const Dtype* weights, int rows, int depth, int panel,
    Dtype* packed) {
  const int begin = panel * kRows;
  Dtype* to = packed + static_cast<size_t>(begin) * depth;
  for (int k = 0; k < depth; ++k, to += kRows) {
    for (int r = 0; r < kRows; ++r) {
      to[r] = begin + r < rows ?
          weights[static_cast<size_t>(k) * rows + begin + r] : Dtype(0);
    }
  }
}

// ---------------------------------------------------------------------------
// Weight gradients

/// Columns of the transposed operand of a weight gradient: panels of up to
/// kMaxVectors vectors.
template <typename Dtype>
struct Columns {
  int rows;     // rows of the operand as the tile has it
  int vectors;  // vectors that hold them
  RENET_INLINE int stride() const { return vectors * Width<Dtype>::kLanes; }
};

template <typename Dtype>
RENET_INLINE Columns<Dtype> GetColumns(int rows) {
  Columns<Dtype> columns;
  columns.rows = rows;
  columns.vectors = CeilDivide(rows, Width<Dtype>::kLanes);
  return columns;
}

/// Writes a chunk of the tile (step, row, lane) as panels of (step and lane,
/// row): what the product over positions reads.
template <typename Dtype>
void TransposeChunk(const Dtype* chunk, const Columns<Dtype>& columns,
    int lanes, int steps, Dtype* out) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  const size_t positions = static_cast<size_t>(steps) * lanes;
  for (int first = 0; first < columns.vectors; first += kMaxVectors) {
    const int width = Min(kMaxVectors, columns.vectors - first);
    Dtype* panel = out + first * kLanes * positions;
    for (int v = 0; v < width; ++v) {
      const int row = (first + v) * kLanes;
      const int count = Min(kLanes, columns.rows - row);
      for (int t = 0; t < steps; ++t) {
        const Dtype* from = chunk +
            (static_cast<size_t>(t) * columns.rows + row) * lanes;
        for (int group = 0; group < lanes; group += kLanes) {
          Vector square[kLanes];
          for (int i = 0; i < kLanes; ++i) {
            square[i] = i < count ? Load(from + i * lanes + group) : Vector{};
          }
          Transpose<Dtype>(square);
          Dtype* to = panel + (static_cast<size_t>(t) * lanes + group) *
              width * kLanes + v * kLanes;
          for (int i = 0; i < kLanes; ++i) {
            Store(square[i], to + i * width * kLanes);
          }
        }
      }
    }
  }
}

/// kRows x kWidth vectors of a weight gradient: the sum over a chunk.
template <typename Dtype, int kVectors, int kWidth>
RENET_INLINE void AccumulateTile(const Dtype* __restrict__ gate_diff,
    size_t step_stride, int steps, const Dtype* __restrict__ panel,
    size_t stride, Dtype* __restrict__ sum) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  constexpr int kTileLanes = kVectors * kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  Vector acc[kRows][kWidth];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int j = 0; j < kWidth; ++j) acc[r][j] = Vector{};
  }
  for (int t = 0; t < steps; ++t, gate_diff += step_stride) {
    for (int lane = 0; lane < kTileLanes; ++lane) {
      Vector column[kWidth];
#pragma GCC unroll 3
      for (int j = 0; j < kWidth; ++j) column[j] = Load(panel + j * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
        for (int j = 0; j < kWidth; ++j) {
          acc[r][j] += column[j] * gate_diff[r * kTileLanes + lane];
        }
      }
      panel += kWidth * kLanes;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int j = 0; j < kWidth; ++j) {
      Dtype* to = sum + r * stride + j * kLanes;
      Store(acc[r][j] + Load<Dtype>(to), to);
    }
  }
}

/// sum (rows x columns) += gate_diff * operand^T over a chunk.
template <typename Dtype, int kVectors>
void AccumulateWeightDiff(const Dtype* gate_diff, size_t step_stride, int rows,
    int steps, const Dtype* transposed, const Columns<Dtype>& columns,
    Dtype* sum) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  constexpr int kTileLanes = kVectors * kLanes;
  const size_t positions = static_cast<size_t>(steps) * kTileLanes;
  for (int first = 0; first < columns.vectors; first += kMaxVectors) {
    const int width = Min(kMaxVectors, columns.vectors - first);
    const Dtype* panel = transposed + first * kLanes * positions;
    for (int row = 0; row < rows; row += kRows) {
      const Dtype* diff = gate_diff + static_cast<size_t>(row) * kTileLanes;
      Dtype* to = sum + static_cast<size_t>(row) * columns.stride() +
          first * kLanes;
      if (width == 3) {
        AccumulateTile<Dtype, kVectors, 3>(diff, step_stride, steps, panel,
            columns.stride(), to);
      } else if (width == 2) {
        AccumulateTile<Dtype, kVectors, 2>(diff, step_stride, steps, panel,
            columns.stride(), to);
      } else {
        AccumulateTile<Dtype, kVectors, 1>(diff, step_stride, steps, panel,
            columns.stride(), to);
      }
    }
  }
}

// ---------------------------------------------------------------------------
// Workspace

/// Weights as the register tiles read them, shared by all threads.
template <typename Dtype>
struct PackedWeights {
  Dtype* gates[2][2];      // [scan][phase] panels of (P + d) x kRows
  Dtype* gate_bias[2][2];  // [scan][phase] one value a row of the panels
  Dtype* input[2];         // [scan] W_x transposed: P rows, all gates deep
  Dtype* recurrent[2][2];  // [scan][phase] W_h transposed: d rows
};

template <typename Dtype>
struct ForwardScratch {
  Dtype* input;    // block_steps x P x lanes
  Dtype* state;    // (block_steps + 1) x d x lanes, the previous h first
  Dtype* cell;     // (block_steps + 1) x d x lanes, LSTM only
  Dtype* update;   // d x lanes, GRU: z
  Dtype* reset_h;  // d x lanes, GRU: r * h
};

template <typename Dtype>
struct BackwardScratch {
  Dtype* input;        // block_steps x P x lanes
  Dtype* input_diff;   // block_steps x P x lanes
  Dtype* top_diff;     // block_steps x d x lanes
  Dtype* previous;     // block_steps x d x lanes: h of the step before
  Dtype* reset_h;      // block_steps x d x lanes, GRU
  Dtype* gate_diff;    // chunk_steps x gate_rows x lanes
  Dtype* h_diff;       // d x lanes, what the next step passes back
  Dtype* c_diff;       // d x lanes, LSTM
  Dtype* reset_diff;   // d x lanes, GRU
  Dtype* transposed;   // a chunk of the input, h or r * h
  Dtype* input_weights_diff[2];      // gate_rows x P, padded
  Dtype* recurrent_weights_diff[2];  // gate_rows x d, padded
  Dtype* bias_diff[2];               // gate_rows x one vector
  Dtype* peephole_diff[2];           // 3d x one vector
};

template <typename Dtype>
RENET_INLINE void CarveWeights(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, bool backward, Carver<Dtype>* carver,
    PackedWeights<Dtype>* packed) {
  for (int scan = 0; scan < 2; ++scan) {
    for (int phase = 0; phase < shape.phases; ++phase) {
      if (backward) {
        packed->recurrent[scan][phase] = carver->Take(
            PackedSize(shape.hidden, shape.phase_rows[phase]));
      } else {
        const int units = kRows / PhaseGates(sweep.unit, phase);
        const int panels = CeilDivide(shape.hidden, units);
        packed->gates[scan][phase] = carver->Take(
            static_cast<size_t>(panels) * kRows *
            (shape.inputs + shape.hidden));
        packed->gate_bias[scan][phase] = carver->Take(panels * kRows);
      }
    }
    if (backward) {
      packed->input[scan] = carver->Take(
          PackedSize(shape.inputs, shape.gates * shape.hidden));
    }
  }
}

template <typename Dtype>
RENET_INLINE void CarveForward(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, Carver<Dtype>* carver,
    ForwardScratch<Dtype>* scratch) {
  const size_t lanes = kMaxVectors * Width<Dtype>::kLanes;
  const size_t row = shape.hidden * lanes;
  scratch->input = carver->Take(shape.block_steps * shape.inputs * lanes);
  scratch->state = carver->Take((shape.block_steps + 1) * row);
  scratch->cell = carver->Take(
      sweep.unit == RENET_LSTM ? (shape.block_steps + 1) * row : 0);
  scratch->update = carver->Take(sweep.unit == RENET_GRU ? row : 0);
  scratch->reset_h = carver->Take(sweep.unit == RENET_GRU ? row : 0);
}

template <typename Dtype>
RENET_INLINE void CarveBackward(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, Carver<Dtype>* carver,
    BackwardScratch<Dtype>* scratch) {
  const int vector = Width<Dtype>::kLanes;
  const size_t lanes = kMaxVectors * vector;
  const size_t row = shape.hidden * lanes;
  const bool gru = sweep.unit == RENET_GRU, lstm = sweep.unit == RENET_LSTM;
  scratch->input = carver->Take(shape.block_steps * shape.inputs * lanes);
  scratch->input_diff = carver->Take(shape.block_steps * shape.inputs * lanes);
  scratch->top_diff = carver->Take(shape.block_steps * row);
  scratch->previous = carver->Take(shape.block_steps * row);
  scratch->reset_h = carver->Take(gru ? shape.block_steps * row : 0);
  scratch->gate_diff =
      carver->Take(shape.chunk_steps * shape.gate_rows * lanes);
  scratch->h_diff = carver->Take(row);
  scratch->c_diff = carver->Take(lstm ? row : 0);
  scratch->reset_diff = carver->Take(gru ? row : 0);
  const Columns<Dtype> inputs = GetColumns<Dtype>(shape.inputs);
  const Columns<Dtype> hidden = GetColumns<Dtype>(shape.hidden);
  scratch->transposed = carver->Take(shape.chunk_steps * lanes *
      Max(inputs.stride(), hidden.stride()));
  for (int scan = 0; scan < 2; ++scan) {
    scratch->input_weights_diff[scan] = carver->Take(
        static_cast<size_t>(shape.gate_rows) * inputs.stride());
    scratch->recurrent_weights_diff[scan] = carver->Take(
        static_cast<size_t>(shape.gate_rows) * hidden.stride());
    scratch->bias_diff[scan] = carver->Take(shape.gate_rows * vector);
    scratch->peephole_diff[scan] = carver->Take(
        lstm ? 3 * shape.hidden * vector : 0);
  }
}

/// Where tiles are fewer than threads, the two scans of a tile go to
/// different threads, and the second one's input gradient needs a map of its
/// own.
template <typename Dtype>
RENET_INLINE bool ScansApart(const ReNetSweep<Dtype>& sweep) {
  return sweep.tiles < sweep.threads;
}

template <typename Dtype>
RENET_INLINE size_t BottomCount(const ReNetSweep<Dtype>& sweep) {
  return static_cast<size_t>(sweep.num) * sweep.channels * sweep.height *
      sweep.width;
}

template <typename Dtype>
size_t WorkspaceSize(const ReNetSweep<Dtype>& sweep, bool backward) {
  const Shape shape = GetShape(sweep);
  Carver<Dtype> carver(NULL);
  PackedWeights<Dtype> packed;
  CarveWeights(sweep, shape, backward, &carver, &packed);
  if (backward && ScansApart(sweep)) carver.Take(BottomCount(sweep));
  Carver<Dtype> thread(NULL);
  if (backward) {
    BackwardScratch<Dtype> scratch;
    CarveBackward(sweep, shape, &thread, &scratch);
  } else {
    ForwardScratch<Dtype> scratch;
    CarveForward(sweep, shape, &thread, &scratch);
  }
  // One cache line more than is used, to align the base.
  return carver.used() + thread.used() * sweep.threads +
      kAlignment / sizeof(Dtype);
}

template <typename Dtype>
size_t HistorySize(const ReNetSweep<Dtype>& sweep) {
  const Shape shape = GetShape(sweep);
  return 2 * static_cast<size_t>(shape.vectors) * Width<Dtype>::kLanes *
      shape.steps * HistoryRows(sweep.unit) * shape.hidden +
      kAlignment / sizeof(Dtype);
}

template <typename Dtype>
RENET_INLINE Dtype* TileHistory(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, int scan, int vector_begin) {
  if (!sweep.history) return NULL;
  return AlignPointer(sweep.history) +
      (static_cast<size_t>(scan) * shape.vectors + vector_begin) *
      Width<Dtype>::kLanes * shape.steps * HistoryRows(sweep.unit) *
      shape.hidden;
}

template <typename Dtype>
void Plan(ReNetSweep<Dtype>* sweep) {
  const Shape shape = GetShape(*sweep);
  sweep->threads = omp_get_max_threads();
  const int wanted = Min(shape.vectors, CeilDivide(sweep->threads, 2));
  sweep->tiles = Max(CeilDivide(shape.vectors, kMaxVectors), wanted);
  if (sweep->tiles > sweep->threads) {
    // As many tiles for each thread, else one waits for another's last.
    sweep->tiles = Min(shape.vectors, RoundUp(sweep->tiles, sweep->threads));
  }
}

// ---------------------------------------------------------------------------
// Forward

/// Packs one panel of a phase's gates: the gates of a unit lie in neighbouring
/// rows, so that a register tile holds all that the cell needs.
template <typename Dtype>
void PackGates(const ReNetSweep<Dtype>& sweep, const Shape& shape, int scan,
    int phase, int panel, const PackedWeights<Dtype>& packed) {
  const int gates = PhaseGates(sweep.unit, phase);
  const int units = kRows / gates;
  const int depth = shape.inputs + shape.hidden;
  const int first_gate = phase == 0 ? 0 : PhaseGates(sweep.unit, 0);
  Dtype* to = packed.gates[scan][phase] +
      static_cast<size_t>(panel) * kRows * depth;
  Dtype* bias = packed.gate_bias[scan][phase] + panel * kRows;
  for (int r = 0; r < kRows; ++r) {
    const int unit = panel * units + r % units;
    const int gate = first_gate + r / units;
    const size_t row = static_cast<size_t>(gate) * shape.hidden + unit;
    const bool exists = unit < shape.hidden && r / units < gates;
    bias[r] = exists ? sweep.bias[scan][row] : Dtype(0);
    for (int k = 0; k < depth; ++k) {
      to[k * kRows + r] = !exists ? Dtype(0) : k < shape.inputs ?
          sweep.input_weights[scan][row * shape.inputs + k] :
          sweep.recurrent_weights[scan][row * shape.hidden + k - shape.inputs];
    }
  }
}

/// A panel's sums: bias + W_x x + W_h s, into out (kRows x lanes).
template <typename Dtype, int kVectors>
RENET_INLINE void GateSums(const Dtype* panel, const Dtype* bias,
    const Dtype* input, int inputs, const Dtype* state, int hidden,
    Dtype* out) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  Vector acc[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) acc[r][j] = Vector{} + bias[r];
  }
  MultiplyPanel<Dtype, kRows, kVectors>(panel, input, inputs, acc);
  MultiplyPanel<Dtype, kRows, kVectors>(
      panel + static_cast<size_t>(inputs) * kRows, state, hidden, acc);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      Store(acc[r][j], out + (r * kVectors + j) * kLanes);
    }
  }
}

/// One step of one unit over a tile. history: the step's rows, or NULL.
template <typename Dtype, int kUnit, int kVectors>
RENET_INLINE void ForwardStep(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, const PackedWeights<Dtype>& packed, int scan,
    const ForwardScratch<Dtype>& scratch, const Dtype* input,
    const Dtype* h_previous, const Dtype* c_previous, Dtype* h_next,
    Dtype* c_next, Dtype* history) {
  constexpr int kTileLanes = kVectors * Width<Dtype>::kLanes;
  const int hidden = shape.hidden;
  const size_t row = static_cast<size_t>(hidden) * kTileLanes;
  alignas(64) Dtype sums[kRows * kTileLanes];
  alignas(64) Dtype unkept[Unit<kUnit>::kHistory][kTileLanes];
  for (int phase = 0; phase < Unit<kUnit>::kPhases; ++phase) {
    const int gates = Unit<kUnit>::GatesOf(phase);
    const int units = kRows / gates;
    const Dtype* state = phase == 0 ? h_previous : scratch.reset_h;
    const Dtype* panel = packed.gates[scan][phase];
    const Dtype* bias = packed.gate_bias[scan][phase];
    const size_t panel_size =
        static_cast<size_t>(kRows) * (shape.inputs + hidden);
    for (int first = 0; first < hidden;
         first += units, panel += panel_size, bias += kRows) {
      GateSums<Dtype, kVectors>(panel, bias, input, shape.inputs, state,
          hidden, sums);
      for (int unit = first; unit < Min(first + units, hidden); ++unit) {
        const Dtype* __restrict__ sum = sums + (unit - first) * kTileLanes;
        const int gate_stride = units * kTileLanes;
        const size_t at = static_cast<size_t>(unit) * kTileLanes;
        Dtype* rows[Unit<kUnit>::kHistory];
        for (int i = 0; i < Unit<kUnit>::kHistory; ++i) {
          rows[i] = history ? history + i * row + at : unkept[i];
        }
        const Dtype* __restrict__ h_was = h_previous + at;
        Dtype* __restrict__ h = h_next + at;
        if constexpr (kUnit == RENET_LSTM) {
          const Dtype* peephole = sweep.peephole[scan];
          const Dtype p_i = peephole ? peephole[unit] : Dtype(0);
          const Dtype p_f = peephole ? peephole[hidden + unit] : Dtype(0);
          const Dtype p_o = peephole ? peephole[2 * hidden + unit] : Dtype(0);
          const Dtype* __restrict__ c_was = c_previous + at;
          Dtype* __restrict__ c = c_next + at;
          Dtype* __restrict__ i_row = rows[0];
          Dtype* __restrict__ f_row = rows[1];
          Dtype* __restrict__ o_row = rows[2];
          Dtype* __restrict__ g_row = rows[3];
          Dtype* __restrict__ c_row = rows[4];
#pragma omp simd
          for (int lane = 0; lane < kTileLanes; ++lane) {
            Dtype i, f, o, g, c_new, h_new;
            renet::LstmForward(sum[lane], sum[gate_stride + lane],
                sum[2 * gate_stride + lane], sum[3 * gate_stride + lane],
                c_was[lane], p_i, p_f, p_o, &i, &f, &o, &g, &c_new, &h_new);
            i_row[lane] = i;
            f_row[lane] = f;
            o_row[lane] = o;
            g_row[lane] = g;
            c_row[lane] = c_new;
            c[lane] = c_new;
            h[lane] = h_new;
          }
        } else if constexpr (kUnit == RENET_GRU) {
          Dtype* __restrict__ update = scratch.update + at;
          Dtype* __restrict__ reset_h = scratch.reset_h + at;
          if (phase == 0) {
            Dtype* __restrict__ z_row = rows[0];
            Dtype* __restrict__ r_row = rows[1];
#pragma omp simd
            for (int lane = 0; lane < kTileLanes; ++lane) {
              Dtype z, r, product;
              renet::GruGatesForward(sum[lane], sum[gate_stride + lane],
                  h_was[lane], &z, &r, &product);
              z_row[lane] = z;
              r_row[lane] = r;
              update[lane] = z;
              reset_h[lane] = product;
            }
          } else {
            Dtype* __restrict__ n_row = rows[2];
            Dtype* __restrict__ h_row = rows[3];
#pragma omp simd
            for (int lane = 0; lane < kTileLanes; ++lane) {
              Dtype n, h_new;
              renet::GruStateForward(sum[lane], update[lane], h_was[lane], &n,
                  &h_new);
              n_row[lane] = n;
              h_row[lane] = h_new;
              h[lane] = h_new;
            }
          }
        } else {
          Dtype* __restrict__ h_row = rows[0];
#pragma omp simd
          for (int lane = 0; lane < kTileLanes; ++lane) {
            const Dtype h_new = renet::IrnnForward(sum[lane]);
            h_row[lane] = h_new;
            h[lane] = h_new;
          }
        }
      }
    }
  }
}

template <typename Dtype, typename Pointer>
RENET_INLINE Map<Pointer> BottomMap(const ReNetSweep<Dtype>& sweep,
    Pointer* data) {
  const Map<Pointer> map = {data, static_cast<size_t>(sweep.channels) *
      sweep.height * sweep.width, sweep.channels, sweep.height, sweep.width,
      sweep.vertical, sweep.patch_height, sweep.patch_width};
  return map;
}

/// One scan's half of the top's channels.
template <typename Dtype, typename Pointer>
RENET_INLINE Map<Pointer> TopMap(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, int scan, Pointer* data) {
  const int height = sweep.vertical ? shape.steps : shape.lines;
  const int width = sweep.vertical ? shape.lines : shape.steps;
  const size_t plane = static_cast<size_t>(height) * width;
  const Map<Pointer> map = {data + scan * shape.hidden * plane,
      2 * shape.hidden * plane, shape.hidden, height, width, sweep.vertical,
      1, 1};
  return map;
}

/// One scan of one tile through all steps.
template <typename Dtype, int kUnit, int kVectors>
void ForwardTile(const ReNetSweep<Dtype>& sweep, const Shape& shape,
    const PackedWeights<Dtype>& packed, int scan, const Tile<Dtype>& tile,
    const ForwardScratch<Dtype>& scratch) {
  constexpr int kTileLanes = kVectors * Width<Dtype>::kLanes;
  const size_t row = static_cast<size_t>(shape.hidden) * kTileLanes;
  const size_t input_row = static_cast<size_t>(shape.inputs) * kTileLanes;
  const Map<const Dtype> bottom = BottomMap(sweep, sweep.bottom);
  const Map<Dtype> top = TopMap(sweep, shape, scan, sweep.top);
  Dtype* history = TileHistory(sweep, shape, scan, tile.vector_begin);
  const bool lstm = kUnit == RENET_LSTM;
  const bool reverse = scan == 1;
  Dtype* const output =
      lstm && sweep.cell_output ? scratch.cell : scratch.state;

  // Slot 0 or, for the backward scan, the last slot holds the state before the
  // block; so the block itself lies in the order of the map.
  for (int done = 0; done < shape.steps; done += shape.block_steps) {
    const int count = Min(shape.block_steps, shape.steps - done);
    const int begin = reverse ? shape.steps - done - count : done;
    Move<Dtype, GATHER>(bottom, tile, begin, begin + count, scratch.input);
    const size_t before = reverse ? count * row : 0;
    if (done == 0) {
      SetZero(row, scratch.state + before);
      if (lstm) SetZero(row, scratch.cell + before);
    } else {
      // The state that the previous block (always a full one) ended with.
      const size_t ended = reverse ? 0 : shape.block_steps * row;
      memcpy(scratch.state + before, scratch.state + ended,
          row * sizeof(Dtype));
      if (lstm) {
        memcpy(scratch.cell + before, scratch.cell + ended,
            row * sizeof(Dtype));
      }
    }
    for (int i = 0; i < count; ++i) {
      const int at = reverse ? count - 1 - i : i;  // step within the block
      const size_t from = (reverse ? at + 1 : at) * row;
      const size_t to = (reverse ? at : at + 1) * row;
      ForwardStep<Dtype, kUnit, kVectors>(sweep, shape, packed, scan, scratch,
          scratch.input + at * input_row, scratch.state + from,
          scratch.cell + from, scratch.state + to, scratch.cell + to,
          history ? history + static_cast<size_t>(begin + at) *
              Unit<kUnit>::kHistory * row : NULL);
    }
    if (sweep.top) {
      Move<Dtype, SCATTER>(top, tile, begin, begin + count,
          output + (reverse ? 0 : row));
    }
  }
}

template <typename Dtype, int kUnit>
void ForwardOfUnit(const ReNetSweep<Dtype>& sweep) {
  const Shape shape = GetShape(sweep);
  Carver<Dtype> carver(AlignPointer(sweep.workspace));
  PackedWeights<Dtype> packed;
  CarveWeights(sweep, shape, false, &carver, &packed);
  Carver<Dtype> sizer(NULL);
  ForwardScratch<Dtype> sized;
  CarveForward(sweep, shape, &sizer, &sized);
  Dtype* const threads_base = carver.Take(sizer.used() * sweep.threads);
  const size_t thread_size = sizer.used();

#pragma omp parallel num_threads(sweep.threads)
  {
    for (int scan = 0; scan < 2; ++scan) {
      for (int phase = 0; phase < Unit<kUnit>::kPhases; ++phase) {
        const int panels = CeilDivide(shape.hidden,
            kRows / Unit<kUnit>::GatesOf(phase));
#pragma omp for schedule(static) nowait
        for (int panel = 0; panel < panels; ++panel) {
          PackGates(sweep, shape, scan, phase, panel, packed);
        }
      }
    }
#pragma omp barrier
    Carver<Dtype> thread(threads_base + omp_get_thread_num() * thread_size);
    ForwardScratch<Dtype> scratch;
    CarveForward(sweep, shape, &thread, &scratch);
    // Scans of a tile are neighbours in the loop: the input is read twice, the
    // second time from the cache.
#pragma omp for schedule(static)
    for (int item = 0; item < 2 * sweep.tiles; ++item) {
      Tile<Dtype> tile;
      LocateTile(shape, sweep.tiles, item / 2, &tile);
      switch (tile.lanes / Width<Dtype>::kLanes) {
      case 1:
        ForwardTile<Dtype, kUnit, 1>(sweep, shape, packed, item % 2, tile,
            scratch);
        break;
      case 2:
        ForwardTile<Dtype, kUnit, 2>(sweep, shape, packed, item % 2, tile,
            scratch);
        break;
      default:
        ForwardTile<Dtype, kUnit, 3>(sweep, shape, packed, item % 2, tile,
            scratch);
      }
    }
  }
}

template <typename Dtype>
void Forward(const ReNetSweep<Dtype>& sweep) {
  if (sweep.unit == RENET_LSTM) {
    ForwardOfUnit<Dtype, RENET_LSTM>(sweep);
  } else if (sweep.unit == RENET_GRU) {
    ForwardOfUnit<Dtype, RENET_GRU>(sweep);
  } else {
    ForwardOfUnit<Dtype, RENET_IRNN>(sweep);
  }
}

// ---------------------------------------------------------------------------
// Backward

/// Adds each row of a step's gate gradients to one vector a row.
template <typename Dtype, int kVectors>
RENET_INLINE void AccumulateRows(const Dtype* rows, int count, Dtype* sums) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  for (int r = 0; r < count; ++r) {
    typename Simd<Dtype>::Vector sum = Load<Dtype>(sums + r * kLanes);
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      sum += Load(rows + (r * kVectors + j) * kLanes);
    }
    Store(sum, sums + r * kLanes);
  }
}

/// The state that a step started from (and, for a GRU, its reset state), from
/// the history; zeros at the scan's first step, where previous is NULL.
template <typename Dtype, int kUnit, int kVectors>
RENET_INLINE void RestoreState(const Shape& shape,
    const Dtype* __restrict__ previous, const Dtype* __restrict__ history,
    Dtype* __restrict__ state, Dtype* __restrict__ reset_h) {
  const int row = shape.hidden * kVectors * Width<Dtype>::kLanes;
  if (!previous) {
    SetZero(row, state);
    if (kUnit == RENET_GRU) SetZero(row, reset_h);
    return;
  }
  if constexpr (kUnit == RENET_LSTM) {
    const Dtype* __restrict__ o = previous + 2 * static_cast<size_t>(row);
    const Dtype* __restrict__ c = previous + 4 * static_cast<size_t>(row);
#pragma omp simd
    for (int i = 0; i < row; ++i) state[i] = o[i] * renet::Tanh(c[i]);
  } else if constexpr (kUnit == RENET_GRU) {
    const Dtype* __restrict__ h = previous + 3 * static_cast<size_t>(row);
    const Dtype* __restrict__ r = history + static_cast<size_t>(row);
#pragma omp simd
    for (int i = 0; i < row; ++i) {
      state[i] = h[i];
      reset_h[i] = r[i] * h[i];
    }
  } else {
    memcpy(state, previous, row * sizeof(Dtype));
  }
}

/// One step back: gate gradients of the step into gate_diff, and h_diff (and
/// c_diff) become what the previous step receives.
template <typename Dtype, int kUnit, int kVectors>
RENET_INLINE void BackwardStep(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, const PackedWeights<Dtype>& packed, int scan,
    const BackwardScratch<Dtype>& scratch, const Dtype* top_diff,
    const Dtype* state, const Dtype* history, const Dtype* previous,
    Dtype* gate_diff) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  constexpr int kTileLanes = kVectors * kLanes;
  const int hidden = shape.hidden;
  const size_t row = static_cast<size_t>(hidden) * kTileLanes;
  alignas(64) Dtype zeros[kTileLanes];
  SetZero(kTileLanes, zeros);
  Dtype* __restrict__ h_diff = scratch.h_diff;
  if constexpr (kUnit == RENET_LSTM) {
    const Dtype* peephole = sweep.peephole[scan];
    for (int unit = 0; unit < hidden; ++unit) {
      const size_t at = static_cast<size_t>(unit) * kTileLanes;
      const Dtype p_i = peephole ? peephole[unit] : Dtype(0);
      const Dtype p_f = peephole ? peephole[hidden + unit] : Dtype(0);
      const Dtype p_o = peephole ? peephole[2 * hidden + unit] : Dtype(0);
      const Dtype* __restrict__ i_row = history + at;
      const Dtype* __restrict__ f_row = history + row + at;
      const Dtype* __restrict__ o_row = history + 2 * row + at;
      const Dtype* __restrict__ g_row = history + 3 * row + at;
      const Dtype* __restrict__ c_row = history + 4 * row + at;
      const Dtype* __restrict__ c_was =
          previous ? previous + 4 * row + at : zeros;
      const Dtype* __restrict__ top = top_diff + at;
      const Dtype* __restrict__ passed = h_diff + at;
      Dtype* __restrict__ c_diff = scratch.c_diff + at;
      Dtype* __restrict__ i_diff = gate_diff + at;
      Dtype* __restrict__ f_diff = gate_diff + row + at;
      Dtype* __restrict__ o_diff = gate_diff + 2 * row + at;
      Dtype* __restrict__ g_diff = gate_diff + 3 * row + at;
      const Dtype to_cell = sweep.cell_output ? Dtype(1) : Dtype(0);
      const Dtype to_state = sweep.cell_output ? Dtype(0) : Dtype(1);
#pragma omp simd
      for (int lane = 0; lane < kTileLanes; ++lane) {
        Dtype carried = c_diff[lane] + to_cell * top[lane];
        Dtype i_sum, f_sum, o_sum, g_sum;
        renet::LstmBackward(passed[lane] + to_state * top[lane], i_row[lane],
            f_row[lane], o_row[lane], g_row[lane], c_row[lane], c_was[lane],
            p_i, p_f, p_o, &carried, &i_sum, &f_sum, &o_sum, &g_sum);
        c_diff[lane] = carried;
        i_diff[lane] = i_sum;
        f_diff[lane] = f_sum;
        o_diff[lane] = o_sum;
        g_diff[lane] = g_sum;
      }
      if (sweep.peephole_diff[scan]) {
        Dtype* to = scratch.peephole_diff[scan];
        typedef typename Simd<Dtype>::Vector Vector;
        Vector sum_i = Load<Dtype>(to + unit * kLanes);
        Vector sum_f = Load<Dtype>(to + (hidden + unit) * kLanes);
        Vector sum_o = Load<Dtype>(to + (2 * hidden + unit) * kLanes);
        for (int j = 0; j < kTileLanes; j += kLanes) {
          sum_i += Load<Dtype>(i_diff + j) * Load(c_was + j);
          sum_f += Load<Dtype>(f_diff + j) * Load(c_was + j);
          sum_o += Load<Dtype>(o_diff + j) * Load(c_row + j);
        }
        Store(sum_i, to + unit * kLanes);
        Store(sum_f, to + (hidden + unit) * kLanes);
        Store(sum_o, to + (2 * hidden + unit) * kLanes);
      }
    }
    const Dtype* gates[1] = {gate_diff};
    MultiplyMatrix<Dtype, kVectors>(packed.recurrent[scan][0], gates,
        &shape.phase_rows[0], 1, false, hidden, scratch.h_diff);
  } else if constexpr (kUnit == RENET_GRU) {
    const int count = static_cast<int>(row);
    const Dtype* __restrict__ z_row = history;
    const Dtype* __restrict__ r_row = history + row;
    const Dtype* __restrict__ n_row = history + 2 * row;
    Dtype* __restrict__ z_diff = gate_diff;
    Dtype* __restrict__ r_diff = gate_diff + row;
    Dtype* __restrict__ n_diff =
        gate_diff + static_cast<size_t>(shape.phase_offset[1]) * kTileLanes;
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      Dtype passed = h_diff[i] + top_diff[i];
      Dtype z_sum, n_sum;
      renet::GruStateBackward(z_row[i], n_row[i], state[i], &passed, &z_sum,
          &n_sum);
      h_diff[i] = passed;
      z_diff[i] = z_sum;
      n_diff[i] = n_sum;
    }
    const Dtype* candidate[1] = {n_diff};
    MultiplyMatrix<Dtype, kVectors>(packed.recurrent[scan][1], candidate,
        &shape.phase_rows[1], 1, false, hidden, scratch.reset_diff);
    const Dtype* __restrict__ reset_diff = scratch.reset_diff;
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      Dtype passed = h_diff[i], r_sum;
      renet::GruResetBackward(reset_diff[i], r_row[i], state[i], &passed,
          &r_sum);
      h_diff[i] = passed;
      r_diff[i] = r_sum;
    }
    const Dtype* gates[1] = {gate_diff};
    MultiplyMatrix<Dtype, kVectors>(packed.recurrent[scan][0], gates,
        &shape.phase_rows[0], 1, true, hidden, scratch.h_diff);
  } else {
    const int count = static_cast<int>(row);
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      gate_diff[i] = renet::IrnnBackward(h_diff[i] + top_diff[i], history[i]);
    }
    const Dtype* gates[1] = {gate_diff};
    MultiplyMatrix<Dtype, kVectors>(packed.recurrent[scan][0], gates,
        &shape.phase_rows[0], 1, false, hidden, scratch.h_diff);
  }
}

/// One scan of one tile back through all steps.
template <typename Dtype, int kUnit, int kVectors>
void BackwardTile(const ReNetSweep<Dtype>& sweep, const Shape& shape,
    const PackedWeights<Dtype>& packed, int scan, const Tile<Dtype>& tile,
    const BackwardScratch<Dtype>& scratch, Dtype* bottom_diff,
    bool add_to_bottom) {
  constexpr int kTileLanes = kVectors * Width<Dtype>::kLanes;
  const size_t row = static_cast<size_t>(shape.hidden) * kTileLanes;
  const size_t input_row = static_cast<size_t>(shape.inputs) * kTileLanes;
  const size_t gate_row = static_cast<size_t>(shape.gate_rows) * kTileLanes;
  const size_t history_row = Unit<kUnit>::kHistory * row;
  const Map<const Dtype> bottom = BottomMap(sweep, sweep.bottom);
  const Map<const Dtype> top =
      TopMap(sweep, shape, scan, sweep.top_diff);
  const Dtype* history = TileHistory(sweep, shape, scan, tile.vector_begin);
  const Columns<Dtype> inputs = GetColumns<Dtype>(shape.inputs);
  const Columns<Dtype> hidden = GetColumns<Dtype>(shape.hidden);
  const bool reverse = scan == 1;

  SetZero(row, scratch.h_diff);
  if (kUnit == RENET_LSTM) SetZero(row, scratch.c_diff);
  // Rows that only fill a register tile stay zero through all chunks.
  SetZero(shape.chunk_steps * gate_row, scratch.gate_diff);

  for (int left = shape.steps; left > 0;) {
    // The last steps of the scan first; blocks as Forward had them.
    const int count = left % shape.block_steps ? left % shape.block_steps :
        shape.block_steps;
    left -= count;
    const int begin = reverse ? shape.steps - left - count : left;
    Move<Dtype, GATHER>(top, tile, begin, begin + count, scratch.top_diff);
    if (sweep.input_weights_diff[scan]) {
      Move<Dtype, GATHER>(bottom, tile, begin, begin + count, scratch.input);
    }
    for (int t = begin; t < begin + count; ++t) {
      const int t_previous = reverse ? t + 1 : t - 1;
      const bool first = reverse ? t_previous == shape.steps : t_previous < 0;
      RestoreState<Dtype, kUnit, kVectors>(shape,
          first ? NULL : history + t_previous * history_row,
          history + t * history_row, scratch.previous + (t - begin) * row,
          scratch.reset_h + (t - begin) * row);
    }
    for (int done = 0; done < count; done += shape.chunk_steps) {
      const int steps = Min(shape.chunk_steps, count - done);
      // First step of the chunk, in the map's order.
      const int chunk = reverse ? begin + done : begin + count - done - steps;
      for (int i = 0; i < steps; ++i) {
        const int t = reverse ? chunk + i : chunk + steps - 1 - i;
        const int t_previous = reverse ? t + 1 : t - 1;
        const bool first =
            reverse ? t_previous == shape.steps : t_previous < 0;
        BackwardStep<Dtype, kUnit, kVectors>(sweep, shape, packed, scan,
            scratch, scratch.top_diff + (t - begin) * row,
            scratch.previous + (t - begin) * row, history + t * history_row,
            first ? NULL : history + t_previous * history_row,
            scratch.gate_diff + (t - chunk) * gate_row);
      }
      if (bottom_diff) {
        for (int i = 0; i < steps; ++i) {
          const Dtype* gate_diff = scratch.gate_diff + i * gate_row;
          const Dtype* phases[2] = {gate_diff, gate_diff +
              static_cast<size_t>(shape.phase_offset[1]) * kTileLanes};
          MultiplyMatrix<Dtype, kVectors>(packed.input[scan], phases,
              shape.phase_rows, shape.phases, false, shape.inputs,
              scratch.input_diff + (chunk - begin + i) * input_row);
        }
      }
      if (sweep.bias_diff[scan]) {
        for (int i = 0; i < steps; ++i) {
          AccumulateRows<Dtype, kVectors>(scratch.gate_diff + i * gate_row,
              shape.gate_rows, scratch.bias_diff[scan]);
        }
      }
      if (sweep.input_weights_diff[scan]) {
        TransposeChunk(scratch.input + (chunk - begin) * input_row, inputs,
            kTileLanes, steps, scratch.transposed);
        AccumulateWeightDiff<Dtype, kVectors>(scratch.gate_diff, gate_row,
            shape.gate_rows, steps, scratch.transposed, inputs,
            scratch.input_weights_diff[scan]);
      }
      if (sweep.recurrent_weights_diff[scan]) {
        for (int phase = 0; phase < shape.phases; ++phase) {
          const Dtype* state = phase == 0 ? scratch.previous : scratch.reset_h;
          TransposeChunk(state + (chunk - begin) * row, hidden, kTileLanes,
              steps, scratch.transposed);
          const size_t offset = shape.phase_offset[phase];
          AccumulateWeightDiff<Dtype, kVectors>(
              scratch.gate_diff + offset * kTileLanes, gate_row,
              RoundUp(shape.phase_rows[phase], kRows), steps,
              scratch.transposed, hidden,
              scratch.recurrent_weights_diff[scan] +
              offset * hidden.stride());
        }
      }
    }
    if (bottom_diff) {
      const Map<Dtype> map = BottomMap(sweep, bottom_diff);
      if (add_to_bottom) {
        Move<Dtype, SCATTER_ADD>(map, tile, begin, begin + count,
            scratch.input_diff);
      } else {
        Move<Dtype, SCATTER>(map, tile, begin, begin + count,
            scratch.input_diff);
      }
    }
  }
}

/// Row of a block of gate gradients to row of the weights.
RENET_INLINE int BlockRow(const Shape& shape, int row) {
  return row < shape.phase_rows[0] ? row :
      shape.phase_offset[1] + row - shape.phase_rows[0];
}

template <typename Dtype, int kUnit>
void BackwardOfUnit(const ReNetSweep<Dtype>& sweep) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  const Shape shape = GetShape(sweep);
  const bool apart = ScansApart(sweep);
  const int gate_rows = shape.gates * shape.hidden;
  Carver<Dtype> carver(AlignPointer(sweep.workspace));
  PackedWeights<Dtype> packed;
  CarveWeights(sweep, shape, true, &carver, &packed);
  Dtype* const second_diff =
      carver.Take(apart ? BottomCount(sweep) : 0);
  Carver<Dtype> sizer(NULL);
  BackwardScratch<Dtype> sized;
  CarveBackward(sweep, shape, &sizer, &sized);
  const size_t thread_size = sizer.used();
  Dtype* const threads_base = carver.Take(thread_size * sweep.threads);
  const Columns<Dtype> inputs = GetColumns<Dtype>(shape.inputs);
  const Columns<Dtype> hidden = GetColumns<Dtype>(shape.hidden);

#pragma omp parallel num_threads(sweep.threads)
  {
    for (int scan = 0; scan < 2; ++scan) {
      for (int phase = 0; phase < Unit<kUnit>::kPhases; ++phase) {
        const Dtype* weights = sweep.recurrent_weights[scan] +
            (phase == 0 ? 0 : static_cast<size_t>(shape.phase_rows[0]) *
             shape.hidden);
#pragma omp for schedule(static) nowait
        for (int panel = 0; panel < CeilDivide(shape.hidden, kRows); ++panel) {
          PackTransposed(weights, shape.hidden, shape.phase_rows[phase], panel,
              packed.recurrent[scan][phase]);
        }
      }
      if (sweep.bottom_diff) {
#pragma omp for schedule(static) nowait
        for (int panel = 0; panel < CeilDivide(shape.inputs, kRows); ++panel) {
          PackTransposed(sweep.input_weights[scan], shape.inputs, gate_rows,
              panel, packed.input[scan]);
        }
      }
    }
    Carver<Dtype> thread(threads_base + omp_get_thread_num() * thread_size);
    BackwardScratch<Dtype> scratch;
    CarveBackward(sweep, shape, &thread, &scratch);
    for (int scan = 0; scan < 2; ++scan) {
      SetZero(static_cast<size_t>(shape.gate_rows) * inputs.stride(),
          scratch.input_weights_diff[scan]);
      SetZero(static_cast<size_t>(shape.gate_rows) * hidden.stride(),
          scratch.recurrent_weights_diff[scan]);
      SetZero(shape.gate_rows * kLanes, scratch.bias_diff[scan]);
      if (kUnit == RENET_LSTM) {
        SetZero(3 * shape.hidden * kLanes, scratch.peephole_diff[scan]);
      }
    }
#pragma omp barrier
    // With the scans together, an item is a tile and does both in turn.
    const int items = apart ? 2 * sweep.tiles : sweep.tiles;
#pragma omp for schedule(static)
    for (int item = 0; item < items; ++item) {
      Tile<Dtype> tile;
      LocateTile(shape, sweep.tiles, apart ? item / 2 : item, &tile);
      const int first_scan = apart ? item % 2 : 0;
      const int last_scan = apart ? item % 2 : 1;
      for (int scan = first_scan; scan <= last_scan; ++scan) {
        Dtype* to = sweep.bottom_diff && apart && scan == 1 ? second_diff :
            sweep.bottom_diff;
        const bool add = !apart && scan == 1;
        switch (tile.lanes / kLanes) {
        case 1:
          BackwardTile<Dtype, kUnit, 1>(sweep, shape, packed, scan, tile,
              scratch, to, add);
          break;
        case 2:
          BackwardTile<Dtype, kUnit, 2>(sweep, shape, packed, scan, tile,
              scratch, to, add);
          break;
        default:
          BackwardTile<Dtype, kUnit, 3>(sweep, shape, packed, scan, tile,
              scratch, to, add);
        }
      }
    }
    // The loop's barrier has passed: every thread's sums are complete. They
    // are added in the order of the threads, so equal runs give equal bits.
    if (apart && sweep.bottom_diff) {
      const int64_t count = static_cast<int64_t>(BottomCount(sweep));
#pragma omp for schedule(static) nowait
      for (int64_t i = 0; i < count; ++i) {
        sweep.bottom_diff[i] += second_diff[i];
      }
    }
    const int used_threads = omp_get_num_threads();
    for (int scan = 0; scan < 2; ++scan) {
#pragma omp for schedule(static) nowait
      for (int r = 0; r < gate_rows; ++r) {
        const size_t block_row = BlockRow(shape, r);
        for (int i = 0; i < used_threads; ++i) {
          Carver<Dtype> other(threads_base + i * thread_size);
          BackwardScratch<Dtype> part;
          CarveBackward(sweep, shape, &other, &part);
          if (sweep.input_weights_diff[scan]) {
            const Dtype* from = part.input_weights_diff[scan] +
                block_row * inputs.stride();
            Dtype* to = sweep.input_weights_diff[scan] +
                static_cast<size_t>(r) * shape.inputs;
            for (int k = 0; k < shape.inputs; ++k) to[k] += from[k];
          }
          if (sweep.recurrent_weights_diff[scan]) {
            const Dtype* from = part.recurrent_weights_diff[scan] +
                block_row * hidden.stride();
            Dtype* to = sweep.recurrent_weights_diff[scan] +
                static_cast<size_t>(r) * shape.hidden;
            for (int k = 0; k < shape.hidden; ++k) to[k] += from[k];
          }
          if (sweep.bias_diff[scan]) {
            const Dtype* from = part.bias_diff[scan] + block_row * kLanes;
            Dtype sum = 0;
            for (int k = 0; k < kLanes; ++k) sum += from[k];
            sweep.bias_diff[scan][r] += sum;
          }
          if (kUnit == RENET_LSTM && sweep.peephole_diff[scan] &&
              r < 3 * shape.hidden) {
            const Dtype* from = part.peephole_diff[scan] + r * kLanes;
            Dtype sum = 0;
            for (int k = 0; k < kLanes; ++k) sum += from[k];
            sweep.peephole_diff[scan][r] += sum;
          }
        }
      }
    }
  }
}

template <typename Dtype>
void Backward(const ReNetSweep<Dtype>& sweep) {
  if (sweep.unit == RENET_LSTM) {
    BackwardOfUnit<Dtype, RENET_LSTM>(sweep);
  } else if (sweep.unit == RENET_GRU) {
    BackwardOfUnit<Dtype, RENET_GRU>(sweep);
  } else {
    BackwardOfUnit<Dtype, RENET_IRNN>(sweep);
  }
}

template <typename Dtype>
ReNetKernels<Dtype> MakeKernels(const char* name) {
  const ReNetKernels<Dtype> kernels = {name, Plan<Dtype>, HistorySize<Dtype>,
      WorkspaceSize<Dtype>, Forward<Dtype>, Backward<Dtype>};
  return kernels;
}

}  // namespace
}  // namespace RENET_SET
}  // namespace caffe
