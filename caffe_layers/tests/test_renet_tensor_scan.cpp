#include "cuda_emulation.hpp"

#ifdef CAFFE_CUDA_EMULATION

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/renet/gpu/tensor_scan.cuh"

#include "emulated_device.hpp"

namespace caffe {

namespace {

using std::vector;

// --- Rounding and products -------------------------------------------------

float FromBf16(uint16_t half) {
  return emulation::BitCast<float>(static_cast<uint32_t>(half) << 16);
}

float Rounded(ReNetPrecision precision, float x) {
  switch (precision) {
    case RENET_TF32: return emulation::BitCast<float>(RoundToTf32(x));
    case RENET_BF16: return FromBf16(RoundToBf16(x));
    default: return x;
  }
}

/// x to the nearest multiple of the unit in the last of `bits` bits, by
/// arithmetic in double.
double RoundedByArithmetic(double x, int bits, bool ties_to_even) {
  int exponent;
  frexp(x, &exponent);
  const double unit = ldexp(1., exponent - bits);
  const double scaled = fabs(x) / unit;
  const double nearest =
      ties_to_even ? nearbyint(scaled) : floor(scaled + 0.5);
  return copysign(nearest * unit, x);
}

TEST(TensorCoreTest, TestRoundsToTheNearest) {
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    uint32_t bits = random();
    if (i % 3 == 0) bits = (bits & ~0xFFFFu) | 0x8000;  // ties of bf16
    if (i % 3 == 1) bits = (bits & ~0x1FFFu) | 0x1000;  // ties of tf32
    bits = (bits & 0x807FFFFF) | (64 + bits % 128) << 23;  // normal numbers
    const float x = emulation::BitCast<float>(bits);
    EXPECT_EQ(Rounded(RENET_TF32, x), RoundedByArithmetic(x, 11, false)) << x;
    EXPECT_EQ(Rounded(RENET_BF16, x), RoundedByArithmetic(x, 8, true)) << x;
  }
  EXPECT_EQ(RoundToTf32(INFINITY), 0x7F800000u);
  EXPECT_EQ(RoundToBf16(-INFINITY), 0xFF80);
  EXPECT_EQ(RoundToTf32(std::numeric_limits<float>::max()), 0x7F800000u);
  // the NaN whose upper bits are those of infinity
  EXPECT_TRUE(std::isnan(emulation::BitCast<float>(
      RoundToTf32(emulation::BitCast<float>(0x7F800001u)))));
  EXPECT_TRUE(std::isnan(FromBf16(
      RoundToBf16(emulation::BitCast<float>(0x7F800001u)))));
  EXPECT_EQ(PackBf16(1.f, -2.f), 0xC0003F80u);
}

/// D += A B by fragments as tensor_core.cuh gives them: A 16 x K, B K x 8.
template <int kPerWord>
void FragmentProduct(const float* a, const float* b, float* d, int k) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  float sums[4];
  for (int i = 0; i < 4; ++i) {
    sums[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  }
  for (int first = 0; first < k; first += 8 * kPerWord) {
    uint32_t left[4], right[2];
    for (int i = 0; i < 4; ++i) {
      const float* row = a + (g + i % 2 * 8) * k + first;
      const int word = t + i / 2 * 4;
      left[i] = kPerWord == 1 ? RoundToTf32(row[word])
          : PackBf16(row[2 * word], row[2 * word + 1]);
    }
    for (int i = 0; i < 2; ++i) {
      const float* column = b + first * 8 + g;
      const int word = t + i * 4;
      right[i] = kPerWord == 1 ? RoundToTf32(column[word * 8])
          : PackBf16(column[2 * word * 8], column[(2 * word + 1) * 8]);
    }
    if (kPerWord == 1) {
      MmaTf32(sums, left, right[0], right[1]);
    } else {
      MmaBf16(sums, left, right[0], right[1]);
    }
  }
  for (int i = 0; i < 4; ++i) {
    d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
  }
}

/// The same through the class that the kernels use.
template <class Operand, int kDepth>
void MatrixProduct(const float* a, const float* b, float* d) {
  typedef tensor_scan::Matrix<Operand, 1, kDepth, 33> Product;
  DYNAMIC_SHARED(uint4, memory);
  uint32_t* const lines = reinterpret_cast<uint32_t*>(memory
      + Product::kShared * 32);
  Product product;
  product.Load(memory,
      [&](int, int row, int k) { return a[row * kDepth + k]; });
  for (int i = threadIdx.x; i < 8 * kDepth; i += 32) {
    Operand::Store(lines + i / kDepth * Product::kStride, i % kDepth,
        b[i % kDepth * 8 + i / kDepth]);
  }
  __syncwarp();
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  float sums[1][4];
  for (int q = 0; q < 4; ++q) {
    sums[0][q] = d[(g + q / 2 * 8) * 8 + 2 * t + q % 2];
  }
  product.template Multiply<4>(lines, sums);
  for (int q = 0; q < 4; ++q) {
    d[(g + q / 2 * 8) * 8 + 2 * t + q % 2] = sums[0][q];
  }
}

class FragmentTest : public ::testing::Test {
 protected:
  /// Small whole numbers, which every precision holds exactly: so every sum is
  /// exact, whatever its order.
  void Fill(int k) {
    std::mt19937 random(k);
    a_.resize(16 * k);
    b_.resize(k * 8);
    d_.resize(16 * 8);
    for (float& x : a_) x = static_cast<int>(random() % 33) - 16;
    for (float& x : b_) x = static_cast<int>(random() % 33) - 16;
    for (float& x : d_) x = static_cast<int>(random() % 33) - 16;
    expected_ = d_;
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        for (int i = 0; i < k; ++i) {
          expected_[row * 8 + column] += a_[row * k + i] * b_[i * 8 + column];
        }
      }
    }
  }

  template <class Operand, int kDepth>
  void TestMatrix() {
    Fill(kDepth);
    typedef tensor_scan::Matrix<Operand, 1, kDepth, 33> Product;
    emulation::Launch(&MatrixProduct<Operand, kDepth>, 1, 32,
        32 * 16 * Product::kShared + 8 * 4 * Product::kStride, a_.data(),
        b_.data(), d_.data());
    EXPECT_EQ(d_, expected_);
  }

  vector<float> a_, b_, d_, expected_;
};

