#ifndef CAFFE_UTIL_ROW_BANDS_HPP_
#define CAFFE_UTIL_ROW_BANDS_HPP_

namespace caffe {

/**
 * @brief Bands of a map's rows, for work that takes a few rows at a time.
 *
 *   map   blocks x height x row    (row: floats of one row, with its channels)
 *   band  blocks x band_height x row
 */
struct RowBands {
  int height, row, blocks, band_height;

  /// Copies the rows from `first` on, which may lie above the map or reach
  /// beyond its end: zeros there.
  void Cut(const float* map, int first, float* band) const;
  /// Copies a band to where it belongs; what reaches beyond the map is left out.
  void Paste(const float* band, int first, float* map) const;
};

}  // namespace caffe

#endif  // CAFFE_UTIL_ROW_BANDS_HPP_
