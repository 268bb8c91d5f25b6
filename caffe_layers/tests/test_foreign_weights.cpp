#include <glog/logging.h>
#include <google/protobuf/text_format.h>

#include <cstdlib>
#include <fstream>  // NOLINT(readability/streams)
#include <string>
#include <vector>

#include "hdf5.h"
#include "hdf5_hl.h"

#include "boost/filesystem.hpp"
#include "gtest/gtest.h"

#include "caffe/net.hpp"
#include "caffe/util/io.hpp"

#include "caffe/test/test_caffe_main.hpp"
#include "solver_under_test.hpp"

namespace caffe {

namespace {

struct Weighted {
  const char* layer;
  const char* bottoms;
};

const char kMap[] = "bottom: 'map'";

// Every layer that has blobs, and what changes their number or shape.
const Weighted kLayers[] = {
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 3 }", kMap},
  {"type: 'Convolution' convolution_param { num_output: 4 kernel_size: 2 group: 2 bias_term: false }", kMap},
  {"type: 'Deconvolution' convolution_param { num_output: 4 kernel_size: 3 }", kMap},
  {"type: 'Deconvolution' convolution_param { num_output: 6 kernel_size: 2 stride: 2 group: 2 }", kMap},
  {"type: 'InnerProduct' inner_product_param { num_output: 2 }", kMap},
  {"type: 'InnerProduct' inner_product_param { num_output: 2 transpose: true bias_term: false }", kMap},
  {"type: 'Embed' embed_param { num_output: 2 input_dim: 3 }", "bottom: 'one'"},
  {"type: 'Scale'", kMap},
  {"type: 'Scale' scale_param { bias_term: true }", kMap},
  {"type: 'Scale' scale_param { axis: 2 num_axes: -1 bias_term: true }", kMap},
  {"type: 'Scale' scale_param { axis: 0 bias_term: true }", "bottom: 'map' bottom: 'one'"},
  {"type: 'Bias'", kMap},
  {"type: 'PReLU'", kMap},
  {"type: 'PReLU' prelu_param { channel_shared: true }", kMap},
  {"type: 'BatchNorm'", kMap},
  {"type: 'Parameter' parameter_param { shape { dim: 2 dim: 3 } }", ""},
  {"type: 'RNN' recurrent_param { num_output: 2 }", "bottom: 'steps' bottom: 'goes_on'"},
  {"type: 'LSTM' recurrent_param { num_output: 2 }", "bottom: 'steps' bottom: 'goes_on'"},
  {"type: 'LSTM' recurrent_param { num_output: 2 }", "bottom: 'steps' bottom: 'goes_on' bottom: 'static'"},
  {"type: 'BN' bn_param { bn_mode: LEARN }", kMap},
  {"type: 'BN' bn_param { frozen: true }", kMap},
  {"type: 'Normalize' norm_param { channel_shared: false }", kMap},
  {"type: 'Normalize' norm_param { channel_shared: true }", kMap},
  {"type: 'ReNetLSTM' renet_param { num_output: 2 peephole: true }", kMap},
  {"type: 'ReNetGRU' renet_param { num_output: 2 patch_height: 2 }", kMap},
  {"type: 'ReNetIRNN' renet_param { num_output: 2 direction: HORIZONTAL }", kMap},
  {"type: 'DenseCRF' dense_crf_param { max_iter: 1 learn: true }", "bottom: 'map' bottom: 'image'"},
  {"type: 'DenseCRF' dense_crf_param { max_iter: 1 kernel_weights: MATRIX compatibility: MATRIX }",
      "bottom: 'map' bottom: 'image'"},
  {"type: 'MultiStageMeanfield' multi_stage_meanfield_param { num_iterations: 1 theta_alpha: 9 theta_beta: 3 "
      "theta_gamma: 3 }", "bottom: 'map' bottom: 'map' bottom: 'image'"},
};

// A net of inputs and of the layer 'bad'.
NetParameter NetOf(const Weighted& weighted) {
  NetParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(string(
      "layer { name: 'in' type: 'Input' top: 'map' top: 'image' top: 'one' top: 'steps' top: 'goes_on' top: 'static' "
      "input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 } "
      "shape { dim: 3 dim: 2 dim: 4 } shape { dim: 3 dim: 2 } shape { dim: 2 dim: 5 } } } "
      "layer { name: 'bad' top: 'out' ") + weighted.bottoms + " " + weighted.layer + " }", &param)) << weighted.layer;
  param.mutable_state()->set_phase(TRAIN);
  param.set_force_backward(true);
  return param;
}

