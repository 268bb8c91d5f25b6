#ifndef CAFFE_RENET_CELL_HPP_
#define CAFFE_RENET_CELL_HPP_

#include <cmath>
#include <cstdint>
#include <cstring>

/**
 * The arithmetic of one recurrent unit at one position, forward and backward:
 * scalar functions that the CPU's sweeps vectorise over lines of the map and
 * that CUDA kernels call once a thread. Nothing here knows about layouts.
 */
#ifdef __CUDACC__
#define RENET_CELL_FUNCTION __host__ __device__ __forceinline__
#else
// Always inlined: the same function is compiled for several instruction sets,
// and a shared out-of-line copy could be the one that this processor lacks.
#define RENET_CELL_FUNCTION inline __attribute__((always_inline))
#endif

namespace caffe {
namespace renet {

/**
 * @brief Splits @f$ e^x = 2^n (1 + p) @f$ with @f$ p = e^r - 1 @f$,
 *        @f$ |r| \le \ln 2 / 2 @f$; without a branch, so that loops over it
 *        vectorise.
 *
 * Keeping p apart from the 1 preserves the relative accuracy of
 * @f$ e^x - 1 @f$ around zero, which tanh needs. |x| must be below 88.
 */
RENET_CELL_FUNCTION void SplitExponential(float x, float* power, float* p) {
  // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low
  // bits of the sum.
  const float kRound = 12582912.f;
  const int32_t kRoundBits = 0x4B400000;
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  int32_t bits;
  memcpy(&bits, &shifted, sizeof(bits));
  bits = static_cast<int32_t>(
      static_cast<uint32_t>(bits - kRoundBits + 127) << 23);
  memcpy(power, &bits, sizeof(bits));
  // ln 2 in two parts, the first exact in few bits, so that n * ln 2 loses
  // nothing.
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float series = 1.f / 5040.f;
  series = series * r + 1.f / 720.f;
  series = series * r + 1.f / 120.f;
  series = series * r + 1.f / 24.f;
  series = series * r + 1.f / 6.f;
  series = series * r + 0.5f;
  *p = series * (r * r) + r;
}

/// a / b for b >= 1. A GPU's own reciprocal is right to 2 units in the
/// last place and takes a fifth of the instructions of a division.
RENET_CELL_FUNCTION float Divide(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

/// @f$ \sigma(x) = 1 / (1 + e^{-x}) @f$; NaN stays NaN.
RENET_CELL_FUNCTION float Sigmoid(float x) {
#ifdef __CUDA_ARCH__
  // The exponential's error, a few units in its last place, is not more than
  // that in the result where x < 0, and vanishes beside the 1 where x > 0.
  // Beyond 2^126 the quotient is 0, as it should be.
  return Divide(1.f, 1.f + __expf(-x));
#else
  float y = -x;
  y = y < -87.f ? -87.f : y;
  y = y > 87.f ? 87.f : y;
  float power, p;
  SplitExponential(y, &power, &p);
  return 1.f / (1.f + (power * p + power));
#endif
}

RENET_CELL_FUNCTION double Sigmoid(double x) {
  return 1. / (1. + exp(-x));
}

/// @f$ \tanh(x) = m / (m + 2), m = e^{2x} - 1 @f$; NaN stays NaN.
RENET_CELL_FUNCTION float Tanh(float x) {
  float y = x + x;
  y = y < -20.f ? -20.f : y;  // tanh is 1 to the last bit from 9.02 on
  y = y > 20.f ? 20.f : y;
  float power, p;
  SplitExponential(y, &power, &p);
  const float m = power * p + (power - 1.f);
  return Divide(m, m + 2.f);
}

RENET_CELL_FUNCTION double Tanh(double x) {
  return tanh(x);
}

/**
 * @brief One LSTM step.
 *
 * @f[ i = \sigma(\hat i + p_i c), f = \sigma(\hat f + p_f c),
 *     g = \tanh(\hat g), c' = f c + i g,
 *     o = \sigma(\hat o + p_o c'), h' = o \tanh(c') @f]
 * where a hat marks the sum of the gate's products and bias, and p the
 * diagonal peepholes (zero without them).
 */
template <typename Dtype>
RENET_CELL_FUNCTION void LstmForward(Dtype i_sum, Dtype f_sum, Dtype o_sum,
    Dtype g_sum, Dtype c_previous, Dtype p_i, Dtype p_f, Dtype p_o, Dtype* i,
    Dtype* f, Dtype* o, Dtype* g, Dtype* c, Dtype* h) {
  *i = Sigmoid(i_sum + p_i * c_previous);
  *f = Sigmoid(f_sum + p_f * c_previous);
  *g = Tanh(g_sum);
  *c = *f * c_previous + *i * *g;
  *o = Sigmoid(o_sum + p_o * *c);
  *h = *o * Tanh(*c);
}

/**
 * @brief The gradient of LstmForward.
 *
 * @param h_diff the gradient that reaches h'
 * @param c_diff in: the gradient that reaches c' from the next step (and from
 *        the top where it carries c'); out: the gradient for c
 * The four *_sum_diff are gradients of the gates' sums.
 */
template <typename Dtype>
RENET_CELL_FUNCTION void LstmBackward(Dtype h_diff, Dtype i, Dtype f, Dtype o,
    Dtype g, Dtype c, Dtype c_previous, Dtype p_i, Dtype p_f, Dtype p_o,
    Dtype* c_diff, Dtype* i_sum_diff, Dtype* f_sum_diff, Dtype* o_sum_diff,
    Dtype* g_sum_diff) {
  const Dtype squashed = Tanh(c);
  *o_sum_diff = h_diff * squashed * o * (1 - o);
  const Dtype total = *c_diff + h_diff * o * (1 - squashed * squashed)
      + *o_sum_diff * p_o;
  *i_sum_diff = total * g * i * (1 - i);
  *f_sum_diff = total * c_previous * f * (1 - f);
  *g_sum_diff = total * i * (1 - g * g);
  *c_diff = total * f + *i_sum_diff * p_i + *f_sum_diff * p_f;
}

/// Update and reset gates of a GRU: @f$ z = \sigma(\hat z), r = \sigma(\hat r)
/// @f$, and the reset state @f$ r h @f$ that the candidate's product takes.
template <typename Dtype>
RENET_CELL_FUNCTION void GruGatesForward(Dtype z_sum, Dtype r_sum,
    Dtype h_previous, Dtype* z, Dtype* r, Dtype* reset_h) {
  *z = Sigmoid(z_sum);
  *r = Sigmoid(r_sum);
  *reset_h = *r * h_previous;
}

/// Candidate and state of a GRU:
/// @f$ n = \tanh(\hat n), h' = (1 - z) n + z h @f$.
template <typename Dtype>
RENET_CELL_FUNCTION void GruStateForward(Dtype n_sum, Dtype z,
    Dtype h_previous, Dtype* n, Dtype* h) {
  *n = Tanh(n_sum);
  *h = (1 - z) * *n + z * h_previous;
}

/// The gradient of GruStateForward; h_diff becomes the direct share of h.
template <typename Dtype>
RENET_CELL_FUNCTION void GruStateBackward(Dtype z, Dtype n, Dtype h_previous,
    Dtype* h_diff, Dtype* z_sum_diff, Dtype* n_sum_diff) {
  *n_sum_diff = *h_diff * (1 - z) * (1 - n * n);
  *z_sum_diff = *h_diff * (h_previous - n) * z * (1 - z);
  *h_diff *= z;
}

/// The gradient of the reset state: adds the share of h that went through it.
template <typename Dtype>
RENET_CELL_FUNCTION void GruResetBackward(Dtype reset_h_diff, Dtype r,
    Dtype h_previous, Dtype* h_diff, Dtype* r_sum_diff) {
  *r_sum_diff = reset_h_diff * h_previous * r * (1 - r);
  *h_diff += reset_h_diff * r;
}

/// @f$ h' = \max(0, \hat h) @f$ of an IRNN; NaN stays NaN.
template <typename Dtype>
RENET_CELL_FUNCTION Dtype IrnnForward(Dtype sum) {
  return sum < 0 ? Dtype(0) : sum;
}

/// The gradient of IrnnForward.
template <typename Dtype>
RENET_CELL_FUNCTION Dtype IrnnBackward(Dtype h_diff, Dtype h) {
  return h > 0 ? h_diff : Dtype(0);
}

}  // namespace renet
}  // namespace caffe

#endif  // CAFFE_RENET_CELL_HPP_
