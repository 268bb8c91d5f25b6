#ifndef CAFFE_RENET_GPU_UNITS_CUH_
#define CAFFE_RENET_GPU_UNITS_CUH_

#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/renet/cell.hpp"
#include "caffe/renet/gpu/scan.hpp"
#include "caffe/renet/sweep.hpp"

/**
 * What a unit is to the kernels of the recurrence: one policy a unit, over
 * which each method (resident weights, tensor cores, step by step) has one
 * kernel forward and one backward.
 *
 * A step has one phase, or two where a second product must wait for the cells
 * of all units: the candidate of a GRU takes r * h. Forward, phase p forms the
 * products of the gates FirstGate(p) .. with what the phase before left, its
 * result: h, or r * h. Backward, phase p sums over the gradients of the same
 * gates, which the phase before left as its operands.
 *
 * Of a policy:
 *   kGates, kPhases, FirstGate(phase), GatesOf(phase)
 *   kUsesState     a cell needs h of the step before beside the products
 *   kPeepholes     it has peepholes
 *   kKeepsGates    what backward needs of the gates is in scan.gates
 *   kExtraPhase    the phase whose Extra() scan.extra keeps, or -1
 *   kCarried       numbers that a cell hands on beside h; of these, a phase
 *                  changes the first Changed(phase)
 *   kDiffCarried, DiffChanged(phase)   the same backward
 *   DiffsOf(phase), DiffGate(phase, i) the gates whose gradients a phase gives
 *   SumFrom(phase) what backward the sum of a phase's product starts from
 *   KeptGates(scan), KeptState(scan)   the maps of the gates and of the state
 *                  that backward reads, the state at the step (kReadsKept) and
 *                  at the step before (kReadsBefore)
 * Forward<phase> and Backward<phase> are the cell of one unit at one position,
 * by the equations in cell.hpp.
 */
namespace caffe {
namespace renet {

/// Rows i, f, o of an LSTM's peepholes for one unit.
template <typename Real>
struct Peephole {
  Real i, f, o;
};

/// weights: 3 x d, or NULL for zeros.
template <class Unit, typename Dtype>
CUDA_INLINE Peephole<Dtype> ReadPeephole(const Dtype* weights, int unit,
    int hidden) {
  Peephole<Dtype> p = {Dtype(0), Dtype(0), Dtype(0)};
  if constexpr (Unit::kPeepholes) {
    if (weights != NULL) {
      p.i = weights[unit];
      p.f = weights[hidden + unit];
      p.o = weights[2 * hidden + unit];
    }
  }
  return p;
}

/// Length of an array of so many numbers of a cell, of which there may be none.
CUDA_HOST_INLINE constexpr int ArrayOf(int count) {
  return count > 0 ? count : 1;
}

/// What the sum over gradients of gates starts from: zero, the first number
/// carried, or the gradient that comes from the top.
enum SumStart { FROM_ZERO, FROM_CARRIED, FROM_TOP };

/// What a cell takes backward beside its gates and what it carries.
template <typename Real>
struct CellDiff {
  Real sum;          // of the phase's product, from its SumStart on
  Real top;          // the gradient that reaches h (or c) from the top
  bool cell_output;  // top is the gradient of c
  Real kept;         // of KeptState at this step
  Real before;       // of KeptState at the step before, or zero
};

/// Gates i, f, o, g. Carried: c; backward its gradient.
struct LstmUnit {
  static constexpr int kGates = 4, kPhases = 1, kExtraPhase = 0;
  static constexpr int kCarried = 1, kDiffCarried = 1;
  static constexpr bool kUsesState = false, kPeepholes = true;
  static constexpr bool kKeepsGates = true;
  static constexpr bool kReadsKept = true, kReadsBefore = true;
  CUDA_HOST_INLINE static constexpr int FirstGate(int) { return 0; }
  CUDA_HOST_INLINE static constexpr int GatesOf(int) { return 4; }
  CUDA_HOST_INLINE static constexpr int Changed(int) { return 1; }
  CUDA_HOST_INLINE static constexpr int DiffChanged(int) { return 1; }
  CUDA_HOST_INLINE static constexpr int DiffsOf(int) { return 4; }
  CUDA_HOST_INLINE static constexpr int DiffGate(int, int i) { return i; }
  CUDA_HOST_INLINE static constexpr SumStart SumFrom(int) { return FROM_ZERO; }

