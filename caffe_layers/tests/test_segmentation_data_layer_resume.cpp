#include <string>
#include <vector>

#include "boost/scoped_ptr.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/proto/caffe.pb.h"
#include "caffe/sgd_solvers.hpp"

#include "segmentation_data_fixture.hpp"

namespace caffe {

TYPED_TEST(SegmentationDataLayerTest, TestResumeEqualsUnbroken) {
  typedef typename TypeParam::Dtype Dtype;
  this->AddSource("split", this->SmallScenes(5));
  this->SetCrop(3, 3, 2);
  this->data_param()->set_shuffle(true);
  this->data_param()->set_mirror(true);
  for (const bool augment : {false, true}) {
    if (augment) { AugmentInEveryWay(this->data_param()); }
    const vector<vector<Dtype> > unbroken =
        Reader<Dtype>(this->param_).Next(12);
    Reader<Dtype> resumed(this->param_);
    resumed.layer.ResumeAt(7);
    for (int pass = 7; pass < 10; ++pass) {
      EXPECT_EQ(unbroken[pass], resumed.Next()) << "pass " << pass;
    }
    // And again, with threads at work and batches read ahead.
    resumed.layer.ResumeAt(2);
    for (int pass = 2; pass < 12; ++pass) {
      EXPECT_EQ(unbroken[pass], resumed.Next()) << "pass " << pass;
    }
  }
}

// A solver that stops, snapshots and goes on in a new process learns what an
// unbroken one does, bit for bit; also where one iteration is two forward passes.
// (Caffe's own convolution: on a GPU, cuDNN's may add in any order.)
TYPED_TEST(SegmentationDataLayerTest, TestRestoredSolverEqualsUnbroken) {
  typedef typename TypeParam::Dtype Dtype;
  vector<Scene> scenes = this->SmallScenes(5);
  for (Scene& scene : scenes) { scene.label = scene.label / 128; }
  this->AddSource("split", scenes);
  const string proto =
      "base_lr: 0.01 lr_policy: 'fixed' momentum: 0.9 max_iter: 9 iter_size: 2 "
      "random_seed: 5 snapshot_after_train: false display: 0 "
      "snapshot_prefix: '" + this->folder_ + "/run' "
      "net_param { "
      "layer { name: 'data' type: 'SegmentationData' top: 'data' top: 'label' "
      "  segmentation_data_param { source: '" + this->folder_ + "/split' "
      "    batch_size: 2 crop_height: 3 crop_width: 3 mirror: true "
      "    shuffle: true seed: 1 mean_value: 128 scale: 0.01 scale_min: 0.5 "
      "    scale_max: 2 rotation: 10 brightness: 0.2 hue: 10 blur: 1 } } "
      "layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv' "
      "  convolution_param { num_output: 3 kernel_size: 1 engine: CAFFE "
      "    weight_filler { type: 'gaussian' std: 0.1 } } } "
      "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'conv' "
      "  bottom: 'label' top: 'loss' } }";
  SolverParameter solver_param;
  ASSERT_TRUE(
      google::protobuf::TextFormat::ParseFromString(proto, &solver_param));
  solver_param.set_solver_mode(Caffe::mode() == Caffe::GPU ?
      SolverParameter::GPU : SolverParameter::CPU);
  vector<vector<Dtype> > weights;
  for (int interrupted = 0; interrupted < 2; ++interrupted) {
    boost::scoped_ptr<SGDSolver<Dtype> > solver(
        new SGDSolver<Dtype>(solver_param));
    if (interrupted) {
      solver->Step(4);
      solver->Snapshot();
      solver.reset(new SGDSolver<Dtype>(solver_param));
      solver->Restore((this->folder_ + "/run_iter_4.solverstate").c_str());
      EXPECT_EQ(4, solver->iter());
      solver->Step(5);
    } else {
      solver->Step(9);
    }
    const Blob<Dtype>& blob = *solver->net()->params()[0];
    weights.push_back(
        vector<Dtype>(blob.cpu_data(), blob.cpu_data() + blob.count()));
  }
  EXPECT_EQ(weights[0], weights[1]);
}

}  // namespace caffe
