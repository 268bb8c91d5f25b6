#include "caffe/solvers/adam_update.hpp"

#include <cmath>

namespace caffe {

template <typename Dtype>
void adam_update_cpu(int count, Dtype* g, Dtype* m, Dtype* v, Dtype beta1,
    Dtype beta2, Dtype eps, Dtype rate) {
#pragma omp parallel for simd schedule(static)
  for (int i = 0; i < count; ++i) {
    const Dtype mean = beta1 * m[i] + (1 - beta1) * g[i];
    const Dtype square = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
    m[i] = mean;
    v[i] = square;
    g[i] = rate * mean / (std::sqrt(square) + eps);
  }
}

template void adam_update_cpu<float>(int count, float* g, float* m, float* v,
    float beta1, float beta2, float eps, float rate);
template void adam_update_cpu<double>(int count, double* g, double* m, double* v,
    double beta1, double beta2, double eps, double rate);

}  // namespace caffe
