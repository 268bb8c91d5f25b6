#ifndef CAFFE_RENET_GPU_PEEPHOLE_DIFFS_CUH_
#define CAFFE_RENET_GPU_PEEPHOLE_DIFFS_CUH_

#include <cstddef>

#include "caffe/gpu/cuda_block.hpp"
#include "caffe/renet/gpu/scan.hpp"

/**
 * Gradients of an LSTM's diagonal peepholes, sums over all positions:
 * @f$ \Delta p_i = \sum \delta_i c, \Delta p_f = \sum \delta_f c,
 *     \Delta p_o = \sum \delta_o c' @f$.
 * In two launches without atomics, so that equal inputs give equal bits.
 */
namespace caffe {
namespace renet {

const int kPeepholeUnits = 32;
const int kPeepholeRows = 8;    // threads: kPeepholeUnits x kPeepholeRows
const int kPeepholeParts = 64;  // blocks that share the positions

/// parts: kPeepholeParts x 2 scans x 3 x d. Grid: units / 32, 2, parts.
template <typename Dtype>
__global__ void SumPeepholeDiffs(const ReNetScan<Dtype> s, Dtype* parts) {
  __shared__ Dtype sums[3][kPeepholeRows][kPeepholeUnits];
  const int d = s.hidden, scan = blockIdx.y;
  const int unit = blockIdx.x * kPeepholeUnits + threadIdx.x;
  const size_t positions = static_cast<size_t>(s.steps) * s.lines;
  Dtype sum[3] = {};
  if (unit < d) {
    for (size_t position = blockIdx.z * kPeepholeRows + threadIdx.y;
        position < positions; position += kPeepholeParts * kPeepholeRows) {
      const size_t row = position * 2 + scan;
      const Dtype* const diff = s.gates_diff + row * 4 * d + unit;
      const bool has_before = scan == 0 ?
          position >= static_cast<size_t>(s.lines) :
          position + s.lines < positions;
      if (has_before) {
        const size_t before = (scan == 0 ? position - s.lines :
            position + s.lines) * 2 + scan;
        const Dtype c = s.extra[before * d + unit];
        sum[0] += diff[0] * c;
        sum[1] += diff[d] * c;
      }
      sum[2] += diff[2 * d] * s.extra[row * d + unit];
    }
  }
  for (int gate = 0; gate < 3; ++gate) {
    sums[gate][threadIdx.y][threadIdx.x] = sum[gate];
  }
  __syncthreads();
  if (threadIdx.y < 3 && unit < d) {
    Dtype total = 0;
    for (int i = 0; i < kPeepholeRows; ++i) {
      total += sums[threadIdx.y][i][threadIdx.x];
    }
    parts[((static_cast<size_t>(blockIdx.z) * 2 + scan) * 3 + threadIdx.y) *
        d + unit] = total;
  }
}

/// Adds the parts to the gradients; one thread for each of 2 x 3 x d.
template <typename Dtype>
__global__ void AddPeepholeDiffs(int hidden, const Dtype* parts, Dtype* diff0,
    Dtype* diff1) {
  const int count = 3 * hidden;
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= 2 * count) return;
  Dtype* const diff = index < count ? diff0 : diff1;
  if (diff == NULL) return;
  Dtype total = 0;
  for (int part = 0; part < kPeepholeParts; ++part) {
    total += parts[static_cast<size_t>(part) * 2 * count + index];
  }
  diff[index % count] += total;
}

}  // namespace renet
}  // namespace caffe

#endif  // CAFFE_RENET_GPU_PEEPHOLE_DIFFS_CUH_
