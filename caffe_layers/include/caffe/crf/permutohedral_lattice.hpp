#ifndef CAFFE_CRF_PERMUTOHEDRAL_LATTICE_HPP_
#define CAFFE_CRF_PERMUTOHEDRAL_LATTICE_HPP_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "caffe/crf/lattice_normalization.hpp"
#include "caffe/crf/permutohedral_simplex.hpp"
#include "caffe/crf/vertex_table.hpp"

namespace caffe {

/**
 * @brief The lines of one axis: for each line its vertices from the lowest up,
 *        of which the last one, v, is written as ~v.
 *
 * A vertex without neighbours along the axis is in no line: the blur leaves it
 * as it is.
 */
struct PermutohedralLines {
  /// Vertex of an entry, the last of its line or not.
  static PERMUTOHEDRAL_FUNCTION int Vertex(int entry) {
    return entry ^ (entry >> 31);
  }

  /// behind the last entry lie kAhead more that may be read
  static const int kAhead = 16;
  const int* entry;
  /// chunks + 1: chunk n has the entries chunk_begin[n] .. [n + 1] - 1, which
  /// are whole lines, so chunks can be blurred at the same time
  const int* chunk_begin;
  int chunks;
};

/**
 * @brief A lattice as the filter reads it. The vertices are 1 .. vertices; 0 is
 *        none, and its values mean nothing.
 */
struct PermutohedralFilterPlan {
  int count;
  /// d + 1: corners of a simplex, and axes of the blur
  int corners;
  int vertices;
  /// vertices + 2: vertex v has the entries first_entry[v] .. [v + 1] - 1
  const int* first_entry;
  /// of each entry: its point, and the factor of the point's values; behind
  /// the last one lie kEntriesAhead more that may be read
  static const int kEntriesAhead = 8;
  const int* entry_point;
  const float* entry_weight;
  /// count x corners: a point's vertices, and the factors of their values;
  /// behind the last point's vertices lie those of kPointsAhead more that may
  /// be read
  static const int kPointsAhead = 4;
  const int* vertex;
  const float* weight;
  /// of each axis in the order of the blurs; lines of one axis have no vertex in
  /// common
  static const int kMostCorners = 6;
  PermutohedralLines lines[kMostCorners];
};

/**
 * @brief The permutohedral lattice of count points in a feature space of d
 *        dimensions (Adams, Baek and Davis 2010), with the
 *        normalisations of Kraehenbuehl and Koltun.
 *
 * Splat: every point spreads its values over the d + 1 vertices of its simplex
 * with barycentric weights. Blur: along each of the d + 1 axes with
 * [1/2 1 1/2]. Slice: every point reads its vertices with the same weights.
 * Together they approximate K with K_ij = exp(-|f_i - f_j|^2 / 2) up to one
 * factor. The weights of a plan hold the factors of LatticeNormalization: its
 * filter is the normalised one.
 *
 * The answer does not depend on the number of threads.
 */
template <int kDimensions>
class PermutohedralLattice {
 public:
  static const int kCorners = kDimensions + 1;

  PermutohedralLattice() : count_(0), placed_(0), vertices_(0) {}

  /**
   * @brief Places the points 0 .. count - 1.
   *
   * @param features features.Get(i, to) writes point i's d features, in units
   *        of the standard deviation, from any thread
   * @param normalization of the filter
   * @return false, and there is no lattice, where a point lies out of its reach
   *         or a feature is not a number (see PlacePoint)
   */
  template <typename Features>
  bool Build(const Features& features, int count,
      LatticeNormalization normalization) {
    normalization_ = normalization;
    Resize(count);
    float scale[kDimensions];
    for (int k = 0; k < kDimensions; ++k) {
      scale[k] = PermutohedralScale(k, kDimensions);
    }
    int* lowest = lowest_;
    int* highest = highest_;
    bool within = true;
#pragma omp parallel for schedule(static) reduction(&&: within) \
    reduction(min: lowest[:kDimensions]) reduction(max: highest[:kDimensions])
    for (int i = 0; i < placed_; ++i) {
      PermutohedralSimplex<kDimensions> simplex;
      within = PlacePointOf<kDimensions>(features, count, i, scale, &simplex)
          && within;
      std::copy(simplex.weight, simplex.weight + kCorners,
          &weight_[static_cast<size_t>(i) * kCorners]);
      Place& place = places_[i];
      place.order = 0;
      for (int k = 0; k < kCorners; ++k) {
        place.order |= k << (3 * simplex.rank[k]);
      }
      for (int k = 0; k < kDimensions; ++k) {
        place.quotient[k] = simplex.origin[k] / kCorners;
        lowest[k] = std::min(lowest[k], place.quotient[k]);
        highest[k] = std::max(highest[k], place.quotient[k]);
      }
    }
    if (within) { Connect(); }
    return within;
  }

