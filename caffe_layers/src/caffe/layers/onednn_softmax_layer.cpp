#include "caffe/layers/onednn_softmax_layer.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "caffe/onednn/each_processor.hpp"

namespace caffe {

namespace {

const int kPositions = 256;  // that a thread takes at a time

// e^x of x <= 0: 2^n e^r with |r| <= log(2) / 2. Below float's range 0; a NaN
// stays one.
inline float Exponential(float x) {
  const float kLeast = -87.3f;
  const float within = x < kLeast ? kLeast : x;
  // adding 1.5 * 2^23 rounds, and leaves the integer in the lowest bits
  const float kRound = 12582912.f;
  const float shifted = within * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = within - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits << 23) + 0x3f800000u;  // 2^n
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return x < kLeast ? 0 : p * power;
}

// Softmax of `count` positions, whose channels lie `step` apart.
FOR_EACH_PROCESSOR
void Normalize(int channels, int step, int count, const float* from, float* to) {
  float most[kPositions], sum[kPositions];
  for (int i = 0; i < count; ++i) { most[i] = from[i]; }
  for (int c = 1; c < channels; ++c) {
    const float* const line = from + static_cast<size_t>(c) * step;
    for (int i = 0; i < count; ++i) { most[i] = line[i] > most[i] ? line[i] : most[i]; }
  }
  for (int i = 0; i < count; ++i) { sum[i] = 0; }
  for (int c = 0; c < channels; ++c) {
    const float* const line = from + static_cast<size_t>(c) * step;
    float* const power = to + static_cast<size_t>(c) * step;
    for (int i = 0; i < count; ++i) {
      const float value = Exponential(line[i] - most[i]);
      power[i] = value;
      sum[i] += value;
    }
  }
  for (int i = 0; i < count; ++i) { sum[i] = 1 / sum[i]; }
  for (int c = 0; c < channels; ++c) {
    float* const power = to + static_cast<size_t>(c) * step;
    for (int i = 0; i < count; ++i) { power[i] *= sum[i]; }
  }
}

// dx = (dy - sum of dy y) y.
FOR_EACH_PROCESSOR
void NormalizeGradient(int channels, int step, int count, const float* values,
    const float* from, float* to) {
  float sum[kPositions];
  for (int i = 0; i < count; ++i) { sum[i] = 0; }
  for (int c = 0; c < channels; ++c) {
    const size_t line = static_cast<size_t>(c) * step;
    for (int i = 0; i < count; ++i) { sum[i] += values[line + i] * from[line + i]; }
  }
  for (int c = 0; c < channels; ++c) {
    const size_t line = static_cast<size_t>(c) * step;
    for (int i = 0; i < count; ++i) {
      to[line + i] = (from[line + i] - sum[i]) * values[line + i];
    }
  }
}

// Calls body(first value, how many positions) for pieces of all positions.
template <typename Body>
void ForEachPiece(int outer, int channels, int inner, const Body& body) {
  const int pieces = (inner + kPositions - 1) / kPositions;
#pragma omp parallel for collapse(2)
  for (int n = 0; n < outer; ++n) {
    for (int piece = 0; piece < pieces; ++piece) {
      const int first = piece * kPositions;
      body(static_cast<size_t>(n) * channels * inner + first,
          std::min(kPositions, inner - first));
    }
  }
}

}  // namespace

void OneDNNSoftmaxLayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  const int channels = bottom[0]->shape(softmax_axis_);
  const float* const from = bottom[0]->cpu_data();
  float* const to = top[0]->mutable_cpu_data();
  ForEachPiece(outer_num_, channels, inner_num_, [&](size_t first, int count) {
    Normalize(channels, inner_num_, count, from + first, to + first);
  });
}

void OneDNNSoftmaxLayer::Backward_cpu(const vector<Blob<float>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  if (!propagate_down[0]) { return; }
  const int channels = top[0]->shape(softmax_axis_);
  const float* const values = top[0]->cpu_data();
  const float* const from = top[0]->cpu_diff();
  float* const to = bottom[0]->mutable_cpu_diff();
  ForEachPiece(outer_num_, channels, inner_num_, [&](size_t first, int count) {
    NormalizeGradient(channels, inner_num_, count, values + first, from + first,
        to + first);
  });
}

}  // namespace caffe
