// The CUDA code of the DenseCRF layer on the host: see cuda_emulation.hpp.
#include "cuda_emulation.hpp"
#ifdef CAFFE_CUDA_EMULATION

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/dense_crf_layer.hpp"
#include "caffe/layers/multi_stage_meanfield_layer.hpp"
#include "caffe/crf/mean_field_device_solver.cuh"

#include "caffe/test/test_caffe_main.hpp"
#include "emulated_device.hpp"

namespace caffe {

namespace {

/// The emulation's device with memory, which is full of NaN (integers: -1).
class EmulatedLatticeDevice : public EmulatedDevice {
 public:
  EmulatedLatticeDevice() : allocations_(0), fetches_(0) {}

  std::shared_ptr<void> Allocate(size_t bytes) {
    ++allocations_;
    void* const memory = std::malloc(bytes);
    std::memset(memory, 0xFF, bytes);
    return std::shared_ptr<void>(memory, std::free);
  }
  int Fetch(const int* number) {
    ++fetches_;
    return *number;
  }

  int allocations() const { return allocations_; }
  int fetches() const { return fetches_; }

 private:
  int allocations_, fetches_;
};

const emulation::Settings::Order kOrders[] = {emulation::Settings::ASCENDING,
    emulation::Settings::DESCENDING, emulation::Settings::SHUFFLED};

// Random numbers of few keys and of many, in one tile and in several.
vector<int> Keys(int count, int largest) {
  vector<int> keys(count);
  unsigned state = count + largest;
  for (int& key : keys) {
    state = state * 1664525u + 1013904223u;
    key = static_cast<int>((state >> 8) % (largest + 1u));
  }
  return keys;
}

}  // namespace

class DenseCRFPartsTest : public ::testing::Test {
 protected:
  virtual void TearDown() { emulation::settings() = emulation::Settings(); }
};

TEST_F(DenseCRFPartsTest, PrefixSum) {
  const int counts[] = {1, 7, 2048, 2049, 5000, 256 * 2048 + 3};
  for (int count : counts) {
    vector<int> numbers = Keys(count, 9);
    vector<int> sums(SumTiles(count) + 1), result(count), expected(count);
    int sum = 0;
    for (int i = 0; i < count; ++i) {
      expected[i] = sum;
      sum += numbers[i];
    }
    EmulatedDevice device;
    const StoredNumbers stored = {numbers.data()};
    LaunchPrefixSum(&device, count, stored, sums.data(), result.data());
    EXPECT_TRUE(expected == result) << count;
    EXPECT_EQ(sum, sums.back());
    LaunchPrefixSum(&device, count, stored, sums.data(), numbers.data());
    EXPECT_TRUE(expected == numbers) << count << " in place";
  }
}

TEST_F(DenseCRFPartsTest, SortIsStable) {
  const int sizes[][2] = {{1, 0}, {33, 1}, {2048, 255}, {2049, 256},
      {7000, 0}, {9001, 100000}, {4100, (1 << 30) - 1}};
  for (const int* size : sizes) {
    const int count = size[0];
    const vector<int> keys = Keys(count, size[1]);
    vector<int> expected(count);
    for (int i = 0; i < count; ++i) { expected[i] = i; }
    std::stable_sort(expected.begin(), expected.end(),
        [&keys](int a, int b) { return keys[a] < keys[b]; });
    for (emulation::Settings::Order order : kOrders) {
      emulation::settings().order = order;
      vector<int> buffers[2] = {vector<int>(count), vector<int>(count)};
      int* const sorted[] = {buffers[0].data(), buffers[1].data()};
      vector<int> counts(SortCounts(count));
      vector<int> sums(SumTiles(counts.size()) + 1);
      EmulatedDevice device;
      const int* const result = SortByKeys(&device, count, keys.data(),
          size[1], sorted, counts.data(), sums.data());
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), result))
          << count << " of 0 .. " << size[1];
    }
  }
}

