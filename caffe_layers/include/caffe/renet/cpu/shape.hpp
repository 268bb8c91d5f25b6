// What a unit's gates are, a sweep's shape in the terms of the recursion, and
// its tiles of lines. A part of sweep_kernels.hpp, which says why it has
// neither an include guard nor a namespace of its own.

/**
 * A unit's gates come in phases: a phase's products can be formed once the
 * state that they multiply is known. The candidate of a GRU is a phase of its
 * own, since it multiplies the reset state. kHistory counts the rows (of d)
 * that a step leaves for Backward.
 */
template <int kUnit> struct Unit;

template <> struct Unit<RENET_LSTM> {  // history: i, f, o, g, c
  static constexpr int kGates = 4, kPhases = 1, kHistory = 5;
  static constexpr int GatesOf(int) { return 4; }
};
template <> struct Unit<RENET_GRU> {  // history: z, r, n, h
  static constexpr int kGates = 3, kPhases = 2, kHistory = 4;
  static constexpr int GatesOf(int phase) { return phase == 0 ? 2 : 1; }
};
template <> struct Unit<RENET_IRNN> {  // history: h
  static constexpr int kGates = 1, kPhases = 1, kHistory = 1;
  static constexpr int GatesOf(int) { return 1; }
};

RENET_INLINE int Gates(int unit) {
  return unit == RENET_LSTM ? 4 : unit == RENET_GRU ? 3 : 1;
}
RENET_INLINE int HistoryRows(int unit) {
  return unit == RENET_LSTM ? 5 : unit == RENET_GRU ? 4 : 1;
}
RENET_INLINE int Phases(int unit) { return unit == RENET_GRU ? 2 : 1; }
RENET_INLINE int PhaseGates(int unit, int phase) {
  return unit == RENET_LSTM ? 4 : unit == RENET_IRNN ? 1 : phase == 0 ? 2 : 1;
}

// ---------------------------------------------------------------------------
// Geometry

/// A sweep's shape in the terms of the recursion.
struct Shape {
  int steps;        // T
  int lines;        // L, of one image
  int total_lines;  // N * L
  int inputs;       // P
  int hidden;       // d
  int gates;        // G
  int phases;
  int phase_rows[2];    // G_phase * d
  int phase_offset[2];  // first row of the phase in a block of gate gradients
  int gate_rows;        // rows of that block; phases begin at register tiles
  int vectors;          // vectors that hold all lines
  int block_steps;      // steps whose input and output are moved together
  int chunk_steps;      // steps whose weight gradient is formed together
};

template <typename Dtype>
RENET_INLINE Shape GetShape(const ReNetSweep<Dtype>& sweep) {
  Shape shape;
  const int rows = CeilDivide(sweep.height, sweep.patch_height);
  const int columns = CeilDivide(sweep.width, sweep.patch_width);
  shape.steps = sweep.vertical ? rows : columns;
  shape.lines = sweep.vertical ? columns : rows;
  shape.total_lines = sweep.num * shape.lines;
  shape.inputs = sweep.channels * sweep.patch_height * sweep.patch_width;
  shape.hidden = sweep.hidden;
  shape.gates = Gates(sweep.unit);
  shape.phases = Phases(sweep.unit);
  shape.gate_rows = 0;
  for (int phase = 0; phase < 2; ++phase) {
    const bool exists = phase < shape.phases;
    shape.phase_rows[phase] =
        exists ? PhaseGates(sweep.unit, phase) * sweep.hidden : 0;
    shape.phase_offset[phase] = shape.gate_rows;
    shape.gate_rows += RoundUp(shape.phase_rows[phase], kRows);
  }
  const int lanes = Width<Dtype>::kLanes;
  shape.vectors = CeilDivide(shape.total_lines, lanes);
  // A horizontal sweep reads columns of the map: a block of a cache line's
  // width uses what each line brings.
  shape.block_steps = Max(16, lanes);
  const size_t step_bytes = sizeof(Dtype) * kMaxVectors * lanes *
      (shape.gate_rows + shape.inputs + 2 * shape.hidden);
  shape.chunk_steps = shape.block_steps;
  while (shape.chunk_steps > 1 && shape.chunk_steps * step_bytes > kChunkBytes)
    shape.chunk_steps /= 2;
  return shape;
}

/// Vectors of lines before tile i: the lines are spread evenly.
RENET_INLINE int TileBegin(int vectors, int tiles, int i) {
  return static_cast<int>(static_cast<int64_t>(vectors) * i / tiles);
}

/// The lines of one tile; a lane beyond the last line has image -1.
template <typename Dtype>
struct Tile {
  int lanes;
  int vector_begin;
  int image[kMaxVectors * Width<Dtype>::kLanes];
  int line[kMaxVectors * Width<Dtype>::kLanes];
};

template <typename Dtype>
RENET_INLINE void LocateTile(const Shape& shape, int tiles, int i,
    Tile<Dtype>* tile) {
  const int lanes = Width<Dtype>::kLanes;
  const int begin = TileBegin(shape.vectors, tiles, i);
  tile->vector_begin = begin;
  tile->lanes = (TileBegin(shape.vectors, tiles, i + 1) - begin) * lanes;
  for (int lane = 0; lane < tile->lanes; ++lane) {
    const int line = begin * lanes + lane;
    const bool exists = line < shape.total_lines;
    tile->image[lane] = exists ? line / shape.lines : -1;
    tile->line[lane] = exists ? line % shape.lines : 0;
  }
}