TEST_F(FragmentTest, TestProductsEqualPlainOnes) {
  for (int k = 16; k <= 64; k += 16) {
    Fill(k);
    const vector<float> start = d_;
    emulation::Launch(&FragmentProduct<1>, 1, 32, 0, a_.data(), b_.data(),
        d_.data(), k);
    EXPECT_EQ(d_, expected_) << "tf32, K = " << k;
    d_ = start;
    emulation::Launch(&FragmentProduct<2>, 1, 32, 0, a_.data(), b_.data(),
        d_.data(), k);
    EXPECT_EQ(d_, expected_) << "bf16, K = " << k;
  }
}

TEST_F(FragmentTest, TestMatricesInRegistersAndSharedMemory) {
  TestMatrix<tensor_scan::Bf16, 64>();
  TestMatrix<tensor_scan::Tf32, 64>();
  TestMatrix<tensor_scan::Tf32, 512>();  // more fragments than registers
}

// --- Scans -----------------------------------------------------------------

/// Memory of exactly one map between zones that no kernel may write to; what
/// is read from them is NaN.
class GuardedMap {
 public:
  explicit GuardedMap(size_t size)
      : size_(size), values_(size + 2 * kZone, NAN) {}
  float* data() { return values_.data() + kZone; }
  const float* data() const { return values_.data() + kZone; }
  size_t size() const { return size_; }
  float operator[](size_t i) const { return values_[kZone + i]; }
  void Fill(unsigned seed, float bound) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> values(-bound, bound);
    for (size_t i = 0; i < size_; ++i) data()[i] = values(random);
  }
  /// Whether the zones are as they were, and the map was written everywhere
  /// (or nowhere).
  bool Intact(bool written) const {
    bool intact = true;
    for (size_t i = 0; i < values_.size(); ++i) {
      const bool inside = i >= kZone && i < kZone + size_;
      intact &= std::isnan(values_[i]) == !(inside && written);
    }
    return intact;
  }

 private:
  static const size_t kZone = 1024;
  size_t size_;
  vector<float> values_;
};

