#ifndef CAFFE_UTIL_PERMUTATION_HPP_
#define CAFFE_UTIL_PERMUTATION_HPP_

#include <vector>

#include "caffe/util/host_device.hpp"

namespace caffe {

const int kMaxPermutedAxes = 32;  // as many as a blob may have

/// Axes of an array in another order: axis a of the result goes `steps[a]`
/// values of the array with each step, and is `sizes[a]` long.
struct Permutation {
  int axes;
  int sizes[kMaxPermutedAxes];
  int steps[kMaxPermutedAxes];
};

/**
 * Axis a of the result is axis order[a] of an array of this shape, or as many
 * values of it as `sizes` says by axis of the array. Axes that stay behind each
 * other are taken for one, those of size 1 for none.
 */
inline Permutation GetPermutation(const std::vector<int>& shape,
    const std::vector<int>& order, const std::vector<int>& sizes) {
  std::vector<int> steps(shape.size(), 1);
  for (int axis = static_cast<int>(shape.size()) - 2; axis >= 0; --axis) {
    steps[axis] = steps[axis + 1] * shape[axis + 1];
  }
  Permutation result = { 0, { 1 }, { 1 } };
  for (size_t i = 0; i < order.size(); ++i) {
    const int size = sizes[order[i]];
    const int step = steps[order[i]];
    if (size == 1) { continue; }
    const int last = result.axes - 1;
    if (last >= 0 && result.steps[last] == step * size) {
      result.sizes[last] *= size;
      result.steps[last] = step;
    } else {
      result.sizes[result.axes] = size;
      result.steps[result.axes++] = step;
    }
  }
  if (result.axes == 0) { result.axes = 1; }
  return result;
}

inline Permutation GetPermutation(const std::vector<int>& shape,
    const std::vector<int>& order) {
  return GetPermutation(shape, order, shape);
}

/// A part of an array of this shape, as large as `sizes`; where it begins is for
/// the caller to add.
inline Permutation GetCrop(const std::vector<int>& shape,
    const std::vector<int>& sizes) {
  std::vector<int> order;
  for (size_t axis = 0; axis < shape.size(); ++axis) { order.push_back(axis); }
  return GetPermutation(shape, order, sizes);
}

/// Where in the array the result's value `index` lies; with `axes` fewer than
/// there are, for an index of the first ones.
CAFFE_HOST_DEVICE inline int PermutedFrom(const Permutation& permutation,
    int axes, int index) {
  int from = 0;
  for (int axis = axes - 1; axis >= 0; --axis) {
    from += index % permutation.sizes[axis] * permutation.steps[axis];
    index /= permutation.sizes[axis];
  }
  return from;
}

}  // namespace caffe

#endif  // CAFFE_UTIL_PERMUTATION_HPP_