// Threads of the processor, which do run at the same time, insert the entries
// into a table that is as full as one gets: every entry comes to its vertex,
// and the lowest one stands for it.
TEST_F(DenseCRFPartsTest, VerticesAreRightWhoeverComesFirst) {
  typedef DeviceVertexTable<5> Table;
  const int points = 3000, entries = points * 6, threads = 4;
  vector<PackedSimplex<5> > simplices(points);
  for (int i = 0; i < points; ++i) {
    // few of them, far from each other and near
    for (int k = 0; k < 5; ++k) {
      simplices[i].origin[k] = 6 * (i * i % 401 * (k + 1) % 97 - 40);
    }
    simplices[i].ranks = 0x43210;
  }
  std::map<vector<int>, int> lowest;
  const Table reader = {simplices.data(), NULL, 0};
  vector<int> expected(entries);
  for (int e = 0; e < entries; ++e) {
    const VertexKey<5> key = reader.Key(e);
    expected[e] = lowest.insert(std::make_pair(vector<int>(key.coordinate,
        key.coordinate + 5), e)).first->second;
  }
  unsigned size = 64;
  while (size < 2 * lowest.size()) { size *= 2; }
  for (int round = 0; round < 20; ++round) {
    vector<int> slots(size, Table::kEmpty), slot(entries);
    vector<std::thread> workers;
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&, t]() {
        Table table = {simplices.data(), slots.data(), size - 1};
        for (int i = 0; i < entries; ++i) {
          // each in another order
          const int e = static_cast<int>((i * 7919ull + t * 4001) % entries);
          if (e % threads == t) { slot[e] = table.Insert(e); }
        }
      });
    }
    for (std::thread& worker : workers) { worker.join(); }
    const Table table = {simplices.data(), slots.data(), size - 1};
    for (int e = 0; e < entries; ++e) {
      ASSERT_EQ(expected[e], slots[slot[e]]);
      ASSERT_EQ(expected[e], table.Find(table.Key(e)));
    }
    EXPECT_EQ(lowest.size(), size_t(size) - std::count(slots.begin(),
        slots.end(), int(Table::kEmpty)));
  }
}

/// The layer on the CPU, and the source of its CUDA code on the same numbers.
template <typename Dtype>
class DenseCRFKernelTest : public ::testing::Test {
 protected:
  DenseCRFKernelTest()
      : crf_(param_.mutable_dense_crf_param()), solver_(&device_) {
    Caffe::set_mode(Caffe::CPU);
    crf_->set_max_iter(3);
    bottom_.push_back(&scores_);
    bottom_.push_back(&image_);
    top_.push_back(&result_);
  }
  virtual void TearDown() { emulation::settings() = emulation::Settings(); }

  // Noise for scores, a slanted edge with noise for the image.
  void Shape(int num, int classes, int height, int width) {
    scores_.Reshape(num, classes, height, width);
    start_.Reshape(num, classes, height, width);
    image_.Reshape(num, 3, height, width);
    FillerParameter filler_param;
    GaussianFiller<Dtype> filler(filler_param);
    filler.Fill(&scores_);
    filler.Fill(&start_);
    Dtype* image = image_.mutable_cpu_data();
    for (int i = 0; i < image_.count(); ++i) {
      const int x = i % width, y = i / width % height;
      image[i] = (2 * x + y > width + i / (height * width) ? 170 : 60) +
          (7 * i) % 11;
    }
  }

  void SetUpLayer() {
    layer_ = bottom_.size() == 3 ?
        shared_ptr<DenseCRFLayer<Dtype> >(
        new MultiStageMeanfieldLayer<Dtype>(param_)) :
        shared_ptr<DenseCRFLayer<Dtype> >(new DenseCRFLayer<Dtype>(param_));
    layer_->SetUp(bottom_, top_);
    // parameters that differ from class to class
    for (const shared_ptr<Blob<Dtype> >& blob : layer_->blobs()) {
      for (int i = 0; i < blob->count(); ++i) {
        blob->mutable_cpu_data()[i] += Dtype(0.1) * std::sin(Dtype(i + 1));
      }
    }
  }

