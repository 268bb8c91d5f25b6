#ifndef CAFFE_RENET_GPU_SCAN_HPP_
#define CAFFE_RENET_GPU_SCAN_HPP_

#include "caffe/gpu/cuda_block.hpp"

namespace caffe {

/// What the factors of a device's products are rounded to; sums, states and
/// cells are float32 always.
enum ReNetPrecision { RENET_FLOAT32 = 0, RENET_TF32 = 1, RENET_BF16 = 2 };

/**
 * @brief What the recurrence of one sweep (both scans) reads and writes on a
 *        device, after the products with W_x and before those of the weights'
 *        gradients.
 *
 * T rows of L lines; position = row * L + line, where the row is the place
 * along the sweep axis. Scan 0 visits the rows 0 .. T-1, scan 1 the rows
 * T-1 .. 0; both start from a zero state. d is `hidden`, G the gates of the
 * unit in the order of its layer (LSTM i, f, o, g; GRU z, r, n; IRNN one).
 * Every map has one row a position and, in it, scan 0 before scan 1.
 */
template <typename Dtype>
struct ReNetScan {
  int steps;   // T
  int lines;   // L
  int hidden;  // d

  const Dtype* recurrent_weights[2];  // G*d x d
  const Dtype* peephole[2];           // 3 x d (LSTM), or NULL

  /// T*L x 2 x G*d. Before the forward pass the sums W_x x + b; after it, where
  /// keep_gates is set, the gates after their nonlinearity (an IRNN has none).
  Dtype* gates;
  bool keep_gates;
  Dtype* states;  // T*L x 2 x d: h
  /// T*L x 2 x d: c of an LSTM, r * h of a GRU; NULL: not kept.
  Dtype* extra;

  const Dtype* states_diff;  // T*L x 2 x d: the gradient that reaches h (or c)
  bool cell_output;          // LSTM: states_diff is the gradient of c, not of h
  Dtype* gates_diff;         // T*L x 2 x G*d: gradients of the gates' sums
};

/// One of a pair for both scans, without a run-time index into a kernel's
/// parameters.
template <typename Value>
CUDA_INLINE Value OfScan(Value const (&pair)[2], int scan) {
  return scan == 0 ? pair[0] : pair[1];
}

}  // namespace caffe

#endif  // CAFFE_RENET_GPU_SCAN_HPP_
