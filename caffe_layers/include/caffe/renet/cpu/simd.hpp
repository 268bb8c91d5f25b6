// Vectors of the instruction set, sizes of register tiles, and aligned pieces
// of a work area. A part of sweep_kernels.hpp, which says why it has neither an
// include guard nor a namespace of its own.

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
