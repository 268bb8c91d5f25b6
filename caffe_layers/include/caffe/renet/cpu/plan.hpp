// How lines are spread over tiles and threads, and what each takes of the work
// area. A part of sweep_kernels.hpp, which says why it has neither an include
// guard nor a namespace of its own.

/// Weights as the register tiles read them, shared by all threads.
template <typename Dtype>
struct PackedWeights {
  Dtype* gates[2][2];      // [scan][phase] panels of (P + d) x kRows
  Dtype* gate_bias[2][2];  // [scan][phase] kBiasLanes of a row of the panels
  Dtype* input[2];         // [scan] W_x transposed: P rows, all gates deep
  Dtype* recurrent[2][2];  // [scan][phase] W_h transposed: d rows
};

template <typename Dtype>
struct ForwardScratch {
  Dtype* input;    // block_steps x P x lanes
  Dtype* state;    // (block_steps + 1) x d x lanes, the previous h first
  Dtype* cell;     // (block_steps + 1) x d x lanes, LSTM only
  Dtype* update;   // d x lanes, GRU: z
  Dtype* reset_h;  // d x lanes, GRU: r * h
  // where factors are not the values themselves
  Dtype* input_factors;
  Dtype* state_factors;
};

template <typename Dtype>
struct BackwardScratch {
  Dtype* input;        // block_steps x P x lanes
  Dtype* input_diff;   // block_steps x P x lanes
  Dtype* top_diff;     // block_steps x d x lanes
  Dtype* previous;     // block_steps x d x lanes: h of the step before
  Dtype* reset_h;      // block_steps x d x lanes, GRU
  Dtype* gate_diff;    // chunk_steps x gate_rows x lanes
  Dtype* h_diff;       // d x lanes, what the next step passes back
  Dtype* c_diff;       // d x lanes, LSTM
  Dtype* reset_diff;   // d x lanes, GRU
  Dtype* transposed;   // a chunk of the input, h or r * h
  // where factors are not the values themselves
  Dtype* phase_factors[2];  // gate gradients of a step, for products with W
  Dtype* gate_factors;      // and of a chunk, for the weights' gradients
  Dtype* input_weights_diff[2];      // gate_rows x P, padded
  Dtype* recurrent_weights_diff[2];  // gate_rows x d, padded
  Dtype* bias_diff[2];               // gate_rows x one vector
  Dtype* peephole_diff[2];           // 3d x one vector
};

/// Elements that a row of a panel of gates takes.
RENET_INLINE int GateDepth(const Shape& shape) {
  return Depth(shape.inputs) + Depth(shape.hidden);
}

template <typename Dtype>
RENET_INLINE void CarveWeights(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, bool backward, Carver<Dtype>* carver,
    PackedWeights<Dtype>* packed) {
  for (int scan = 0; scan < 2; ++scan) {
    for (int phase = 0; phase < shape.phases; ++phase) {
      if (backward) {
        packed->recurrent[scan][phase] = carver->Take(
            PackedSize(shape.hidden, &shape.phase_rows[phase], 1));
      } else {
        const int units = kRows / PhaseGates(sweep.unit, phase);
        const int panels = CeilDivide(shape.hidden, units);
        packed->gates[scan][phase] = carver->Take(
            static_cast<size_t>(panels) * kRows * GateDepth(shape));
        packed->gate_bias[scan][phase] = carver->Take(panels * kRows * kBiasLanes);
      }
    }
    if (backward) {
      packed->input[scan] = carver->Take(
          PackedSize(shape.inputs, shape.phase_rows, shape.phases));
    }
  }
}

template <typename Dtype>
RENET_INLINE void CarveForward(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, Carver<Dtype>* carver,
    ForwardScratch<Dtype>* scratch) {
  const size_t lanes = kMaxVectors * Width<Dtype>::kLanes;
  const size_t row = shape.hidden * lanes;
  scratch->input = carver->Take(shape.block_steps * shape.inputs * lanes);
  scratch->state = carver->Take((shape.block_steps + 1) * row);
  scratch->cell = carver->Take(
      sweep.unit == RENET_LSTM ? (shape.block_steps + 1) * row : 0);
  scratch->update = carver->Take(sweep.unit == RENET_GRU ? row : 0);
  scratch->reset_h = carver->Take(sweep.unit == RENET_GRU ? row : 0);
  scratch->input_factors = carver->Take(FactorDepth(shape.inputs) * lanes);
  scratch->state_factors = carver->Take(FactorDepth(shape.hidden) * lanes);
}