struct ScanCase {
  ReNetUnit unit;
  int hidden;
  int lines;
  int steps;
  bool peephole;
  bool cell_output;
  bool keep;  // gates and extra

  int gates() const {
    return unit == RENET_LSTM ? 4 : unit == RENET_GRU ? 3 : 1;
  }
  size_t positions() const { return static_cast<size_t>(steps) * lines * 2; }
};

::std::ostream& operator<<(::std::ostream& out, const ScanCase& c) {
  return out << (c.unit == RENET_LSTM ? "LSTM" : c.unit == RENET_GRU ? "GRU"
      : "IRNN") << " d " << c.hidden << " L " << c.lines << " T " << c.steps
      << (c.peephole ? " peephole" : "") << (c.cell_output ? " cell" : "")
      << (c.keep ? "" : " test");
}

/// All memory of a scan.
class ScanRun {
 public:
  explicit ScanRun(const ScanCase& c)
      : case_(c), sums_(c.positions() * c.gates() * c.hidden),
        gates_(sums_.size()), states_(c.positions() * c.hidden),
        extra_(states_.size()), states_diff_(states_.size()),
        gates_diff_(sums_.size()) {
    const int d = c.hidden;
    sums_.Fill(1, 1.5f);
    states_diff_.Fill(2, 1.f);
    for (int scan = 0; scan < 2; ++scan) {
      weights_.push_back(GuardedMap(static_cast<size_t>(c.gates()) * d * d));
      weights_[scan].Fill(3 + scan, 1.5f / std::sqrt(static_cast<float>(d)));
      peepholes_.push_back(GuardedMap(3 * d));
      peepholes_[scan].Fill(5 + scan, 1.f);
    }
    Reset();
  }

  void Reset() {
    gates_ = sums_;
    states_ = GuardedMap(states_.size());
    extra_ = GuardedMap(extra_.size());
    gates_diff_ = GuardedMap(gates_diff_.size());
  }

  ReNetScan<float> scan() {
    ReNetScan<float> s;
    s.steps = case_.steps;
    s.lines = case_.lines;
    s.hidden = case_.hidden;
    for (int i = 0; i < 2; ++i) {
      s.recurrent_weights[i] = weights_[i].data();
      s.peephole[i] = case_.peephole ? peepholes_[i].data() : NULL;
    }
    s.gates = gates_.data();
    s.keep_gates = case_.keep;
    s.states = states_.data();
    s.extra = case_.keep ? extra_.data() : NULL;
    s.states_diff = states_diff_.data();
    s.cell_output = case_.cell_output;
    s.gates_diff = gates_diff_.data();
    return s;
  }

  const ScanCase& c() const { return case_; }
  const GuardedMap& sums() const { return sums_; }
  const GuardedMap& gates() const { return gates_; }
  const GuardedMap& states() const { return states_; }
  const GuardedMap& extra() const { return extra_; }
  const GuardedMap& states_diff() const { return states_diff_; }
  const GuardedMap& gates_diff() const { return gates_diff_; }
  const GuardedMap& weights(int scan) const { return weights_[scan]; }
  double Peephole(int scan, int row, int unit) const {
    return case_.peephole ? peepholes_[scan][row * case_.hidden + unit] : 0.;
  }

