#ifdef USE_OPENCV
#ifdef USE_LMDB
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "boost/algorithm/string/replace.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/distributed/divided_batch.hpp"
#include "caffe/distributed/gradient_exchange.hpp"
#include "caffe/solver_factory.hpp"
#include "caffe/util/io.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "segmentation_data_fixture.hpp"
#include "several_ranks.hpp"

namespace caffe {

static const int BATCH = 30;
static const int SIZES[] = {2, 3, 5};

// All that ranks have to agree on: labels to ignore (all of those of the second of five ranks), batch normalization, a
// Dropout, two losses, a shared and a frozen parameter.
static const char NET[] =
    "layer { name: 'data' type: 'SegmentationData' top: 'data' top: 'label' "
    "  segmentation_data_param { source: 'SPLIT' batch_size: 30 crop_height: 6 crop_width: 5 mirror: true seed: 3 "
    "    mean_value: 127 scale: 0.01 } } "
    "layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv' param { lr_mult: 2 } param { lr_mult: 1 } "
    "  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: 'msra' } } } "
    "layer { name: 'bn' type: 'BatchNorm' bottom: 'conv' top: 'bn' } "
    "layer { name: 'scale' type: 'Scale' bottom: 'bn' top: 'bn' scale_param { bias_term: true } } "
    "layer { name: 'relu' type: 'ReLU' bottom: 'bn' top: 'bn' } "
    "layer { name: 'again' type: 'Convolution' bottom: 'bn' top: 'again' param { name: 'twice' } param { lr_mult: 0 } "
    "  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: 'msra' } } } "
    "layer { name: 'and_again' type: 'Convolution' bottom: 'again' top: 'and_again' param { name: 'twice' } "
    "  param { lr_mult: 0 } convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: 'msra' } } } "
    "layer { name: 'drop' type: 'Dropout' bottom: 'and_again' top: 'and_again' } "
    "layer { name: 'early' type: 'Convolution' bottom: 'bn' top: 'early' "
    "  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: 'msra' } } } "
    "layer { name: 'late' type: 'Convolution' bottom: 'and_again' top: 'late' "
    "  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: 'msra' } } } "
    "layer { name: 'early_loss' type: 'SoftmaxWithLoss' bottom: 'early' bottom: 'label' top: 'early_loss' "
    "  loss_weight: 0.4 loss_param { ignore_label: 255 } } "
    "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'late' bottom: 'label' top: 'loss' "
    "  loss_param { ignore_label: 255 LOSS } } ";

// Ranks are threads here, so that on a GPU they share it.
template <typename TypeParam>
class GradientExchangeTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;
  static const bool ON_GPU = TypeParam::device == Caffe::GPU;

  GradientExchangeTest() {
    MakeTempDir(&folder_);
    vector<Scene> scenes;
    for (int i = 0; i < BATCH; ++i) {
      scenes.push_back(MakeScene(7, 7, i));
      for (int pixel = 0; pixel < 49; ++pixel) {
        uchar& label = scenes[i].label.data[pixel];
        label = i / 6 == 1 || label % 4 == 3 ? 255 : label % 4;
      }
    }
    WriteSplit(folder_ + "/split", scenes);
  }

