#ifndef CAFFE_SOLVERS_WEIGHT_AVERAGE_HPP_
#define CAFFE_SOLVERS_WEIGHT_AVERAGE_HPP_

#include <vector>

#include "caffe/net.hpp"
#include "caffe/util/host_device.hpp"

namespace caffe {

/**
 * @brief A running average of a net's weights, kept beside them while a solver
 *        trains: solver field average_decay.
 *
 * After update n = 1, 2, ... @f$ a_n = a_{n-1} + (1 - d_n)(w_n - a_{n-1}) @f$
 * with @f$ a_1 = w_1 @f$ and @f$ d_n = \min(\mathrm{decay}, n / (n + 9)) @f$, so
 * that what the weights were at the start is soon forgotten.
 *
 * All blobs are averaged alike. BatchNorm's running sums and their count are
 * among them: their averages divide to a mean and a variance over the same
 * iterations as the weights that they stand beside. A blob that does not
 * change, such as one with lr_mult 0, equals its average bit for bit.
 */
template <typename Dtype>
class WeightAverage {
 public:
  /**
   * @param net whose weights are averaged; outlives this
   * @param decay the solver's average_decay, 0 < decay < 1
   */
  WeightAverage(Net<Dtype>* net, float decay);
  /// Whether there is an average yet: before the first update there is none.
  bool has_begun() const { return !averages_.empty(); }
  /// The average of the net's learnable_params()[i].
  const Blob<Dtype>& average(int i) const { return *averages_[i]; }
  /// Takes what the net's weights are now for the average of all up to now.
  void Begin();
  /// Follows the weights. @param updates how often they were updated, n
  void Update(int updates);
  /// Lets those blobs of `net` that share the averaged net's memory share the
  /// averages' instead.
  void Share(Net<Dtype>* net) const;
  /// Exchanges the averages' and the weights' values, and back when called
  /// again. No layer may run in between.
  void Exchange();

 private:
  void Follow(const Blob<Dtype>& weights, Dtype share, Blob<Dtype>* average);
  void FollowOnGpu(const Blob<Dtype>& weights, Dtype share,
      Blob<Dtype>* average);

  Net<Dtype>* net_;
  const float decay_;
  vector<shared_ptr<Blob<Dtype> > > averages_;

  DISABLE_COPY_AND_ASSIGN(WeightAverage);
};

/// `average` on its way to `value`, by this share of it.
template <typename Dtype>
CAFFE_HOST_DEVICE inline Dtype MovedTowards(Dtype average, Dtype value,
    Dtype share) {
  return average + share * (value - average);
}

}  // namespace caffe

#endif  // CAFFE_SOLVERS_WEIGHT_AVERAGE_HPP_
