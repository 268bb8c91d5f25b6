#ifdef USE_CUDNN
#include "caffe/layers/cudnn_conv_layer.hpp"

namespace caffe {

INSTANTIATE_CLASS(CuDNNConvolutionLayer);

}  // namespace caffe
#endif  // USE_CUDNN
