#include "caffe/onednn/sub_images.hpp"

#include <cstddef>
#include <cstring>

namespace caffe {

void SubImages::Split(const float* map, float* parts) const {
  const size_t cell = block_width * sizeof(float);
  const int images = count();
  const int d = dilation;
#pragma omp parallel for collapse(2)
  for (int image = 0; image < images; ++image) {
    for (int block = 0; block < blocks; ++block) {
      const int n = image / (d * d);
      const int first_row = image / d % d;
      const int first_column = image % d;
      const float* const plane =
          map + (static_cast<size_t>(n) * map_blocks + block) * height * width * block_width;
      float* part = parts
          + (static_cast<size_t>(image) * blocks + block) * rows() * columns() * block_width;
      if (d == 1) {
        std::memcpy(part, plane, cell * height * width);
        continue;
      }
      for (int row = first_row; row < rows() * d; row += d) {
        for (int column = first_column; column < columns() * d; column += d) {
          if (row < height && column < width) {
            std::memcpy(part, plane + (static_cast<size_t>(row) * width + column) * block_width, cell);
          } else {
            std::memset(part, 0, cell);
          }
          part += block_width;
        }
      }
    }
  }
}

void SubImages::Join(const float* parts, float* map) const {
  const size_t cell = block_width * sizeof(float);
  const int d = dilation;
#pragma omp parallel for collapse(2)
  for (int n = 0; n < num; ++n) {
    for (int block = 0; block < blocks; ++block) {
      float* cells =
          map + (static_cast<size_t>(n) * map_blocks + block) * height * width * block_width;
      if (d == 1) {
        std::memcpy(cells,
            parts + (static_cast<size_t>(n) * blocks + block) * height * width * block_width,
            cell * height * width);
        continue;
      }
      for (int row = 0; row < height; ++row) {
        for (int column = 0; column < width; ++column) {
          const int image = (n * d + row % d) * d + column % d;
          const float* const part = parts
              + (static_cast<size_t>(image) * blocks + block) * rows() * columns() * block_width;
          std::memcpy(cells, part + (static_cast<size_t>(row / d) * columns() + column / d) * block_width, cell);
          cells += block_width;
        }
      }
    }
  }
}

}  // namespace caffe
