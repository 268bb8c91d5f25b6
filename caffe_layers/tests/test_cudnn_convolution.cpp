// The cuDNN layers beside Caffe's own on the same GPU.
#ifdef USE_CUDNN
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/cudnn_conv_layer.hpp"
#include "caffe/layers/cudnn_deconv_layer.hpp"
#include "caffe/net.hpp"
#include "caffe/util/layer_fusion.hpp"
#include "google/protobuf/text_format.h"

#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

namespace {

template <typename Dtype>
void FillRandomly(Dtype* values, int count) {
  caffe_rng_gaussian<Dtype>(count, Dtype(0), Dtype(1), values);
}

// Equal within float32's rounding over a few thousand summands, of which an
// algorithm like Winograd's makes more.
template <typename Dtype>
void ExpectNear(const Dtype* expected, const Dtype* given, int count,
                const std::string& what) {
  for (int i = 0; i < count; ++i) {
    const Dtype tolerance = sizeof(Dtype) == 4 ? 1e-3 : 1e-9;
    ASSERT_NEAR(expected[i], given[i],
                tolerance * std::max(Dtype(1), std::abs(expected[i])))
        << what << ", number " << i;
  }
}

}  // namespace

template <typename Dtype>
class CudnnConvolutionGPUTest : public GPUDeviceTest<Dtype> {
 protected:
  // Both layers with the same weights, inputs and top gradients, one size of
  // image after the other: equal tops and gradients, those of the weights
  // summed up over the sizes.
  template <typename Reference, typename Cudnn>
  void Compare(const LayerParameter& param,
               const std::vector<std::vector<int> >& shapes) {
    Reference reference(param);
    Cudnn cudnn(param);
    Blob<Dtype> bottom(shapes[0]), other_bottom(shapes[0]), top, other_top;
    const std::vector<Blob<Dtype>*> bottoms = {&bottom}, tops = {&top},
        other_bottoms = {&other_bottom}, other_tops = {&other_top};
    reference.SetUp(bottoms, tops);
    cudnn.SetUp(other_bottoms, other_tops);
    for (size_t i = 0; i < reference.blobs().size(); ++i) {
      Blob<Dtype>& weights = *reference.blobs()[i];
      FillRandomly(weights.mutable_cpu_data(), weights.count());
      cudnn.blobs()[i]->CopyFrom(weights, false, true);
      caffe_set(weights.count(), Dtype(0), weights.mutable_cpu_diff());
      cudnn.blobs()[i]->CopyFrom(weights, true, false);
    }
    for (const std::vector<int>& shape : shapes) {
      bottom.Reshape(shape);
      FillRandomly(bottom.mutable_cpu_data(), bottom.count());
      other_bottom.CopyFrom(bottom, false, true);
      reference.Forward(bottoms, tops);
      cudnn.Forward(other_bottoms, other_tops);
      ASSERT_EQ(top.shape(), other_top.shape());
      ExpectNear(top.cpu_data(), other_top.cpu_data(), top.count(), "top");
      FillRandomly(top.mutable_cpu_diff(), top.count());
      other_top.CopyFrom(top, true, false);
      reference.Backward(tops, {true}, bottoms);
      cudnn.Backward(other_tops, {true}, other_bottoms);
      ExpectNear(bottom.cpu_diff(), other_bottom.cpu_diff(), bottom.count(),
                 "gradient of the bottom");
      for (size_t i = 0; i < reference.blobs().size(); ++i) {
        ExpectNear(reference.blobs()[i]->cpu_diff(),
                   cudnn.blobs()[i]->cpu_diff(), reference.blobs()[i]->count(),
                   "gradient of blob " + std::to_string(i));
      }
    }
  }

  void CompareBoth(const ConvolutionParameter& convolution, int channels) {
    LayerParameter param;
    param.set_name("tested");
    *param.mutable_convolution_param() = convolution;
    // sizes come back, as a data set's images do
    const std::vector<std::vector<int> > shapes = {
        {2, channels, 13, 17}, {1, channels, 16, 11}, {2, channels, 13, 17}};
    Compare<ConvolutionLayer<Dtype>, CuDNNConvolutionLayer<Dtype> >(param,
                                                                    shapes);
    Compare<DeconvolutionLayer<Dtype>, CuDNNDeconvolutionLayer<Dtype> >(
        param, shapes);
  }
};

TYPED_TEST_CASE(CudnnConvolutionGPUTest, TestDtypes);

