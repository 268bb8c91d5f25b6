// The forward pass of a sweep. A part of sweep_kernels.hpp, which says why it
// has neither an include guard nor a namespace of its own.

/// Packs one panel of a phase's gates: the gates of a unit lie in neighbouring
/// rows, so that a register tile holds all that the cell needs.
template <typename Dtype>
void PackGates(const ReNetSweep<Dtype>& sweep, const Shape& shape, int scan,
    int phase, int panel, const PackedWeights<Dtype>& packed) {
  const int gates = PhaseGates(sweep.unit, phase);
  const int units = kRows / gates;
  const int first_gate = phase == 0 ? 0 : PhaseGates(sweep.unit, 0);
  const size_t input_depth = Depth(shape.inputs);
  Dtype* to = packed.gates[scan][phase] +
      static_cast<size_t>(panel) * kRows * GateDepth(shape);
  // columns of a matrix of G*d rows
  const auto element = [=](const Dtype* matrix, int columns, int r, int k) {
    const int unit = panel * units + r % units;
    const int gate = first_gate + r / units;
    const size_t row = static_cast<size_t>(gate) * shape.hidden + unit;
    const bool exists = unit < shape.hidden && r / units < gates;
    return exists ? matrix[row * columns + k] : Dtype(0);
  };
  Dtype* bias = packed.gate_bias[scan][phase] + panel * kRows * kBiasLanes;
  for (int i = 0; i < kRows * kBiasLanes; ++i) {
    bias[i] = element(sweep.bias[scan], 1, i / kBiasLanes, 0);
  }
  PackPanel(shape.inputs, [=](int r, int k) {
    return element(sweep.input_weights[scan], shape.inputs, r, k);
  }, to);
  PackPanel(shape.hidden, [=](int r, int k) {
    return element(sweep.recurrent_weights[scan], shape.hidden, r, k);
  }, to + input_depth * kRows);
}

