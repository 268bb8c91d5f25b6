#ifndef CAFFE_SOLVERS_ADAM_UPDATE_HPP_
#define CAFFE_SOLVERS_ADAM_UPDATE_HPP_

namespace caffe {

/**
 * @brief Adam's step for `count` parameters, in one pass of all threads.
 *
 *   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2,
 *   g = rate m / (sqrt(v) + eps)
 *
 * @param g the gradient, in whose place what is to be taken off the parameters comes.
 * @param m, v the running averages of the gradient and of its square.
 * @param rate the learning rate with the correction for averages that begin at 0.
 */
template <typename Dtype>
void adam_update_cpu(int count, Dtype* g, Dtype* m, Dtype* v, Dtype beta1,
    Dtype beta2, Dtype eps, Dtype rate);

}  // namespace caffe

#endif  // CAFFE_SOLVERS_ADAM_UPDATE_HPP_