 private:
  ScanCase case_;
  GuardedMap sums_, gates_, states_, extra_, states_diff_, gates_diff_;
  vector<GuardedMap> weights_, peepholes_;
};

/**
 * The recurrence in double, from the units' equations.
 *
 * With an operand's precision given, each product takes the rounded values that
 * the run itself left in memory: a step is then checked exactly, given the
 * steps before, although a number in between two roundings may go either way.
 */
class ScanReference {
 public:
  ScanReference(const ScanRun& run, ReNetPrecision precision)
      : run_(run), c_(run.c()), precision_(precision), d_(c_.hidden),
        gates(c_.positions() * c_.gates() * d_), states(c_.positions() * d_),
        extra(states.size()), gates_diff(gates.size()) {
    for (int scan = 0; scan < 2; ++scan) {
      for (int line = 0; line < c_.lines; ++line) {
        for (int step = 0; step < c_.steps; ++step) Forward(scan, line, step);
      }
    }
  }

  /// Backward through the forward pass of the run (its rounded gates and
  /// states are inputs here), or through this reference's own.
  void Backward() {
    const bool own = precision_ == RENET_FLOAT32;
    for (size_t i = 0; i < gates.size() && !own; ++i) {
      gates[i] = run_.gates()[i];
    }
    for (size_t i = 0; i < states.size() && !own; ++i) {
      states[i] = run_.states()[i];
      extra[i] = run_.extra()[i];
    }
    for (int scan = 0; scan < 2; ++scan) {
      for (int line = 0; line < c_.lines; ++line) {
        vector<double> h_diff(d_), c_diff(d_);
        for (int step = c_.steps - 1; step >= 0; --step) {
          Backward(scan, line, step, &h_diff, &c_diff);
        }
      }
    }
  }

 private:
  const ScanRun& run_;
  const ScanCase& c_;
  const ReNetPrecision precision_;
  const int d_;

 public:
  vector<double> gates, states, extra, gates_diff;

 private:
  size_t Row(int scan, int line, int step) const {
    const int row = scan == 0 ? step : c_.steps - 1 - step;
    return (static_cast<size_t>(row) * c_.lines + line) * 2 + scan;
  }

  /// Element i of a map as an operand.
  double Operand(const vector<double>& own, const GuardedMap& of_run,
      size_t i) const {
    return precision_ == RENET_FLOAT32 ? own[i]
        : Rounded(precision_, of_run[i]);
  }

  double Weight(int scan, int gate, int unit, int k) const {
    return Rounded(precision_,
        run_.weights(scan)[(static_cast<size_t>(gate) * d_ + unit) * d_ + k]);
  }

  /// Row gate * d + unit of W_h times a row of `own` (zero before the start).
  double Sum(int scan, int gate, int unit, const vector<double>& own,
      const GuardedMap& of_run, size_t row) const {
    double sum = 0;
    for (int k = 0; k < d_; ++k) {
      sum += Weight(scan, gate, unit, k) * Operand(own, of_run, row * d_ + k);
    }
    return sum;
  }

  static double Logistic(double x) { return 1 / (1 + exp(-x)); }