/// One step of one unit over a tile. history: the step's rows, or NULL.
template <typename Dtype, int kUnit, int kVectors>
RENET_INLINE void ForwardStep(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, const PackedWeights<Dtype>& packed, int scan,
    const ForwardScratch<Dtype>& scratch, const Dtype* input,
    const Dtype* h_previous, const Dtype* c_previous, Dtype* h_next,
    Dtype* c_next, Dtype* history) {
  constexpr int kTileLanes = kVectors * Width<Dtype>::kLanes;
  const int hidden = shape.hidden;
  const size_t row = static_cast<size_t>(hidden) * kTileLanes;
  alignas(64) Dtype sums[kPanelsAhead + 1][kRows * kTileLanes];
  alignas(64) Dtype unkept[Unit<kUnit>::kHistory][kTileLanes];
  const Dtype* input_factors =
      Factors<Dtype, kVectors>(input, shape.inputs, scratch.input_factors);
  for (int phase = 0; phase < Unit<kUnit>::kPhases; ++phase) {
    const int gates = Unit<kUnit>::GatesOf(phase);
    const int units = kRows / gates;
    const int panels = CeilDivide(hidden, units);
    const Dtype* state_factors = Factors<Dtype, kVectors>(
        phase == 0 ? h_previous : scratch.reset_h, hidden,
        scratch.state_factors);
    const size_t panel_size =
        static_cast<size_t>(kRows) * GateDepth(shape);
    // the sums of a panel are formed while another one's cells are
    for (int formed = 0, panel = -kPanelsAhead; panel < panels; ++panel) {
      if (formed < panels) {
        GateSums<Dtype, kVectors>(
            packed.gates[scan][phase] + formed * panel_size,
            packed.gate_bias[scan][phase] + formed * kRows * kBiasLanes,
            input_factors, shape.inputs, state_factors, hidden,
            sums[formed % (kPanelsAhead + 1)]);
        ++formed;
      }
      if (panel < 0) continue;
      const int first = panel * units;
      for (int unit = first; unit < Min(first + units, hidden); ++unit) {
        const Dtype* __restrict__ sum =
            sums[panel % (kPanelsAhead + 1)] + (unit - first) * kTileLanes;
        const int gate_stride = units * kTileLanes;
        const size_t at = static_cast<size_t>(unit) * kTileLanes;
        Dtype* rows[Unit<kUnit>::kHistory];
        for (int i = 0; i < Unit<kUnit>::kHistory; ++i) {
          rows[i] = history ? history + i * row + at : unkept[i];
        }
        const Dtype* __restrict__ h_was = h_previous + at;
        Dtype* __restrict__ h = h_next + at;
        if constexpr (kUnit == RENET_LSTM) {
          const Dtype* peephole = sweep.peephole[scan];
          const Dtype p_i = peephole ? peephole[unit] : Dtype(0);
          const Dtype p_f = peephole ? peephole[hidden + unit] : Dtype(0);
          const Dtype p_o = peephole ? peephole[2 * hidden + unit] : Dtype(0);
          const Dtype* __restrict__ c_was = c_previous + at;
          Dtype* __restrict__ c = c_next + at;
          Dtype* __restrict__ i_row = rows[0];
          Dtype* __restrict__ f_row = rows[1];
          Dtype* __restrict__ o_row = rows[2];
          Dtype* __restrict__ g_row = rows[3];
          Dtype* __restrict__ c_row = rows[4];
#pragma omp simd
          for (int lane = 0; lane < kTileLanes; ++lane) {
            Dtype i, f, o, g, c_new, h_new;
            renet::LstmForward(sum[lane], sum[gate_stride + lane],
                sum[2 * gate_stride + lane], sum[3 * gate_stride + lane],
                c_was[lane], p_i, p_f, p_o, &i, &f, &o, &g, &c_new, &h_new);
            i_row[lane] = i;
            f_row[lane] = f;
            o_row[lane] = o;
            g_row[lane] = g;
            c_row[lane] = c_new;
            c[lane] = c_new;
            h[lane] = h_new;
          }
        } else if constexpr (kUnit == RENET_GRU) {
          Dtype* __restrict__ update = scratch.update + at;
          Dtype* __restrict__ reset_h = scratch.reset_h + at;
          if (phase == 0) {
            Dtype* __restrict__ z_row = rows[0];
            Dtype* __restrict__ r_row = rows[1];
#pragma omp simd
            for (int lane = 0; lane < kTileLanes; ++lane) {
              Dtype z, r, product;
              renet::GruGatesForward(sum[lane], sum[gate_stride + lane],
                  h_was[lane], &z, &r, &product);
              z_row[lane] = z;
              r_row[lane] = r;
              update[lane] = z;
              reset_h[lane] = product;
            }
          } else {
            Dtype* __restrict__ n_row = rows[2];
            Dtype* __restrict__ h_row = rows[3];
#pragma omp simd
            for (int lane = 0; lane < kTileLanes; ++lane) {
              Dtype n, h_new;
              renet::GruStateForward(sum[lane], update[lane], h_was[lane], &n,
                  &h_new);
              n_row[lane] = n;
              h_row[lane] = h_new;
              h[lane] = h_new;
            }
          }
        } else {
          Dtype* __restrict__ h_row = rows[0];
#pragma omp simd
          for (int lane = 0; lane < kTileLanes; ++lane) {
            const Dtype h_new = renet::IrnnForward(sum[lane]);
            h_row[lane] = h_new;
            h[lane] = h_new;
          }
        }
      }
    }
  }
}

template <typename Dtype, typename Pointer>
RENET_INLINE Map<Pointer> BottomMap(const ReNetSweep<Dtype>& sweep,
    Pointer* data) {
  const Map<Pointer> map = {data, static_cast<size_t>(sweep.channels) *
      sweep.height * sweep.width, sweep.channels, sweep.height, sweep.width,
      sweep.vertical, sweep.patch_height, sweep.patch_width};
  return map;
}

/// One scan's half of the top's channels.
template <typename Dtype, typename Pointer>
RENET_INLINE Map<Pointer> TopMap(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, int scan, Pointer* data) {
  const int height = sweep.vertical ? shape.steps : shape.lines;
  const int width = sweep.vertical ? shape.lines : shape.steps;
  const size_t plane = static_cast<size_t>(height) * width;
  const Map<Pointer> map = {data + scan * shape.hidden * plane,
      2 * shape.hidden * plane, shape.hidden, height, width, sweep.vertical,
      1, 1};
  return map;
}

