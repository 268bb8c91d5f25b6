#include "caffe/distributed/divided_batch.hpp"

#include <glog/logging.h>

#include <sstream>
#include <string>

#include "caffe/distributed/collective_queue.hpp"

namespace caffe {

namespace {

/// Whether a layer brings data into the net.
bool BringsData(const LayerParameter& layer) {
  return layer.bottom_size() == 0 && layer.type() != "Parameter";
}

/// The part of each of `ranks` of a batch.
int Part(const LayerParameter& layer, int64_t batch, int ranks) {
  std::ostringstream divisors;
  for (int i = 1; i <= batch; ++i) {
    if (batch % i == 0) { divisors << (i == 1 ? "" : ", ") << i; }
  }
  CHECK(batch > 0 && batch % ranks == 0) << layer.type() << " layer '"
      << layer.name() << "': a batch of " << batch << " cannot be divided among "
      << ranks << " processes; expected one of these numbers of processes: "
      << divisors.str();
  return batch / ranks;
}

/// @param data the layer's own parameters
template <typename Parameter>
void Divide(const LayerParameter& layer, int ranks, Parameter* data) {
  data->set_batch_size(Part(layer, data->batch_size(), ranks));
}

}  // namespace

void DivideBatch(int ranks, NetParameter* net) {
  for (LayerParameter& layer : *net->mutable_layer()) {
    const BNParameter& bn = layer.bn_param();
    CHECK(layer.type() != "BN" || bn.frozen() ||
        bn.bn_mode() == BNParameter_BNMode_INFERENCE) << "BN layer '"
        << layer.name() << "': would take mean and variance over its part of "
        "the batch alone, so that it cannot be trained by several processes; "
        "expected BatchNorm, or a BN that is frozen";
    if (!BringsData(layer)) { continue; }
    if (layer.type() == "Input") {
      for (BlobShape& shape : *layer.mutable_input_param()->mutable_shape()) {
        if (shape.dim_size() == 0) { continue; }
        shape.set_dim(0, Part(layer, shape.dim(0), ranks));
      }
    } else if (layer.type() == "SegmentationData") {
      Divide(layer, ranks, layer.mutable_segmentation_data_param());
    } else if (layer.type() == "ImageSegData") {
      Divide(layer, ranks, layer.mutable_image_data_param());
    } else if (layer.type() == "DenseImageData") {
      Divide(layer, ranks, layer.mutable_dense_image_data_param());
    } else if (layer.type() == "Data") {
      Divide(layer, ranks, layer.mutable_data_param());
    } else if (layer.type() == "HDF5Data") {
      Divide(layer, ranks, layer.mutable_hdf5_data_param());
    } else {
      LOG(FATAL) << layer.type() << " layer '" << layer.name() << "': does not "
          "know how to read a part of the batch, so that it cannot be trained "
          "by several processes; expected SegmentationData, ImageSegData, "
          "DenseImageData, Data or HDF5Data";
    }
  }
}

template <typename Dtype>
bool DividesTest(const Net<Dtype>& net) {
  bool divides = false;
  const LayerParameter* other = NULL;
  for (const shared_ptr<Layer<Dtype> >& each : net.layers()) {
    const LayerParameter& layer = each->layer_param();
    if (!BringsData(layer)) { continue; }
    if (layer.type() == "SegmentationData" || layer.type() == "ImageSegData" ||
        layer.type() == "DenseImageData") {
      divides = CollectiveQueue::Current() != NULL;
    } else {
      other = &layer;
    }
  }
  CHECK(!divides || other == NULL) << other->type() << " layer '"
      << other->name() << "': would be read as a whole beside a layer whose "
      "test several processes divide among them; expected one kind of data";
  return divides;
}

template bool DividesTest(const Net<float>& net);
template bool DividesTest(const Net<double>& net);

}  // namespace caffe
