#include "caffe/layers/renet_gru_layer.hpp"

namespace caffe {

INSTANTIATE_CLASS(ReNetGRULayer);
REGISTER_LAYER_CLASS(ReNetGRU);

}  // namespace caffe
