#ifndef CAFFE_TEST_RENET_REFERENCE_HPP_
#define CAFFE_TEST_RENET_REFERENCE_HPP_

#include <algorithm>
#include <cmath>
#include <limits>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/// One sweep to test: a unit, its options and the shape of its map.
struct ReNetCase {
  std::string type;  // ReNetLSTM, ReNetGRU or ReNetIRNN
  bool peephole;
  bool cell_output;
  bool vertical;
  int patch_height;
  int patch_width;
  int num;
  int channels;
  int height;
  int width;
  int hidden;

  int gates() const {
    return type == "ReNetLSTM" ? 4 : type == "ReNetGRU" ? 3 : 1;
  }
  int inputs() const { return channels * patch_height * patch_width; }
  int rows() const { return (height + patch_height - 1) / patch_height; }
  int columns() const { return (width + patch_width - 1) / patch_width; }
  int steps() const { return vertical ? rows() : columns(); }
  int lines() const { return vertical ? columns() : rows(); }
  /// Parameter blobs of one scan.
  int scan_blobs() const { return peephole ? 4 : 3; }

  ReNetCase Direction(bool is_vertical) const {
    ReNetCase changed = *this;
    changed.vertical = is_vertical;
    return changed;
  }
  ReNetCase Patch(int patch_h, int patch_w) const {
    ReNetCase changed = *this;
    changed.patch_height = patch_h;
    changed.patch_width = patch_w;
    return changed;
  }
  ReNetCase Map(int n, int c, int h, int w) const {
    ReNetCase changed = *this;
    changed.num = n;
    changed.channels = c;
    changed.height = h;
    changed.width = w;
    return changed;
  }
  ReNetCase Hidden(int d) const {
    ReNetCase changed = *this;
    changed.hidden = d;
    return changed;
  }

  LayerParameter Parameter(Phase phase) const {
    LayerParameter parameter;
    parameter.set_name("sweep");
    parameter.set_type(type);
    parameter.set_phase(phase);
    ReNetParameter* renet = parameter.mutable_renet_param();
    renet->set_num_output(hidden);
    renet->set_patch_height(patch_height);
    renet->set_patch_width(patch_width);
    if (!vertical) renet->set_direction(ReNetParameter::HORIZONTAL);
    if (peephole) renet->set_peephole(true);
    if (cell_output) renet->set_output(ReNetParameter::CELL);
    return parameter;
  }
};

inline std::ostream& operator<<(std::ostream& stream, const ReNetCase& c) {
  return stream << c.type << (c.peephole ? " with peepholes" : "")
      << (c.cell_output ? ", output CELL" : "")
      << (c.vertical ? ", vertical" : ", horizontal") << ", patches of "
      << c.patch_height << " x " << c.patch_width << ", map " << c.num << " x "
      << c.channels << " x " << c.height << " x " << c.width << ", d "
      << c.hidden;
}

/// Every unit with every option, on a small map.
inline std::vector<ReNetCase> ReNetUnits() {
  const ReNetCase lstm =
      {"ReNetLSTM", false, false, true, 1, 1, 2, 2, 5, 5, 3};
  std::vector<ReNetCase> units(6, lstm);
  units[1].peephole = true;
  units[2].cell_output = true;
  units[3].peephole = units[3].cell_output = true;
  units[4].type = "ReNetGRU";
  units[5].type = "ReNetIRNN";
  return units;
}

/// Fills with numbers that a float holds exactly, so that a float and a double
/// layer get the same.
template <typename Dtype>
void FillUniform(unsigned int seed, double low, double high, int count,
    Dtype* to) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> distribution(low, high);
  for (int i = 0; i < count; ++i) {
    to[i] = static_cast<float>(distribution(engine));
  }
}

/// Parameters that keep the states away from saturation; gain scales weights.
template <typename Dtype>
void FillParameters(const ReNetCase& c, double gain,
    const std::vector<shared_ptr<Blob<Dtype> > >& blobs) {
  for (size_t i = 0; i < blobs.size(); ++i) {
    const int kind = i % c.scan_blobs();
    const double range = kind == 0 ? 1.5 * gain / std::sqrt(c.inputs()) :
        kind == 2 ? 1.2 * gain / std::sqrt(c.hidden) : 0.5;
    FillUniform(100 + i, -range, range, blobs[i]->count(),
        blobs[i]->mutable_cpu_data());
  }
}

/// What the layers' equations give, computed one position at a time in double.
struct ReNetReference {
  std::vector<double> top;  // N x 2d x h x w
  double kink;  // IRNN: the least distance of a sum from the kink at 0
};

