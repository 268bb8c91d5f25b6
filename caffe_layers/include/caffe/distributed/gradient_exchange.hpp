#ifndef CAFFE_DISTRIBUTED_GRADIENT_EXCHANGE_HPP_
#define CAFFE_DISTRIBUTED_GRADIENT_EXCHANGE_HPP_

#include <cstdint>
#include <memory>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/distributed/collective_queue.hpp"
#include "caffe/distributed/exchange_plan.hpp"
#include "caffe/distributed/nccl_averages.hpp"
#include "caffe/net.hpp"
#include "caffe/solver.hpp"

namespace caffe {

/**
 * @brief Gives the solvers of all ranks the mean of their gradients, so that
 *        they make the same update.
 *
 * While backward still goes on, what it has finished is on its way
 * (ExchangePlan). With iter_size above 1 that is so in an iteration's last pass,
 * once for all of them. Between GPUs NCCL carries it; ranks that share a GPU,
 * which NCCL refuses, send all after backward, by the processor's memory.
 *
 * Now and then the ranks compare checksums of their weights: where they differ
 * the training ends, and the rank that differs from the first is named.
 */
template <typename Dtype>
class GradientExchange : public Solver<Dtype>::Callback,
                         public Net<Dtype>::Callback {
 public:
  /// Gives all ranks the first one's weights.
  /// @param solver alike on all (FindDifference); used until this is gone, which
  /// outlives its use
  GradientExchange(Solver<Dtype>* solver, CollectiveQueue* ranks);

  const ExchangePlan& plan() const { return *plan_; }
  /// Dies where the ranks' weights differ.
  void CompareWeights() const;

 protected:
  virtual void on_start();
  virtual void run(int layer);
  virtual void on_gradients_ready();

 private:
  static const int ITERATIONS_BETWEEN_COMPARISONS = 50;

  void ShareWeights();
  void MoveGradients();
  void Send(const ExchangePlan::Bucket& bucket);
  void Await();

  Solver<Dtype>* const solver_;
  CollectiveQueue* const ranks_;
  std::unique_ptr<ExchangePlan> plan_;
  Blob<Dtype> gradients_;  ///< the plan's buffer
#ifdef USE_NCCL
  std::unique_ptr<NcclAverages<Dtype> > nccl_;
#endif
  size_t next_bucket_;
  int passes_left_;        ///< of backward in this iteration

  DISABLE_COPY_AND_ASSIGN(GradientExchange);
};

/// The parameters of a net as ExchangePlan wants to know them.
template <typename Dtype>
std::vector<ExchangePlan::Parameter> ParametersOf(const Net<Dtype>& net);

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_GRADIENT_EXCHANGE_HPP_
