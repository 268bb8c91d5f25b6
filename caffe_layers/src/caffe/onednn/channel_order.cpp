#include "caffe/onednn/channel_order.hpp"

#include <algorithm>
#include <cfloat>
#include <cstring>

#include "caffe/onednn/each_processor.hpp"

namespace caffe {

namespace {

// Positions that a thread takes at a time: a map of few blocks serves many
// threads, too.
const int kPositions = 1024;
const size_t kValues = 1 << 14;

float Rectified(float value) { return value < 0 ? 0 : value; }
// As ReLULayer, which makes NaN of -infinity, by which a training that overflows is told.
float RectifiedToLearn(float value) { return value > 0 ? value : 0 * value + 0; }

// The coefficients of a block's channels; zeros where it is filled up.
struct OfBlock {
  float values[16];
  OfBlock(const std::vector<float>& all, int block, int width) {
    for (int i = 0; i < width; ++i) {
      const size_t channel = static_cast<size_t>(block) * width + i;
      values[i] = channel < all.size() ? all[channel] : 0;
    }
    // in Caffe's order: the same for all values of a line
    for (int i = width; i < 16; ++i) { values[i] = width == 8 ? values[i - 8] : values[0]; }
  }
};

// Whole lines of 16 values, then what is left: coefficients repeat every 16.
FOR_EACH_PROCESSOR
void ScaleLine(int count, const float* from, const float* scale,
    const float* shift, float* to) {
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 16; ++j) { to[i + j] = scale[j] * from[i + j] + shift[j]; }
  }
  for (int j = 0; i + j < count; ++j) { to[i + j] = scale[j] * from[i + j] + shift[j]; }
}

FOR_EACH_PROCESSOR
void ScaleAndRectifyLine(int count, const float* from, const float* scale,
    const float* shift, float* to) {
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 16; ++j) {
      to[i + j] = Rectified(scale[j] * from[i + j] + shift[j]);
    }
  }
  for (int j = 0; i + j < count; ++j) {
    to[i + j] = Rectified(scale[j] * from[i + j] + shift[j]);
  }
}

FOR_EACH_PROCESSOR
void ScaleAndRectifyToLearnLine(int count, const float* from, const float* scale,
    const float* shift, float* to) {
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 16; ++j) {
      to[i + j] = RectifiedToLearn(scale[j] * from[i + j] + shift[j]);
    }
  }
  for (int j = 0; i + j < count; ++j) {
    to[i + j] = RectifiedToLearn(scale[j] * from[i + j] + shift[j]);
  }
}

FOR_EACH_PROCESSOR
void SlopeLine(int count, const float* from, const float* slope, float* to) {
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 16; ++j) {
      to[i + j] = from[i + j] > 0 ? from[i + j] : slope[j] * from[i + j];
    }
  }
  for (int j = 0; i + j < count; ++j) {
    to[i + j] = from[i + j] > 0 ? from[i + j] : slope[j] * from[i + j];
  }
}

FOR_EACH_PROCESSOR
void ScaleSumLine(int count, const float* a, const float* scale, const float* b,
    const float* other_scale, const float* shift, float* to) {
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 16; ++j) {
      to[i + j] = scale[j] * a[i + j] + other_scale[j] * b[i + j] + shift[j];
    }
  }
  for (int j = 0; i + j < count; ++j) {
    to[i + j] = scale[j] * a[i + j] + other_scale[j] * b[i + j] + shift[j];
  }
}

// A line's sums: of 16 values that are 16 apart from each other.
FOR_EACH_PROCESSOR
void SumLine(int count, const float* a, const float* b, const float* center,
    const float* other_center, float* sums, float* products) {
  float sum[16] = {0}, product[16] = {0};
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 16; ++j) {
      sum[j] += a[i + j];
      product[j] += (a[i + j] - center[j]) * (b[i + j] - other_center[j]);
    }
  }
  for (int j = 0; i + j < count; ++j) {
    sum[j] += a[i + j];
    product[j] += (a[i + j] - center[j]) * (b[i + j] - other_center[j]);
  }
  for (int j = 0; j < 16; ++j) {
    sums[j] = sum[j];
    products[j] = product[j];
  }
}

FOR_EACH_PROCESSOR
void WeightedLine(int count, float a, const float* from, float b,
    const float* other, bool rectify, float* to) {
  if (rectify) {
    for (int i = 0; i < count; ++i) { to[i] = Rectified(a * from[i] + b * other[i]); }
  } else {
    for (int i = 0; i < count; ++i) { to[i] = a * from[i] + b * other[i]; }
  }
}

FOR_EACH_PROCESSOR
void ProductLine(int count, const float* from, const float* other, bool rectify,
    float* to) {
  if (rectify) {
    for (int i = 0; i < count; ++i) { to[i] = Rectified(from[i] * other[i]); }
  } else {
    for (int i = 0; i < count; ++i) { to[i] = from[i] * other[i]; }
  }
}

