#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <vector>

#include "caffe/layers/bilinear_interpolation_layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

namespace {

inline int MaxThreads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

inline int ThisThread() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// output (W values) = input (w values) interpolated.
template <typename Dtype>
void InterpolateRow(const vector<BilinearTap<Dtype> >& taps, const Dtype* input,
    Dtype* output) {
  const int width = taps.size();
  for (int x = 0; x < width; ++x) {
    const BilinearTap<Dtype>& tap = taps[x];
    output[x] = (1 - tap.weight) * input[tap.low] +
        tap.weight * input[tap.high];
  }
}

// input_diff (w values) += the transpose of InterpolateRow on output_diff.
template <typename Dtype>
void AccumulateRow(const vector<BilinearTap<Dtype> >& taps,
    const Dtype* output_diff, Dtype* input_diff) {
  const int width = taps.size();
  for (int x = 0; x < width; ++x) {
    const BilinearTap<Dtype>& tap = taps[x];
    input_diff[tap.low] += (1 - tap.weight) * output_diff[x];
    input_diff[tap.high] += tap.weight * output_diff[x];
  }
}

}  // namespace

template <typename Dtype>
void BilinearInterpolationLayer<Dtype>::CheckMap(
    const vector<Blob<Dtype>*>& bottom, int number) const {
  const Blob<Dtype>& map = *bottom[number];
  CHECK(map.num_axes() == 4 && map.shape(2) > 0 && map.shape(3) > 0)
      << Name() << ": bottom " << number << " has shape " << map.shape_string()
      << "; expected N x C x H x W with H and W 1 or more";
}

template <typename Dtype>
void BilinearInterpolationLayer<Dtype>::ChooseSizes(
    const vector<Blob<Dtype>*>& bottom, int* height, int* width) {
  CheckMap(bottom, 1);
  *height = bottom[1]->shape(2);
  *width = bottom[1]->shape(3);
  const BilinearWindow rows =
      { bottom[0]->shape(2), 0, bottom[0]->shape(2) };
  const BilinearWindow columns =
      { bottom[0]->shape(3), 0, bottom[0]->shape(3) };
  row_window_ = rows;
  column_window_ = columns;
}

template <typename Dtype>
void BilinearInterpolationLayer<Dtype>::Reshape(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CheckMap(bottom, 0);
  int height, width;
  ChooseSizes(bottom, &height, &width);
  top[0]->Reshape(bottom[0]->shape(0), bottom[0]->shape(1), height, width);
  row_taps_.resize(height);
  for (int y = 0; y < height; ++y) {
    row_taps_[y] = GetBilinearTap<Dtype>(y, height, row_window_);
  }
  column_taps_.resize(width);
  for (int x = 0; x < width; ++x) {
    column_taps_[x] = GetBilinearTap<Dtype>(x, width, column_window_);
  }
}

template <typename Dtype>
void BilinearInterpolationLayer<Dtype>::ReserveRows(int threads) {
  const size_t needed = static_cast<size_t>(threads) * 2 * column_taps_.size();
  if (rows_.size() < needed) { rows_.resize(needed); }
}

template <typename Dtype>
void BilinearInterpolationLayer<Dtype>::Forward_cpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const int maps = bottom[0]->shape(0) * bottom[0]->shape(1);
  const int input_width = bottom[0]->shape(3);
  const int input_area = bottom[0]->shape(2) * input_width;
  const int height = row_taps_.size();
  const int width = column_taps_.size();
  const Dtype* const bottom_data = bottom[0]->cpu_data();
  Dtype* const top_data = top[0]->mutable_cpu_data();
  const int threads = MaxThreads();
  ReserveRows(threads);
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
  for (int map = 0; map < maps; ++map) {
    const Dtype* const input = bottom_data + map * input_area;
    Dtype* output = top_data + map * height * width;
    // Input rows low and high, interpolated to the target's width. Going down,
    // low and high never move up, so each input row is made but once.
    Dtype* low = &rows_[static_cast<size_t>(ThisThread()) * 2 * width];
    Dtype* high = low + width;
    int low_row = -1;
    int high_row = -1;
    for (int y = 0; y < height; ++y, output += width) {
      const BilinearTap<Dtype>& tap = row_taps_[y];
      if (tap.low != low_row) {
        std::swap(low, high);
        std::swap(low_row, high_row);
        if (tap.low != low_row) {
          InterpolateRow(column_taps_, input + tap.low * input_width, low);
          low_row = tap.low;
        }
      }
      if (tap.weight == 0) {
        std::copy(low, low + width, output);
        continue;
      }
      if (tap.high != high_row) {
        InterpolateRow(column_taps_, input + tap.high * input_width, high);
        high_row = tap.high;
      }
      const Dtype low_weight = 1 - tap.weight;
      const Dtype high_weight = tap.weight;
      for (int x = 0; x < width; ++x) {
        output[x] = low_weight * low[x] + high_weight * high[x];
      }
    }
  }
}

template <typename Dtype>
void BilinearInterpolationLayer<Dtype>::Backward_cpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  if (bottom.size() > 1 && propagate_down[1]) {
    caffe_set(bottom[1]->count(), Dtype(0), bottom[1]->mutable_cpu_diff());
  }
  if (!propagate_down[0]) { return; }
  const int maps = bottom[0]->shape(0) * bottom[0]->shape(1);
  const int input_width = bottom[0]->shape(3);
  const int input_area = bottom[0]->shape(2) * input_width;
  const int height = row_taps_.size();
  const int width = column_taps_.size();
  const Dtype* const top_diff = top[0]->cpu_diff();
  Dtype* const bottom_diff = bottom[0]->mutable_cpu_diff();
  const int threads = MaxThreads();
  ReserveRows(threads);
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
  for (int map = 0; map < maps; ++map) {
    Dtype* const input_diff = bottom_diff + map * input_area;
    const Dtype* output_diff = top_diff + map * height * width;
    // The forward pass in reverse: the gradients of the two interpolated rows
    // are summed over all output rows that used them, and then brought to the
    // input's width once.
    Dtype* low = &rows_[static_cast<size_t>(ThisThread()) * 2 * width];
    Dtype* high = low + width;
    int low_row = 0;  // `high` belongs to the row after it
    std::fill(input_diff, input_diff + input_area, Dtype(0));
    std::fill(low, low + 2 * width, Dtype(0));
    for (int y = 0; y < height; ++y, output_diff += width) {
      const BilinearTap<Dtype>& tap = row_taps_[y];
      for (; low_row < tap.low; ++low_row) {
        AccumulateRow(column_taps_, low, input_diff + low_row * input_width);
        std::fill(low, low + width, Dtype(0));
        std::swap(low, high);
      }
      const Dtype low_weight = 1 - tap.weight;
      const Dtype high_weight = tap.weight;
      for (int x = 0; x < width; ++x) {
        low[x] += low_weight * output_diff[x];
        high[x] += high_weight * output_diff[x];
      }
    }
    // The last output row lies on an input row, so `high` is zero here.
    AccumulateRow(column_taps_, low, input_diff + low_row * input_width);
  }
}

#ifdef CPU_ONLY
STUB_GPU(BilinearInterpolationLayer);
#endif

INSTANTIATE_CLASS(BilinearInterpolationLayer);
REGISTER_LAYER_CLASS(BilinearInterpolation);

}  // namespace caffe