  // CRF-as-RNN's layer with the settings that DenseCRF has.
  void UseThreeBottoms() {
    MultiStageMeanfieldParameter* const theirs =
        param_.mutable_multi_stage_meanfield_param();
    theirs->set_num_iterations(crf_->max_iter());
    theirs->set_theta_alpha(50);
    theirs->set_theta_beta(20);
    theirs->set_theta_gamma(3);
    crf_->set_bi_xy_std(50);
    crf_->set_bi_rgb_std(20);
    crf_->set_normalization(DenseCRFParameter_Normalization_AFTER);
    crf_->set_order(DenseCRFParameter_Order_RGB);
    crf_->set_output(DenseCRFParameter_Output_SCORE);
    crf_->set_kernel_weights(DenseCRFParameter_ClassMatrix_MATRIX);
    crf_->set_compatibility(DenseCRFParameter_ClassMatrix_MATRIX);
    bottom_.insert(bottom_.begin() + 1, &start_);
  }

  // What the blobs say, or the settings.
  ClassMixing<Dtype> Mixing() const {
    ClassMixing<Dtype> mixing = {};
    mixing.classes = scores_.channels();
    const bool matrix =
        crf_->kernel_weights() == DenseCRFParameter_ClassMatrix_MATRIX;
    for (int k = 0; k < 2; ++k) {
      mixing.weights[k].common = k == 0 ? crf_->pos_w() : crf_->bi_w();
      mixing.weights[k].full = matrix;
      if (crf_->learn() || matrix) {
        mixing.weights[k].values = layer_->blobs()[k]->cpu_data();
      }
    }
    if (crf_->learn() ||
        crf_->compatibility() == DenseCRFParameter_ClassMatrix_MATRIX) {
      mixing.compatibility = layer_->blobs().back()->cpu_data();
    }
    return mixing;
  }

  DenseCRFProblem<Dtype> Problem(int n) const {
    DenseCRFProblem<Dtype> problem = PoseDenseCRF<Dtype>(*crf_, Mixing(),
        scores_.height(), scores_.width(),
        scores_.cpu_data() + scores_.offset(n),
        image_.cpu_data() + image_.offset(n));
    if (bottom_.size() == 3) {
      problem.start = start_.cpu_data() + start_.offset(n);
    }
    return problem;
  }

  // Of all images.
  vector<Dtype> Forward() {
    vector<Dtype> top(result_.count(), NAN);
    for (int n = 0; n < scores_.num(); ++n) {
      EXPECT_TRUE(solver_.Forward(Problem(n), top.data() + result_.offset(n)));
    }
    return top;
  }

  void ExpectForward() {
    SetUpLayer();
    layer_->Forward(bottom_, top_);
    ExpectNear(result_.cpu_data(), Forward(), 1e-5);
  }