  /// T*L x 2 x 4*d.
  template <typename Dtype>
  CUDA_INLINE static const Dtype* KeptGates(const ReNetScan<Dtype>& s) {
    return s.gates;
  }
  /// T*L x 2 x d: c.
  template <typename Dtype>
  CUDA_INLINE static const Dtype* KeptState(const ReNetScan<Dtype>& s) {
    return s.extra;
  }

  /// gates: GatesOf(phase), in: sums, out: gates; carried: kCarried. Returns
  /// what the next product takes.
  template <int kPhase, typename Real>
  CUDA_INLINE static Real Forward(Real* gates, Real /* h */, Real* carried,
      const Peephole<Real>& p) {
    Real i, f, o, g, c, h;
    LstmForward<Real>(gates[0], gates[1], gates[2], gates[3], carried[0], p.i,
        p.f, p.o, &i, &f, &o, &g, &c, &h);
    gates[0] = i;
    gates[1] = f;
    gates[2] = o;
    gates[3] = g;
    carried[0] = c;
    return h;
  }
  template <typename Real>
  CUDA_INLINE static Real Extra(Real /* result */, const Real* carried) {
    return carried[0];
  }

  /// gates: DiffsOf(phase), in: gates, out: gradients of their sums; carried:
  /// kDiffCarried; operands: what the next product takes, GatesOf(its phase).
  template <int kPhase, typename Real>
  CUDA_INLINE static void Backward(const CellDiff<Real>& cell,
      const Peephole<Real>& p, Real* gates, Real* carried, Real* operands) {
    Real h_diff = cell.sum, c_diff = carried[0];
    (cell.cell_output ? c_diff : h_diff) += cell.top;
    LstmBackward<Real>(h_diff, gates[0], gates[1], gates[2], gates[3],
        cell.kept, cell.before, p.i, p.f, p.o, &c_diff, &operands[0],
        &operands[1], &operands[2], &operands[3]);
    carried[0] = c_diff;
    CUDA_UNROLL
    for (int gate = 0; gate < 4; ++gate) gates[gate] = operands[gate];
  }
};

/// Gates z, r and, in the second phase, n. Carried: z; backward the gradients
/// of h and of z's sum.
struct GruUnit {
  static constexpr int kGates = 3, kPhases = 2, kExtraPhase = 0;
  static constexpr int kCarried = 1, kDiffCarried = 2;
  static constexpr bool kUsesState = true, kPeepholes = false;
  static constexpr bool kKeepsGates = true;
  static constexpr bool kReadsKept = false, kReadsBefore = true;
  CUDA_HOST_INLINE static constexpr int FirstGate(int phase) {
    return phase == 0 ? 0 : 2;
  }
  CUDA_HOST_INLINE static constexpr int GatesOf(int phase) {
    return phase == 0 ? 2 : 1;
  }
  CUDA_HOST_INLINE static constexpr int Changed(int phase) {
    return phase == 0 ? 1 : 0;
  }
  CUDA_HOST_INLINE static constexpr int DiffChanged(int phase) {
    return phase == 0 ? 2 : 1;
  }
  CUDA_HOST_INLINE static constexpr int DiffsOf(int phase) {
    return phase == 0 ? 2 : 1;  // z and n, then r
  }
  CUDA_HOST_INLINE static constexpr int DiffGate(int phase, int i) {
    return phase == 0 ? 2 * i : 1;
  }
  CUDA_HOST_INLINE static constexpr SumStart SumFrom(int phase) {
    return phase == 0 ? FROM_CARRIED : FROM_ZERO;
  }

  /// T*L x 2 x 3*d.
  template <typename Dtype>
  CUDA_INLINE static const Dtype* KeptGates(const ReNetScan<Dtype>& s) {
    return s.gates;
  }
  /// T*L x 2 x d: h.
  template <typename Dtype>
  CUDA_INLINE static const Dtype* KeptState(const ReNetScan<Dtype>& s) {
    return s.states;
  }