  void Forward(int scan, int line, int step) {
    const size_t row = Row(scan, line, step);
    const size_t before = step ? Row(scan, line, step - 1) : 0;
    const int n = c_.gates();
    const auto sum = [&](int gate, int unit, const vector<double>& own,
        const GuardedMap& of_run, size_t from) {
      return run_.sums()[row * n * d_ + gate * d_ + unit]
          + (step ? Sum(scan, gate, unit, own, of_run, from) : 0.);
    };
    if (c_.unit == RENET_GRU) {
      for (int u = 0; u < d_; ++u) {
        for (int gate = 0; gate < 2; ++gate) {
          gates[row * n * d_ + gate * d_ + u] =
              Logistic(sum(gate, u, states, run_.states(), before));
        }
        extra[row * d_ + u] = step == 0 ? 0.
            : gates[row * n * d_ + d_ + u] * states[before * d_ + u];
      }
    }
    for (int u = 0; u < d_; ++u) {
      double* const gate = &gates[row * n * d_ + u];
      double& h = states[row * d_ + u];
      if (c_.unit == RENET_LSTM) {
        const double c_before = step ? extra[before * d_ + u] : 0.;
        const auto total = [&](int index) {
          return sum(index, u, states, run_.states(), before);
        };
        const double i =
            Logistic(total(0) + run_.Peephole(scan, 0, u) * c_before);
        const double f =
            Logistic(total(1) + run_.Peephole(scan, 1, u) * c_before);
        const double g = tanh(total(3));
        const double c = f * c_before + i * g;
        const double o = Logistic(total(2) + run_.Peephole(scan, 2, u) * c);
        gate[0] = i;
        gate[d_] = f;
        gate[2 * d_] = o;
        gate[3 * d_] = g;
        extra[row * d_ + u] = c;
        h = o * tanh(c);
      } else if (c_.unit == RENET_GRU) {
        // in a scan that keeps no r * h, its product cannot follow the run
        const double candidate = tanh(sum(2, u, extra, run_.extra(), row));
        const double h_before = step ? states[before * d_ + u] : 0.;
        gate[2 * d_] = candidate;
        h = (1 - gate[0]) * candidate + gate[0] * h_before;
      } else {
        h = std::max(0., sum(0, u, states, run_.states(), before));
        gate[0] = run_.sums()[row * d_ + u];
      }
    }
  }

  /// Column `unit` of W_h's block of a gate times the gradients of its sums.
  double SumDiff(int scan, int gate, int unit, size_t row) const {
    double sum = 0;
    for (int k = 0; k < d_; ++k) {
      sum += Weight(scan, gate, k, unit) * Operand(gates_diff,
          run_.gates_diff(), row * c_.gates() * d_ + gate * d_ + k);
    }
    return sum;
  }

  /// h_diff: what the step after passed on except its products.
  void Backward(int scan, int line, int step, vector<double>* h_diff,
      vector<double>* c_diff) {
    const size_t row = Row(scan, line, step);
    const size_t before = step ? Row(scan, line, step - 1) : 0;
    const int n = c_.gates();
    for (int u = 0; u < d_; ++u) {
      double& dh = (*h_diff)[u];
      const int recurrent = c_.unit == RENET_GRU ? 2 : n;
      for (int gate = 0; gate < recurrent && step + 1 < c_.steps; ++gate) {
        dh += SumDiff(scan, gate, u, Row(scan, line, step + 1));
      }
      const double top = run_.states_diff()[row * d_ + u];
      if (c_.cell_output) {
        (*c_diff)[u] += top;
      } else {
        dh += top;
      }
      const double* const gate = &gates[row * n * d_ + u];
      double* const diff = &gates_diff[row * n * d_ + u];
      if (c_.unit == RENET_LSTM) {
        const double i = gate[0], f = gate[d_], o = gate[2 * d_],
            g = gate[3 * d_], squashed = tanh(extra[row * d_ + u]);
        const double c_before = step ? extra[before * d_ + u] : 0.;
        diff[2 * d_] = dh * squashed * o * (1 - o);
        const double dc = (*c_diff)[u] + dh * o * (1 - squashed * squashed)
            + diff[2 * d_] * run_.Peephole(scan, 2, u);
        diff[0] = dc * g * i * (1 - i);
        diff[d_] = dc * c_before * f * (1 - f);
        diff[3 * d_] = dc * i * (1 - g * g);
        (*c_diff)[u] = dc * f + diff[0] * run_.Peephole(scan, 0, u)
            + diff[d_] * run_.Peephole(scan, 1, u);
        dh = 0;
      } else if (c_.unit == RENET_GRU) {
        const double z = gate[0], candidate = gate[2 * d_];
        const double h_before = step ? states[before * d_ + u] : 0.;
        diff[2 * d_] = dh * (1 - z) * (1 - candidate * candidate);
        diff[0] = dh * (h_before - candidate) * z * (1 - z);
        dh *= z;
      } else {
        diff[0] = states[row * d_ + u] > 0 ? dh : 0.;
        dh = 0;
      }
    }
    if (c_.unit != RENET_GRU) return;
    for (int u = 0; u < d_; ++u) {
      const double reset_diff = SumDiff(scan, 2, u, row);
      const double r = gates[row * n * d_ + d_ + u];
      const double h_before = step ? states[before * d_ + u] : 0.;
      gates_diff[row * n * d_ + d_ + u] = reset_diff * h_before * r * (1 - r);
      (*h_diff)[u] += reset_diff * r;
    }
  }
};