  // Gradients of scores and parameters, which are added to what is there.
  void ExpectBackward() {
    SetUpLayer();
    layer_->Forward(bottom_, top_);
    FillerParameter filler_param;
    GaussianFiller<Dtype> filler(filler_param);
    Blob<Dtype> noise(result_.shape());
    filler.Fill(&noise);
    caffe_copy(noise.count(), noise.cpu_data(), result_.mutable_cpu_diff());
    vector<vector<Dtype> > diffs;
    for (const shared_ptr<Blob<Dtype> >& blob : layer_->blobs()) {
      caffe_set(blob->count(), Dtype(0.5), blob->mutable_cpu_diff());
      diffs.push_back(vector<Dtype>(blob->count(), Dtype(0.5)));
    }
    vector<bool> propagate_down(bottom_.size(), true);
    propagate_down.back() = false;
    layer_->Backward(top_, propagate_down, bottom_);
    vector<Dtype> scores_diff(scores_.count(), NAN);
    vector<Dtype> start_diff(scores_.count(), NAN);
    const bool learned_weights = Mixing().weights[0].values != NULL;
    for (int n = 0; n < scores_.num(); ++n) {
      DenseCRFDiffs<Dtype> wanted = {};
      wanted.top = result_.cpu_diff() + result_.offset(n);
      wanted.scores = scores_diff.data() + scores_.offset(n);
      if (bottom_.size() == 3) {
        wanted.start = start_diff.data() + scores_.offset(n);
      }
      for (size_t k = 0; k < diffs.size(); ++k) {
        (k < 2 && learned_weights ? wanted.weight[k] : wanted.compatibility) =
            diffs[k].data();
      }
      EXPECT_TRUE(solver_.Backward(Problem(n), wanted));
    }
    const double tolerance = sizeof(Dtype) == 4 ? 1e-3 : 1e-5;
    ExpectNear(scores_.cpu_diff(), scores_diff, tolerance);
    if (bottom_.size() == 3) {
      ExpectNear(start_.cpu_diff(), start_diff, tolerance);
    }
    for (size_t k = 0; k < diffs.size(); ++k) {
      ExpectNear(layer_->blobs()[k]->cpu_diff(), diffs[k], tolerance);
    }
  }

  // The weights of the processor's lattice are float, whatever Dtype is. In
  // this form a NaN, which no thread overwrote, is a failure.
  static void ExpectNear(const Dtype* expected, const vector<Dtype>& actual,
      double tolerance) {
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_TRUE(std::abs(actual[i] - expected[i]) <=
          tolerance * std::max(1., std::abs(double(expected[i]))))
          << actual[i] << " instead of " << expected[i] << " at " << i;
    }
  }

  LayerParameter param_;
  DenseCRFParameter* crf_;
  shared_ptr<DenseCRFLayer<Dtype> > layer_;
  Blob<Dtype> scores_, start_, image_, result_;
  vector<Blob<Dtype>*> bottom_, top_;
  EmulatedLatticeDevice device_;
  MeanFieldDeviceSolver<Dtype, EmulatedLatticeDevice> solver_;
};

TYPED_TEST_CASE(DenseCRFKernelTest, TestDtypes);

// Both sides place points alike, number vertices alike and weigh them alike.
// Pixels are a multiple of four or not.
TYPED_TEST(DenseCRFKernelTest, LatticeIsThatOfTheProcessor) {
  for (int height : { 19, 20, 21, 22 }) {
    this->Shape(1, 2, height, 23);
    const DenseCRFProblem<TypeParam> problem = this->Problem(0);
    const int pixels = height * 23;
    const LatticeNormalization normalization = {height < 22, height % 2 == 0};
    const vector<TypeParam> ones(pixels, TypeParam(1));
    PermutohedralLattice<5> lattice;
    ASSERT_TRUE(lattice.Build(problem.bilateral, pixels, normalization));
    const PermutohedralFilterPlan expected = lattice.plan();
    for (emulation::Settings::Order order : kOrders) {
      emulation::settings().order = order;
      PermutohedralDeviceLattice<TypeParam, 5> device_lattice;
      LatticeScratch<TypeParam> scratch;
      ASSERT_TRUE(device_lattice.Build(&this->device_, pixels,
          problem.bilateral, normalization, &scratch));
      EXPECT_EQ(expected.vertices, device_lattice.vertices());
      const BlurredLattice<TypeParam, 6> actual =
          device_lattice.Blur(&this->device_, ones.data(), 1, false);
      for (int e = 0; e < pixels * 6; ++e) {
        // the processor's vertex 0 is the empty one
        ASSERT_EQ(expected.vertex[e], actual.vertex[e] + 1);
        ASSERT_NEAR(expected.weight[e], actual.weight[e], 1e-6);
      }
    }
  }
}

// Dark pixels, which have the vertices at the origin for neighbours.
TYPED_TEST(DenseCRFKernelTest, ForwardOfDarkImages) {
  for (int height : { 16, 17, 18, 19 }) {
    this->Shape(1, 5, height, 13);
    for (int i = 0; i < this->image_.count(); ++i) {
      this->image_.mutable_cpu_data()[i] = 1 + i * 7919 % 13;
    }
    this->ExpectForward();
  }
}

