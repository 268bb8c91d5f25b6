// The backward pass of a sweep. A part of sweep_kernels.hpp, which says why it
// has neither an include guard nor a namespace of its own.

/// Adds each row of a step's gate gradients to one vector a row.
template <typename Dtype, int kVectors>
RENET_INLINE void AccumulateRows(const Dtype* rows, int count, Dtype* sums) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  for (int r = 0; r < count; ++r) {
    typename Simd<Dtype>::Vector sum = Load<Dtype>(sums + r * kLanes);
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      sum += Load(rows + (r * kVectors + j) * kLanes);
    }
    Store(sum, sums + r * kLanes);
  }
}

/// The state that a step started from (and, for a GRU, its reset state), from
/// the history; zeros at the scan's first step, where previous is NULL.
template <typename Dtype, int kUnit, int kVectors>
RENET_INLINE void RestoreState(const Shape& shape,
    const Dtype* __restrict__ previous, const Dtype* __restrict__ history,
    Dtype* __restrict__ state, Dtype* __restrict__ reset_h) {
  const int row = shape.hidden * kVectors * Width<Dtype>::kLanes;
  if (!previous) {
    SetZero(row, state);
    if (kUnit == RENET_GRU) SetZero(row, reset_h);
    return;
  }
  if constexpr (kUnit == RENET_LSTM) {
    const Dtype* __restrict__ o = previous + 2 * static_cast<size_t>(row);
    const Dtype* __restrict__ c = previous + 4 * static_cast<size_t>(row);
#pragma omp simd
    for (int i = 0; i < row; ++i) state[i] = o[i] * renet::Tanh(c[i]);
  } else if constexpr (kUnit == RENET_GRU) {
    const Dtype* __restrict__ h = previous + 3 * static_cast<size_t>(row);
    const Dtype* __restrict__ r = history + static_cast<size_t>(row);
#pragma omp simd
    for (int i = 0; i < row; ++i) {
      state[i] = h[i];
      reset_h[i] = r[i] * h[i];
    }
  } else {
    memcpy(state, previous, row * sizeof(Dtype));
  }
}