class TensorScanTest : public ::testing::Test {
 protected:
  virtual void TearDown() { emulation::settings() = emulation::Settings(); }

  /// With `tiles` tiles a block.
  static void Launch(const ScanCase& c, ReNetPrecision precision, bool backward,
      int tiles, const ReNetScan<float>& scan) {
    const tensor_scan::Choice choice =
        tensor_scan::Choose(c.unit, precision, c.hidden, backward);
    ASSERT_TRUE(choice.kernel != NULL);
    emulation::Launch(choice.kernel, dim3((c.lines + 8 * tiles - 1)
        / (8 * tiles), 2), tensor_scan::Threads(c.hidden),
        tensor_scan::SharedBytes(choice.memory, c.hidden, tiles), scan, tiles);
  }

  /// Forward and (where gates are kept) backward in the given order of threads.
  static void Run(ScanRun* run, ReNetPrecision precision, int tiles,
      emulation::Settings::Order order) {
    emulation::settings().order = order;
    run->Reset();
    const ReNetScan<float> scan = run->scan();
    Launch(run->c(), precision, false, tiles, scan);
    if (run->c().keep) Launch(run->c(), precision, true, tiles, scan);
  }

  /// Bits of all that a run wrote.
  static vector<uint32_t> Bits(const ScanRun& run) {
    vector<uint32_t> bits;
    for (const GuardedMap* map : {&run.gates(), &run.states(), &run.extra(),
        &run.gates_diff()}) {
      for (size_t i = 0; i < map->size(); ++i) {
        bits.push_back(emulation::BitCast<uint32_t>((*map)[i]));
      }
    }
    return bits;
  }

