/**
 * The steps of a mean-field iteration on the CPU, written once for every
 * instruction set.
 *
 * No include guard: mean_field_<set>.cpp includes this file once, after it has
 * set
 *   MEAN_FIELD_SET           the name of the set, a namespace of its own,
 *   MEAN_FIELD_VECTOR_BYTES  the width of a vector, of which a row's padding
 *                            makes a whole number.
 * Nothing in here may be an ordinary inline function: the linker would keep one
 * copy of it for all sets, maybe one that this processor cannot run.
 */
#include <cmath>
#include <cstdint>

#include "caffe/crf/mean_field.hpp"

#define MEAN_FIELD_INLINE inline __attribute__((always_inline))

namespace caffe {
namespace MEAN_FIELD_SET {
namespace {

template <typename Dtype> struct Simd;

template <> struct Simd<float> {
  typedef float Vector __attribute__((vector_size(MEAN_FIELD_VECTOR_BYTES)));
  typedef float Memory __attribute__((vector_size(MEAN_FIELD_VECTOR_BYTES),
                                      aligned(4), may_alias));
  typedef int32_t Index __attribute__((vector_size(MEAN_FIELD_VECTOR_BYTES)));
};

template <> struct Simd<double> {
  typedef double Vector __attribute__((vector_size(MEAN_FIELD_VECTOR_BYTES)));
  typedef double Memory __attribute__((vector_size(MEAN_FIELD_VECTOR_BYTES),
                                       aligned(8), may_alias));
  typedef int64_t Index __attribute__((vector_size(MEAN_FIELD_VECTOR_BYTES)));
};

template <typename Dtype>
struct Width {
  static constexpr int kLanes = MEAN_FIELD_VECTOR_BYTES / sizeof(Dtype);
};

/// The most vectors of a row that are worked on at once.
constexpr int kMostVectors = 4;
/// Vertices and pixels have uneven work; a thread takes this many at a time.
constexpr int kChunk = 1024;

template <typename Dtype>
MEAN_FIELD_INLINE typename Simd<Dtype>::Vector Load(const Dtype* from) {
  return *reinterpret_cast<const typename Simd<Dtype>::Memory*>(from);
}

template <typename Dtype>
MEAN_FIELD_INLINE void Store(typename Simd<Dtype>::Vector value, Dtype* to) {
  *reinterpret_cast<typename Simd<Dtype>::Memory*>(to) = value;
}

template <int kVectors, typename Dtype>
MEAN_FIELD_INLINE void Fetch(const Dtype* row) {
  const char* const begin = reinterpret_cast<const char*>(row);
  for (int byte = 0; byte < kVectors * MEAN_FIELD_VECTOR_BYTES; byte += 64) {
    __builtin_prefetch(begin + byte);
  }
  __builtin_prefetch(begin + kVectors * MEAN_FIELD_VECTOR_BYTES - 1);
}

/// The value where the mask has ones, 0 where it has zeros.
template <typename Vector, typename Index>
MEAN_FIELD_INLINE Vector Where(Index mask, Vector value) {
  return reinterpret_cast<Vector>(reinterpret_cast<Index>(value) & mask);
}

/// exp of every lane, for x <= 0. In float to about two units in the last
/// place: 2^n times the polynomial of the rest, |rest| <= ln(2) / 2; what is
/// below exp(-80), of which no sum of probabilities could tell, is 0, so that
/// no later product is denormal.
MEAN_FIELD_INLINE Simd<float>::Vector Exponential(Simd<float>::Vector x) {
  typedef Simd<float>::Vector Vector;
  typedef Simd<float>::Index Index;
  const Index negligible = x < -80.f;
  const Vector bounded = negligible ? Vector{} - 80.f : x;
  // adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits
  const Vector shifted = bounded * 1.44269504f + 12582912.f;
  const Vector whole = shifted - 12582912.f;
  const Vector rest =
      (bounded - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vector sum = rest * (1.f / 5040) + 1.f / 720;
  sum = sum * rest + 1.f / 120;
  sum = sum * rest + 1.f / 24;
  sum = sum * rest + 1.f / 6;
  sum = sum * rest + 0.5f;
  sum = sum * rest + 1.f;
  sum = sum * rest + 1.f;
  const Index exponent =
      (reinterpret_cast<Index>(shifted) - 0x4B400000 + 127) << 23;
  const Vector result = sum * reinterpret_cast<Vector>(exponent);
  return negligible ? Vector{} : result;
}

MEAN_FIELD_INLINE Simd<double>::Vector Exponential(Simd<double>::Vector x) {
  for (int lane = 0; lane < Width<double>::kLanes; ++lane) {
    x[lane] = exp(x[lane]);
  }
  return x;
}

// --- Splat and blur ----------------------------------------------------------

/// Vectors of every row from the offset, in values; run by a team of threads.
template <int kVectors, typename Dtype>
void Splat(const PermutohedralFilterPlan& plan, int stride, int offset,
    const Dtype* from, Dtype* to) {
  typedef typename Simd<Dtype>::Vector Vector;
  constexpr int kLanes = Width<Dtype>::kLanes;
  from += offset;
  to += offset;
#pragma omp for schedule(dynamic, kChunk)
  for (int v = 1; v <= plan.vertices; ++v) {
    Vector sum[kVectors] = {};
    for (int e = plan.first_entry[v]; e < plan.first_entry[v + 1]; ++e) {
      const int ahead = 
          plan.entry_point[e + PermutohedralFilterPlan::kEntriesAhead];
      Fetch<kVectors>(from + static_cast<size_t>(ahead) * stride);
      const Dtype* point =
          from + static_cast<size_t>(plan.entry_point[e]) * stride;
      const Dtype weight = plan.entry_weight[e];
      for (int k = 0; k < kVectors; ++k) {
        sum[k] += weight * Load(point + k * kLanes);
      }
    }
    Dtype* result = to + static_cast<size_t>(v) * stride;
    for (int k = 0; k < kVectors; ++k) { Store(sum[k], result + k * kLanes); }
  }
}

/// Where the values of a line's entry lie.
MEAN_FIELD_INLINE size_t Place(int entry, int stride) {
  return static_cast<size_t>(PermutohedralLines::Vertex(entry)) * stride;
}

/// Blurs along one axis with [1/2 1 1/2], in place: on its way up a line a
/// thread holds a vertex's and the one's below values as they were.
template <int kVectors, typename Dtype>
void Blur(const PermutohedralLines& lines, int stride, int offset,
    Dtype* values) {
  typedef typename Simd<Dtype>::Vector Vector;
  typedef typename Simd<Dtype>::Index Index;
  constexpr int kLanes = Width<Dtype>::kLanes;
  values += offset;
#pragma omp for schedule(dynamic)
  for (int chunk = 0; chunk < lines.chunks; ++chunk) {
    const int end = lines.chunk_begin[chunk + 1];
    int e = lines.chunk_begin[chunk];
    Dtype* row = values + Place(lines.entry[e], stride);
    Vector own[kVectors], below[kVectors];
    for (int k = 0; k < kVectors; ++k) {
      own[k] = Load(row + k * kLanes);
      below[k] = Vector{};
    }
    for (; e < end - 1; ++e) {
      Fetch<kVectors>(values +
          Place(lines.entry[e + PermutohedralLines::kAhead], stride));
      // lines are short and end where no processor can foresee: no branch
      const Index goes_on = Index{} - (lines.entry[e] >= 0);
      Dtype* const next_row = values + Place(lines.entry[e + 1], stride);
      for (int k = 0; k < kVectors; ++k) {
        const Vector next = Load(next_row + k * kLanes);
        Store<Dtype>(own[k] + Dtype(0.5) * (below[k] + Where(goes_on, next)),
            row + k * kLanes);
        below[k] = Where(goes_on, own[k]);
        own[k] = next;
      }
      row = next_row;
    }
    // what comes behind the chunk is another thread's
    for (int k = 0; k < kVectors; ++k) {
      Store<Dtype>(own[k] + Dtype(0.5) * below[k], row + k * kLanes);
    }
  }
}

template <int kVectors, typename Dtype>
void SplatAndBlurVectors(const PermutohedralFilterPlan& plan, int stride,
    int offset, const Dtype* from, Dtype* values) {
  Splat<kVectors>(plan, stride, offset, from, values);
  for (int axis = 0; axis < plan.corners; ++axis) {
    Blur<kVectors>(plan.lines[axis], stride, offset, values);
  }
}

template <typename Dtype>
void SplatAndBlur(const PermutohedralFilterPlan& plan, int stride,
    const Dtype* from, Dtype* values) {
  constexpr int kLanes = Width<Dtype>::kLanes;
#pragma omp parallel
  for (int offset = 0; offset < stride; offset += kMostVectors * kLanes) {
    switch ((stride - offset) / kLanes) {
    case 1:
      SplatAndBlurVectors<1>(plan, stride, offset, from, values);
      break;
    case 2:
      SplatAndBlurVectors<2>(plan, stride, offset, from, values);
      break;
    case 3:
      SplatAndBlurVectors<3>(plan, stride, offset, from, values);
      break;
    default:
      SplatAndBlurVectors<4>(plan, stride, offset, from, values);
    }
  }
}

// --- Slice and softmax -------------------------------------------------------

/// The message to vectors of one pixel's row.
template <int kVectors, typename Dtype>
MEAN_FIELD_INLINE void SlicePixel(const BlurredKernel<Dtype>* kernels,
    int kernel_count, int pixel, int stride, int offset,
    typename Simd<Dtype>::Vector* message) {
  typedef typename Simd<Dtype>::Vector Vector;
  constexpr int kLanes = Width<Dtype>::kLanes;
  for (int k = 0; k < kVectors; ++k) { message[k] = Vector{}; }
  for (int n = 0; n < kernel_count; ++n) {
    const PermutohedralFilterPlan& plan = kernels[n].plan;
    const size_t at = static_cast<size_t>(pixel) * plan.corners;
    Vector sum[kVectors] = {};
    const size_t coming =
        at + PermutohedralFilterPlan::kPointsAhead * plan.corners;
    for (int corner = 0; corner < plan.corners; ++corner) {
      Fetch<kVectors>(kernels[n].values +
          static_cast<size_t>(plan.vertex[coming + corner]) * stride + offset);
      const Dtype* values = kernels[n].values +
          static_cast<size_t>(plan.vertex[at + corner]) * stride + offset;
      const Dtype weight = plan.weight[at + corner];
      for (int k = 0; k < kVectors; ++k) {
        sum[k] += weight * Load(values + k * kLanes);
      }
    }
    for (int k = 0; k < kVectors; ++k) {
      message[k] += Load(kernels[n].weight + offset + k * kLanes) * sum[k];
    }
  }
}

/// to = (scores +) the message, for kVectors of one pixel's row
template <int kVectors, typename Dtype>
MEAN_FIELD_INLINE void SlicePixelTo(const BlurredKernel<Dtype>* kernels,
    int kernel_count, int pixel, int stride, int offset, const Dtype* scores,
    Dtype* to) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  typename Simd<Dtype>::Vector message[kVectors];
  SlicePixel<kVectors>(kernels, kernel_count, pixel, stride, offset, message);
  for (int k = 0; k < kVectors; ++k) {
    const int at = offset + k * kLanes;
    if (scores != NULL) { message[k] += Load(scores + at); }
    Store<Dtype>(message[k], to + at);
  }
}

template <typename Dtype>
MEAN_FIELD_INLINE void SliceRow(const BlurredKernel<Dtype>* kernels,
    int kernel_count, int pixel, int stride, const Dtype* scores, Dtype* to) {
  constexpr int kLanes = Width<Dtype>::kLanes;
  for (int offset = 0; offset < stride; offset += kMostVectors * kLanes) {
    switch ((stride - offset) / kLanes) {
    case 1:
      SlicePixelTo<1>(kernels, kernel_count, pixel, stride, offset, scores, to);
      break;
    case 2:
      SlicePixelTo<2>(kernels, kernel_count, pixel, stride, offset, scores, to);
      break;
    case 3:
      SlicePixelTo<3>(kernels, kernel_count, pixel, stride, offset, scores, to);
      break;
    default:
      SlicePixelTo<4>(kernels, kernel_count, pixel, stride, offset, scores, to);
    }
  }
}

/// @brief probability = softmax(logits) of one row; they may be the same.
template <typename Dtype>
MEAN_FIELD_INLINE void SoftmaxRow(const Dtype* logits, int stride,
    Dtype* probability) {
  typedef typename Simd<Dtype>::Vector Vector;
  constexpr int kLanes = Width<Dtype>::kLanes;
  Vector largest = Load(logits);
  for (int at = kLanes; at < stride; at += kLanes) {
    const Vector other = Load(logits + at);
    largest = largest < other ? other : largest;
  }
  Dtype shift = largest[0];
  for (int lane = 1; lane < kLanes; ++lane) {
    shift = shift < largest[lane] ? largest[lane] : shift;
  }
  Vector sums = {};
  for (int at = 0; at < stride; at += kLanes) {
    const Vector power = Exponential(Load(logits + at) - shift);
    Store<Dtype>(power, probability + at);
    sums += power;
  }
  Dtype sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) { sum += sums[lane]; }
  const Dtype inverse = 1 / sum;
  for (int at = 0; at < stride; at += kLanes) {
    Store<Dtype>(Load(probability + at) * inverse, probability + at);
  }
}

template <typename Dtype>
void Slice(const BlurredKernel<Dtype>* kernels, int kernel_count, int count,
    int stride, Dtype* message) {
#pragma omp parallel for schedule(static)
  for (int i = 0; i < count; ++i) {
    SliceRow<Dtype>(kernels, kernel_count, i, stride, NULL,
        message + static_cast<size_t>(i) * stride);
  }
}

template <typename Dtype>
void SliceAndSoftmax(const BlurredKernel<Dtype>* kernels, int kernel_count,
    int count, int stride, const Dtype* scores, Dtype* logits,
    Dtype* probability) {
#pragma omp parallel for schedule(static)
  for (int i = 0; i < count; ++i) {
    const size_t at = static_cast<size_t>(i) * stride;
    Dtype* row = (logits != NULL ? logits : probability) + at;
    SliceRow(kernels, kernel_count, i, stride, scores + at, row);
    SoftmaxRow<Dtype>(row, stride, probability + at);
  }
}

template <typename Dtype>
void Softmax(const Dtype* logits, int count, int stride, Dtype* probability) {
#pragma omp parallel for schedule(static)
  for (int i = 0; i < count; ++i) {
    const size_t at = static_cast<size_t>(i) * stride;
    SoftmaxRow(logits + at, stride, probability + at);
  }
}

template <typename Dtype>
MeanFieldKernels<Dtype> MakeKernels(const char* name) {
  MeanFieldKernels<Dtype> kernels;
  kernels.name = name;
  kernels.splat_and_blur = SplatAndBlur<Dtype>;
  kernels.slice = Slice<Dtype>;
  kernels.slice_and_softmax = SliceAndSoftmax<Dtype>;
  kernels.softmax = Softmax<Dtype>;
  return kernels;
}

}  // namespace
}  // namespace MEAN_FIELD_SET
}  // namespace caffe
