#ifndef CAFFE_SOLVERS_ADAMW_SOLVER_HPP_
#define CAFFE_SOLVERS_ADAMW_SOLVER_HPP_

#include <string>

#include "caffe/sgd_solvers.hpp"

namespace caffe {

/**
 * @brief Adam with decoupled weight decay: AdamW of Loshchilov and Hutter,
 *        "Decoupled Weight Decay Regularization", 2019.
 *
 * @f$ w_{t+1} = w_t - \eta (\mathrm{Adam}(g_t) + \lambda w_t) @f$, where
 * @f$ \eta @f$ is the learning rate times the blob's lr_mult, and
 * @f$ \lambda @f$ the solver's weight_decay times the blob's decay_mult. Adam
 * alone would add @f$ \lambda w_t @f$ to the gradient, and so divide the decay
 * of weights with large gradients by their size.
 *
 * Adam's step, its history and its snapshots are those of AdamSolver:
 * momentum, momentum2 and delta mean the same. regularization_type is L2.
 */
template <typename Dtype>
class AdamWSolver : public AdamSolver<Dtype> {
 public:
  explicit AdamWSolver(const SolverParameter& param)
      : AdamSolver<Dtype>(param) { CheckRegularization(); }
  explicit AdamWSolver(const string& param_file)
      : AdamSolver<Dtype>(param_file) { CheckRegularization(); }
  virtual inline const char* type() const { return "AdamW"; }

 protected:
  /// Nothing: the gradient stays free of the decay.
  virtual void Regularize(int /* param_id */) {}
  virtual void ComputeUpdateValue(int param_id, Dtype rate);

 private:
  void CheckRegularization() const;

  DISABLE_COPY_AND_ASSIGN(AdamWSolver);
};

}  // namespace caffe

#endif  // CAFFE_SOLVERS_ADAMW_SOLVER_HPP_