TYPED_TEST(DenseCRFKernelTest, ImagesOutOfReachAreRefused) {
  this->Shape(1, 3, 9, 7);
  this->SetUpLayer();
  const vector<TypeParam> good = this->Forward();
  vector<TypeParam> top(good.size());
  vector<TypeParam> diff(this->scores_.count());
  TypeParam& value = this->image_.mutable_cpu_data()[100];
  const TypeParam before = value;
  for (TypeParam wrong : { TypeParam(NAN), TypeParam(INFINITY),
      TypeParam(-1e30) }) {
    value = wrong;
    EXPECT_FALSE(this->solver_.Forward(this->Problem(0), top.data()));
    DenseCRFDiffs<TypeParam> wanted = {};
    wanted.top = top.data();
    wanted.scores = diff.data();
    EXPECT_FALSE(this->solver_.Backward(this->Problem(0), wanted));
    value = before;
    EXPECT_TRUE(good == this->Forward());
  }
  this->crf_->set_pos_xy_std(1e-8f);
  this->Shape(1, 3, 7, 9);
  EXPECT_FALSE(this->solver_.Forward(this->Problem(0), top.data()));
  EXPECT_FALSE(this->solver_.Forward(this->Problem(0), top.data()));
}

TYPED_TEST(DenseCRFKernelTest, ScoresThatAreNoNumbersGiveNone) {
  this->crf_->set_output(DenseCRFParameter_Output_LABEL);
  this->Shape(1, 5, 9, 7);
  this->SetUpLayer();
  for (TypeParam wrong : { TypeParam(NAN), TypeParam(INFINITY) }) {
    for (int c = 0; c < 5; ++c) {
      this->Shape(1, 5, 9, 7);
      this->scores_.mutable_cpu_data()[this->scores_.offset(0, c, 4, 3)] =
          wrong;
      EXPECT_TRUE(std::isnan(this->Forward()[4 * 7 + 3]));
    }
  }
}

// One solver for all of them: sizes and classes change from call to call.
TYPED_TEST(DenseCRFKernelTest, ForwardOfAllShapes) {
  const int shapes[][4] = {{1, 2, 1, 1}, {1, 3, 1, 40}, {2, 5, 33, 1},
      {1, 21, 23, 37}, {3, 2, 8, 5}, {1, 9, 14, 9}, {1, 33, 5, 6},
      {1, 100, 4, 7}, {1, 1, 3, 3}, {1, 150, 3, 2}};
  for (const int* s : shapes) {
    SCOPED_TRACE(::testing::Message() << s[0] << " x " << s[1] << " x " << s[2]
        << " x " << s[3]);
    this->Shape(s[0], s[1], s[2], s[3]);
    this->ExpectForward();
  }
}

TYPED_TEST(DenseCRFKernelTest, ForwardOfFlatAndNoisyImages) {
  this->Shape(1, 4, 40, 50);
  for (TypeParam amplitude : {0, 255}) {
    for (int i = 0; i < this->image_.count(); ++i) {
      this->image_.mutable_cpu_data()[i] = (i * 7919 % 256) * amplitude / 255;
    }
    this->ExpectForward();
  }
}

TYPED_TEST(DenseCRFKernelTest, ForwardOfAllOutputs) {
  const DenseCRFParameter_Output outputs[] = {
      DenseCRFParameter_Output_PROBABILITY,
      DenseCRFParameter_Output_LOG_PROBABILITY,
      DenseCRFParameter_Output_LABEL};
  for (DenseCRFParameter_Output output : outputs) {
    this->crf_->set_output(output);
    for (int iterations = 0; iterations < 3; ++iterations) {
      this->crf_->set_max_iter(iterations);
      this->Shape(2, 5, 6, 9);
      this->ExpectForward();
    }
  }
}

