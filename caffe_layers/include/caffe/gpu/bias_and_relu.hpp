#ifndef CAFFE_GPU_BIAS_AND_RELU_HPP_
#define CAFFE_GPU_BIAS_AND_RELU_HPP_

#include <string>

namespace caffe {

/**
 * @brief y = max(0, y + b) on a GPU, in one pass over memory.
 *
 * @param who      what messages call the layer
 * @param maps     images times channels
 * @param channels of an image
 * @param area     height times width
 * @param bias     of each channel, NULL: none
 * @param y        the maps, in place
 */
template <typename Dtype>
void AddBiasAndRectify(const std::string& who, int maps, int channels,
    int area, const Dtype* bias, Dtype* y);

}  // namespace caffe

#endif  // CAFFE_GPU_BIAS_AND_RELU_HPP_