template <typename Dtype>
RENET_INLINE void CarveBackward(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, Carver<Dtype>* carver,
    BackwardScratch<Dtype>* scratch) {
  const int vector = Width<Dtype>::kLanes;
  const size_t lanes = kMaxVectors * vector;
  const size_t row = shape.hidden * lanes;
  const bool gru = sweep.unit == RENET_GRU, lstm = sweep.unit == RENET_LSTM;
  scratch->input = carver->Take(shape.block_steps * shape.inputs * lanes);
  scratch->input_diff = carver->Take(shape.block_steps * shape.inputs * lanes);
  scratch->top_diff = carver->Take(shape.block_steps * row);
  scratch->previous = carver->Take(shape.block_steps * row);
  scratch->reset_h = carver->Take(gru ? shape.block_steps * row : 0);
  scratch->gate_diff =
      carver->Take(shape.chunk_steps * shape.gate_rows * lanes);
  scratch->h_diff = carver->Take(row);
  scratch->c_diff = carver->Take(lstm ? row : 0);
  scratch->reset_diff = carver->Take(gru ? row : 0);
  const Columns<Dtype> inputs = GetColumns<Dtype>(shape.inputs);
  const Columns<Dtype> hidden = GetColumns<Dtype>(shape.hidden);
  scratch->transposed = carver->Take(shape.chunk_steps * lanes *
      Max(inputs.stride(), hidden.stride()));
  for (int phase = 0; phase < 2; ++phase) {
    scratch->phase_factors[phase] =
        carver->Take(FactorDepth(shape.phase_rows[phase]) * lanes);
  }
  scratch->gate_factors = carver->Take(
      static_cast<size_t>(shape.gate_rows) *
      FactorDepth(static_cast<int>(shape.chunk_steps * lanes)));
  for (int scan = 0; scan < 2; ++scan) {
    scratch->input_weights_diff[scan] = carver->Take(
        static_cast<size_t>(shape.gate_rows) * inputs.stride());
    scratch->recurrent_weights_diff[scan] = carver->Take(
        static_cast<size_t>(shape.gate_rows) * hidden.stride());
    scratch->bias_diff[scan] = carver->Take(shape.gate_rows * vector);
    scratch->peephole_diff[scan] = carver->Take(
        lstm ? 3 * shape.hidden * vector : 0);
  }
}

/// Where tiles are fewer than threads, the two scans of a tile go to
/// different threads, and the second one's input gradient needs a map of its
/// own.
template <typename Dtype>
RENET_INLINE bool ScansApart(const ReNetSweep<Dtype>& sweep) {
  return sweep.tiles < sweep.threads;
}

template <typename Dtype>
RENET_INLINE size_t BottomCount(const ReNetSweep<Dtype>& sweep) {
  return static_cast<size_t>(sweep.num) * sweep.channels * sweep.height *
      sweep.width;
}

template <typename Dtype>
size_t WorkspaceSize(const ReNetSweep<Dtype>& sweep, bool backward) {
  const Shape shape = GetShape(sweep);
  Carver<Dtype> carver(NULL);
  PackedWeights<Dtype> packed;
  CarveWeights(sweep, shape, backward, &carver, &packed);
  if (backward && ScansApart(sweep)) carver.Take(BottomCount(sweep));
  Carver<Dtype> thread(NULL);
  if (backward) {
    BackwardScratch<Dtype> scratch;
    CarveBackward(sweep, shape, &thread, &scratch);
  } else {
    ForwardScratch<Dtype> scratch;
    CarveForward(sweep, shape, &thread, &scratch);
  }
  // One cache line more than is used, to align the base.
  return carver.used() + thread.used() * sweep.threads +
      kAlignment / sizeof(Dtype);
}

template <typename Dtype>
size_t HistorySize(const ReNetSweep<Dtype>& sweep) {
  const Shape shape = GetShape(sweep);
  return 2 * static_cast<size_t>(shape.vectors) * Width<Dtype>::kLanes *
      shape.steps * HistoryRows(sweep.unit) * shape.hidden +
      kAlignment / sizeof(Dtype);
}

template <typename Dtype>
RENET_INLINE Dtype* TileHistory(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, int scan, int vector_begin) {
  if (!sweep.history) return NULL;
  return AlignPointer(sweep.history) +
      (static_cast<size_t>(scan) * shape.vectors + vector_begin) *
      Width<Dtype>::kLanes * shape.steps * HistoryRows(sweep.unit) *
      shape.hidden;
}

template <typename Dtype>
void Plan(ReNetSweep<Dtype>* sweep) {
  const Shape shape = GetShape(*sweep);
  sweep->threads = omp_get_max_threads();
  const int wanted = Min(shape.vectors, CeilDivide(sweep->threads, 2));
  sweep->tiles = Max(CeilDivide(shape.vectors, kMaxVectors), wanted);
  if (sweep->tiles > sweep->threads) {
    // As many tiles for each thread, else one waits for another's last.
    sweep->tiles = Min(shape.vectors, RoundUp(sweep->tiles, sweep->threads));
  }
}
