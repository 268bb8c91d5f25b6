#ifndef CAFFE_CRF_LATTICE_NORMALIZATION_HPP_
#define CAFFE_CRF_LATTICE_NORMALIZATION_HPP_

#include <cmath>

#include "caffe/crf/permutohedral_simplex.hpp"

namespace caffe {

/**
 * @brief On which sides of a filter K factors of D = diag(K 1) stand: both,
 *        D^-1/2 K D^-1/2; after alone, D^-1 K; before alone, K D^-1; neither.
 */
struct LatticeNormalization {
  bool before;
  bool after;

  PERMUTOHEDRAL_FUNCTION bool OneSided() const { return before != after; }
  /// @brief That of the transposed filter.
  LatticeNormalization Transposed() const {
    const LatticeNormalization transposed = {after, before};
    return transposed;
  }
  /// @brief A pixel's factor from its sum in K 1.
  template <typename Dtype>
  PERMUTOHEDRAL_FUNCTION Dtype Factor(Dtype sum) const {
    sum += Dtype(1e-20);
    return 1 / (OneSided() ? sum : static_cast<Dtype>(sqrt(sum)));
  }
  bool operator==(const LatticeNormalization& other) const {
    return before == other.before && after == other.after;
  }
};

}  // namespace caffe

#endif  // CAFFE_CRF_LATTICE_NORMALIZATION_HPP_
