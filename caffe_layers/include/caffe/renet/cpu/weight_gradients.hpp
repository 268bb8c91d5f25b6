// Weights' gradients: products over the positions of a chunk of steps. A part
// of sweep_kernels.hpp, which says why it has neither an include guard nor a
// namespace of its own.

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

/// A chunk's gate gradients as AccumulateWeightDiff reads them.
template <typename Dtype, int kVectors>
RENET_INLINE const Dtype* GateFactors(const Dtype* gate_diff, int /* rows */,
    int /* steps */, Dtype* /* scratch */) {
  return gate_diff;
}

/// sum (rows x columns) += gate_diff * operand^T over a chunk, for the rows
/// first_row and on of gate_rows.
template <typename Dtype, int kVectors>
void AccumulateWeightDiff(const Dtype* gate_diff, int first_row, int rows,
    int gate_rows, int steps, const Dtype* transposed,
    const Columns<Dtype>& columns, Dtype* sum) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  constexpr int kTileLanes = kVectors * kLanes;
  const size_t step_stride = static_cast<size_t>(gate_rows) * kTileLanes;
  gate_diff += static_cast<size_t>(first_row) * kTileLanes;
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
