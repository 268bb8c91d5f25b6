// Products on register tiles: of a step, and of a chunk of steps for the
// weights' gradients. A part of sweep_kernels.hpp, which says why it has
// neither an include guard nor a namespace of its own.

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