/// One step back: gate gradients of the step into gate_diff, and h_diff (and
/// c_diff) become what the previous step receives.
template <typename Dtype, int kUnit, int kVectors>
RENET_INLINE void BackwardStep(const ReNetSweep<Dtype>& sweep,
    const Shape& shape, const PackedWeights<Dtype>& packed, int scan,
    const BackwardScratch<Dtype>& scratch, const Dtype* top_diff,
    const Dtype* state, const Dtype* history, const Dtype* previous,
    Dtype* gate_diff) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  constexpr int kTileLanes = kVectors * kLanes;
  const int hidden = shape.hidden;
  const size_t row = static_cast<size_t>(hidden) * kTileLanes;
  alignas(64) Dtype zeros[kTileLanes];
  SetZero(kTileLanes, zeros);
  Dtype* __restrict__ h_diff = scratch.h_diff;
  if constexpr (kUnit == RENET_LSTM) {
    const Dtype* peephole = sweep.peephole[scan];
    for (int unit = 0; unit < hidden; ++unit) {
      const size_t at = static_cast<size_t>(unit) * kTileLanes;
      const Dtype p_i = peephole ? peephole[unit] : Dtype(0);
      const Dtype p_f = peephole ? peephole[hidden + unit] : Dtype(0);
      const Dtype p_o = peephole ? peephole[2 * hidden + unit] : Dtype(0);
      const Dtype* __restrict__ i_row = history + at;
      const Dtype* __restrict__ f_row = history + row + at;
      const Dtype* __restrict__ o_row = history + 2 * row + at;
      const Dtype* __restrict__ g_row = history + 3 * row + at;
      const Dtype* __restrict__ c_row = history + 4 * row + at;
      const Dtype* __restrict__ c_was =
          previous ? previous + 4 * row + at : zeros;
      const Dtype* __restrict__ top = top_diff + at;
      const Dtype* __restrict__ passed = h_diff + at;
      Dtype* __restrict__ c_diff = scratch.c_diff + at;
      Dtype* __restrict__ i_diff = gate_diff + at;
      Dtype* __restrict__ f_diff = gate_diff + row + at;
      Dtype* __restrict__ o_diff = gate_diff + 2 * row + at;
      Dtype* __restrict__ g_diff = gate_diff + 3 * row + at;
      const Dtype to_cell = sweep.cell_output ? Dtype(1) : Dtype(0);
      const Dtype to_state = sweep.cell_output ? Dtype(0) : Dtype(1);
#pragma omp simd
      for (int lane = 0; lane < kTileLanes; ++lane) {
        Dtype carried = c_diff[lane] + to_cell * top[lane];
        Dtype i_sum, f_sum, o_sum, g_sum;
        renet::LstmBackward(passed[lane] + to_state * top[lane], i_row[lane],
            f_row[lane], o_row[lane], g_row[lane], c_row[lane], c_was[lane],
            p_i, p_f, p_o, &carried, &i_sum, &f_sum, &o_sum, &g_sum);
        c_diff[lane] = carried;
        i_diff[lane] = i_sum;
        f_diff[lane] = f_sum;
        o_diff[lane] = o_sum;
        g_diff[lane] = g_sum;
      }
      if (sweep.peephole_diff[scan]) {
        Dtype* to = scratch.peephole_diff[scan];
        typedef typename Simd<Dtype>::Vector Vector;
        Vector sum_i = Load<Dtype>(to + unit * kLanes);
        Vector sum_f = Load<Dtype>(to + (hidden + unit) * kLanes);
        Vector sum_o = Load<Dtype>(to + (2 * hidden + unit) * kLanes);
        for (int j = 0; j < kTileLanes; j += kLanes) {
          sum_i += Load<Dtype>(i_diff + j) * Load(c_was + j);
          sum_f += Load<Dtype>(f_diff + j) * Load(c_was + j);
          sum_o += Load<Dtype>(o_diff + j) * Load(c_row + j);
        }
        Store(sum_i, to + unit * kLanes);
        Store(sum_f, to + (hidden + unit) * kLanes);
        Store(sum_o, to + (2 * hidden + unit) * kLanes);
      }
    }
    const Dtype* gates[1] = {Factors<Dtype, kVectors>(gate_diff,
        shape.phase_rows[0], scratch.phase_factors[0])};
    MultiplyMatrix<Dtype, kVectors>(packed.recurrent[scan][0], gates,
        &shape.phase_rows[0], 1, false, hidden, scratch.h_diff);
  } else if constexpr (kUnit == RENET_GRU) {
    const int count = static_cast<int>(row);
    const Dtype* __restrict__ z_row = history;
    const Dtype* __restrict__ r_row = history + row;
    const Dtype* __restrict__ n_row = history + 2 * row;
    Dtype* __restrict__ z_diff = gate_diff;
    Dtype* __restrict__ r_diff = gate_diff + row;
    Dtype* __restrict__ n_diff =
        gate_diff + static_cast<size_t>(shape.phase_offset[1]) * kTileLanes;
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      Dtype passed = h_diff[i] + top_diff[i];
      Dtype z_sum, n_sum;
      renet::GruStateBackward(z_row[i], n_row[i], state[i], &passed, &z_sum,
          &n_sum);
      h_diff[i] = passed;
      z_diff[i] = z_sum;
      n_diff[i] = n_sum;
    }
    const Dtype* candidate[1] = {Factors<Dtype, kVectors>(n_diff,
        shape.phase_rows[1], scratch.phase_factors[1])};
    MultiplyMatrix<Dtype, kVectors>(packed.recurrent[scan][1], candidate,
        &shape.phase_rows[1], 1, false, hidden, scratch.reset_diff);
    const Dtype* __restrict__ reset_diff = scratch.reset_diff;
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      Dtype passed = h_diff[i], r_sum;
      renet::GruResetBackward(reset_diff[i], r_row[i], state[i], &passed,
          &r_sum);
      h_diff[i] = passed;
      r_diff[i] = r_sum;
    }
    const Dtype* gates[1] = {Factors<Dtype, kVectors>(gate_diff,
        shape.phase_rows[0], scratch.phase_factors[0])};
    MultiplyMatrix<Dtype, kVectors>(packed.recurrent[scan][0], gates,
        &shape.phase_rows[0], 1, true, hidden, scratch.h_diff);
  } else {
    const int count = static_cast<int>(row);
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      gate_diff[i] = renet::IrnnBackward(h_diff[i] + top_diff[i], history[i]);
    }
    const Dtype* gates[1] = {Factors<Dtype, kVectors>(gate_diff,
        shape.phase_rows[0], scratch.phase_factors[0])};
    MultiplyMatrix<Dtype, kVectors>(packed.recurrent[scan][0], gates,
        &shape.phase_rows[0], 1, false, hidden, scratch.h_diff);
  }
}

