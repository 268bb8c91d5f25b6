/**
 * The ReNet sweeps on the CPU, written once for every instruction set.
 *
 * No include guard: sweep_<set>.cpp includes this file once, after
 * it has set
 *   RENET_SET           the name of the set, a namespace of its own,
 *   RENET_VECTOR_BYTES  the width of a vector register,
 *   RENET_PANEL_ROWS    rows of a register tile (a multiple of 4): with three
 *                       vectors of lines the accumulators must fit the
 *                       register file;
 * and, for products of factors rounded to bfloat16 (float alone),
 *   RENET_BFLOAT16      by AVX512_BF16, or
 *   RENET_AMX           besides, by AMX's tiles of 16 rows.
 * Nothing in here may be an ordinary inline function: the linker would keep
 * one copy of it for all sets, maybe one that this processor cannot run. So
 * each of the parts below stands in this file's namespace, once for each set.
 */
#if defined(RENET_BFLOAT16)
#include <immintrin.h>
#endif
#include <omp.h>

#include "caffe/renet/cell.hpp"
#include "caffe/renet/sweep.hpp"

#define RENET_INLINE inline __attribute__((always_inline))

namespace caffe {
namespace RENET_SET {
namespace {

// each stands on those before it
#include "caffe/renet/cpu/simd.hpp"
#include "caffe/renet/cpu/shape.hpp"
#include "caffe/renet/cpu/transfer.hpp"
#if defined(RENET_BFLOAT16)
#include "caffe/renet/cpu/factors_bfloat16.hpp"
#else
#include "caffe/renet/cpu/factors.hpp"
#endif
#include "caffe/renet/cpu/packing.hpp"
#if defined(RENET_AMX)
#include "caffe/renet/cpu/products_amx.hpp"
#else
#include "caffe/renet/cpu/products.hpp"
#endif
#if defined(RENET_BFLOAT16)
#include "caffe/renet/cpu/weight_gradients_bfloat16.hpp"
#else
#include "caffe/renet/cpu/weight_gradients.hpp"
#endif
#include "caffe/renet/cpu/plan.hpp"
#include "caffe/renet/cpu/forward.hpp"
#include "caffe/renet/cpu/backward.hpp"

template <typename Dtype>
ReNetKernels<Dtype> MakeKernels(const char* name) {
  const ReNetKernels<Dtype> kernels = {name, Plan<Dtype>, HistorySize<Dtype>,
      WorkspaceSize<Dtype>, Forward<Dtype>, Backward<Dtype>};
  return kernels;
}

}  // namespace
}  // namespace RENET_SET
}  // namespace caffe
