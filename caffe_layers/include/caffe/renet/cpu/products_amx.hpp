// A step's products on AMX's tiles, in place of products.hpp; a part of
// sweep_kernels.hpp, which says why it has neither an include guard nor a
// namespace of its own.
//
// Tiles 0 to 2 hold the sums of 16 rows and up to three vectors of lanes, tile
// 3 a block of a panel, tiles 4 to 6 one of the factors.

/// The compiler does not know what tiles read.
RENET_INLINE void FinishWriting() { __asm__ volatile("" ::: "memory"); }

/// Tiles 0 to 2 += panel * b, as MultiplyPanel does; strides in elements.
template <int kVectors>
RENET_INLINE void MultiplyTiles(const float* panel, size_t panel_stride,
    size_t panel_step, const float* b, int b_stride, int depth) {
  for (int k = 0; k < depth; k += 16) {
    _tile_loadd(3, panel, panel_stride * sizeof(float));
    _tile_loadd(4, b, b_stride * sizeof(float));
    _tile_dpbf16ps(0, 3, 4);
    if constexpr (kVectors > 1) {
      _tile_loadd(5, b + 16, b_stride * sizeof(float));
      _tile_dpbf16ps(1, 3, 5);
    }
    if constexpr (kVectors > 2) {
      _tile_loadd(6, b + 32, b_stride * sizeof(float));
      _tile_dpbf16ps(2, 3, 6);
    }
    panel += panel_step;
    b += 16 * b_stride;
  }
}

template <int kVectors>
RENET_INLINE void ClearTiles() {
  _tile_zero(0);
  if constexpr (kVectors > 1) _tile_zero(1);
  if constexpr (kVectors > 2) _tile_zero(2);
}

template <int kVectors>
RENET_INLINE void LoadTiles(const float* sums, size_t stride) {
  _tile_loadd(0, sums, stride * sizeof(float));
  if constexpr (kVectors > 1) _tile_loadd(1, sums + 16, stride * sizeof(float));
  if constexpr (kVectors > 2) _tile_loadd(2, sums + 32, stride * sizeof(float));
}

template <int kVectors>
RENET_INLINE void StoreTiles(float* sums, size_t stride) {
  _tile_stored(0, sums, stride * sizeof(float));
  if constexpr (kVectors > 1) {
    _tile_stored(1, sums + 16, stride * sizeof(float));
  }
  if constexpr (kVectors > 2) {
    _tile_stored(2, sums + 32, stride * sizeof(float));
  }
}

/// How many panels' sums are formed before they are needed, since tiles take long
/// and leave the vector units free; and how often a bias lies in the work area.
constexpr int kPanelsAhead = 1;
constexpr int kBiasLanes = 16;

/// A panel's sums: bias + W_x x + W_h s, into out (kRows x lanes); x and s as
/// factors.
template <typename Dtype, int kVectors>
RENET_INLINE void GateSums(const Dtype* panel, const Dtype* bias,
    const Dtype* input, int inputs, const Dtype* state, int hidden,
    Dtype* out) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  constexpr int kTileLanes = kVectors * kLanes;
  FinishWriting();
  _tile_loadd(0, bias, kLanes * sizeof(float));
  if constexpr (kVectors > 1) _tile_loadd(1, bias, kLanes * sizeof(float));
  if constexpr (kVectors > 2) _tile_loadd(2, bias, kLanes * sizeof(float));
  MultiplyTiles<kVectors>(panel, 16, 16 * kRows, input, kTileLanes,
      Depth(inputs));
  MultiplyTiles<kVectors>(panel + static_cast<size_t>(Depth(inputs)) * kRows,
      16, 16 * kRows, state, kTileLanes, Depth(hidden));
  StoreTiles<kVectors>(out, kTileLanes);
}

/// rows x lanes of out = (or +=) a packed matrix times b: factors of as many
/// values as depth says; rows need not be a multiple of the tiles'.
template <typename Dtype, int kVectors>
void MultiplyMatrix(const Dtype* packed, const Dtype* const* b,
    const int* depth, int segments, bool add, int rows, Dtype* out) {
  constexpr int kTileLanes = kVectors * Width<Dtype>::kLanes;
  alignas(64) Dtype part[kRows * kTileLanes];
  const Dtype* panel = packed;
  FinishWriting();
  for (int row = 0; row < rows; row += kRows) {
    Dtype* const to = out + static_cast<size_t>(row) * kTileLanes;
    const int count = Min(rows - row, kRows) * kTileLanes;
    const bool is_whole = rows - row >= kRows;
    if (add && is_whole) {
      LoadTiles<kVectors>(to, kTileLanes);
    } else {
      ClearTiles<kVectors>();
    }
    for (int segment = 0; segment < segments; ++segment) {
      MultiplyTiles<kVectors>(panel, 16, 16 * kRows, b[segment], kTileLanes,
          Depth(depth[segment]));
      panel += static_cast<size_t>(Depth(depth[segment])) * kRows;
    }
    StoreTiles<kVectors>(is_whole ? to : part, kTileLanes);
    for (int i = 0; !is_whole && i < count; ++i) {
      to[i] = add ? to[i] + part[i] : part[i];
    }
  }
}
