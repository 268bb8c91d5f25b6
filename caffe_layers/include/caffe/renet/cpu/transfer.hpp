// Moving blocks between maps (N x C x H x W) and tiles (step, row, lane). A
// part of sweep_kernels.hpp, which says why it has neither an include guard nor
// a namespace of its own.

/// A map as patches: row p of a tile is (channel, row, column) in the patch.
template <typename Dtype>
struct Map {
  Dtype* data;  // first channel to use of image 0
  size_t image_stride;
  int channels;
  int height;
  int width;
  bool vertical;
  int patch_height;
  int patch_width;
};

template <typename Dtype>
struct ShuffleTables {
  static constexpr int kLanes = Width<Dtype>::kLanes;
  typename Simd<Dtype>::Integer low[5][kLanes];
  typename Simd<Dtype>::Integer high[5][kLanes];
  constexpr ShuffleTables() : low(), high() {
    for (int stage = 0, s = 1; s < kLanes; ++stage, s *= 2) {
      for (int j = 0; j < kLanes; ++j) {
        low[stage][j] = (j & s) ? kLanes + j - s : j;
        high[stage][j] = (j & s) ? kLanes + j : j + s;
      }
    }
  }
};

template <typename Dtype>
struct Shuffle {
  alignas(64) static constexpr ShuffleTables<Dtype> kTables =
      ShuffleTables<Dtype>();
};
template <typename Dtype>
alignas(64) constexpr ShuffleTables<Dtype> Shuffle<Dtype>::kTables;

/// Transposes a square of kLanes x kLanes in registers, by butterflies.
template <typename Dtype>
RENET_INLINE void Transpose(typename Simd<Dtype>::Vector* m) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  typedef typename Simd<Dtype>::Index Index;
#pragma GCC unroll 5
  for (int stage = 0; (1 << stage) < kLanes; ++stage) {
    const int s = 1 << stage;
    Index low, high;
    memcpy(&low, Shuffle<Dtype>::kTables.low[stage], sizeof(low));
    memcpy(&high, Shuffle<Dtype>::kTables.high[stage], sizeof(high));
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (i & s) continue;
      const Vector a = m[i], b = m[i + s];
      m[i] = __builtin_shuffle(a, b, low);
      m[i + s] = __builtin_shuffle(a, b, high);
    }
  }
}

/// Which way Move goes between a map and a block of a tile.
enum Transfer { GATHER, SCATTER, SCATTER_ADD };

/// One value, or one vector of neighbours, between map and block.
template <Transfer kTransfer, typename MapValue, typename BlockValue>
RENET_INLINE void MoveValue(MapValue* map, BlockValue* block) {
  if constexpr (kTransfer == GATHER) {
    *block = *map;
  } else if constexpr (kTransfer == SCATTER) {
    *map = *block;
  } else {
    *map += *block;
  }
}

/**
 * @brief Moves rows of the map that are columns of the block, a square in
 *        registers at a time: horizontal sweeps over patches one pixel wide.
 *
 * rows: where the lanes' rows of the map start; NULL for a lane without one,
 * which gathers zeros. next: how far the next channel's rows lie.
 */
template <typename Dtype, Transfer kTransfer, typename MapValue,
    typename BlockValue>
RENET_INLINE void MoveTransposed(MapValue* const* rows, int begin, int end,
    size_t next, size_t step_stride, BlockValue* block) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  typedef typename Simd<Dtype>::Vector Vector;
  int t = begin;
  for (; t + kLanes <= end; t += kLanes) {
    BlockValue* column = block + (t - begin) * step_stride;
    Vector square[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      if constexpr (kTransfer == GATHER) {
        square[i] = rows[i] ? Load<Dtype>(rows[i] + t) : Vector{};
        if (rows[i]) __builtin_prefetch(rows[i] + next + t);
      } else {
        square[i] = Load<Dtype>(column + i * step_stride);
      }
    }
    Transpose<Dtype>(square);
    for (int i = 0; i < kLanes; ++i) {
      if constexpr (kTransfer == GATHER) {
        Store(square[i], column + i * step_stride);
      } else if (rows[i]) {
        if (kTransfer == SCATTER_ADD) square[i] += Load<Dtype>(rows[i] + t);
        Store(square[i], rows[i] + t);
      }
    }
  }
  for (; t < end; ++t) {
    for (int i = 0; i < kLanes; ++i) {
      BlockValue* value = block + (t - begin) * step_stride + i;
      if (rows[i]) {
        MoveValue<kTransfer>(rows[i] + t, value);
      } else if constexpr (kTransfer == GATHER) {
        *value = Dtype(0);
      }
    }
  }
}

