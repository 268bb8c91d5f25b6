#ifndef CAFFE_CRF_PERMUTOHEDRAL_DEVICE_LATTICE_CUH_
#define CAFFE_CRF_PERMUTOHEDRAL_DEVICE_LATTICE_CUH_

#include <cmath>
#include <cstddef>
#include <utility>

#include "caffe/common.hpp"
#include "caffe/util/growing_array.hpp"
#include "caffe/crf/permutohedral_filter.cuh"
#include "caffe/crf/permutohedral_vertices.cuh"
#include "caffe/gpu/prefix_sum.cuh"
#include "caffe/gpu/stable_sort.cuh"
#include "caffe/renet/gpu/scan.hpp"

namespace caffe {

/// What lattices need while they are built; they may share it.
template <typename Dtype>
struct LatticeScratch {
  GrowingArray<int> simplices;
  GrowingArray<float> weight;
  GrowingArray<int> slots;
  GrowingArray<int> numbers[2];
  GrowingArray<int> counts;
  GrowingArray<int> sums;
  GrowingArray<Dtype> factor;
};

/**
 * @brief PermutohedralLattice on a device, with its normalisation in the
 *        weights: Blur and BlurredLattice::Slice together are the normalised
 *        filter.
 *
 * Its vertices have the numbers that the processor's lattice gives them, and
 * all sums have one order. Memory is linear in points, and that of the values
 * in vertices: their number is read back from the device, once in Build.
 *
 * Device offers Launch, Allocate and Fetch.
 */
template <typename Dtype, int kDimensions>
class PermutohedralDeviceLattice {
 public:
  static constexpr int kCorners = kDimensions + 1;

  PermutohedralDeviceLattice()
      : points_(0), placed_(0), entries_(0), vertices_(0) {}

  /// @return false, and there is no lattice, where a point lies out of its
  ///         reach or a feature is not a number (see PlacePoint)
  template <class Device, class Features>
  bool Build(Device* device, int points, const Features& features,
      LatticeNormalization normalization, LatticeScratch<Dtype>* scratch) {
    static_assert(Features::kDimensions == kDimensions, "of this lattice");
    CHECK_GT(points, 0) << "a lattice needs points";
    CHECK_LT(points, (1 << 29) / kCorners) << "too many points for a lattice";
    normalization_ = normalization;
    points_ = points;
    placed_ = PlacedPoints(points);
    entries_ = placed_ * kCorners;
    if (!Place(device, features, scratch)) { return false; }
    Sort(device, scratch);
    if (normalization.before || normalization.after) {
      Normalise(device, scratch);
    }
    return true;
  }

  /**
   * @brief Splats and blurs `from`, by the filter or by its transpose.
   *
   * Missing vertices make the blurs of two axes differ by their order: the
   * exact transpose goes through the axes backwards.
   *
   * @param from points x stride
   * @return to be read before the next call
   */
  template <class Device>
  BlurredLattice<Dtype, kCorners> Blur(Device* device, const Dtype* from,
      int stride, bool transposed) {
    const LatticeNormalization normalization =
        transposed ? normalization_.Transposed() : normalization_;
    const bool one_sided = normalization.OneSided();
    return BlurWith(device,
        (one_sided && normalization.before ? one_sided_splat_weight_ :
        splat_weight_).get(),
        (one_sided && normalization.after ? one_sided_slice_weight_ :
        slice_weight_).get(), from, stride, transposed);
  }

  /**
   * @brief Every vertex's values times a matrix's transpose.
   *
   * @param blurred of this lattice's last Blur
   * @param matrix  channels x channels
   * @return to be read before the next Blur
   */
  template <class Device>
  BlurredLattice<Dtype, kCorners> Mix(Device* device,
      BlurredLattice<Dtype, kCorners> blurred, int stride, int channels,
      const Dtype* matrix) {
    Dtype* const mixed =
        values_[blurred.values == values_[0].get() ? 1 : 0].get();
    device->Product(false, true, vertices_, channels, channels, blurred.values,
        stride, matrix, channels, Dtype(0), mixed, stride, RENET_FLOAT32);
    blurred.values = mixed;
    return blurred;
  }

