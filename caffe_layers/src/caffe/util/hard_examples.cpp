#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "caffe/util/hard_examples.hpp"

namespace caffe {

template <typename Dtype>
HardExamples<Dtype> FindHardExamples(std::vector<Dtype>* losses,
    double fraction) {
  if (losses->empty()) { return {0, 1}; }
  for (Dtype& loss : *losses) {
    if (!(loss >= 0)) { loss = HUGE_VAL; }  // NaN has no order
  }
  // what is a whole number but for the fraction's rounding is that number
  const double wanted = std::ceil(fraction * losses->size() * (1 - 1e-6));
  const size_t count = std::max<size_t>(1, wanted);
  const auto last = losses->begin() + (count - 1);
  std::nth_element(losses->begin(), last, losses->end(), std::greater<Dtype>());
  const Dtype threshold = *last;
  const size_t over = std::count_if(losses->begin(), last,
      [threshold](Dtype loss) { return loss > threshold; });
  const size_t equal = std::count(losses->begin(), losses->end(), threshold);
  return {threshold, static_cast<Dtype>(double(count - over) / equal)};
}

template HardExamples<float> FindHardExamples(std::vector<float>* losses,
    double fraction);
template HardExamples<double> FindHardExamples(std::vector<double>* losses,
    double fraction);

}  // namespace caffe