  /// The largest difference, in units of the largest value if that exceeds 1.
  static double Distance(const vector<double>& expected,
      const GuardedMap& actual) {
    double worst = 0, scale = 1;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double distance = fabs(expected[i] - actual[i]);
      if (!(distance <= worst)) worst = distance;  // NaN too, and it stays
      scale = std::max(scale, fabs(expected[i]));
    }
    return worst / scale;
  }

  /// In several orders of threads, against the reference with the same
  /// operands, and against the one without rounding.
  static void Check(const ScanCase& c, ReNetPrecision precision, int tiles) {
    SCOPED_TRACE(::testing::Message() << c << (precision == RENET_TF32
        ? " TF32" : " BF16") << " with " << tiles << " tiles a block");
    ScanRun run(c);
    Run(&run, precision, tiles, emulation::Settings::DESCENDING);
    const vector<uint32_t> bits = Bits(run);
    if (c.hidden <= 64) {
      Run(&run, precision, tiles, emulation::Settings::SHUFFLED);
      EXPECT_TRUE(bits == Bits(run)) << "in a shuffled order of threads";
    }
    Run(&run, precision, tiles, emulation::Settings::ASCENDING);
    EXPECT_TRUE(bits == Bits(run)) << "in the ascending order of threads";

    const bool extra = c.keep && c.unit != RENET_IRNN;
    EXPECT_TRUE(run.gates().Intact(true));
    EXPECT_TRUE(run.states().Intact(true));
    EXPECT_TRUE(run.extra().Intact(extra));
    EXPECT_TRUE(run.gates_diff().Intact(c.keep));
    if (!c.keep) {
      EXPECT_TRUE(Same(run.gates(), run.sums())) << "gates were written";
    }

    const double kTight = 4e-6;
    // a GRU's second product can be followed only where r * h was kept
    if (c.keep || c.unit != RENET_GRU) {
      ScanReference rounded(run, precision);
      EXPECT_LT(Distance(rounded.states, run.states()), kTight);
      if (extra) {
        EXPECT_LT(Distance(rounded.extra, run.extra()), kTight);
      }
      if (c.keep) {
        EXPECT_LT(Distance(rounded.gates, run.gates()), kTight);
        rounded.Backward();
        EXPECT_LT(Distance(rounded.gates_diff, run.gates_diff()), kTight);
      }
    }

    const double bound = precision == RENET_TF32 ? 6e-4 : 6e-3;
    ScanReference exact(run, RENET_FLOAT32);
    EXPECT_LT(Distance(exact.states, run.states()), bound);
    // an IRNN's gradient jumps where rounding moves a state to or from zero
    if (c.keep && c.unit != RENET_IRNN) {
      exact.Backward();
      EXPECT_LT(Distance(exact.gates_diff, run.gates_diff()), bound);
    }
  }

  static bool Same(const GuardedMap& a, const GuardedMap& b) {
    return std::equal(a.data(), a.data() + a.size(), b.data());
  }

  /// Shapes around the kernels' sizes: one tile of lines and parts of it,
  /// several tiles and blocks, units that fill a warp or not, one step.
  static void CheckShapes(ReNetUnit unit, bool peephole, bool cell_output) {
    // d, L, T, tiles a block
    const int kShapes[][4] = {
      {3, 1, 1, 1}, {3, 9, 5, 1}, {8, 7, 2, 1}, {16, 20, 2, 2}, {40, 9, 5, 2},
      {40, 20, 1, 1}, {60, 7, 2, 1}, {60, 20, 2, 3}, {64, 9, 2, 4},
      {100, 7, 2, 1}, {120, 1, 5, 1}, {120, 20, 2, 2}, {128, 9, 2, 1},
    };
    for (const auto& shape : kShapes) {
      for (const ReNetPrecision precision : {RENET_TF32, RENET_BF16}) {
        const ScanCase c = {unit, shape[0], shape[1], shape[2], peephole,
            cell_output, true};
        Check(c, precision, shape[3]);
      }
    }
    const ScanCase large = {unit, 150, 9, 2, peephole, cell_output, true};
    Check(large, RENET_BF16, 2);
    for (const ReNetPrecision precision : {RENET_TF32, RENET_BF16}) {
      const ScanCase test_net = {unit, 40, 9, 3, peephole, cell_output, false};
      Check(test_net, precision, 1);
    }
  }
};

TEST_F(TensorScanTest, TestLstm) {
  CheckShapes(RENET_LSTM, false, false);
}

TEST_F(TensorScanTest, TestLstmPeepholesAndCellOutput) {
  CheckShapes(RENET_LSTM, true, true);
}

TEST_F(TensorScanTest, TestGru) {
  CheckShapes(RENET_GRU, false, false);
}

TEST_F(TensorScanTest, TestIrnn) {
  CheckShapes(RENET_IRNN, false, false);
}

/// Of a chosen generation, and remembers how a kernel was launched.
class RecordingDevice : public EmulatedDevice {
 public:
  explicit RecordingDevice(int major) : major_(major), shared_bytes_(0) {}

