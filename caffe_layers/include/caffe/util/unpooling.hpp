#ifndef CAFFE_UTIL_UNPOOLING_HPP_
#define CAFFE_UTIL_UNPOOLING_HPP_

#include "caffe/util/host_device.hpp"

namespace caffe {

/// A pooling's windows along one axis of the map that it reads.
struct PoolingAxis {
  int windows;
  int size;  // of the map
  int kernel;
  int stride;
  int pad;
};

/// The map's places that a window covers, begin .. end - 1 (none where end <=
/// begin), or the windows that cover a place.
struct PoolingSpan {
  int begin;
  int end;
};

CAFFE_HOST_DEVICE inline PoolingSpan PlacesOf(const PoolingAxis& axis,
    int window) {
  const int start = window * axis.stride - axis.pad;
  const int stop = start + axis.kernel;
  const PoolingSpan span = { start > 0 ? start : 0,
      stop < axis.size ? stop : axis.size };
  return span;
}

/// How many places a window has, of the map and of the padding around it (1
/// where it lies beyond them); what Caffe's average pooling divides by.
CAFFE_HOST_DEVICE inline int LengthOf(const PoolingAxis& axis, int window) {
  const int left = axis.size + 2 * axis.pad - window * axis.stride;
  return axis.kernel < left ? axis.kernel : left > 0 ? left : 1;
}

CAFFE_HOST_DEVICE inline PoolingSpan WindowsOf(const PoolingAxis& axis,
    int place) {
  const int padded = place + axis.pad;
  const int behind = padded / axis.stride + 1;
  const PoolingSpan span = {
      padded < axis.kernel ? 0 : (padded - axis.kernel) / axis.stride + 1,
      behind < axis.windows ? behind : axis.windows };
  return span;
}

/// The value of window (row, column) counts this much in each of its places:
/// its equal part of 1, or 1.
template <typename Dtype>
CAFFE_HOST_DEVICE inline Dtype PartOf(const PoolingAxis& rows,
    const PoolingAxis& columns, bool average, int row, int column) {
  return average ? Dtype(1) /
      (Dtype(LengthOf(rows, row)) * LengthOf(columns, column)) : Dtype(1);
}

/// Adds what a window gives its places of the map (rows.size x columns.size).
template <typename Dtype>
inline void SpreadWindow(const PoolingAxis& rows, const PoolingAxis& columns,
    bool average, Dtype value, int window, Dtype* map) {
  const int row = window / columns.windows;
  const int column = window % columns.windows;
  const PoolingSpan down = PlacesOf(rows, row);
  const PoolingSpan across = PlacesOf(columns, column);
  const Dtype part =
      PartOf<Dtype>(rows, columns, average, row, column) * value;
  for (int y = down.begin; y < down.end; ++y) {
    for (int x = across.begin; x < across.end; ++x) {
      map[y * columns.size + x] += part;
    }
  }
}

/// How many windows Caffe's pooling has along an axis.
inline int WindowCountOf(const PoolingAxis& axis) {
  const int steps = axis.size + 2 * axis.pad - axis.kernel;
  return steps > 0 ? (steps - 1) / axis.stride + 2 : 1;
}

/// The sum of what the windows (rows.windows x columns.windows) give a place,
/// in the order of the windows.
template <typename Dtype>
CAFFE_HOST_DEVICE inline Dtype SpreadValue(const PoolingAxis& rows,
    const PoolingAxis& columns, bool average, const Dtype* windows, int place) {
  const PoolingSpan down = WindowsOf(rows, place / columns.size);
  const PoolingSpan across = WindowsOf(columns, place % columns.size);
  Dtype sum = 0;
  for (int row = down.begin; row < down.end; ++row) {
    for (int column = across.begin; column < across.end; ++column) {
      sum += PartOf<Dtype>(rows, columns, average, row, column) *
          windows[row * columns.windows + column];
    }
  }
  return sum;
}

/// The transpose of SpreadValue: a window's sum over its places of the map
/// (rows.size x columns.size).
template <typename Dtype>
CAFFE_HOST_DEVICE inline Dtype CollectValue(const PoolingAxis& rows,
    const PoolingAxis& columns, bool average, const Dtype* map, int window) {
  const int row = window / columns.windows;
  const int column = window % columns.windows;
  const PoolingSpan down = PlacesOf(rows, row);
  const PoolingSpan across = PlacesOf(columns, column);
  Dtype sum = 0;
  for (int y = down.begin; y < down.end; ++y) {
    for (int x = across.begin; x < across.end; ++x) {
      sum += map[y * columns.size + x];
    }
  }
  return sum * PartOf<Dtype>(rows, columns, average, row, column);
}

/**
 * Where in its map (rows.size x columns.size) the value of a window goes, which
 * is one of many windows of many maps: where the mask says, or to the first
 * place of the window. -1 where the mask says no place of the map, which NaN
 * and fractions are not.
 *
 * @param mask of all windows; NULL: there is none
 */
template <typename Dtype>
CAFFE_HOST_DEVICE inline int UnpooledPlace(const PoolingAxis& rows,
    const PoolingAxis& columns, const Dtype* mask, int window) {
  const int area = rows.size * columns.size;
  if (mask != NULL) {
    const Dtype value = mask[window];
    if (!(value >= 0 && value < area)) { return -1; }
    const int place = static_cast<int>(value);
    return place == value ? place : -1;
  }
  const int column = window % columns.windows;
  const int row = window / columns.windows % rows.windows;
  const int y = PlacesOf(rows, row).begin;
  const int x = PlacesOf(columns, column).begin;
  return (y < rows.size ? y : rows.size - 1) * columns.size +
      (x < columns.size ? x : columns.size - 1);
}

}  // namespace caffe

#endif  // CAFFE_UTIL_UNPOOLING_HPP_