TYPED_TEST(DenseCRFKernelTest, LabelIsTheFirstOfEqualClasses) {
  this->crf_->set_output(DenseCRFParameter_Output_LABEL);
  this->crf_->set_max_iter(0);
  this->Shape(1, 70, 3, 4);
  caffe_set(this->scores_.count(), TypeParam(1),
      this->scores_.mutable_cpu_data());
  this->scores_.mutable_cpu_data()[this->scores_.offset(0, 45, 2, 1)] = 2;
  this->scores_.mutable_cpu_data()[this->scores_.offset(0, 33, 2, 1)] = 2;
  this->ExpectForward();
  EXPECT_EQ(33, this->result_.data_at(0, 0, 2, 1));
}

TYPED_TEST(DenseCRFKernelTest, ForwardWithoutWeights) {
  for (int used = 0; used < 3; ++used) {
    this->crf_->set_pos_w(used == 1 ? 2 : 0);
    this->crf_->set_bi_w(used == 2 ? 4 : 0);
    this->Shape(1, 3, 7, 9);
    this->ExpectForward();
  }
}

TYPED_TEST(DenseCRFKernelTest, ForwardOfWhatAnImageMayBe) {
  this->Shape(1, 3, 9, 8);
  const int counts[] = {0, 1, 3};
  for (int means : counts) {
    for (DenseCRFParameter_Order order : {DenseCRFParameter_Order_BGR,
        DenseCRFParameter_Order_RGB}) {
      this->crf_->set_order(order);
      this->crf_->set_scale(means == 0 ? 1 : 0.4f);
      this->crf_->clear_mean_value();
      for (int k = 0; k < means; ++k) {
        this->crf_->add_mean_value(100.3f + 0.4f * k);
      }
      this->ExpectForward();
    }
  }
}

TYPED_TEST(DenseCRFKernelTest, ForwardOfLearnedParameters) {
  this->crf_->set_learn(true);
  this->Shape(2, 5, 9, 11);
  this->ExpectForward();
  this->Shape(1, 21, 6, 5);
  this->ExpectForward();
}

TYPED_TEST(DenseCRFKernelTest, Backward) {
  const int shapes[][4] = {{1, 2, 1, 1}, {2, 5, 9, 7}, {1, 21, 11, 13},
      {1, 40, 1, 6}};
  for (const int* s : shapes) {
    for (int learn = 0; learn < 2; ++learn) {
      SCOPED_TRACE(::testing::Message() << s[0] << " x " << s[1] << " x "
          << s[2] << " x " << s[3] << (learn ? ", learned" : ""));
      this->crf_->set_learn(learn);
      this->crf_->set_bi_rgb_std(20);
      this->Shape(s[0], s[1], s[2], s[3]);
      for (DenseCRFParameter_Output output : {
          DenseCRFParameter_Output_PROBABILITY,
          DenseCRFParameter_Output_LOG_PROBABILITY}) {
        this->crf_->set_output(output);
        this->ExpectBackward();
      }
      this->crf_->set_max_iter(0);
      this->ExpectBackward();
      this->crf_->set_max_iter(3);
    }
  }
}

TYPED_TEST(DenseCRFKernelTest, BackwardWithoutWeights) {
  for (int used = 0; used < 3; ++used) {
    this->crf_->set_pos_w(used == 1 ? 2 : 0);
    this->crf_->set_bi_w(used == 2 ? 4 : 0);
    this->Shape(1, 3, 7, 9);
    this->ExpectBackward();
  }
}