  // All weights, BatchNorm's sums and a solver's averages after some iterations on this many ranks, 0: without any. The
  // losses come last.
  vector<Dtype> Trained(int size, const string& solver_text, int iterations, const string& loss = "",
      const string& net_text = NET) {
    SolverParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString("random_seed: 5 lr_policy: 'fixed' " + solver_text, &param));
    string net = net_text;
    boost::replace_all(net, "SPLIT", folder_ + "/split");
    boost::replace_all(net, "LOSS", loss);
    CHECK(google::protobuf::TextFormat::ParseFromString(net, param.mutable_net_param())) << net;
    if (size == 0) { return Values(param, iterations, NULL); }
    vector<vector<Dtype> > found(size);
    OnRanks(size, [&](CollectiveQueue* ranks) { found[ranks->rank()] = Values(param, iterations, ranks); });
    for (const vector<Dtype>& other : found) { EXPECT_EQ(found[0], other); }
    return found[0];
  }

  static vector<Dtype> Values(const SolverParameter& param, int iterations, CollectiveQueue* ranks) {
    Caffe::set_mode(TypeParam::device);
    shared_ptr<Solver<Dtype> > solver(SolverRegistry<Dtype>::CreateSolver(param));
    std::unique_ptr<GradientExchange<Dtype> > exchange;
    if (ranks != NULL) { exchange.reset(new GradientExchange<Dtype>(solver.get(), ranks)); }
    solver->Step(iterations);
    if (exchange) { exchange->CompareWeights(); }
    Net<Dtype> averaged(TrainNet(param));
    solver->ShareWeights(&averaged);
    vector<Dtype> values;
    for (const Net<Dtype>* net : {solver->net().get(), &averaged}) {
      for (const shared_ptr<Blob<Dtype> >& blob : net->params()) {
        values.insert(values.end(), blob->cpu_data(), blob->cpu_data() + blob->count());
      }
    }
    Dtype loss = solver->net()->ForwardFromTo(0, solver->net()->layers().size() - 1);
    AverageOverRanks(TRAIN, 1, &loss);
    values.push_back(loss);
    return values;
  }

  static NetParameter TrainNet(const SolverParameter& param) {
    NetParameter net = param.net_param();
    net.mutable_state()->set_phase(TRAIN);
    return net;
  }

  // Up to rounding, and to what a GPU adds up in any order.
  static double Tolerance(int iterations) {
    return sizeof(Dtype) == 8 ? 1e-10 : iterations == 1 && !ON_GPU ? 1e-5 : 1e-4;
  }

  // How far apart the ways are that both went from `start`, relative to the way.
  static double Apart(const vector<Dtype>& start, const vector<Dtype>& one, const vector<Dtype>& other) {
    double way = 0, apart = 0;
    for (size_t i = 0; i < start.size(); ++i) {
      way += (one[i] - start[i]) * (one[i] - start[i]);
      apart += (one[i] - other[i]) * (one[i] - other[i]);
    }
    EXPECT_GT(way, 0);
    return std::sqrt(apart / way);
  }

  void Compare(const string& solver, int iterations, const string& loss = "", const string& net = NET) {
    const double tolerance = Tolerance(iterations);
    const vector<Dtype> start = Trained(0, solver, 0, loss, net), alone = Trained(0, solver, iterations, loss, net);
    for (const int size : SIZES) {
      EXPECT_LT(Apart(start, alone, Trained(size, solver, iterations, loss, net)), tolerance)
          << size << " ranks, " << solver << loss;
    }
  }

  // That every rank with its own part of the batch alone is a pass of iter_size in one process.
  void CompareLocal(const string& solver, int iterations, int iter_size, const string& loss = "",
      const string& net = NET) {
    const double tolerance = Tolerance(iterations);
    string local = net;
    boost::replace_all(local, "type: 'BatchNorm'", "type: 'BatchNorm' batch_norm_param { scope: LOCAL } ");
    boost::replace_all(local, "ignore_label: 255", "ignore_label: 255 scope: LOCAL");
    for (const int size : {1, 2, 3, 5}) {
      string part = local;
      boost::replace_all(part, "batch_size: 30", "batch_size: " + std::to_string(30 / size));
      vector<Dtype> found[3] = {
          Trained(0, solver, 0, loss, part),
          Trained(0, solver + " iter_size: " + std::to_string(size * iter_size), iterations, loss, part),
          Trained(size, solver + " iter_size: " + std::to_string(iter_size), iterations, loss, local)};
      for (vector<Dtype>& each : found) { each.pop_back(); }  // the loss, of one pass
      if (size == 1 && !ON_GPU) {
        EXPECT_EQ(found[1], found[2]) << solver << loss;
      } else {
        EXPECT_LT(Apart(found[0], found[1], found[2]), tolerance) << size << " ranks, " << solver << loss;
      }
    }
  }

  string folder_;
};

TYPED_TEST_CASE(GradientExchangeTest, TestDtypesAndDevices);

TYPED_TEST(GradientExchangeTest, TestGradientsAreTheWholeBatchs) {
  for (const char* loss : {"", "normalization: FULL", "normalization: BATCH_SIZE", "normalization: NONE",
      "class_weight: 0.5 class_weight: 2 class_weight: 1", "hard_example_fraction: 0.3",
      "hard_example_fraction: 0.25 class_weight: 0.5 class_weight: 2 class_weight: 0"}) {
    this->Compare("base_lr: 0.001", 1, loss);
  }
}