/// One scan of one tile through all steps.
template <typename Dtype, int kUnit, int kVectors>
void ForwardTile(const ReNetSweep<Dtype>& sweep, const Shape& shape,
    const PackedWeights<Dtype>& packed, int scan, const Tile<Dtype>& tile,
    const ForwardScratch<Dtype>& scratch) {
  constexpr int kTileLanes = kVectors * Width<Dtype>::kLanes;
  const size_t row = static_cast<size_t>(shape.hidden) * kTileLanes;
  const size_t input_row = static_cast<size_t>(shape.inputs) * kTileLanes;
  const Map<const Dtype> bottom = BottomMap(sweep, sweep.bottom);
  const Map<Dtype> top = TopMap(sweep, shape, scan, sweep.top);
  Dtype* history = TileHistory(sweep, shape, scan, tile.vector_begin);
  const bool lstm = kUnit == RENET_LSTM;
  const bool reverse = scan == 1;
  Dtype* const output =
      lstm && sweep.cell_output ? scratch.cell : scratch.state;

  // Slot 0 or, for the backward scan, the last slot holds the state before the
  // block; so the block itself lies in the order of the map.
  for (int done = 0; done < shape.steps; done += shape.block_steps) {
    const int count = Min(shape.block_steps, shape.steps - done);
    const int begin = reverse ? shape.steps - done - count : done;
    Move<Dtype, GATHER>(bottom, tile, begin, begin + count, scratch.input);
    const size_t before = reverse ? count * row : 0;
    if (done == 0) {
      SetZero(row, scratch.state + before);
      if (lstm) SetZero(row, scratch.cell + before);
    } else {
      // The state that the previous block (always a full one) ended with.
      const size_t ended = reverse ? 0 : shape.block_steps * row;
      memcpy(scratch.state + before, scratch.state + ended,
          row * sizeof(Dtype));
      if (lstm) {
        memcpy(scratch.cell + before, scratch.cell + ended,
            row * sizeof(Dtype));
      }
    }
    for (int i = 0; i < count; ++i) {
      const int at = reverse ? count - 1 - i : i;  // step within the block
      const size_t from = (reverse ? at + 1 : at) * row;
      const size_t to = (reverse ? at : at + 1) * row;
      ForwardStep<Dtype, kUnit, kVectors>(sweep, shape, packed, scan, scratch,
          scratch.input + at * input_row, scratch.state + from,
          scratch.cell + from, scratch.state + to, scratch.cell + to,
          history ? history + static_cast<size_t>(begin + at) *
              Unit<kUnit>::kHistory * row : NULL);
    }
    if (sweep.top) {
      Move<Dtype, SCATTER>(top, tile, begin, begin + count,
          output + (reverse ? 0 : row));
    }
  }
}

template <typename Dtype, int kUnit>
void ForwardOfUnit(const ReNetSweep<Dtype>& sweep) {
  const Shape shape = GetShape(sweep);
  Carver<Dtype> carver(AlignPointer(sweep.workspace));
  PackedWeights<Dtype> packed;
  CarveWeights(sweep, shape, false, &carver, &packed);
  Carver<Dtype> sizer(NULL);
  ForwardScratch<Dtype> sized;
  CarveForward(sweep, shape, &sizer, &sized);
  Dtype* const threads_base = carver.Take(sizer.used() * sweep.threads);
  const size_t thread_size = sizer.used();

#pragma omp parallel num_threads(sweep.threads)
  {
    const ProductUnits units;
    for (int scan = 0; scan < 2; ++scan) {
      for (int phase = 0; phase < Unit<kUnit>::kPhases; ++phase) {
        const int panels = CeilDivide(shape.hidden,
            kRows / Unit<kUnit>::GatesOf(phase));
#pragma omp for schedule(static) nowait
        for (int panel = 0; panel < panels; ++panel) {
          PackGates(sweep, shape, scan, phase, panel, packed);
        }
      }
    }
#pragma omp barrier
    Carver<Dtype> thread(threads_base + omp_get_thread_num() * thread_size);
    ForwardScratch<Dtype> scratch;
    CarveForward(sweep, shape, &thread, &scratch);
    // Scans of a tile are neighbours in the loop: the input is read twice, the
    // second time from the cache.
#pragma omp for schedule(static)
    for (int item = 0; item < 2 * sweep.tiles; ++item) {
      Tile<Dtype> tile;
      LocateTile(shape, sweep.tiles, item / 2, &tile);
      switch (tile.lanes / Width<Dtype>::kLanes) {
      case 1:
        ForwardTile<Dtype, kUnit, 1>(sweep, shape, packed, item % 2, tile,
            scratch);
        break;
      case 2:
        ForwardTile<Dtype, kUnit, 2>(sweep, shape, packed, item % 2, tile,
            scratch);
        break;
      default:
        ForwardTile<Dtype, kUnit, 3>(sweep, shape, packed, item % 2, tile,
            scratch);
      }
    }
  }
}

template <typename Dtype>
void Forward(const ReNetSweep<Dtype>& sweep) {
  if (sweep.unit == RENET_LSTM) {
    ForwardOfUnit<Dtype, RENET_LSTM>(sweep);
  } else if (sweep.unit == RENET_GRU) {
    ForwardOfUnit<Dtype, RENET_GRU>(sweep);
  } else {
    ForwardOfUnit<Dtype, RENET_IRNN>(sweep);
  }
}