  /// As LstmUnit's.
  template <int kPhase, typename Real>
  CUDA_INLINE static Real Forward(Real* gates, Real h_before, Real* carried,
      const Peephole<Real>& /* p */) {
    Real result;
    if constexpr (kPhase == 0) {
      Real z, r;
      GruGatesForward<Real>(gates[0], gates[1], h_before, &z, &r, &result);
      gates[0] = z;
      gates[1] = r;
      carried[0] = z;
    } else {
      Real n;
      GruStateForward<Real>(gates[0], carried[0], h_before, &n, &result);
      gates[0] = n;
    }
    return result;
  }
  template <typename Real>
  CUDA_INLINE static Real Extra(Real result, const Real* /* carried */) {
    return result;
  }

  /// As LstmUnit's.
  template <int kPhase, typename Real>
  CUDA_INLINE static void Backward(const CellDiff<Real>& cell,
      const Peephole<Real>& /* p */, Real* gates, Real* carried,
      Real* operands) {
    if constexpr (kPhase == 0) {
      Real h_diff = cell.sum + cell.top, z_diff, n_diff;
      GruStateBackward<Real>(gates[0], gates[1], cell.before, &h_diff, &z_diff,
          &n_diff);
      carried[0] = h_diff;
      carried[1] = gates[0] = z_diff;
      operands[0] = gates[1] = n_diff;
    } else {
      Real h_diff = carried[0], r_diff;
      GruResetBackward<Real>(cell.sum, gates[0], cell.before, &h_diff, &r_diff);
      carried[0] = h_diff;
      operands[0] = carried[1];
      operands[1] = gates[0] = r_diff;
    }
  }
};

/// One gate, which is the state itself.
struct IrnnUnit {
  static constexpr int kGates = 1, kPhases = 1, kExtraPhase = -1;
  static constexpr int kCarried = 0, kDiffCarried = 0;
  static constexpr bool kUsesState = false, kPeepholes = false;
  static constexpr bool kKeepsGates = false;
  static constexpr bool kReadsKept = false, kReadsBefore = false;
  CUDA_HOST_INLINE static constexpr int FirstGate(int) { return 0; }
  CUDA_HOST_INLINE static constexpr int GatesOf(int) { return 1; }
  CUDA_HOST_INLINE static constexpr int Changed(int) { return 0; }
  CUDA_HOST_INLINE static constexpr int DiffChanged(int) { return 0; }
  CUDA_HOST_INLINE static constexpr int DiffsOf(int) { return 1; }
  CUDA_HOST_INLINE static constexpr int DiffGate(int, int) { return 0; }
  CUDA_HOST_INLINE static constexpr SumStart SumFrom(int) { return FROM_TOP; }

  /// T*L x 2 x d.
  template <typename Dtype>
  CUDA_INLINE static const Dtype* KeptGates(const ReNetScan<Dtype>& s) {
    return s.states;
  }
  template <typename Dtype>
  CUDA_INLINE static const Dtype* KeptState(const ReNetScan<Dtype>& /* s */) {
    return NULL;
  }

  /// As LstmUnit's.
  template <int kPhase, typename Real>
  CUDA_INLINE static Real Forward(Real* gates, Real /* h */,
      Real* /* carried */, const Peephole<Real>& /* p */) {
    return IrnnForward<Real>(gates[0]);
  }

  /// As LstmUnit's.
  template <int kPhase, typename Real>
  CUDA_INLINE static void Backward(const CellDiff<Real>& cell,
      const Peephole<Real>& /* p */, Real* gates, Real* /* carried */,
      Real* operands) {
    operands[0] = gates[0] = IrnnBackward<Real>(cell.sum, gates[0]);
  }
};

/// body(Policy()) with the policy of a unit.
template <class Body>
auto WithUnit(ReNetUnit unit, const Body& body) -> decltype(body(LstmUnit())) {
  switch (unit) {
    case RENET_LSTM: return body(LstmUnit());
    case RENET_GRU: return body(GruUnit());
    default: return body(IrnnUnit());
  }
}

}  // namespace renet
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_UNITS_CUH_