/// One scan of one tile back through all steps.
template <typename Dtype, int kUnit, int kVectors>
void BackwardTile(const ReNetSweep<Dtype>& sweep, const Shape& shape,
    const PackedWeights<Dtype>& packed, int scan, const Tile<Dtype>& tile,
    const BackwardScratch<Dtype>& scratch, Dtype* bottom_diff,
    bool add_to_bottom) {
  constexpr int kTileLanes = kVectors * Width<Dtype>::kLanes;
  const size_t row = static_cast<size_t>(shape.hidden) * kTileLanes;
  const size_t input_row = static_cast<size_t>(shape.inputs) * kTileLanes;
  const size_t gate_row = static_cast<size_t>(shape.gate_rows) * kTileLanes;
  const size_t history_row = Unit<kUnit>::kHistory * row;
  const Map<const Dtype> bottom = BottomMap(sweep, sweep.bottom);
  const Map<const Dtype> top =
      TopMap(sweep, shape, scan, sweep.top_diff);
  const Dtype* history = TileHistory(sweep, shape, scan, tile.vector_begin);
  const Columns<Dtype> inputs = GetColumns<Dtype>(shape.inputs);
  const Columns<Dtype> hidden = GetColumns<Dtype>(shape.hidden);
  const bool reverse = scan == 1;

  SetZero(row, scratch.h_diff);
  if (kUnit == RENET_LSTM) SetZero(row, scratch.c_diff);
  // Rows that only fill a register tile stay zero through all chunks.
  SetZero(shape.chunk_steps * gate_row, scratch.gate_diff);

  for (int left = shape.steps; left > 0;) {
    // The last steps of the scan first; blocks as Forward had them.
    const int count = left % shape.block_steps ? left % shape.block_steps :
        shape.block_steps;
    left -= count;
    const int begin = reverse ? shape.steps - left - count : left;
    Move<Dtype, GATHER>(top, tile, begin, begin + count, scratch.top_diff);
    if (sweep.input_weights_diff[scan]) {
      Move<Dtype, GATHER>(bottom, tile, begin, begin + count, scratch.input);
    }
    for (int t = begin; t < begin + count; ++t) {
      const int t_previous = reverse ? t + 1 : t - 1;
      const bool first = reverse ? t_previous == shape.steps : t_previous < 0;
      RestoreState<Dtype, kUnit, kVectors>(shape,
          first ? NULL : history + t_previous * history_row,
          history + t * history_row, scratch.previous + (t - begin) * row,
          scratch.reset_h + (t - begin) * row);
    }
    for (int done = 0; done < count; done += shape.chunk_steps) {
      const int steps = Min(shape.chunk_steps, count - done);
      // First step of the chunk, in the map's order.
      const int chunk = reverse ? begin + done : begin + count - done - steps;
      for (int i = 0; i < steps; ++i) {
        const int t = reverse ? chunk + i : chunk + steps - 1 - i;
        const int t_previous = reverse ? t + 1 : t - 1;
        const bool first =
            reverse ? t_previous == shape.steps : t_previous < 0;
        BackwardStep<Dtype, kUnit, kVectors>(sweep, shape, packed, scan,
            scratch, scratch.top_diff + (t - begin) * row,
            scratch.previous + (t - begin) * row, history + t * history_row,
            first ? NULL : history + t_previous * history_row,
            scratch.gate_diff + (t - chunk) * gate_row);
      }
      if (bottom_diff) {
        for (int i = 0; i < steps; ++i) {
          const Dtype* gate_diff = scratch.gate_diff + i * gate_row;
          const Dtype* phases[2];
          for (int phase = 0; phase < shape.phases; ++phase) {
            phases[phase] = Factors<Dtype, kVectors>(gate_diff +
                static_cast<size_t>(shape.phase_offset[phase]) * kTileLanes,
                shape.phase_rows[phase], scratch.phase_factors[phase]);
          }
          MultiplyMatrix<Dtype, kVectors>(packed.input[scan], phases,
              shape.phase_rows, shape.phases, false, shape.inputs,
              scratch.input_diff + (chunk - begin + i) * input_row);
        }
      }
      if (sweep.bias_diff[scan]) {
        for (int i = 0; i < steps; ++i) {
          AccumulateRows<Dtype, kVectors>(scratch.gate_diff + i * gate_row,
              shape.gate_rows, scratch.bias_diff[scan]);
        }
      }
      const Dtype* const gate_factors = GateFactors<Dtype, kVectors>(
          scratch.gate_diff, shape.gate_rows, steps, scratch.gate_factors);
      if (sweep.input_weights_diff[scan]) {
        TransposeChunk<Dtype>(scratch.input + (chunk - begin) * input_row,
            inputs, kTileLanes, steps, scratch.transposed);
        AccumulateWeightDiff<Dtype, kVectors>(gate_factors, 0,
            shape.gate_rows, shape.gate_rows, steps, scratch.transposed,
            inputs, scratch.input_weights_diff[scan]);
      }
      if (sweep.recurrent_weights_diff[scan]) {
        for (int phase = 0; phase < shape.phases; ++phase) {
          const Dtype* state = phase == 0 ? scratch.previous : scratch.reset_h;
          TransposeChunk<Dtype>(state + (chunk - begin) * row, hidden,
              kTileLanes, steps, scratch.transposed);
          const int offset = shape.phase_offset[phase];
          AccumulateWeightDiff<Dtype, kVectors>(gate_factors, offset,
              RoundUp(shape.phase_rows[phase], kRows), shape.gate_rows, steps,
              scratch.transposed, hidden,
              scratch.recurrent_weights_diff[scan] +
              static_cast<size_t>(offset) * hidden.stride());
        }
      }
    }
    if (bottom_diff) {
      const Map<Dtype> map = BottomMap(sweep, bottom_diff);
      if (add_to_bottom) {
        Move<Dtype, SCATTER_ADD>(map, tile, begin, begin + count,
            scratch.input_diff);
      } else {
        Move<Dtype, SCATTER>(map, tile, begin, begin + count,
            scratch.input_diff);
      }
    }
  }
}

