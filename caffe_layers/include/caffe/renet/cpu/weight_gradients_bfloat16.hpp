// Weights' gradients of factors rounded to bfloat16, two positions in the place
// of a float, in place of weight_gradients.hpp; a part of sweep_kernels.hpp,
// which says why it has neither an include guard nor a namespace of its own.

/// Writes a chunk of the tile (step, row, lane) as panels of (pair of
/// positions, row): what the product over positions reads.
template <typename Dtype>
void TransposeChunk(const Dtype* chunk, const Columns<Dtype>& columns,
    int lanes, int steps, Dtype* out) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  const int pairs = steps * lanes / 2, depth = Depth(steps * lanes);
  for (int first = 0; first < columns.vectors; first += kMaxVectors) {
    const int width = Min(kMaxVectors, columns.vectors - first);
    const int stride = width * kLanes;
    Dtype* panel = out + static_cast<size_t>(first) * kLanes * depth;
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
          Dtype* to = panel +
              static_cast<size_t>(t * lanes + group) / 2 * stride + v * kLanes;
          for (int i = 0; i < kLanes; i += 2, to += stride) {
            Store<Dtype>(Pair(square[i], square[i + 1]), to);
          }
        }
      }
    }
    SetZero(static_cast<size_t>(depth - pairs) * stride,
        panel + static_cast<size_t>(pairs) * stride);
  }
}

/// A chunk's gate gradients (step, row, lane) as AccumulateWeightDiff reads
/// them: (row, pair of positions).
template <typename Dtype, int kVectors>
RENET_INLINE const Dtype* GateFactors(const Dtype* gate_diff, int rows,
    int steps, Dtype* scratch) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  constexpr int kTileLanes = kVectors * kLanes;
  const int pairs = steps * kTileLanes / 2, depth = Depth(steps * kTileLanes);
  for (int t = 0; t < steps; ++t) {
    for (int r = 0; r < rows; ++r) {
      const Dtype* from = gate_diff +
          (static_cast<size_t>(t) * rows + r) * kTileLanes;
      Dtype* to = scratch + static_cast<size_t>(r) * depth + t * kTileLanes / 2;
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) {
        const Halves rounded = Rounded(Load(from + j * kLanes));
        memcpy(to + j * kLanes / 2, &rounded, sizeof(rounded));
      }
    }
  }
  for (int r = 0; r < rows; ++r) {
    SetZero(depth - pairs, scratch + static_cast<size_t>(r) * depth + pairs);
  }
  return scratch;
}

/// kRows x kWidth vectors of a weight gradient: the sum over a chunk.
template <typename Dtype, int kWidth>
RENET_INLINE void AccumulateTile(const Dtype* gate_factors, int depth,
    const Dtype* panel, size_t stride, Dtype* sum) {
#if defined(RENET_AMX)
  LoadTiles<kWidth>(sum, stride);
  MultiplyTiles<kWidth>(gate_factors, depth, 16, panel, kWidth * 16, depth);
  StoreTiles<kWidth>(sum, stride);
#else
  constexpr int kLanes = Width<Dtype>::kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  Vector acc[kRows][kWidth];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int j = 0; j < kWidth; ++j) acc[r][j] = Vector{};
  }
  for (int k = 0; k < depth; ++k, panel += kWidth * kLanes) {
    Vector column[kWidth];
#pragma GCC unroll 3
    for (int j = 0; j < kWidth; ++j) column[j] = Load(panel + j * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
      for (int j = 0; j < kWidth; ++j) {
        MultiplyAdd<Dtype>(column[j],
            gate_factors[static_cast<size_t>(r) * depth + k], &acc[r][j]);
      }
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
#endif
}

/// sum (rows x columns) += gate_diff * operand^T over a chunk, for the rows
/// first_row and on.
template <typename Dtype, int kVectors>
void AccumulateWeightDiff(const Dtype* gate_factors, int first_row, int rows,
    int /* gate_rows */, int steps, const Dtype* transposed,
    const Columns<Dtype>& columns, Dtype* sum) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  const int depth = Depth(steps * kVectors * kLanes);
#if defined(RENET_AMX)
  FinishWriting();
#endif
  for (int first = 0; first < columns.vectors; first += kMaxVectors) {
    const int width = Min(kMaxVectors, columns.vectors - first);
    const Dtype* panel = transposed + static_cast<size_t>(first) * kLanes * depth;
    for (int row = 0; row < rows; row += kRows) {
      const Dtype* from =
          gate_factors + static_cast<size_t>(first_row + row) * depth;
      Dtype* to = sum + static_cast<size_t>(row) * columns.stride() +
          first * kLanes;
      if (width == 3) {
        AccumulateTile<Dtype, 3>(from, depth, panel, columns.stride(), to);
      } else if (width == 2) {
        AccumulateTile<Dtype, 2>(from, depth, panel, columns.stride(), to);
      } else {
        AccumulateTile<Dtype, 1>(from, depth, panel, columns.stride(), to);
      }
    }
  }
}
