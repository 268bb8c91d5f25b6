#include "caffe/layers/onednn_relu_layer.hpp"

#include <vector>

#include "caffe/onednn/onednn.hpp"

namespace caffe {

using dnnl::memory;

namespace {

// What ReLULayer computes, so that a NaN stays one; without std::max, whose
// references would make the compiler branch at each value.
void Rectify(size_t count, float negative_slope, const float* from, float* to) {
#pragma omp parallel for simd
  for (size_t i = 0; i < count; ++i) {
    const float value = from[i];
    to[i] = (value < 0 ? 0 : value) + negative_slope * (0 < value ? 0 : value);
  }
}

void RectifyGradient(size_t count, float negative_slope, const float* values,
    const float* from, float* to) {
#pragma omp parallel for simd
  for (size_t i = 0; i < count; ++i) {
    to[i] = from[i] * (values[i] > 0 ? 1 : negative_slope);
  }
}

size_t Count(const memory::desc& order) {
  return order.get_size() / sizeof(float);
}

}  // namespace

void OneDNNReLULayer::Forward_cpu(const vector<Blob<float>*>& bottom,
    const vector<Blob<float>*>& top) {
  const float slope = this->layer_param_.relu_param().negative_slope();
  SyncedMemory* const from = bottom[0]->data().get();
  SyncedMemory* const to = top[0]->data().get();
  const onednn::MapLayout* const layout = onednn::LayoutOf(from);
  if (layout == NULL || layout->count() < size_t(bottom[0]->count())) {
    Rectify(bottom[0]->count(), slope, bottom[0]->cpu_data(),
        top[0]->mutable_cpu_data());
    return;
  }
  if (from == to && layout->rectified() && slope == 0) { return; }
  const memory::desc order = layout->order();
  const memory source = layout->memory();
  onednn::Writer writer(to, bottom[0]->shape(), order);
  Rectify(Count(order), slope, onednn::Values(source),
      onednn::Values(writer.memory()));
  writer.Finish(slope == 0);
}

void OneDNNReLULayer::Backward_cpu(const vector<Blob<float>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
  if (!propagate_down[0]) { return; }
  const float slope = this->layer_param_.relu_param().negative_slope();
  const vector<int>& shape = bottom[0]->shape();
  SyncedMemory* const data = bottom[0]->data().get();
  SyncedMemory* const diff = top[0]->diff().get();
  const onednn::MapLayout* layout = onednn::LayoutOf(diff);
  if (layout == NULL) { layout = onednn::LayoutOf(data); }
  if (layout == NULL || shape.size() != 4) {
    RectifyGradient(bottom[0]->count(), slope, bottom[0]->cpu_data(),
        top[0]->cpu_diff(), bottom[0]->mutable_cpu_diff());
    return;
  }
  const memory::desc order = layout->order();
  const memory values =
      onednn::Read(data, shape, order, WORK_SOURCE);
  const memory from =
      onednn::Read(diff, shape, order, WORK_OTHER_SOURCE);
  onednn::Writer writer(bottom[0]->diff().get(), shape, order);
  RectifyGradient(Count(order), slope, onednn::Values(values),
      onednn::Values(from), onednn::Values(writer.memory()));
  writer.Finish();
}

}  // namespace caffe