/// Row of a block of gate gradients to row of the weights.
RENET_INLINE int BlockRow(const Shape& shape, int row) {
  return row < shape.phase_rows[0] ? row :
      shape.phase_offset[1] + row - shape.phase_rows[0];
}

template <typename Dtype, int kUnit>
void BackwardOfUnit(const ReNetSweep<Dtype>& sweep) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  const Shape shape = GetShape(sweep);
  const bool apart = ScansApart(sweep);
  const int gate_rows = shape.gates * shape.hidden;
  Carver<Dtype> carver(AlignPointer(sweep.workspace));
  PackedWeights<Dtype> packed;
  CarveWeights(sweep, shape, true, &carver, &packed);
  Dtype* const second_diff =
      carver.Take(apart ? BottomCount(sweep) : 0);
  Carver<Dtype> sizer(NULL);
  BackwardScratch<Dtype> sized;
  CarveBackward(sweep, shape, &sizer, &sized);
  const size_t thread_size = sizer.used();
  Dtype* const threads_base = carver.Take(thread_size * sweep.threads);
  const Columns<Dtype> inputs = GetColumns<Dtype>(shape.inputs);
  const Columns<Dtype> hidden = GetColumns<Dtype>(shape.hidden);

#pragma omp parallel num_threads(sweep.threads)
  {
    const ProductUnits units;
    for (int scan = 0; scan < 2; ++scan) {
      for (int phase = 0; phase < Unit<kUnit>::kPhases; ++phase) {
        const Dtype* weights = sweep.recurrent_weights[scan] +
            (phase == 0 ? 0 : static_cast<size_t>(shape.phase_rows[0]) *
             shape.hidden);
#pragma omp for schedule(static) nowait
        for (int panel = 0; panel < CeilDivide(shape.hidden, kRows); ++panel) {
          PackTransposed(weights, shape.hidden, &shape.phase_rows[phase], 1,
              panel, packed.recurrent[scan][phase]);
        }
      }
      if (sweep.bottom_diff) {
#pragma omp for schedule(static) nowait
        for (int panel = 0; panel < CeilDivide(shape.inputs, kRows); ++panel) {
          PackTransposed(sweep.input_weights[scan], shape.inputs,
              shape.phase_rows, shape.phases, panel, packed.input[scan]);
        }
      }
    }
    Carver<Dtype> thread(threads_base + omp_get_thread_num() * thread_size);
    BackwardScratch<Dtype> scratch;
    CarveBackward(sweep, shape, &thread, &scratch);
    for (int scan = 0; scan < 2; ++scan) {
      SetZero(static_cast<size_t>(shape.gate_rows) * inputs.stride(),
          scratch.input_weights_diff[scan]);
      SetZero(static_cast<size_t>(shape.gate_rows) * hidden.stride(),
          scratch.recurrent_weights_diff[scan]);
      SetZero(shape.gate_rows * kLanes, scratch.bias_diff[scan]);
      if (kUnit == RENET_LSTM) {
        SetZero(3 * shape.hidden * kLanes, scratch.peephole_diff[scan]);
      }
    }
#pragma omp barrier
    // With the scans together, an item is a tile and does both in turn.
    const int items = apart ? 2 * sweep.tiles : sweep.tiles;
#pragma omp for schedule(static)
    for (int item = 0; item < items; ++item) {
      Tile<Dtype> tile;
      LocateTile(shape, sweep.tiles, apart ? item / 2 : item, &tile);
      const int first_scan = apart ? item % 2 : 0;
      const int last_scan = apart ? item % 2 : 1;
      for (int scan = first_scan; scan <= last_scan; ++scan) {
        Dtype* to = sweep.bottom_diff && apart && scan == 1 ? second_diff :
            sweep.bottom_diff;
        const bool add = !apart && scan == 1;
        switch (tile.lanes / kLanes) {
        case 1:
          BackwardTile<Dtype, kUnit, 1>(sweep, shape, packed, scan, tile,
              scratch, to, add);
          break;
        case 2:
          BackwardTile<Dtype, kUnit, 2>(sweep, shape, packed, scan, tile,
              scratch, to, add);
          break;
        default:
          BackwardTile<Dtype, kUnit, 3>(sweep, shape, packed, scan, tile,
              scratch, to, add);
        }
      }
    }
    // The loop's barrier has passed: every thread's sums are complete. They
    // are added in the order of the threads, so equal runs give equal bits.
    if (apart && sweep.bottom_diff) {
      const int64_t count = static_cast<int64_t>(BottomCount(sweep));
#pragma omp for schedule(static) nowait
      for (int64_t i = 0; i < count; ++i) {
        sweep.bottom_diff[i] += second_diff[i];
      }
    }
    const int used_threads = omp_get_num_threads();
    for (int scan = 0; scan < 2; ++scan) {
#pragma omp for schedule(static) nowait
      for (int r = 0; r < gate_rows; ++r) {
        const size_t block_row = BlockRow(shape, r);
        for (int i = 0; i < used_threads; ++i) {
          Carver<Dtype> other(threads_base + i * thread_size);
          BackwardScratch<Dtype> part;
          CarveBackward(sweep, shape, &other, &part);
          if (sweep.input_weights_diff[scan]) {
            const Dtype* from = part.input_weights_diff[scan] +
                block_row * inputs.stride();
            Dtype* to = sweep.input_weights_diff[scan] +
                static_cast<size_t>(r) * shape.inputs;
            for (int k = 0; k < shape.inputs; ++k) to[k] += from[k];
          }
          if (sweep.recurrent_weights_diff[scan]) {
            const Dtype* from = part.recurrent_weights_diff[scan] +
                block_row * hidden.stride();
            Dtype* to = sweep.recurrent_weights_diff[scan] +
                static_cast<size_t>(r) * shape.hidden;
            for (int k = 0; k < shape.hidden; ++k) to[k] += from[k];
          }
          if (sweep.bias_diff[scan]) {
            const Dtype* from = part.bias_diff[scan] + block_row * kLanes;
            Dtype sum = 0;
            for (int k = 0; k < kLanes; ++k) sum += from[k];
            sweep.bias_diff[scan][r] += sum;
          }
          if (kUnit == RENET_LSTM && sweep.peephole_diff[scan] &&
              r < 3 * shape.hidden) {
            const Dtype* from = part.peephole_diff[scan] + r * kLanes;
            Dtype sum = 0;
            for (int k = 0; k < kLanes; ++k) sum += from[k];
            sweep.peephole_diff[scan][r] += sum;
          }
        }
      }
    }
  }
}

template <typename Dtype>
void Backward(const ReNetSweep<Dtype>& sweep) {
  if (sweep.unit == RENET_LSTM) {
    BackwardOfUnit<Dtype, RENET_LSTM>(sweep);
  } else if (sweep.unit == RENET_GRU) {
    BackwardOfUnit<Dtype, RENET_GRU>(sweep);
  } else {
    BackwardOfUnit<Dtype, RENET_IRNN>(sweep);
  }
}
