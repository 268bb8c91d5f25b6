// Transposed weights as MultiplyMatrix reads them. A part of sweep_kernels.hpp,
// which says why it has neither an include guard nor a namespace of its own.

/// Elements of a lane that factors take in segments of so many values.
RENET_INLINE int TotalDepth(const int* depth, int segments) {
  int total = 0;
  for (int i = 0; i < segments; ++i) total += Depth(depth[i]);
  return total;
}

/// Size of a matrix with these rows and depths when packed.
RENET_INLINE size_t PackedSize(int rows, const int* depth, int segments) {
  return static_cast<size_t>(RoundUp(rows, kRows)) *
      TotalDepth(depth, segments);
}

/// Packs transposed weights: rows are columns of the matrix, depth its rows.
template <typename Dtype>
void PackTransposed(const Dtype* weights, int rows, const int* depth,
    int segments, int panel, Dtype* packed) {
  const int begin = panel * kRows;
  Dtype* to =
      packed + static_cast<size_t>(begin) * TotalDepth(depth, segments);
  for (int segment = 0; segment < segments; ++segment) {
    PackPanel(depth[segment], [=](int r, int k) {
      return begin + r < rows ?
          weights[static_cast<size_t>(k) * rows + begin + r] : Dtype(0);
    }, to);
    weights += static_cast<size_t>(depth[segment]) * rows;
    to += static_cast<size_t>(Depth(depth[segment])) * kRows;
  }
}

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
