#include "caffe/onednn/map_release.hpp"

#include <malloc.h>

#include <algorithm>
#include <vector>

#include "caffe/layers/onednn_conv_layer.hpp"
#include "caffe/net.hpp"
#include "caffe/onednn/onednn.hpp"

namespace caffe {

template <typename Dtype>
MapRelease<Dtype>::MapRelease(const Net<Dtype>& net)
    : net_(net), last_reader_(net.blobs().size(), -1) {
  const int layers = net.layers().size();
  for (int layer = 0; layer < layers; ++layer) {
    for (int blob : net.bottom_ids(layer)) { last_reader_[blob] = layer; }
  }
  for (const shared_ptr<Layer<Dtype> >& layer : net.layers()) {
    OneDNNConvolutionLayer* const convolution =
        dynamic_cast<OneDNNConvolutionLayer*>(layer.get());
    if (convolution != NULL) { convolution->SaveMemory(); }
  }
  for (int blob : net.input_blob_indices()) { last_reader_[blob] = layers; }
  for (int blob : net.output_blob_indices()) { last_reader_[blob] = layers; }
}

template <typename Dtype>
bool MapRelease<Dtype>::IsReadLater(const SyncedMemory* memory,
    int layer) const {
  const vector<shared_ptr<Blob<Dtype> > >& blobs = net_.blobs();
  for (size_t i = 0; i < blobs.size(); ++i) {
    if (blobs[i]->data().get() == memory && last_reader_[i] > layer) {
      return true;
    }
  }
  return false;
}

template <typename Dtype>
void MapRelease<Dtype>::TakeSpareLayout(SyncedMemory* memory) {
  if (memory->layout() != NULL || !memory->spare_layout()) { return; }
  spare_layouts_.push_back(shared_ptr<MemoryLayout>());
  memory->swap_spare_layout(&spare_layouts_.back());
}

template <typename Dtype>
void MapRelease<Dtype>::BeforeLayer(int layer) {
  if (Caffe::mode() == Caffe::GPU || spare_layouts_.empty()) { return; }
  const vector<Blob<Dtype>*>& tops = net_.top_vecs()[layer];
  // The layer's own Reshape may put a larger memory in the place of this one.
  net_.layers()[layer]->Reshape(net_.bottom_vecs()[layer], tops);
  for (Blob<Dtype>* top : tops) {
    SyncedMemory* const memory = top->data().get();
    if (memory == NULL || memory->spare_layout() || spare_layouts_.empty()) {
      continue;
    }
    // the smallest that is large enough, else the largest, which then grows
    const size_t bytes = top->count() * sizeof(Dtype);
    size_t best = 0;
    for (size_t i = 1; i < spare_layouts_.size(); ++i) {
      const size_t size = spare_layouts_[i]->capacity();
      const size_t best_size = spare_layouts_[best]->capacity();
      if (best_size < bytes ? size > best_size
          : size >= bytes && size < best_size) {
        best = i;
      }
    }
    memory->swap_spare_layout(&spare_layouts_[best]);
    spare_layouts_.erase(spare_layouts_.begin() + best);
  }
}

template <typename Dtype>
void MapRelease<Dtype>::AfterLayer(int layer) {
  if (Caffe::mode() == Caffe::GPU) { return; }
  bool weights_are_less = false;
  for (const shared_ptr<Blob<Dtype> >& blob : net_.layers()[layer]->blobs()) {
    weights_are_less |= blob->data()->ReleasePlain();
  }
#ifdef __GLIBC__
  // else the C library keeps what is free between what is not
  if (weights_are_less) { malloc_trim(0); }
#endif
  vector<int> blobs = net_.bottom_ids(layer);
  blobs.insert(blobs.end(), net_.top_ids(layer).begin(),
      net_.top_ids(layer).end());
  for (int blob : blobs) {
    SyncedMemory* const memory = net_.blobs()[blob]->data().get();
    // a layer that writes Caffe's order has left the buffer alone
    TakeSpareLayout(memory);
    if (memory->exposed() || IsReadLater(memory, layer)) { continue; }
    const shared_ptr<MemoryLayout> layout = memory->spare_layout();
    if (layout) { spare_layouts_.push_back(layout); }
    memory->Release();
  }
  // The large buffers of a net's first maps are of no use until the next pass,
  // and when the last layer has run none is.
  size_t most = 0;
  for (size_t i = layer + 1; i < net_.layers().size(); ++i) {
    for (const Blob<Dtype>* top : net_.top_vecs()[i]) {
      most = std::max(most, top->count() * sizeof(Dtype));
    }
  }
  spare_layouts_.erase(std::remove_if(spare_layouts_.begin(),
      spare_layouts_.end(), [most](const shared_ptr<MemoryLayout>& layout) {
        return layout->capacity() > most;
      }), spare_layouts_.end());
  if (layer == static_cast<int>(net_.layers().size()) - 1) { onednn::FreeWork(); }
}

template class MapRelease<float>;
template class MapRelease<double>;

}  // namespace caffe