// One solver for all of them, which must not keep a lattice of other factors.
TYPED_TEST(DenseCRFKernelTest, Normalizations) {
  this->Shape(2, 5, 9, 7);
  this->crf_->set_bi_rgb_std(20);
  for (DenseCRFParameter_Normalization normalization : {
      DenseCRFParameter_Normalization_AFTER,
      DenseCRFParameter_Normalization_NONE,
      DenseCRFParameter_Normalization_BEFORE,
      DenseCRFParameter_Normalization_SYMMETRIC}) {
    this->crf_->set_normalization(normalization);
    // K's rows sum to more than 1
    const bool none = normalization == DenseCRFParameter_Normalization_NONE;
    this->crf_->set_pos_w(none ? 0.1 : 3);
    this->crf_->set_bi_w(none ? 0.1 : 5);
    for (int learn = 0; learn < 2; ++learn) {
      this->crf_->set_learn(learn);
      this->ExpectForward();
      this->ExpectBackward();
    }
  }
}

TYPED_TEST(DenseCRFKernelTest, Matrices) {
  const int shapes[][4] = {{1, 2, 1, 1}, {2, 5, 9, 7}, {1, 21, 7, 11},
      {1, 40, 1, 6}};
  this->crf_->set_bi_rgb_std(20);
  for (const int* s : shapes) {
    for (int which = 1; which < 8; ++which) {
      SCOPED_TRACE(::testing::Message() << s[0] << " x " << s[1] << " x "
          << s[2] << " x " << s[3] << ", " << which);
      this->crf_->set_kernel_weights(
          static_cast<DenseCRFParameter_ClassMatrix>(which % 2));
      this->crf_->set_compatibility(
          static_cast<DenseCRFParameter_ClassMatrix>(which / 2 % 2));
      this->crf_->set_learn(which / 4);
      this->Shape(s[0], s[1], s[2], s[3]);
      this->ExpectForward();
      this->ExpectBackward();
    }
  }
}

TYPED_TEST(DenseCRFKernelTest, CompatibilityOfOneKernelAndOfNone) {
  this->crf_->set_compatibility(DenseCRFParameter_ClassMatrix_MATRIX);
  for (int used = 0; used < 3; ++used) {
    this->crf_->set_pos_w(used == 1 ? 2 : 0);
    this->crf_->set_bi_w(used == 2 ? 4 : 0);
    this->Shape(1, 3, 7, 9);
    this->ExpectForward();
    this->ExpectBackward();
  }
}

TYPED_TEST(DenseCRFKernelTest, ScoresOfTheLastIteration) {
  this->crf_->set_output(DenseCRFParameter_Output_SCORE);
  for (int iterations : { 0, 3 }) {
    this->crf_->set_max_iter(iterations);
    this->Shape(2, 5, 6, 9);
    this->ExpectForward();
    this->ExpectBackward();
  }
}

TYPED_TEST(DenseCRFKernelTest, MultiStageMeanfield) {
  for (int iterations : { 2, 5, 0 }) {
    this->crf_->set_max_iter(iterations);
    this->bottom_.resize(1);
    this->bottom_.push_back(&this->image_);
    this->UseThreeBottoms();
    this->Shape(2, 6, 7, 5);
    this->ExpectForward();
    this->ExpectBackward();
  }
}

// Whichever thread comes first, the bits are the same.
TYPED_TEST(DenseCRFKernelTest, OrderOfThreadsChangesNoBit) {
  this->Shape(1, 21, 12, 17);
  this->SetUpLayer();
  const vector<TypeParam> expected = this->Forward();
  for (emulation::Settings::Order order : kOrders) {
    emulation::settings().order = order;
    EXPECT_TRUE(expected == this->Forward());
  }
}

// A second call of a size that does not grow allocates nothing; a call reads
// one number back for each lattice that it builds, however many iterations.
TYPED_TEST(DenseCRFKernelTest, MemoryIsKept) {
  this->Shape(1, 6, 10, 12);
  this->SetUpLayer();
  this->Forward();
  const int allocations = this->device_.allocations();
  EXPECT_EQ(2, this->device_.fetches());
  this->crf_->set_max_iter(9);
  this->Forward();
  EXPECT_EQ(allocations, this->device_.allocations());
  EXPECT_EQ(3, this->device_.fetches());
}

}  // namespace caffe

#endif  // CAFFE_CUDA_EMULATION
