#ifndef CAFFE_ONEDNN_POINTWISE_LAYER_HPP_
#define CAFFE_ONEDNN_POINTWISE_LAYER_HPP_

#include <algorithm>
#include <cstring>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/onednn/channel_order.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

/**
 * @brief One of Caffe's layers that does the same to every value and keeps nothing
 *        (Sigmoid, TanH, ...) for the CPU in single precision: its own code, on
 *        pieces of the map as it lies, by all threads.
 */
template <typename Base>
class OneDNNPointwiseLayer : public Base {
 public:
  explicit OneDNNPointwiseLayer(const LayerParameter& param) : Base(param) {}

 protected:
  virtual void Forward_cpu(const vector<Blob<float>*>& bottom,
      const vector<Blob<float>*>& top) {
    const vector<int>& shape = bottom[0]->shape();
    if (shape.empty() || shape.size() > 5) {
      Base::Forward_cpu(bottom, top);
      return;
    }
    SyncedMemory* const map = bottom[0]->data().get();
    const int width = onednn::WidthOf(map, shape);
    const dnnl::memory::desc order = onednn::OrderOfWidth(shape, width);
    float* const from =
        onednn::Values(onednn::Read(map, shape, order, WORK_SOURCE));
    onednn::Writer writer(top[0]->data().get(), shape, order);
    float* const to = onednn::Values(writer.memory());
    ForEachPiece(order, [&](size_t first, int count) {
      Blob<float> in(vector<int>(1, count)), out(vector<int>(1, count));
      in.set_cpu_data(from + first);
      out.data()->set_cpu_data(to + first);
      Base::Forward_cpu(vector<Blob<float>*>(1, &in), vector<Blob<float>*>(1, &out));
    });
    if (width > 1) { ClearFilling(ChannelOrder(shape, width), to); }
    writer.Finish();
  }

  virtual void Backward_cpu(const vector<Blob<float>*>& top,
      const vector<bool>& propagate_down, const vector<Blob<float>*>& bottom) {
    const vector<int>& shape = bottom[0]->shape();
    if (!propagate_down[0] || shape.empty() || shape.size() > 5) {
      Base::Backward_cpu(top, propagate_down, bottom);
      return;
    }
    SyncedMemory* const diff = top[0]->diff().get();
    const int width = std::max(onednn::WidthOf(diff, shape),
        onednn::WidthOf(top[0]->data().get(), shape));
    const dnnl::memory::desc order = onednn::OrderOfWidth(shape, width);
    const auto read = [&](SyncedMemory* map, WorkArea area) {
      return onednn::Values(onednn::Read(map, shape, order, area));
    };
    float* const values = read(top[0]->data().get(), WORK_SOURCE);
    float* const below = bottom[0] == top[0] ? values
        : read(bottom[0]->data().get(), WORK_TARGET);
    float* const from = read(diff, WORK_OTHER_SOURCE);
    onednn::Writer writer(bottom[0]->diff().get(), shape, order);
    float* const to = onednn::Values(writer.memory());
    ForEachPiece(order, [&](size_t first, int count) {
      Blob<float> in(vector<int>(1, count)), out(vector<int>(1, count));
      in.data()->set_cpu_data(below + first);
      in.diff()->set_cpu_data(to + first);
      out.data()->set_cpu_data(values + first);
      out.diff()->set_cpu_data(from + first);
      Base::Backward_cpu(vector<Blob<float>*>(1, &out), propagate_down,
          vector<Blob<float>*>(1, &in));
    });
    if (width > 1) { ClearFilling(ChannelOrder(shape, width), to); }
    writer.Finish();
  }

 private:
  // Calls body(first value, how many) for pieces, divided among threads.
  template <typename Body>
  static void ForEachPiece(const dnnl::memory::desc& order, const Body& body) {
    const size_t count = order.get_size() / sizeof(float), kPiece = 1 << 14;
    const int pieces = static_cast<int>((count + kPiece - 1) / kPiece);
#pragma omp parallel for if (pieces > 1)
    for (int piece = 0; piece < pieces; ++piece) {
      const size_t first = piece * kPiece;
      body(first, static_cast<int>(std::min(kPiece, count - first)));
    }
  }
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_POINTWISE_LAYER_HPP_