void Resize(const vector<int>& shape, BlobProto* blob) {
  blob->Clear();
  int count = 1;
  for (const int size : shape) {
    blob->mutable_shape()->add_dim(size);
    count *= size;
  }
  blob->mutable_data()->Resize(count, 1);
}

struct Damage {
  string what;
  LayerParameter layer;
};

// What may have become of a layer's blobs.
vector<Damage> Damages(const LayerParameter& sound) {
  vector<Damage> all;
  const auto add = [&](const string& what) -> LayerParameter& {
    all.push_back({sound.type() + ": " + what, sound});
    return all.back().layer;
  };
  const int count = sound.blobs_size();
  if (count > 1) { add("a blob is missing").mutable_blobs()->RemoveLast(); }
  *add("a blob too many").add_blobs() = sound.blobs(count - 1);
  for (int i = 0; i < count; ++i) {
    const string blob = "blob " + std::to_string(i);
    const auto& dims = sound.blobs(i).shape().dim();
    const vector<int> shape(dims.begin(), dims.end());
    for (int change : {-1, 1}) {
      vector<int> other = shape;
      if (other.empty()) { other.push_back(1); }
      (change < 0 ? other.front() : other.back()) += change;
      Resize(other, add(blob + " has another size").mutable_blobs(i));
    }
    add(blob + " has a value too few").mutable_blobs(i)->mutable_data()->RemoveLast();
    if (i > 0) { continue; }
    vector<int> more = shape;
    more.insert(more.begin(), 1);
    Resize(more, add(blob + " has an axis more").mutable_blobs(i));
    add(blob + " has a value too many").mutable_blobs(i)->add_data(1);
    add(blob + " has a size below 0").mutable_blobs(i)->mutable_shape()->add_dim(-1);
    add(blob + " has a size that is no int").mutable_blobs(i)->mutable_shape()->add_dim(1ll << 32);
    BlobProto* const uneven = add(blob + " has a gradient of another size").mutable_blobs(i);
    uneven->mutable_diff()->Resize(uneven->data_size() + 1, 1);
  }
  return all;
}

}  // namespace

class ForeignWeightsTest : public ::testing::Test {
 protected:
  ForeignWeightsTest() { ::testing::FLAGS_gtest_death_test_style = "fast"; }

  // Ends without a stack's trace, which takes longer than all else.
  static void EndAtOnce() {
    google::InstallFailureFunction(reinterpret_cast<google::logging_fail_func_t>(&std::abort));
  }
  // The weights in a file of their own.
  static void Copy(const NetParameter& param, const LayerParameter& weights) {
    EndAtOnce();
    Net<float> net(param);
    NetParameter file;
    *file.add_layer() = weights;
    net.CopyTrainedLayersFrom(file);
  }
  // The weights in the network's own file.
  static void Make(NetParameter param, const LayerParameter& weights) {
    EndAtOnce();
    *param.mutable_layer(1)->mutable_blobs() = weights.blobs();
    Net<float> net(param);
  }
};

// All of Caffe's layers and ours, whether the weights lie beside the network or in its own file.
TEST_F(ForeignWeightsTest, TestEveryLayerRefusesOtherBlobsByName) {
  for (const Weighted& weighted : kLayers) {
    const NetParameter param = NetOf(weighted);
    LayerParameter sound;
    Net<float>(param).layer_by_name("bad")->ToProto(&sound);
    ASSERT_GT(sound.blobs_size(), 0) << weighted.layer;
    for (const Damage& damage : Damages(sound)) {
      EXPECT_DEATH(Copy(param, damage.layer), "layer 'bad': (blob [0-9] of )?the file's weights") << damage.what;
      EXPECT_DEATH(Make(param, damage.layer), "layer 'bad': (blob [0-9] of )?the file's weights") << damage.what;
    }
  }
}

