#ifndef CAFFE_UTIL_PERMUTOHEDRAL_LATTICE_HPP_
#define CAFFE_UTIL_PERMUTOHEDRAL_LATTICE_HPP_

#include <vector>

namespace caffe {

/**
 * @brief Gaussian filtering of count points in a feature space of d dimensions
 *        in time linear in count and d^2 (Adams, Baek and Davis 2010).
 *
 * Splat: every point spreads its values over the d + 1 vertices of its simplex
 * with barycentric weights. Blur: along each of the d + 1 axes with
 * [1/2 1 1/2]. Slice: every point reads its vertices with the same weights.
 * The result approximates K values with K_ij = exp(-|f_i - f_j|^2 / 2) up to
 * one common factor, which a normalisation takes out.
 *
 * The lattice depends on where the points lie in it, so the coordinates are
 * computed in float, in the order of operations that the reference
 * implementation of Kraehenbuehl and Koltun has: equal features meet equal
 * vertices there and here.
 */
class PermutohedralLattice {
 public:
  PermutohedralLattice() : count_(0), corners_(0), vertices_(0) {}

  /// @brief Places count points; features is count x dimensions, in units of
  ///        the standard deviation.
  void Build(const float* features, int count, int dimensions);

  /**
   * @brief to = diag(factor) K diag(factor) from; both count x channels,
   *        channels contiguous; they may be the same. No factor is a factor
   *        of 1.
   *
   * Missing vertices make the blurs of two axes differ by their order, so K is
   * not quite symmetric: transposed goes through the axes backwards and gives
   * the exact K^T.
   *
   * @param scratch two buffers of (vertices + 1) x channels, kept by the
   *        caller between calls
   */
  template <typename Dtype>
  void Filter(const Dtype* from, const Dtype* factor, int channels,
      bool transposed, Dtype* to, std::vector<Dtype>* scratch) const;

  int count() const { return count_; }
  int vertices() const { return vertices_; }

 private:
  void PlacePoints(const float* features);
  void NumberVertices();
  void FindNeighbours();
  int Find(const int* key) const;

  int count_;
  /// d + 1: corners of a simplex, and axes of the blur
  int corners_;
  int vertices_;
  /// count x corners: vertex, 1 and up (0 is the empty one), and its weight
  std::vector<int> vertex_;
  std::vector<float> weight_;
  /// count x corners: nearest point of remainder 0, and the order of the
  /// differences from it
  std::vector<int> origin_;
  std::vector<int> rank_;
  /// the points of each vertex, so that threads splat without meeting
  std::vector<int> first_entry_;
  std::vector<int> entries_;
  /// corners x vertices x 2: neighbours along each axis
  std::vector<int> neighbours_;
  /// vertices x d, and the open-addressed table of vertices
  std::vector<int> keys_;
  std::vector<int> table_;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_PERMUTOHEDRAL_LATTICE_HPP_