  int compute_capability_major() const { return major_; }
  template <typename... P, typename... A>
  void Launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
      A... args) {
    grid_ = grid;
    shared_bytes_ = shared_bytes;
    EmulatedDevice::Launch(kernel, grid, block, shared_bytes, args...);
  }
  dim3 grid() const { return grid_; }
  size_t shared_bytes() const { return shared_bytes_; }

 private:
  int major_;
  dim3 grid_;
  size_t shared_bytes_;
};

TEST_F(TensorScanTest, TestLaunches) {
  const ScanCase c = {RENET_LSTM, 40, 20, 3, false, false, true};
  for (const ReNetPrecision precision : {RENET_TF32, RENET_BF16}) {
    ScanRun run(c);
    Run(&run, precision, 1, emulation::Settings::ASCENDING);
    const vector<uint32_t> bits = Bits(run);
    run.Reset();
    RecordingDevice device(8);
    EXPECT_TRUE(LaunchTensorScanForward(&device, c.unit, precision,
        run.scan()));
    EXPECT_TRUE(LaunchTensorScanBackward(&device, c.unit, precision,
        run.scan()));
    EXPECT_EQ(device.launches(), 2);
    EXPECT_TRUE(bits == Bits(run));
  }
}

TEST_F(TensorScanTest, TestGivesBlocksAsManyTilesAsPay) {
  const ScanCase c = {RENET_IRNN, 8, 200, 1, false, false, true};
  ScanRun run(c);
  RecordingDevice large(9);
  ASSERT_TRUE(LaunchTensorScanForward(&large, c.unit, RENET_BF16, run.scan()));
  EXPECT_EQ(large.grid().x, 25);  // a multiprocessor for every tile
  EXPECT_EQ(large.grid().y, 2);
  RecordingDevice small(9);
  small.set_multiprocessors(1);
  ASSERT_TRUE(LaunchTensorScanForward(&small, c.unit, RENET_BF16, run.scan()));
  EXPECT_LT(small.grid().x, 25);
  small.set_shared_memory(3000);  // enough for one tile
  ASSERT_TRUE(LaunchTensorScanForward(&small, c.unit, RENET_BF16, run.scan()));
  EXPECT_EQ(small.grid().x, 25);
  EXPECT_LE(small.shared_bytes(), 3000);
}

TEST_F(TensorScanTest, TestRefusesWhatDoesNotFit) {
  const ScanCase c = {RENET_LSTM, 120, 9, 1, false, false, true};
  ScanRun run(c);
  const vector<uint32_t> bits = Bits(run);
  RecordingDevice turing(7), ampere(8), small(8);
  small.set_shared_memory(99 * 1024);
  EXPECT_FALSE(LaunchTensorScanForward(&turing, c.unit, RENET_BF16,
      run.scan()));
  EXPECT_FALSE(LaunchTensorScanForward(&ampere, c.unit, RENET_FLOAT32,
      run.scan()));
  EXPECT_FALSE(LaunchTensorScanBackward(&small, c.unit, RENET_TF32,
      run.scan()));
  EXPECT_TRUE(bits == Bits(run)) << "something ran all the same";
  EXPECT_TRUE(LaunchTensorScanForward(&small, c.unit, RENET_BF16, run.scan()));

  const size_t kA100 = 163 * 1024;
  for (const ReNetUnit unit : {RENET_LSTM, RENET_GRU, RENET_IRNN}) {
    for (int backward = 0; backward < 2; ++backward) {
      EXPECT_TRUE(TensorScanFits(unit, RENET_TF32, 128, backward, 8, kA100));
      EXPECT_TRUE(TensorScanFits(unit, RENET_BF16, 160, backward, 9, 232448));
      EXPECT_FALSE(TensorScanFits(unit, RENET_TF32, 129, backward, 9, 232448));
      EXPECT_FALSE(TensorScanFits(unit, RENET_BF16, 161, backward, 9, 232448));
    }
  }
}

}  // namespace

}  // namespace caffe

#endif  // CAFFE_CUDA_EMULATION
