// What the products multiply: here the values themselves (factors_bfloat16.hpp
// has the other kind), and the weights as the products read them. A part of
// sweep_kernels.hpp, which says why it has neither an include guard nor a
// namespace of its own.

/// How many elements of a lane the factors of so many values take.
RENET_INLINE int Depth(int values) { return values; }

/// Of these what lies in a work area.
RENET_INLINE int FactorDepth(int /* values */) { return 0; }

/// The factors of rows x lanes values.
template <typename Dtype, int kVectors>
RENET_INLINE const Dtype* Factors(const Dtype* values, int /* rows */,
    Dtype* /* scratch */) {
  return values;
}

/// sum += column * factor, lane by lane.
template <typename Dtype>
RENET_INLINE void MultiplyAdd(typename Simd<Dtype>::Vector column,
    Dtype factor, typename Simd<Dtype>::Vector* sum) {
  *sum += column * factor;
}

/// Packs kRows x depth values of weights, value(row, k), as a panel.
template <typename Dtype, typename Value>
RENET_INLINE void PackPanel(int depth, const Value& value, Dtype* panel) {
  for (int k = 0; k < depth; ++k) {
    for (int r = 0; r < kRows; ++r) panel[k * kRows + r] = value(r, k);
  }
}

/// What a thread that multiplies has to hold: nothing.
struct ProductUnits {
  RENET_INLINE ProductUnits() {}
};