TYPED_TEST(CudnnConvolutionGPUTest, EqualsCaffesOwnLayers) {
  // kernel, stride, pad, dilation, group
  const int cases[][5] = {{1, 1, 0, 1, 1}, {3, 1, 1, 1, 1}, {3, 2, 1, 1, 1},
                          {5, 3, 0, 1, 1}, {3, 1, 2, 2, 1}, {3, 1, 4, 4, 1},
                          {3, 2, 3, 2, 1}, {3, 1, 1, 1, 2}, {4, 2, 1, 1, 6},
                          {3, 1, 2, 2, 3}};
  for (const int* c : cases) {
    SCOPED_TRACE("kernel " + std::to_string(c[0]) + ", stride " +
                 std::to_string(c[1]) + ", pad " + std::to_string(c[2]) +
                 ", dilation " + std::to_string(c[3]) + ", group " +
                 std::to_string(c[4]));
    ConvolutionParameter convolution;
    convolution.add_kernel_size(c[0]);
    convolution.add_stride(c[1]);
    convolution.add_pad(c[2]);
    convolution.add_dilation(c[3]);
    convolution.set_group(c[4]);
    convolution.set_num_output(12);
    this->CompareBoth(convolution, 6);
    if (this->HasFatalFailure()) { return; }
  }
}

TYPED_TEST(CudnnConvolutionGPUTest, HeightAndWidthMayDiffer) {
  ConvolutionParameter convolution;
  convolution.set_kernel_h(3);
  convolution.set_kernel_w(5);
  convolution.set_stride_h(2);
  convolution.set_stride_w(1);
  convolution.set_pad_h(1);
  convolution.set_pad_w(4);
  convolution.add_dilation(1);
  convolution.add_dilation(2);
  convolution.set_num_output(4);
  convolution.set_bias_term(false);
  this->CompareBoth(convolution, 3);
}

TYPED_TEST(CudnnConvolutionGPUTest, ADilatedLayerIsCudnnsByDefault) {
  LayerParameter param;
  param.set_type("Convolution");
  param.mutable_convolution_param()->add_kernel_size(3);
  param.mutable_convolution_param()->add_dilation(2);
  param.mutable_convolution_param()->set_num_output(2);
  const shared_ptr<Layer<TypeParam> > layer =
      LayerRegistry<TypeParam>::CreateLayer(param);
  EXPECT_TRUE(dynamic_cast<CuDNNConvolutionLayer<TypeParam>*>(layer.get()) !=
              nullptr);
}

// A ReLU in place is done along with the bias, where nobody looks between them.
TEST(CudnnFusionGPUTest, AReluInPlaceIsDoneAlong) {
  class Onlooker : public Net<float>::Callback {
   public:
    virtual void run(int /* layer */) {}
  };
  Caffe::set_mode(Caffe::GPU);
  for (const char* type : {"Convolution", "Deconvolution"}) {
    for (const char* bias : {"true", "false"}) {
      const std::string text =
          "state { phase: TEST } "
          "layer { name: 'in' type: 'Input' top: 'data' input_param { shape { "
          "dim: 2 dim: 3 dim: 17 dim: 12 } } } layer { name: 'conv' type: '" +
          std::string(type) + "' bottom: 'data' top: 'conv' "
          "convolution_param { num_output: 5 kernel_size: 3 bias_term: " +
          bias + " weight_filler { type: 'msra' } bias_filler { type: "
          "'gaussian' } } } layer { name: 'relu' type: 'ReLU' bottom: 'conv' "
          "top: 'conv' }";
      NetParameter param;
      CHECK(google::protobuf::TextFormat::ParseFromString(text, &param));
      Net<float> net(param);
      Blob<float>* const data = net.input_blobs()[0];
      FillRandomly(data->mutable_cpu_data(), data->count());
      EXPECT_EQ(1, FuseFollowers(net, 1, 2)) << type;
      const Blob<float>& result = *net.Forward()[0];
      const std::vector<float> fused(result.cpu_data(),
          result.cpu_data() + result.count());
      Onlooker onlooker;
      net.add_before_forward(&onlooker);
      net.Forward();
      ExpectNear(result.cpu_data(), fused.data(), result.count(), type);
      EXPECT_EQ(0, *std::min_element(fused.begin(), fused.end()));
    }
  }
}

}  // namespace caffe
#endif  // USE_CUDNN
