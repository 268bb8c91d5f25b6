// A step's products on register tiles. A part of sweep_kernels.hpp, which says
// why it has neither an include guard nor a namespace of its own.

/**
 * @brief acc (kTileRows x lanes) += panel (depth x kRows, transposed) * b
 *        (depth x lanes), both of factors: the one product that all of a step
 *        is made of.
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
      for (int j = 0; j < kVectors; ++j) {
        MultiplyAdd<Dtype>(column[j], panel[r], &acc[r][j]);
      }
    }
    panel += kRows;
    b += kVectors * kLanes;
  }
}

/// How many panels' sums are formed before they are needed, and how often a bias
/// lies in the work area.
constexpr int kPanelsAhead = 0;
constexpr int kBiasLanes = 1;

/// A panel's sums: bias + W_x x + W_h s, into out (kRows x lanes); x and s as
/// factors.
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
  MultiplyPanel<Dtype, kRows, kVectors>(panel, input, Depth(inputs), acc);
  MultiplyPanel<Dtype, kRows, kVectors>(
      panel + static_cast<size_t>(Depth(inputs)) * kRows, state, Depth(hidden),
      acc);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      Store(acc[r][j], out + (r * kVectors + j) * kLanes);
    }
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
        Depth(depth[segment]), acc);
    panel += static_cast<size_t>(Depth(depth[segment])) * kRows;
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

/// The same for all rows; b: factors of as many values as depth says.
template <typename Dtype, int kVectors>
void MultiplyMatrix(const Dtype* packed, const Dtype* const* b,
    const int* depth, int segments, bool add, int rows, Dtype* out) {
  constexpr int kTileLanes = kVectors * Width<Dtype>::kLanes;
  for (int row = 0; row < rows; row += kRows) {
    const Dtype* panel = packed +
        static_cast<size_t>(row) * TotalDepth(depth, segments);
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
