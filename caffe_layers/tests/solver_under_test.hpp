#ifndef CAFFE_TEST_SOLVER_UNDER_TEST_HPP_
#define CAFFE_TEST_SOLVER_UNDER_TEST_HPP_

#include <string>
#include <vector>

#include "google/protobuf/text_format.h"

#include "caffe/filler.hpp"
#include "caffe/solver.hpp"
#include "caffe/solver_factory.hpp"
#include "caffe/util/io.hpp"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

/// A linear model whose inputs and wishes never change: 4 samples, 3 inputs, 2
/// outputs. `bias` is shared by name with a second, frozen place; `stays` has
/// lr_mult 0. Its test says the mean of the outputs.
const char kSolverUnderTestNet[] =
    "layer { name: 'data' type: 'Input' top: 'data' input_param { shape { dim: 4 dim: 3 } } } "
    "layer { name: 'wish' type: 'Input' top: 'wish' input_param { shape { dim: 4 dim: 2 } } } "
    "layer { name: 'norm' type: 'BatchNorm' bottom: 'data' top: 'norm' "
    "        batch_norm_param { moving_average_fraction: 0.5 } } "
    "layer { name: 'ip' type: 'InnerProduct' bottom: 'norm' top: 'ip' param { lr_mult: 2 decay_mult: 3 } "
    "        param { name: 'bias' decay_mult: 0 } inner_product_param { num_output: 2 "
    "        weight_filler { type: 'gaussian' } } } "
    "layer { name: 'stays' type: 'InnerProduct' bottom: 'ip' top: 'stays' param { lr_mult: 0 } param { name: 'bias' } "
    "        inner_product_param { num_output: 2 weight_filler { type: 'gaussian' } } } "
    "layer { name: 'loss' type: 'EuclideanLoss' bottom: 'stays' bottom: 'wish' top: 'loss' } ";

template <typename Dtype>
class SolverUnderTest {
 public:
  /// @param text of the solver, without its net
  explicit SolverUnderTest(const string& text) {
    SolverParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(text, &param)) << text;
    CHECK(google::protobuf::TextFormat::ParseFromString(kSolverUnderTestNet, param.mutable_net_param()));
    param.set_solver_mode(Caffe::mode() == Caffe::CPU ? SolverParameter::CPU : SolverParameter::GPU);
    param.set_random_seed(5);
    solver_.reset(SolverRegistry<Dtype>::CreateSolver(param));
    FillerParameter filler_param;
    GaussianFiller<Dtype> filler(filler_param);
    for (const char* name : {"data", "wish"}) { filler.Fill(solver_->net()->blob_by_name(name).get()); }
  }

  Solver<Dtype>* operator->() const { return solver_.get(); }

  /// Values of all weights of a net, one blob after another.
  static vector<Dtype> Weights(const Net<Dtype>& net) {
    vector<Dtype> values;
    for (const Blob<Dtype>* blob : net.learnable_params()) {
      values.insert(values.end(), blob->cpu_data(), blob->cpu_data() + blob->count());
    }
    return values;
  }
  vector<Dtype> Weights() const { return Weights(*solver_->net()); }

 private:
  shared_ptr<Solver<Dtype> > solver_;
};

}  // namespace caffe

#endif  // CAFFE_TEST_SOLVER_UNDER_TEST_HPP_
