#ifdef USE_OPENCV
#ifdef USE_LMDB
#include <omp.h>

#include <functional>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/data/lmdb_reader.hpp"
#include "caffe/distributed/rank_comparison.hpp"
#include "caffe/solver_factory.hpp"
#include "caffe/util/io.hpp"

#include "segmentation_data_fixture.hpp"
#include "several_ranks.hpp"

namespace caffe {

TEST(RankComparisonTest, TestTexts) {
  const string same = "a: 1\n  b: 2\n";
  const struct { int rank; string own, told; } cases[] = {
      {0, same, ""},
      {1, "a: 1\n  b: 3\n", "rank 1 (localhost): differs in its x from rank 0 (localhost): \"b: 3\", not \"b: 2\""},
      {2, "a: 1\n", "rank 2 (localhost): differs in its x from rank 0 (localhost): nothing, not \"b: 2\""},
      {0, "", "rank 1 (localhost): differs in its x from rank 0 (localhost): \"a: 1\", not nothing"},
      {2, same + "c\377\n", "rank 2 (localhost): differs in its x from rank 0 (localhost): \"c\377\", not nothing"}};
  for (const auto& each : cases) {
    vector<string> found(3);
    OnRanks(3, [&](CollectiveQueue* ranks) {
      found[ranks->rank()] = FindDifference("x", ranks->rank() == each.rank ? each.own : same, ranks);
    });
    for (const string& fault : found) { EXPECT_EQ(each.told, fault); }
  }
}

class SolverComparisonTest : public ::testing::Test {
 protected:
  SolverComparisonTest() {
    MakeTempDir(&folder_);
    WriteSplit(folder_ + "/split", {MakeScene(7, 7, 0), MakeScene(7, 7, 1)});
    CHECK(google::protobuf::TextFormat::ParseFromString("base_lr: 1 lr_policy: 'fixed' net_param { "
        "layer { name: 'data' type: 'SegmentationData' top: 'data' top: 'label' "
        "  segmentation_data_param { source: '" + folder_ + "/split' batch_size: 2 crop_height: 4 crop_width: 4 } } "
        "layer { name: 'scores' type: 'Convolution' bottom: 'data' top: 'scores' "
        "  convolution_param { num_output: 4 kernel_size: 1 } } "
        "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'scores' bottom: 'label' top: 'loss' "
        "  loss_param { ignore_label: 255 } } }", &param_));
    param_.set_solver_mode(SolverParameter::CPU);
  }

  // What is told of two ranks, the second of which does something else.
  string Told(const std::function<void(SolverParameter*)>& change,
      const std::function<void(Solver<float>*)>& after = [](Solver<float>* /* solver */) {}) {
    vector<string> found(2);
    OnRanks(2, [&](CollectiveQueue* ranks) {
      Caffe::set_mode(Caffe::CPU);
      SolverParameter own = param_;
      if (ranks->rank() == 1) { change(&own); }
      const shared_ptr<Solver<float> > solver(SolverRegistry<float>::CreateSolver(own));
      if (ranks->rank() == 1) { after(solver.get()); }
      found[ranks->rank()] = FindDifference(solver.get(), ranks);
    });
    EXPECT_EQ(found[0], found[1]);
    return found[0];
  }

  string folder_;
  SolverParameter param_;
};

TEST_F(SolverComparisonTest, TestWhatDiffersIsNamed) {
  const string begin = "rank 1 (localhost): differs in its ";
  EXPECT_EQ("", Told([](SolverParameter* own) { own->set_snapshot_prefix("elsewhere"); }));
  EXPECT_EQ(begin + "solver from rank 0 (localhost): \"base_lr: 2\", not \"base_lr: 1\"",
      Told([](SolverParameter* own) { own->set_base_lr(2); }));
  EXPECT_EQ(begin + "iteration to go on from from rank 0 (localhost): \"7\", not \"0\"",
      Told([](SolverParameter* /* own */) {}, [](Solver<float>* solver) {
        SolverState state;
        state.set_iter(7);
        string folder;
        MakeTempDir(&folder);
        for (Blob<float>* blob : solver->net()->learnable_params()) { blob->ToProto(state.add_history()); }
        WriteProtoToBinaryFile(state, (folder + "/state").c_str());
        solver->Restore((folder + "/state").c_str());
      }));
  EXPECT_EQ(begin + "number of threads (OMP_NUM_THREADS) from rank 0 (localhost): \"7\", not \"" +
      std::to_string(omp_get_max_threads()) + "\"",
      Told([](SolverParameter* /* own */) {}, [](Solver<float>* /* solver */) { omp_set_num_threads(7); }));
}

TEST_F(SolverComparisonTest, TestNetwork) {
  // as files that both ranks have read
  const auto change = [](SolverParameter* own) {
    own->mutable_net_param()->mutable_layer(1)->mutable_convolution_param()->set_dilation(0, 2);
  };
  param_.mutable_net_param()->mutable_layer(1)->mutable_convolution_param()->add_dilation(1);
  SolverParameter other = param_;
  change(&other);
  WriteProtoToTextFile(param_.net_param(), folder_ + "/first");
  WriteProtoToTextFile(other.net_param(), folder_ + "/second");
  param_.clear_net_param();
  param_.set_net(folder_ + "/first");
  EXPECT_EQ("rank 1 (localhost): differs in its network from rank 0 (localhost): \"scores: dilation: 2\", not "
      "\"scores: dilation: 1\"", Told([this](SolverParameter* own) { own->set_net(folder_ + "/second"); }));
}

TEST_F(SolverComparisonTest, TestCopiesOfDataAreToldApart) {
  // the second has another image, as large; the third one image more
  WriteSplit(folder_ + "/same", {MakeScene(7, 7, 0), MakeScene(7, 7, 1)});
  WriteSplit(folder_ + "/other", {MakeScene(7, 7, 0), MakeScene(7, 7, 5)});
  WriteSplit(folder_ + "/more", {MakeScene(7, 7, 0), MakeScene(7, 7, 1), MakeScene(7, 7, 2)});
  const auto describe = [this](const string& split) {
    return LmdbReader::Open(folder_ + "/" + split + "/images.lmdb", "test")->Describe();
  };
  EXPECT_EQ(0u, describe("split").find("2 entries on "));
  EXPECT_EQ(0u, describe("more").find("3 entries on "));
  EXPECT_EQ(describe("split"), describe("same"));
  EXPECT_NE(describe("split"), describe("other"));
}

}  // namespace caffe

#endif  // USE_LMDB
#endif  // USE_OPENCV