FOR_EACH_PROCESSOR
void RectifyLine(int count, float* values) {
  for (int i = 0; i < count; ++i) { values[i] = Rectified(values[i]); }
}

// A window of one position of the top: its rows and columns within the map, and
// by how many positions an average divides.
struct Window {
  int top, bottom, left, right, size;
  Window(const PoolingWindows& w, int row, int column) {
    top = row * w.stride_height - w.pad_height;
    left = column * w.stride_width - w.pad_width;
    bottom = std::min(top + w.kernel_height, w.height + w.pad_height);
    right = std::min(left + w.kernel_width, w.width + w.pad_width);
    size = (bottom - top) * (right - left);
    top = std::max(top, 0);
    left = std::max(left, 0);
    bottom = std::min(bottom, w.height);
    right = std::min(right, w.width);
  }
};

// Calls body(window, size, i, j) for each window of each block: its channels of
// the bottom's values begin at i, those of the top's at j. Blocks are divided
// among threads.
template <typename Begin, typename Body>
void ForEachWindow(const ChannelOrder& order, const PoolingWindows& w,
    const Begin& begin, const Body& body) {
  const size_t below = static_cast<size_t>(w.height) * w.width * order.width;
  const size_t above =
      static_cast<size_t>(w.out_height) * w.out_width * order.width;
#pragma omp parallel for
  for (int block = 0; block < order.num * order.blocks; ++block) {
    begin(block * below, below);
    size_t there = block * above;
    for (int row = 0; row < w.out_height; ++row) {
      for (int column = 0; column < w.out_width; ++column) {
        body(Window(w, row, column), block * below, there);
        there += order.width;
      }
    }
  }
}

// Calls body(i) for each position of a window: its channels begin at value i.
template <typename Body>
void ForEachPosition(const Window& window, const PoolingWindows& w, int width,
    size_t map, const Body& body) {
  for (int y = window.top; y < window.bottom; ++y) {
    for (int x = window.left; x < window.right; ++x) {
      body(map + (static_cast<size_t>(y) * w.width + x) * width);
    }
  }
}

// Calls body(line's first value, its length, block) for pieces of all lines,
// divided among threads.
template <typename Body>
void ForEachLine(const ChannelOrder& order, const Body& body) {
  const int pieces = (order.positions + kPositions - 1) / kPositions;
#pragma omp parallel for collapse(2) if (order.count() > kValues)
  for (int block = 0; block < order.num * order.blocks; ++block) {
    for (int piece = 0; piece < pieces; ++piece) {
      const int first = piece * kPositions;
      const int positions = std::min(kPositions, order.positions - first);
      body((static_cast<size_t>(block) * order.positions + first) * order.width,
          positions * order.width, block % order.blocks);
    }
  }
}

// Calls body(first value, how many) for pieces of an array.
template <typename Body>
void ForEachPiece(size_t count, const Body& body) {
  const int pieces = static_cast<int>((count + kValues - 1) / kValues);
#pragma omp parallel for if (pieces > 1)
  for (int piece = 0; piece < pieces; ++piece) {
    const size_t first = piece * kValues;
    body(first, static_cast<int>(std::min(kValues, count - first)));
  }
}

}  // namespace

ChannelOrder::ChannelOrder(const std::vector<int>& shape, int block_width)
    : num(shape[0]), channels(shape[1]),
      blocks((shape[1] + block_width - 1) / block_width), positions(1),
      width(block_width) {
  for (size_t axis = 2; axis < shape.size(); ++axis) { positions *= shape[axis]; }
}

void ScaleAndShift(const ChannelOrder& order, const float* from,
    const std::vector<float>& scale, const std::vector<float>& shift,
    bool rectify, float* to) {
  ForEachLine(order, [&](size_t first, int count, int block) {
    const OfBlock factors(scale, block, order.width);
    const OfBlock terms(shift, block, order.width);
    (rectify ? ScaleAndRectifyLine : ScaleLine)(count, from + first,
        factors.values, terms.values, to + first);
  });
}

void ScaleAndShiftTwice(const ChannelOrder& order, const float* from,
    const std::vector<float>& scale, const std::vector<float>& shift, float* kept,
    const std::vector<float>& other_scale, const std::vector<float>& other_shift,
    bool rectify, float* to) {
  ForEachLine(order, [&](size_t first, int count, int block) {
    ScaleLine(count, from + first, OfBlock(scale, block, order.width).values,
        OfBlock(shift, block, order.width).values, kept + first);
    (rectify ? ScaleAndRectifyToLearnLine : ScaleLine)(count, kept + first,
        OfBlock(other_scale, block, order.width).values,
        OfBlock(other_shift, block, order.width).values, to + first);
  });
}

