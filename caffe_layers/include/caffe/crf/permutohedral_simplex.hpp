#ifndef CAFFE_CRF_PERMUTOHEDRAL_SIMPLEX_HPP_
#define CAFFE_CRF_PERMUTOHEDRAL_SIMPLEX_HPP_

#include <cmath>

#ifdef __CUDACC__
#define PERMUTOHEDRAL_FUNCTION __host__ __device__ __forceinline__
#else
#define PERMUTOHEDRAL_FUNCTION inline __attribute__((always_inline))
#endif

namespace caffe {

/**
 * @brief Where one point of d features lies in the permutohedral lattice (Adams,
 *        Baek and Davis 2010): a simplex of d + 1 corners, and its weights.
 *
 * The lattice is the points of whole coordinates, d + 1 of them, that add up to
 * 0 and leave the same remainder when divided by d + 1: the vertex's
 * remainder. A simplex has one corner of every remainder.
 *
 * The answers depend on which simplex a point falls into, so the coordinates
 * are computed in float, and in the order of operations that the reference
 * implementation of Kraehenbuehl and Koltun has; no product and sum may
 * be contracted.
 */
template <int kDimensions>
struct PermutohedralSimplex {
  static const int kCorners = kDimensions + 1;
  /// the corner of remainder 0
  int origin[kCorners];
  /// place of each coordinate in the descending order of the differences from
  /// the origin: a permutation of 0 .. d
  int rank[kCorners];
  /// barycentric weight of the corner of each remainder; they add up to 1
  float weight[kCorners];

  /// @brief Coordinate k of the corner with this remainder.
  PERMUTOHEDRAL_FUNCTION int Coordinate(int k, int remainder) const {
    return origin[k] + remainder -
        (rank[k] + remainder >= kCorners ? kCorners : 0);
  }
};

/**
 * @brief The factor of feature k on its way into the lattice, such that splat,
 *        blur and slice together have the standard deviation 1.
 */
PERMUTOHEDRAL_FUNCTION float PermutohedralScale(int k, int dimensions) {
  const float deviation =
      static_cast<float>(sqrt(2.0 / 3.0) * (dimensions + 1));
  return static_cast<float>(
      1.0 / sqrt(static_cast<double>((k + 2) * (k + 1))) * deviation);
}

/// @brief a * b, rounded before anything is added to it.
PERMUTOHEDRAL_FUNCTION float RoundedProduct(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

/// @brief The nearest whole number, ties to even, of any |x| < 2^22; further
///        out a float has no place between whole numbers anyway.
PERMUTOHEDRAL_FUNCTION float NearestWhole(float x) {
#ifdef __CUDA_ARCH__
  return rintf(x);
#else
  // 1.5 * 2^23; runs in vectors of every processor
  const float shift = 12582912.f;
  return (x + shift) - shift;
#endif
}

/// Points lie less than this many times d + 1 from the origin along each
/// coordinate: NearestWhole's range.
const float kPermutohedralReach = 4194304.f;

/**
 * @brief Finds a point's simplex.
 *
 * @param feature d features in units of the standard deviation
 * @param scale   PermutohedralScale of each
 * @return false where the point lies out of reach or its features are not
 *         numbers; the simplex is that of the origin then
 */
template <int kDimensions>
PERMUTOHEDRAL_FUNCTION bool PlacePoint(const float* feature,
    const float* scale, PermutohedralSimplex<kDimensions>* simplex) {
  const int kCorners = kDimensions + 1;
  const float inverse = 1.f / kCorners;
  // onto the plane of coordinates that add up to 0
  float elevated[kCorners];
  float sum = 0;
  for (int k = kDimensions; k > 0; --k) {
    const float scaled = RoundedProduct(feature[k - 1], scale[k - 1]);
    elevated[k] = sum - RoundedProduct(k, scaled);
    sum += scaled;
  }
  elevated[0] = sum;
  bool within = true;
  for (int k = 0; k < kCorners; ++k) {
    // not with >=, which holds for no NaN
    within = within && fabsf(elevated[k] * inverse) < kPermutohedralReach;
  }
  for (int k = 0; k < kCorners; ++k) {
    elevated[k] = within ? elevated[k] : 0.f;
  }
  // the nearest point of remainder 0, which may be off the plane
  float origin[kCorners];
  float excess = 0;
  for (int k = 0; k < kCorners; ++k) {
    const float whole = NearestWhole(RoundedProduct(inverse, elevated[k]));
    origin[k] = whole * kCorners;
    excess += whole;
  }
  int rank[kCorners];
  for (int k = 0; k < kCorners; ++k) { rank[k] = static_cast<int>(excess); }
  for (int k = 0; k < kDimensions; ++k) {
    for (int l = k + 1; l < kCorners; ++l) {
      const int after = elevated[k] - origin[k] < elevated[l] - origin[l];
      rank[k] += after;
      rank[l] += 1 - after;
    }
  }
  // back onto the plane along the coordinates that were rounded furthest
  float difference[kCorners];
  for (int k = 0; k < kCorners; ++k) {
    const int wrap =
        (rank[k] < 0 ? kCorners : 0) - (rank[k] >= kCorners ? kCorners : 0);
    simplex->rank[k] = rank[k] += wrap;
    origin[k] += wrap;
    simplex->origin[k] = static_cast<int>(origin[k]);
    difference[k] = RoundedProduct(elevated[k] - origin[k], inverse);
  }
  // the differences in descending order; a permutation without indexed stores,
  // which neither vectors nor registers have
  float by_rank[kCorners];
  for (int r = 0; r < kCorners; ++r) {
    by_rank[r] = 0;
    for (int k = 0; k < kCorners; ++k) {
      by_rank[r] = rank[k] == r ? difference[k] : by_rank[r];
    }
  }
  simplex->weight[0] = by_rank[kDimensions] + (1 - by_rank[0]);
  for (int r = 1; r < kCorners; ++r) {
    simplex->weight[r] = by_rank[kDimensions - r] - by_rank[kCorners - r];
  }
  return within;
}

/**
 * @brief How many points a lattice of `points` places.
 *
 * The reference implementation on x86 places points four at a time and fills
 * the last four up with points at the origin of the feature space. These have
 * no values, but the corners of their simplex are vertices of the lattice, and
 * what is blurred goes from vertex to vertex: dark pixels at an image's top left
 * have other neighbours with them than without. One such point, behind the
 * others, makes the same vertices.
 */
PERMUTOHEDRAL_FUNCTION int PlacedPoints(int points) {
  return points + (points % 4 != 0);
}

/**
 * @brief Finds the simplex of point i of PlacedPoints(points); the one that
 *        fills up has weights of 0.
 *
 * @param features features.Get(i, to) writes point i's d features
 * @return as PlacePoint
 */
template <int kDimensions, class Features>
PERMUTOHEDRAL_FUNCTION bool PlacePointOf(const Features& features, int points,
    int i, const float* scale, PermutohedralSimplex<kDimensions>* simplex) {
  float feature[kDimensions] = {};
  const bool is_point = i < points;
  if (is_point) { features.Get(i, feature); }
  const bool placed = PlacePoint<kDimensions>(feature, scale, simplex);
  for (int r = 0; r <= kDimensions && !is_point; ++r) {
    simplex->weight[r] = 0;
  }
  return placed;
}

}  // namespace caffe

#endif  // CAFFE_CRF_PERMUTOHEDRAL_SIMPLEX_HPP_
