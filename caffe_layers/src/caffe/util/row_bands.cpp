#include "caffe/util/row_bands.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace caffe {

void RowBands::Cut(const float* map, int first, float* band) const {
  const size_t bytes = row * sizeof(float);
#pragma omp parallel for collapse(2)
  for (int block = 0; block < blocks; ++block) {
    for (int i = 0; i < band_height; ++i) {
      float* const to = band + (static_cast<size_t>(block) * band_height + i) * row;
      if (first + i >= 0 && first + i < height) {
        std::memcpy(to,
            map + (static_cast<size_t>(block) * height + first + i) * row, bytes);
      } else {
        std::memset(to, 0, bytes);
      }
    }
  }
}

void RowBands::Paste(const float* band, int first, float* map) const {
  const size_t bytes = std::min(band_height, height - first) * row * sizeof(float);
#pragma omp parallel for
  for (int block = 0; block < blocks; ++block) {
    std::memcpy(map + (static_cast<size_t>(block) * height + first) * row,
        band + static_cast<size_t>(block) * band_height * row, bytes);
  }
}

}  // namespace caffe