/**
 * @brief Moves steps [begin, end) of a tile's lines between a map and a block
 *        [(t - begin), p, lane].
 *
 * Gathering fills lanes without a line, and what lies beyond the map's border,
 * with zeros; scattering leaves them out.
 */
template <typename Dtype, Transfer kTransfer, typename MapValue,
    typename BlockValue>
void Move(const Map<MapValue>& map, const Tile<Dtype>& tile, int begin,
    int end, BlockValue* block) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  const int lanes = tile.lanes;
  const int inputs_of_channel = map.patch_height * map.patch_width;
  const int inputs = map.channels * inputs_of_channel;
  const size_t step_stride = static_cast<size_t>(inputs) * lanes;
  const size_t plane = static_cast<size_t>(map.height) * map.width;
  for (int p = 0; p < inputs; ++p) {
    const int dx = p % map.patch_width;
    const int dy = p / map.patch_width % map.patch_height;
    MapValue* channel = map.data + p / inputs_of_channel * plane;
    BlockValue* rows = block + static_cast<size_t>(p) * lanes;
    // How far the channel lies whose values are fetched into the cache meanwhile:
    // planes are too far apart for a processor to foresee it.
    const size_t next = p + inputs_of_channel < inputs ? plane : 0;
    if (!map.vertical && map.patch_width == 1) {
      for (int group = 0; group < lanes; group += kLanes) {
        MapValue* starts[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          const int lane = group + i;
          const int y = tile.line[lane] * map.patch_height + dy;
          starts[i] = tile.image[lane] < 0 || y >= map.height ? NULL :
              channel + tile.image[lane] * map.image_stride +
              static_cast<size_t>(y) * map.width;
        }
        MoveTransposed<Dtype, kTransfer>(starts, begin, end, next, step_stride,
            rows + group);
      }
      continue;
    }
    // Distance in the map between neighbouring lines.
    const size_t stride = map.vertical ? map.patch_width :
        static_cast<size_t>(map.patch_height) * map.width;
    for (int first = 0; first < lanes;) {
      // A run of lanes whose lines are neighbours in one image.
      int last = first + 1;
      while (last < lanes && tile.image[last] == tile.image[first]) ++last;
      const int image = tile.image[first];
      for (int t = begin; t < end; ++t) {
        BlockValue* row = rows + (t - begin) * step_stride + first;
        const int y =
            (map.vertical ? t : tile.line[first]) * map.patch_height + dy;
        const int x =
            (map.vertical ? tile.line[first] : t) * map.patch_width + dx;
        // How many lanes of the run lie within the map.
        int inside = 0;
        if (image >= 0 && y < map.height && x < map.width) {
          inside = Min(last - first, map.vertical ?
              CeilDivide(map.width - x, map.patch_width) :
              CeilDivide(map.height - y, map.patch_height));
          MapValue* pixel = channel + image * map.image_stride +
              static_cast<size_t>(y) * map.width + x;
          if (stride == 1) {
            for (int i = 0; i < inside; i += kLanes) {
              __builtin_prefetch(pixel + next + i, kTransfer != GATHER);
            }
            for (int i = 0; i < inside; ++i) {
              MoveValue<kTransfer>(pixel + i, row + i);
            }
          } else {
            for (int i = 0; i < inside; ++i) {
              MoveValue<kTransfer>(pixel + i * stride, row + i);
            }
          }
        }
        if constexpr (kTransfer == GATHER) {
          SetZero(last - first - inside, row + inside);
        }
      }
      first = last;
    }
  }
}