TEST_F(ForeignWeightsTest, TestEveryLayerTakesItsOwn) {
  for (const Weighted& weighted : kLayers) {
    NetParameter param = NetOf(weighted);
    Net<float> net(param);
    LayerParameter sound;
    net.layer_by_name("bad")->ToProto(&sound);
    for (BlobProto& blob : *sound.mutable_blobs()) {
      for (int i = 0; i < blob.data_size(); ++i) { blob.set_data(i, i + 1); }
    }
    NetParameter file;
    *file.add_layer() = sound;
    net.CopyTrainedLayersFrom(file);
    *param.mutable_layer(1)->mutable_blobs() = sound.blobs();
    const Net<float> own(param);
    for (const Net<float>* each : {const_cast<const Net<float>*>(&net), &own}) {
      LayerParameter copied;
      each->layer_by_name("bad")->ToProto(&copied);
      ASSERT_EQ(sound.blobs_size(), copied.blobs_size()) << weighted.layer;
      for (int i = 0; i < sound.blobs_size(); ++i) {
        EXPECT_EQ(sound.blobs(i).SerializeAsString(), copied.blobs(i).SerializeAsString()) << weighted.layer;
      }
    }
  }
}

// What HDF5 says of a dataset's size is compared with the memory for it.
class ForeignHDF5Test : public ForeignWeightsTest {
 protected:
  virtual void SetUp() { MakeTempDir(&folder_); }
  virtual void TearDown() { boost::filesystem::remove_all(folder_); }