  int vertices() const { return vertices_; }

 private:
  static dim3 Blocks(size_t threads) {
    return dim3((threads - 1) / kVertexThreads + 1);
  }

  /// Blur with these weights; no `from` is 1 everywhere.
  template <class Device>
  BlurredLattice<Dtype, kCorners> BlurWith(Device* device,
      const Dtype* splat_weight, const Dtype* slice_weight, const Dtype* from,
      int stride, bool backwards) {
    const size_t size = static_cast<size_t>(vertices_) * stride;
    Dtype* values = values_[0].Reserve(device, size);
    Dtype* blurred = values_[1].Reserve(device, size);
    const int chunks = SplatChunks(entries_);
    Dtype* const carried = carried_.Reserve(device,
        static_cast<size_t>(chunks) * stride);
    const SortedEntries<Dtype> entries = {entries_, splat_vertex_.get(),
        splat_point_.get(), splat_weight, begin_.get()};
    device->Launch(&SplatKernel<Dtype>, RowGrid(chunks, stride),
        RowBlock(stride), 0, entries, stride, from, values, carried);
    device->Launch(&AddCarriedKernel<Dtype>, RowGrid(chunks, stride),
        RowBlock(stride), 0, entries, stride,
        static_cast<const Dtype*>(carried), values);
    for (int step = 0; step < kCorners; ++step) {
      const int axis = backwards ? kCorners - 1 - step : step;
      const Neighbours* const neighbours =
          neighbours_.get() + static_cast<size_t>(axis) * vertices_;
      device->Launch(&BlurKernel<Dtype>, RowGrid(vertices_, stride),
          RowBlock(stride), 0, vertices_, stride, neighbours,
          static_cast<const Dtype*>(values), blurred);
      std::swap(values, blurred);
    }
    const BlurredLattice<Dtype, kCorners> result = {values, vertex_.get(),
        slice_weight};
    return result;
  }

  /// Simplices, vertices and their neighbours.
  template <class Device, class Features>
  bool Place(Device* device, const Features& features,
      LatticeScratch<Dtype>* scratch) {
    const dim3 threads(kVertexThreads);
    typedef PackedSimplex<kDimensions> Simplex;
    Simplex* const simplices =
        reinterpret_cast<Simplex*>(scratch->simplices.Reserve(device,
        static_cast<size_t>(placed_) * (sizeof(Simplex) / sizeof(int))));
    PermutohedralScales<kDimensions> scales;
    for (int k = 0; k < kDimensions; ++k) {
      scales.scale[k] = PermutohedralScale(k, kDimensions);
    }
    unsigned slots = 64;
    while (slots < 2u * entries_) { slots *= 2; }
    const DeviceVertexTable<kDimensions> table = {simplices,
        scratch->slots.Reserve(device, slots + 1), slots - 1};
    int* const in_reach = table.slots + slots;
    device->Launch(&FillKernel<int>, Blocks(slots + 1), threads, 0,
        static_cast<int>(slots + 1), int(table.kEmpty), table.slots);
    device->Launch(&PlacePointsKernel<Features>, Blocks(placed_), threads, 0,
        points_, features, scales, simplices,
        scratch->weight.Reserve(device, entries_), in_reach);
    int* const vertex = vertex_.Reserve(device, entries_);
    device->Launch(&InsertVerticesKernel<kDimensions>, Blocks(entries_),
        threads, 0, entries_, table, vertex);

    int* const number = scratch->numbers[0].Reserve(device, entries_);
    int* const standing = scratch->numbers[1].Reserve(device, entries_);
    int* const sums = scratch->sums.Reserve(device, SumTiles(entries_) + 1);
    const StandsForVertex stands = {table.slots, vertex, in_reach};
    LaunchPrefixSum(device, entries_, stands, sums, number);
    device->Launch(&NumberVerticesKernel<kDimensions>, Blocks(entries_),
        threads, 0, entries_, table, static_cast<const int*>(number), vertex,
        standing);
    vertices_ = device->Fetch(sums + SumTiles(entries_));
    if (vertices_ == 0) { return false; }

    Neighbours* const neighbours = neighbours_.Reserve(device,
        static_cast<size_t>(vertices_) * kCorners);
    dim3 blocks = Blocks(vertices_);
    blocks.y = kCorners;
    device->Launch(&FindNeighboursKernel<kDimensions>, blocks, threads, 0,
        vertices_, table, static_cast<const int*>(vertex),
        static_cast<const int*>(standing), neighbours);
    return true;
  }