void ScaleSumAndShift(const ChannelOrder& order, const float* a,
    const std::vector<float>& scale, const float* b,
    const std::vector<float>& other_scale, const std::vector<float>& shift,
    float* to) {
  ForEachLine(order, [&](size_t first, int count, int block) {
    const OfBlock factors(scale, block, order.width);
    const OfBlock others(other_scale, block, order.width);
    const OfBlock terms(shift, block, order.width);
    ScaleSumLine(count, a + first, factors.values, b + first, others.values,
        terms.values, to + first);
  });
}

void ChannelSums(const ChannelOrder& order, const float* a, const float* b,
    const std::vector<float>& center, const std::vector<float>& other_center,
    std::vector<float>* sums, std::vector<float>* products) {
  sums->assign(order.channels, 0);
  products->assign(order.channels, 0);
#pragma omp parallel for
  for (int block = 0; block < order.blocks; ++block) {
    const OfBlock centers(center, block, order.width);
    const OfBlock other_centers(other_center, block, order.width);
    double sum[16] = {0}, product[16] = {0};
    for (int n = 0; n < order.num; ++n) {
      const size_t line = static_cast<size_t>(n * order.blocks + block)
          * order.positions;
      for (int first = 0; first < order.positions; first += kPositions) {
        const int positions = std::min(kPositions, order.positions - first);
        float line_sum[16], line_product[16];
        SumLine(positions * order.width, a + (line + first) * order.width,
            b + (line + first) * order.width, centers.values,
            other_centers.values, line_sum, line_product);
        for (int i = 0; i < 16; ++i) {
          sum[i % order.width] += line_sum[i];
          product[i % order.width] += line_product[i];
        }
      }
    }
    for (int i = 0; i < order.width; ++i) {
      const int channel = block * order.width + i;
      if (channel >= order.channels) { continue; }
      (*sums)[channel] = static_cast<float>(sum[i]);
      (*products)[channel] = static_cast<float>(product[i]);
    }
  }
}

void WeightedSum(size_t count, float a, const float* from, float b,
    const float* other, bool rectify, float* to) {
  ForEachPiece(count, [&](size_t first, int piece) {
    WeightedLine(piece, a, from + first, b, other + first, rectify, to + first);
  });
}

void Product(size_t count, const float* from, const float* other, bool rectify,
    float* to) {
  ForEachPiece(count, [&](size_t first, int piece) {
    ProductLine(piece, from + first, other + first, rectify, to + first);
  });
}

void Rectify(size_t count, float* values) {
  ForEachPiece(count, [&](size_t first, int piece) {
    RectifyLine(piece, values + first);
  });
}

void ClearFilling(const ChannelOrder& order, float* values) {
  const int last = order.channels % order.width;
  if (last == 0) { return; }
  const size_t line = static_cast<size_t>(order.positions) * order.width;
  for (int n = 0; n < order.num; ++n) {
    float* const block = values
        + (static_cast<size_t>(n + 1) * order.blocks - 1) * line;
    for (size_t i = 0; i < line; i += order.width) {
      std::fill(block + i + last, block + i + order.width, 0.f);
    }
  }
}

void ScaleNegative(const ChannelOrder& order, const float* from,
    const std::vector<float>& slope, float* to) {
  ForEachLine(order, [&](size_t first, int count, int block) {
    const OfBlock slopes(slope, block, order.width);
    SlopeLine(count, from + first, slopes.values, to + first);
  });
}

void AverageWindows(const ChannelOrder& order, const PoolingWindows& windows,
    const float* bottom, float* top) {
  const int width = order.width;
  ForEachWindow(order, windows, [](size_t, size_t) {},
      [&](const Window& window, size_t map, size_t there) {
    float sum[16] = {0};
    ForEachPosition(window, windows, width, map, [&](size_t here) {
      for (int i = 0; i < width; ++i) { sum[i] += bottom[here + i]; }
    });
    for (int i = 0; i < width; ++i) { top[there + i] = sum[i] / window.size; }
  });
}

void SpreadOverWindows(const ChannelOrder& order, const PoolingWindows& windows,
    const float* top_diff, float* bottom_diff) {
  const int width = order.width;
  ForEachWindow(order, windows, [&](size_t map, size_t count) {
    std::memset(bottom_diff + map, 0, count * sizeof(float));
  }, [&](const Window& window, size_t map, size_t there) {
    ForEachPosition(window, windows, width, map, [&](size_t here) {
      for (int i = 0; i < width; ++i) {
        bottom_diff[here + i] += top_diff[there + i] / window.size;
      }
    });
  });
}

void LargestOfWindows(const ChannelOrder& order, const PoolingWindows& windows,
    const float* bottom, float* top) {
  const int width = order.width;
  ForEachWindow(order, windows, [](size_t, size_t) {},
      [&](const Window& window, size_t map, size_t there) {
    float most[16];
    std::fill(most, most + width, -FLT_MAX);
    ForEachPosition(window, windows, width, map, [&](size_t here) {
      for (int i = 0; i < width; ++i) {
        most[i] = bottom[here + i] > most[i] ? bottom[here + i] : most[i];
      }
    });
    std::copy(most, most + width, top + there);
  });
}

}  // namespace caffe