template <typename Dtype>
ReNetReference ReferenceForward(const ReNetCase& c, const Blob<Dtype>& bottom,
    const std::vector<shared_ptr<Blob<Dtype> > >& blobs) {
  const int d = c.hidden;
  const int rows = c.rows(), columns = c.columns();
  ReNetReference result;
  result.top.resize(static_cast<size_t>(c.num) * 2 * d * rows * columns);
  result.kink = std::numeric_limits<double>::infinity();
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  for (int n = 0; n < c.num; ++n) {
    for (int scan = 0; scan < 2; ++scan) {
      const Dtype* w_x = blobs[scan * c.scan_blobs()]->cpu_data();
      const Dtype* b = blobs[scan * c.scan_blobs() + 1]->cpu_data();
      const Dtype* w_h = blobs[scan * c.scan_blobs() + 2]->cpu_data();
      const Dtype* p =
          c.peephole ? blobs[scan * c.scan_blobs() + 3]->cpu_data() : NULL;
      for (int line = 0; line < c.lines(); ++line) {
        std::vector<double> h(d, 0), cell(d, 0);
        for (int step = 0; step < c.steps(); ++step) {
          const int at = scan == 0 ? step : c.steps() - 1 - step;
          const int row = c.vertical ? at : line;
          const int column = c.vertical ? line : at;
          std::vector<double> x;
          for (int channel = 0; channel < c.channels; ++channel) {
            for (int dy = 0; dy < c.patch_height; ++dy) {
              for (int dx = 0; dx < c.patch_width; ++dx) {
                const int y_pixel = row * c.patch_height + dy;
                const int x_pixel = column * c.patch_width + dx;
                x.push_back(y_pixel < c.height && x_pixel < c.width ?
                    bottom.data_at(n, channel, y_pixel, x_pixel) : 0);
              }
            }
          }
          // Bias, input and recurrent products of one gate of one unit.
          const auto sum = [&](int gate, int unit,
              const std::vector<double>& state) {
            const int r = gate * d + unit;
            double total = b[r];
            for (size_t k = 0; k < x.size(); ++k) {
              total += w_x[r * x.size() + k] * x[k];
            }
            for (int k = 0; k < d; ++k) total += w_h[r * d + k] * state[k];
            return total;
          };
          std::vector<double> next(d), next_cell(d), reset(d);
          for (int k = 0; k < d && c.type == "ReNetGRU"; ++k) {
            reset[k] = sigmoid(sum(1, k, h)) * h[k];
          }
          for (int k = 0; k < d; ++k) {
            if (c.type == "ReNetLSTM") {
              const double i =
                  sigmoid(sum(0, k, h) + (p ? p[k] * cell[k] : 0));
              const double f =
                  sigmoid(sum(1, k, h) + (p ? p[d + k] * cell[k] : 0));
              next_cell[k] = f * cell[k] + i * std::tanh(sum(3, k, h));
              const double o = sigmoid(
                  sum(2, k, h) + (p ? p[2 * d + k] * next_cell[k] : 0));
              next[k] = o * std::tanh(next_cell[k]);
            } else if (c.type == "ReNetGRU") {
              const double z = sigmoid(sum(0, k, h));
              next[k] = (1 - z) * std::tanh(sum(2, k, reset)) + z * h[k];
            } else {
              const double total = sum(0, k, h);
              result.kink = std::min(result.kink, std::abs(total));
              next[k] = std::max(0., total);
            }
          }
          h = next;
          cell = next_cell;
          for (int k = 0; k < d; ++k) {
            result.top[((static_cast<size_t>(n) * 2 + scan) * d + k) * rows *
                columns + row * columns + column] =
                c.cell_output ? cell[k] : h[k];
          }
        }
      }
    }
  }
  return result;
}

/// The largest difference, each relative to the larger of 1 and the expected
/// value.
template <typename Actual, typename Expected>
double LargestError(int count, const Actual* actual,
    const Expected* expected) {
  double largest = 0;
  for (int i = 0; i < count; ++i) {
    const double error = std::abs(static_cast<double>(actual[i]) - expected[i]);
    const double scale = std::max(1., std::abs(static_cast<double>(expected[i])));
    // In this form a NaN is an infinite error.
    if (!(error / scale <= largest)) {
      largest = std::isnan(error) ? std::numeric_limits<double>::infinity() :
          error / scale;
    }
  }
  return largest;
}

/// The largest difference of gradients, each relative to the expected value or
/// to a hundredth of the largest of all, where that is more.
template <typename Actual, typename Expected>
double LargestGradientError(int count, const Actual* actual,
    const Expected* expected) {
  double scale = 0, largest = 0;
  for (int i = 0; i < count; ++i) {
    scale = std::max(scale, std::abs(static_cast<double>(expected[i])));
  }
  for (int i = 0; i < count; ++i) {
    const double value = expected[i];
    const double error = std::abs(actual[i] - value) /
        std::max(std::max(std::abs(value), scale / 100), 1e-30);
    if (!(error <= largest)) {
      largest = std::isnan(error) ? std::numeric_limits<double>::infinity() :
          error;
    }
  }
  return largest;
}

/// |actual - expected| / |expected|, Euclidean norms.
template <typename Actual, typename Expected>
double NormError(int count, const Actual* actual, const Expected* expected) {
  double error = 0, norm = 0;
  for (int i = 0; i < count; ++i) {
    const double difference = static_cast<double>(actual[i]) - expected[i];
    error += difference * difference;
    norm += static_cast<double>(expected[i]) * expected[i];
  }
  return std::sqrt(error / norm);
}

}  // namespace caffe

#endif  // CAFFE_TEST_RENET_REFERENCE_HPP_
