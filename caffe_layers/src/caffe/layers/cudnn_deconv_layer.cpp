#ifdef USE_CUDNN
#include "caffe/layers/cudnn_deconv_layer.hpp"

namespace caffe {

INSTANTIATE_CLASS(CuDNNDeconvolutionLayer);

}  // namespace caffe
#endif  // USE_CUDNN
