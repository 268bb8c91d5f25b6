#include <vector>

#include "caffe/layer_factory.hpp"
#include "caffe/layers/permute_layer.hpp"

namespace caffe {

template <typename Dtype>
void PermuteLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  CHECK_NE(bottom[0], top[0]) << Name() << ": cannot work in place";
  const PermuteParameter& param = this->layer_param_.permute_param();
  const int axes = bottom[0]->num_axes();
  vector<int> order;
  vector<bool> is_named(axes, false);
  for (int i = 0; i < param.order_size(); ++i) {
    const unsigned int axis = param.order(i);
    CHECK(axis < static_cast<unsigned int>(axes) && !is_named[axis])
        << Name() << ": permute_param's order names axis " << axis
        << (axis < static_cast<unsigned int>(axes) ? " twice" : "")
        << "; expected each of 0 to " << axes - 1 << " at most once for a "
        << "bottom of shape " << bottom[0]->shape_string();
    is_named[axis] = true;
    order.push_back(axis);
  }
  for (int axis = 0; axis < axes; ++axis) {
    if (!is_named[axis]) { order.push_back(axis); }
  }
  vector<int> shape;
  for (int i = 0; i < axes; ++i) {
    shape.push_back(bottom[0]->shape(order[i]));
  }
  permutation_ = GetPermutation(bottom[0]->shape(), order);
  top[0]->Reshape(shape);
}

template <typename Dtype>
void PermuteLayer<Dtype>::Run(int count, bool back, const Dtype* from,
    Dtype* to) const {
  if (count == 0) { return; }
  const int last = permutation_.axes - 1;
  const int size = permutation_.sizes[last];
  const int step = permutation_.steps[last];
  const int rows = count / size;
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
  for (int row = 0; row < rows; ++row) {
    const int there = PermutedFrom(permutation_, last, row);
    const int here = row * size;
    for (int i = 0; i < size; ++i) {
      if (back) {
        to[there + i * step] = from[here + i];
      } else {
        to[here + i] = from[there + i * step];
      }
    }
  }
}

template <typename Dtype>
void PermuteLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  Run(top[0]->count(), false, bottom[0]->cpu_data(),
      top[0]->mutable_cpu_data());
}

template <typename Dtype>
void PermuteLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) { return; }
  Run(top[0]->count(), true, top[0]->cpu_diff(),
      bottom[0]->mutable_cpu_diff());
}

#ifdef CPU_ONLY
STUB_GPU(PermuteLayer);
#endif

INSTANTIATE_CLASS(PermuteLayer);
REGISTER_LAYER_CLASS(Permute);

}  // namespace caffe