TYPED_TEST(GradientExchangeTest, TestLocalGradientsAreThoseOfIterSize) {
  for (const char* loss : {"", "normalization: FULL", "normalization: BATCH_SIZE", "normalization: NONE",
      "hard_example_fraction: 0.25 class_weight: 0.5 class_weight: 2 class_weight: 0"}) {
    this->CompareLocal("base_lr: 0.001", 1, 1, loss);
  }
  this->CompareLocal("base_lr: 0.001", 1, 2);
}

TYPED_TEST(GradientExchangeTest, TestLocalWeightsAreThoseOfIterSize) {
  // in single precision roundings grow from iteration to iteration; Caffe clips the sum of iter_size's gradients
  const int iterations = sizeof(typename TypeParam::Dtype) == 8 ? 50 : 5;
  this->CompareLocal("base_lr: 0.01 momentum: 0.9 weight_decay: 0.01", iterations, 1);
}

TYPED_TEST(GradientExchangeTest, TestLocalIsNotTheWhole) {
  const string solver = "base_lr: 0.001";
  const string changes[][2] = {
      {"type: 'BatchNorm'", "type: 'BatchNorm' batch_norm_param { scope: LOCAL } "},
      {"ignore_label: 255", "ignore_label: 255 scope: LOCAL"}};
  for (const string* change : changes) {
    string local = NET;
    boost::replace_all(local, change[0], change[1]);
    vector<typename TypeParam::Dtype> start = this->Trained(3, solver, 0), whole = this->Trained(3, solver, 1),
        apart = this->Trained(3, solver, 1, "", local);
    EXPECT_GT(this->Apart(start, whole, apart), 1e-3) << change[1];
  }
}

TYPED_TEST(GradientExchangeTest, TestSolvers) {
  for (const char* solver : {
      "base_lr: 0.01 momentum: 0.9 weight_decay: 0.01 clip_gradients: 0.1",
      "type: 'AdamW' base_lr: 0.001 momentum: 0.9 momentum2: 0.99 delta: 1e-3 weight_decay: 0.1 average_decay: 0.9",
      "base_lr: 0.01 momentum: 0.9 iter_size: 3"}) {
    this->Compare(solver, 5);
  }
}

TYPED_TEST(GradientExchangeTest, TestOneRankAndAgain) {
  const string solver = "base_lr: 0.01 momentum: 0.9 weight_decay: 0.01 clip_gradients: 1 average_decay: 0.9";
  const vector<typename TypeParam::Dtype> start = this->Trained(0, solver, 0);
  for (const int again : {1, 3}) {
    const vector<typename TypeParam::Dtype> one = this->Trained(again == 1 ? 0 : 3, solver, 4),
        other = this->Trained(again, solver, 4);
    if (this->ON_GPU) {
      EXPECT_LT(this->Apart(start, one, other), this->Tolerance(4));
    } else {
      EXPECT_EQ(one, other);
    }
  }
}

TYPED_TEST(GradientExchangeTest, TestOtherLosses) {
  BlobProto infogain;
  for (const int64_t axis : {1, 1, 3, 3}) { infogain.mutable_shape()->add_dim(axis); }
  for (int i = 0; i < 9; ++i) { infogain.add_data(i % 4 == 0 ? 1 : 0.1 * i); }
  WriteProtoToBinaryFile(infogain, (this->folder_ + "/infogain").c_str());
  const string upto = string(NET).substr(0, string(NET).find("layer { name: 'early_loss'"));
  const string sum = "layer { name: 'sum' type: 'Convolution' bottom: 'late' top: 'sum' convolution_param { num_output: 1 "
      "  kernel_size: 1 weight_filler { type: 'msra' } } } ";
  const string losses[] = {
      "layer { name: 'loss' type: 'InfogainLoss' bottom: 'late' bottom: 'label' top: 'loss' "
      "  infogain_loss_param { source: '" + this->folder_ + "/infogain' } loss_param { ignore_label: 255 MODE } } ",
      sum + "layer { name: 'loss' type: 'SigmoidCrossEntropyLoss' bottom: 'sum' bottom: 'label' top: 'loss' "
      "  loss_param { ignore_label: 255 MODE } } ",
      sum + "layer { name: 'loss' type: 'EuclideanLoss' bottom: 'sum' bottom: 'label' top: 'loss' "
      "  loss_weight: 1e-4 } "};
  for (const string& loss : losses) {
    for (const bool is_mean : {true, false}) {
      string text = upto + loss;
      boost::replace_all(text, "MODE", is_mean ? "normalization: VALID" : "normalization: NONE");
      // a step that is small beside the weights, and large beside their rounding
      const bool is_sum = !is_mean && text != upto + loss;
      this->Compare(is_sum ? "base_lr: 1e-4" : "base_lr: 1e-2", 1, "", text);
      this->CompareLocal(is_sum ? "base_lr: 1e-4" : "base_lr: 1e-2", 1, 1, "", text);
    }
  }
}