  /**
   * @brief The normalised filter, or its transpose.
   *
   * Missing vertices make the blurs of two axes differ by their order, so the
   * lattice is not quite symmetric: the exact transpose goes through the axes
   * backwards.
   */
  PermutohedralFilterPlan plan(bool transposed = false) const;
  int count() const { return count_; }
  int vertices() const { return vertices_; }

 private:
  /// A simplex: coordinates 0 .. d - 1 of its corner of remainder 0, divided by
  /// d + 1; and for each rank, in 3 bits, the coordinate that has it.
  struct Place {
    int quotient[kDimensions];
    uint32_t order;
    bool operator==(const Place& other) const {
      return order == other.order &&
          std::equal(quotient, quotient + kDimensions, other.quotient);
    }
  };

  /// The points are numbered in bands, each by a thread of its own.
  template <typename Key>
  struct Band {
    VertexTable<Key> table;
    /// of the band's vertices, from 1: the number of entries, later the place
    /// of the next one; and the number in the whole lattice
    std::vector<int> entries;
    std::vector<int> vertex;
  };

  /// A vertex as it is sorted.
  template <typename Key>
  struct KeyedVertex {
    Key key;
    int vertex;
  };

  /// What numbering with keys of one width needs, kept between calls.
  template <typename Key>
  struct Numbering {
    VertexTable<Key> table;
    std::vector<Band<Key> > bands;
    /// the vertices of each remainder, in the order of their keys, and room to
    /// sort them
    std::vector<KeyedVertex<Key> > sorted[kCorners], unsorted[kCorners];
    /// of a key's fields: the value of a step in each coordinate's quotient
    /// (the last coordinate follows from the others and has none)
    Key step[kCorners];
  };

  void Resize(int count);
  void Connect();
  template <typename Key>
  void ConnectWith(Numbering<Key>* numbering, const int* bits);
  template <typename Key>
  void NumberBand(const Numbering<Key>& numbering, int begin, int end,
      Band<Key>* band);
  template <typename Key>
  void MergeBands(Numbering<Key>* numbering);
  template <typename Key>
  void ListEntries(int begin, int end, Band<Key>* band);
  template <typename Key>
  void SortVertices(Numbering<Key>* numbering, int bits);
  template <typename Key>
  void FindNeighbours(const Numbering<Key>& numbering);
  void ListLines();
  void Normalise();

  LatticeNormalization normalization_;
  int count_;
  int placed_;  // PlacedPoints(count_)
  int vertices_;
  std::vector<Place> places_;
  int lowest_[kDimensions], highest_[kDimensions];
  Numbering<uint64_t> numbering_;
  Numbering<unsigned __int128> wide_numbering_;
  /// what the plan points to
  std::vector<int> first_entry_, entry_point_, vertex_, line_entry_;
  std::vector<int> chunk_begin_[kCorners];
  std::vector<float> entry_weight_, weight_;
  /// where one side has D^-1: the weights with it, and those above without
  std::vector<float> one_sided_entry_weight_, one_sided_weight_;
  /// corners x (vertices + 1): the vertex above along each axis, and whether
  /// there is one below
  std::vector<int> above_;
  std::vector<char> has_below_;
  /// vertices + 1
  std::vector<float> values_;
  /// count
  std::vector<float> normalisation_;
};

}  // namespace caffe

#endif  // CAFFE_CRF_PERMUTOHEDRAL_LATTICE_HPP_
