// What the products multiply where they are of bfloat16: values rounded to
// nearest, ties to even, each two that lie next to each other along a sum in
// the place of one float. In place of factors.hpp; a part of sweep_kernels.hpp,
// which says why it has neither an include guard nor a namespace of its own.

typedef unsigned short Bfloat16  // NOLINT(runtime/int)
    __attribute__((may_alias));

/// How many values a product takes at once; factors are filled up with zeros.
#if defined(RENET_AMX)
constexpr int kDepthUnit = 32;
#else
constexpr int kDepthUnit = 2;
#endif

/// How many elements of a lane the factors of so many values take.
RENET_INLINE int Depth(int values) { return RoundUp(values, kDepthUnit) / 2; }

/// Of these what lies in a work area.
RENET_INLINE int FactorDepth(int values) { return Depth(values); }

typedef unsigned short Halves  // NOLINT(runtime/int)
    __attribute__((vector_size(RENET_VECTOR_BYTES / 2)));
typedef unsigned Words __attribute__((vector_size(RENET_VECTOR_BYTES)));

RENET_INLINE Halves Rounded(Simd<float>::Vector values) {
  return reinterpret_cast<Halves>(_mm512_cvtneps_pbh(values));
}

/// Lane by lane the two values, low in the first half.
RENET_INLINE Simd<float>::Vector Pair(Simd<float>::Vector low,
    Simd<float>::Vector high) {
  const Words first = __builtin_convertvector(Rounded(low), Words);
  const Words second = __builtin_convertvector(Rounded(high), Words);
  return reinterpret_cast<Simd<float>::Vector>(first | second << 16);
}

/// The factors of rows x lanes values.
template <typename Dtype, int kVectors>
RENET_INLINE const Dtype* Factors(const Dtype* values, int rows,
    Dtype* scratch) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  for (int k = 0; k < 2 * Depth(rows); k += 2) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      const Dtype* from = values + (k * kVectors + j) * kLanes;
      const Vector low = k < rows ? Load(from) : Vector{};
      const Vector high =
          k + 1 < rows ? Load(from + kVectors * kLanes) : Vector{};
      Store<Dtype>(Pair(low, high),
          scratch + (k / 2 * kVectors + j) * kLanes);
    }
  }
  return scratch;
}

/// sum += the products of both values of column and factor, lane by lane.
template <typename Dtype>
RENET_INLINE void MultiplyAdd(typename Simd<Dtype>::Vector column,
    Dtype factor, typename Simd<Dtype>::Vector* sum) {
  *sum = _mm512_dpbf16_ps(*sum, reinterpret_cast<__m512bh>(column),
      reinterpret_cast<__m512bh>(_mm512_set1_ps(factor)));
}

/// x to the nearest bfloat16, ties to even; a NaN stays one.
RENET_INLINE Bfloat16 Rounded(float x) {
  unsigned bits;
  memcpy(&bits, &x, sizeof(bits));
  const bool is_nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  return is_nan ? (bits >> 16) | 0x40 :
      (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
}

/// Packs kRows x depth values of weights, value(row, k), as a panel: the rows
/// of a pair next to each other or, for AMX, the pairs of a row, in blocks.
template <typename Dtype, typename Value>
RENET_INLINE void PackPanel(int depth, const Value& value, Dtype* panel) {
  constexpr int kBlock = kDepthUnit / 2;
  for (int k = 0; k < 2 * Depth(depth); ++k) {
    const int pair = k / 2;
    for (int r = 0; r < kRows; ++r) {
      Dtype* to = panel + (pair / kBlock * kRows + r) * kBlock + pair % kBlock;
      reinterpret_cast<Bfloat16*>(to)[k % 2] =
          k < depth ? Rounded(value(r, k)) : 0;
    }
  }
}

/// What a thread that multiplies has to hold: AMX's tiles of 16 rows of 64
/// bytes.
struct ProductUnits {
#if defined(RENET_AMX)
  RENET_INLINE ProductUnits() {
    struct alignas(64) {
      unsigned char palette, start_row, reserved[14];
      unsigned short row_bytes[16];  // NOLINT(runtime/int)
      unsigned char rows[16];
    } shapes = {};
    static_assert(sizeof(shapes) == 64, "as LDTILECFG reads it");
    shapes.palette = 1;
    for (int tile = 0; tile < 8; ++tile) {
      shapes.row_bytes[tile] = 64;
      shapes.rows[tile] = 16;
    }
    _tile_loadconfig(&shapes);
  }
  RENET_INLINE ~ProductUnits() { _tile_release(); }
#else
  RENET_INLINE ProductUnits() {}
#endif
};