TYPED_TEST(GradientExchangeTest, TestBatchThatCannotBeDivided) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(this->Trained(4, "base_lr: 1", 1), "layer 'data': a batch of 30 cannot be divided among 4 processes; "
      "expected one of these numbers of processes: 1, 2, 3, 5, 6, 10, 15, 30");
}

TYPED_TEST(GradientExchangeTest, TestRanksThatDiffer) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const string text = "layer { name: 'data' type: 'Input' top: 'data' input_param { shape { dim: 6 dim: 2 } } } "
      "layer { name: 'ip' type: 'InnerProduct' bottom: 'data' top: 'ip' inner_product_param { num_output: 1 "
      "  weight_filler { type: 'msra' } } } "
      "layer { name: 'loss' type: 'Reduction' bottom: 'ip' top: 'loss' loss_weight: 1 } ";
  SolverParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString("base_lr: 1 lr_policy: 'fixed'", &param));
  CHECK(google::protobuf::TextFormat::ParseFromString(text, param.mutable_net_param()));
  EXPECT_DEATH(OnRanks(3, [&param](CollectiveQueue* ranks) {
        typedef typename TypeParam::Dtype Dtype;
        Caffe::set_mode(TypeParam::device);
        shared_ptr<Solver<Dtype> > solver(SolverRegistry<Dtype>::CreateSolver(param));
        GradientExchange<Dtype> exchange(solver.get(), ranks);
        if (ranks->rank() == 2) { solver->net()->params()[0]->mutable_cpu_data()[0] += 1; }
        solver->Step(1);
      }), "iteration 0: rank 2 .*: differs in its weights .* from rank 0");
}

TEST(DivideBatchTest, TestOtherTypes) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  NetParameter net;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      "layer { name: 'a' type: 'Data' data_param { batch_size: 6 } } "
      "layer { name: 'b' type: 'HDF5Data' hdf5_data_param { batch_size: 9 } } "
      "layer { name: 'c' type: 'Input' input_param { shape { dim: 3 dim: 6 } } } "
      "layer { name: 'd' type: 'Parameter' } ", &net));
  DivideBatch(3, &net);
  EXPECT_EQ(2, net.layer(0).data_param().batch_size());
  EXPECT_EQ(3, net.layer(1).hdf5_data_param().batch_size());
  EXPECT_EQ(1, net.layer(2).input_param().shape(0).dim(0));
  EXPECT_EQ(6, net.layer(2).input_param().shape(0).dim(1));
  net.mutable_layer(0)->set_type("ImageData");
  EXPECT_DEATH(DivideBatch(1, &net), "ImageData layer 'a': does not know how to read a part of the batch");
  net.mutable_layer(0)->set_type("BN");
  EXPECT_DEATH(DivideBatch(1, &net), "BN layer 'a': would take mean and variance over its part of the batch");
  net.mutable_layer(0)->mutable_bn_param()->set_frozen(true);
  net.mutable_layer(0)->add_bottom("x");
  net.mutable_layer(1)->set_type("ImageSegData");
  net.mutable_layer(1)->mutable_image_data_param()->set_batch_size(4);
  DivideBatch(1, &net);
  EXPECT_EQ(4, net.layer(1).image_data_param().batch_size());
}

}  // namespace caffe

#endif  // USE_LMDB
#endif  // USE_OPENCV