  /// The entries in the order of their vertices.
  template <class Device>
  void Sort(Device* device, LatticeScratch<Dtype>* scratch) {
    int* const numbers[] = {scratch->numbers[0].get(),
        scratch->numbers[1].get()};
    const int counts = SortCounts(entries_);
    const int* const sorted = SortByKeys(device, entries_,
        static_cast<const int*>(vertex_.get()), vertices_ - 1, numbers,
        scratch->counts.Reserve(device, counts),
        scratch->sums.Reserve(device, SumTiles(counts) + 1));
    // the height of the Gaussian that splat, blur and slice together are
    const Dtype alpha = 1 / (1 + std::pow(Dtype(2), -kDimensions));
    device->Launch(&ArrangeEntriesKernel<Dtype, kCorners>, Blocks(entries_),
        dim3(kVertexThreads), 0, points_, entries_, vertices_, sorted,
        static_cast<const int*>(vertex_.get()),
        static_cast<const float*>(scratch->weight.get()), alpha,
        splat_vertex_.Reserve(device, entries_),
        splat_point_.Reserve(device, entries_),
        splat_weight_.Reserve(device, entries_),
        begin_.Reserve(device, vertices_ + 1),
        slice_weight_.Reserve(device, entries_));
  }

  template <class Device>
  void Normalise(Device* device, LatticeScratch<Dtype>* scratch) {
    Dtype* const factor = scratch->factor.Reserve(device, placed_);
    const Dtype* const splat_weight = splat_weight_.get();
    const Dtype* const slice_weight = slice_weight_.get();
    const BlurredLattice<Dtype, kCorners> sums = BlurWith(device, splat_weight,
        slice_weight, static_cast<const Dtype*>(NULL), 1, false);
    device->Launch(&NormalisationKernel<Dtype, kCorners>, Blocks(placed_),
        dim3(kVertexThreads), 0, placed_, normalization_, sums, factor);
    const bool one_sided = normalization_.OneSided();
    device->Launch(&NormaliseWeightsKernel<Dtype, kCorners>, Blocks(entries_),
        dim3(kVertexThreads), 0, entries_, static_cast<const Dtype*>(factor),
        static_cast<const int*>(splat_point_.get()), splat_weight, slice_weight,
        one_sided ? one_sided_splat_weight_.Reserve(device, entries_) :
        splat_weight_.get(),
        one_sided ? one_sided_slice_weight_.Reserve(device, entries_) :
        slice_weight_.get());
  }

  LatticeNormalization normalization_;
  int points_, placed_, entries_, vertices_;
  GrowingArray<int> vertex_;        // of every entry
  GrowingArray<Dtype> slice_weight_;
  // see SortedEntries
  GrowingArray<int> splat_vertex_, splat_point_, begin_;
  GrowingArray<Dtype> splat_weight_;
  // where one side has D^-1: the weights with it, and those above without
  GrowingArray<Dtype> one_sided_splat_weight_, one_sided_slice_weight_;
  GrowingArray<Neighbours> neighbours_;  // corners x vertices
  GrowingArray<Dtype> values_[2];        // vertices x stride
  GrowingArray<Dtype> carried_;          // chunks x stride
};

}  // namespace caffe

#endif  // CAFFE_CRF_PERMUTOHEDRAL_DEVICE_LATTICE_CUH_
