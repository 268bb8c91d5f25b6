#include "caffe/util/layer_weights.hpp"

#include <glog/logging.h>

#include <string>
#include <vector>

namespace caffe {

/// How many numbers a blob has: those of doubles count where there are any.
static int Values(int as_float, int as_double) {
  return as_double > 0 ? as_double : as_float;
}

/// A shape as a file has it, which may be none that a blob can have.
static std::string ShapeOf(const BlobProto& blob) {
  if (blob.has_num() || blob.has_channels() || blob.has_height() ||
      blob.has_width()) {
    return std::to_string(blob.num()) + " " + std::to_string(blob.channels()) +
        " " + std::to_string(blob.height()) + " " + std::to_string(blob.width());
  }
  std::string shape;
  for (const int64_t size : blob.shape().dim()) {
    shape += (shape.empty() ? "" : " ") + std::to_string(size);
  }
  return shape.empty() ? "of a single number" : shape;
}

template <typename Dtype>
void CopyWeights(const LayerParameter& from,
    const vector<shared_ptr<Blob<Dtype> > >& blobs) {
  const std::string layer = "layer '" + from.name() + "': ";
  CHECK_EQ(blobs.size(), from.blobs_size()) << layer
      << "the file's weights have another number of blobs than the layer";
  for (size_t i = 0; i < blobs.size(); ++i) {
    const BlobProto& blob = from.blobs(i);
    CHECK(blobs[i]->ShapeEquals(blob)) << layer << "blob " << i
        << " of the file's weights has the shape " << ShapeOf(blob)
        << "; the layer expects " << blobs[i]->shape_string()
        << ". To learn this layer anew, rename it";
    const int values = Values(blob.data_size(), blob.double_data_size());
    const int gradients = Values(blob.diff_size(), blob.double_diff_size());
    CHECK(values == blobs[i]->count() &&
        (gradients == 0 || gradients == values)) << layer << "blob " << i
        << " of the file's weights has " << values << " values and "
        << gradients << " gradients; its shape is " << ShapeOf(blob);
    blobs[i]->FromProto(blob, false);
  }
}

template void CopyWeights(const LayerParameter& from,
    const vector<shared_ptr<Blob<float> > >& blobs);
template void CopyWeights(const LayerParameter& from,
    const vector<shared_ptr<Blob<double> > >& blobs);

LayerParameter WithoutWeights(LayerParameter layer) {
  layer.clear_blobs();
  return layer;
}

}  // namespace caffe