  // Puts a dataset in another one's place; its values are whatever they are.
  static void Replace(const string& file, const string& dataset, const vector<hsize_t>& shape, hid_t type) {
    const hid_t open = H5Fopen(file.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    CHECK_GE(open, 0) << file;
    CHECK_GE(H5Ldelete(open, dataset.c_str(), H5P_DEFAULT), 0) << dataset;
    Put(open, dataset, shape, type);
    H5Fclose(open);
  }
  static void Put(hid_t file, const string& dataset, const vector<hsize_t>& shape, hid_t type) {
    const hid_t space = H5Screate_simple(shape.size(), shape.data(), NULL), made = H5Pcreate(H5P_DATASET_CREATE);
    if (!shape.empty() && shape[0] > 0) {  // takes no place in the file before it is written to
      const vector<hsize_t> chunk(shape.size(), 1);
      H5Pset_chunk(made, chunk.size(), chunk.data());
    }
    const hid_t set = H5Dcreate2(file, dataset.c_str(), type, space, H5P_DEFAULT, made, H5P_DEFAULT);
    CHECK_GE(set, 0) << dataset;
    H5Dclose(set);
    H5Pclose(made);
    H5Sclose(space);
  }

  string folder_;
};

TEST_F(ForeignHDF5Test, TestWeights) {
  const Weighted weighted = {"type: 'InnerProduct' inner_product_param { num_output: 2 }", kMap};
  const struct { vector<hsize_t> shape; const char* message; } cases[] = {
    {{2, 2}, "Blob 0: source shape is 2 2 [^\n]*\nin the copy of the weights of layer 'bad'"},
    {{(1ull << 32) + 2, 144}, "HDF5 dataset 0 is too large for a blob\nin the copy of the weights of layer 'bad'"},
  };
  Net<float> net(NetOf(weighted));
  const string file = folder_ + "/weights.h5";
  net.ToHDF5(file);
  net.CopyTrainedLayersFrom(file);
  for (const auto& bad : cases) {
    Replace(file, "data/bad/0", bad.shape, H5T_NATIVE_FLOAT);
    EXPECT_DEATH(net.CopyTrainedLayersFrom(file), bad.message);
  }
}

TEST_F(ForeignHDF5Test, TestSolverStates) {
  const hid_t string_type = H5Tcopy(H5T_C_S1), variable = H5Tcopy(H5T_C_S1);
  H5Tset_size(string_type, 4);
  H5Tset_size(variable, H5T_VARIABLE);
  const struct { const char* dataset; vector<hsize_t> shape; hid_t type; const char* message; } cases[] = {
    {"iter", {1000}, H5T_NATIVE_INT, "HDF5 dataset iter should be a single integer"},
    {"iter", {1}, string_type, "HDF5 dataset iter should be a single integer"},
    {"current_step", {0}, H5T_NATIVE_INT, "HDF5 dataset current_step should be a single integer"},
    {"learned_net", {1000}, string_type, "HDF5 dataset learned_net should be a single string"},
    {"learned_net", {}, variable, "HDF5 dataset learned_net should be a single string"},
    {"history/0", {1}, H5T_NATIVE_FLOAT, "Blob 0: source shape is 1 "},
  };
  for (const auto& bad : cases) {
    SolverUnderTest<float> solver("base_lr: 0.1 lr_policy: 'fixed' momentum: 0.9 snapshot_format: HDF5 snapshot_prefix: '" +
        folder_ + "/s'");
    solver->Step(1);
    solver->Snapshot();
    const string file = folder_ + "/s_iter_1.solverstate.h5";
    solver->Restore(file.c_str());
    Replace(file, bad.dataset, bad.shape, bad.type);
    EXPECT_DEATH(solver->Restore(file.c_str()), bad.message);
  }
  H5Tclose(string_type);
  H5Tclose(variable);
}

// A file after the first one, and the first one itself.
TEST_F(ForeignHDF5Test, TestRowsOfData) {
  const struct { vector<hsize_t> first, second; const char* message; } cases[] = {
    {{2, 5}, {2, 3}, "1.h5: a row of data has another size than in the file before"},
    {{0, 5}, {2, 5}, "HDF5 dataset data is empty"},
    {{2, 5}, {0, 5}, "HDF5 dataset data is empty"},
  };
  for (const auto& bad : cases) {
    std::ofstream list(folder_ + "/list");
    int number = 0;
    for (const auto& shape : {bad.first, bad.second}) {
      const string name = folder_ + "/" + std::to_string(number++) + ".h5";
      list << name << "\n";
      const hid_t file = H5Fcreate(name.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
      Put(file, "data", shape, H5T_NATIVE_FLOAT);
      H5Fclose(file);
    }
    list.close();
    NetParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(
        "layer { name: 'rows' type: 'HDF5Data' top: 'data' hdf5_data_param { batch_size: 3 source: '" + folder_ +
        "/list' } }", &param));
    EXPECT_DEATH({ Net<float> net(param); net.Forward(); }, bad.message);
  }
}

TEST_F(ForeignHDF5Test, TestSolverStatesOfProtocolBuffers) {
  SolverUnderTest<float> solver("base_lr: 0.1 lr_policy: 'fixed' momentum: 0.9 snapshot_prefix: '" + folder_ + "/s'");
  solver->Step(1);
  solver->Snapshot();
  const string file = folder_ + "/s_iter_1.solverstate";
  solver->Restore(file.c_str());
  SolverState sound;
  ReadProtoFromBinaryFileOrDie(file, &sound);
  SolverState bad = sound;
  Resize({1}, bad.mutable_history(0));
  WriteProtoToBinaryFile(bad, file);
  EXPECT_DEATH(solver->Restore(file.c_str()), "iter_1.solverstate: history blob 0 has another shape than the weights");
  bad = sound;
  bad.mutable_history()->RemoveLast();
  WriteProtoToBinaryFile(bad, file);
  EXPECT_DEATH(solver->Restore(file.c_str()), "Incorrect length of history");
  for (const bool step : {false, true}) {
    bad = sound;
    if (step) { bad.set_current_step(-3); } else { bad.set_iter(-3); }
    WriteProtoToBinaryFile(bad, file);
    EXPECT_DEATH(solver->Restore(file.c_str()), "iter_1.solverstate: the iteration or its step is below 0");
  }
}

}  // namespace caffe
