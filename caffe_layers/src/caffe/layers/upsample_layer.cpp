#include <string>
#include <vector>

#include "caffe/layer_factory.hpp"
#include "caffe/layers/upsample_layer.hpp"

namespace caffe {

template <typename Dtype>
void UpsampleLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& /*top*/) {
  const UpsampleParameter& param = this->layer_param_.upsample_param();
  int scale[2] = { static_cast<int>(param.scale()),
      static_cast<int>(param.scale()) };
  this->GetSides(param, "scale", "scale", scale);
  CHECK(scale[0] > 0 && scale[1] > 0 && scale[0] < (1 << 15) &&
      scale[1] < (1 << 15)) << this->Name() << ": upsample_param's scale is "
      << scale[0] << " and " << scale[1] << ", expected 1 to 32767";
  const bool cut[] = { param.pad_out_h(), param.pad_out_w() };
  this->size_[0] = this->size_[1] = 0;
  if (this->GetSides(param, NULL, "upsample", this->size_)) {
    CHECK(this->size_[0] > 0 && this->size_[1] > 0)
        << this->Name() << ": upsample_param's upsample_h and upsample_w must "
        << "be 1 or more: those of the map that the pooling reads";
    CHECK_EQ(2, bottom.size())
        << this->Name() << ": upsample_param's upsample_h and upsample_w go "
        << "with a second bottom, the mask; without it give scale";
  } else {
    for (int i = 0; i < 2; ++i) {
      CHECK(!cut[i] || scale[i] == 2)
          << this->Name() << ": upsample_param's pad_out_h and pad_out_w go "
          << "with a scale of 2; else give upsample_h and upsample_w";
    }
  }
  this->method_ = bottom.size() == 2 ? UnpoolingParameter::MAX :
      UnpoolingParameter::TILE;
  const PoolingAxis rows = { 0, 0, scale[0], scale[0], 0 };
  const PoolingAxis columns = { 0, 0, scale[1], scale[1], 0 };
  this->rows_ = rows;
  this->columns_ = columns;
}

template <typename Dtype>
void UpsampleLayer<Dtype>::ChooseSizes(int* height, int* width) const {
  const UpsampleParameter& param = this->layer_param_.upsample_param();
  UnpoolingLayer<Dtype>::ChooseSizes(height, width);
  if (this->size_[0] == 0) {
    *height -= param.pad_out_h();
    *width -= param.pad_out_w();
  }
}

template <typename Dtype>
string UpsampleLayer<Dtype>::SizeFields() const {
  return "upsample_h and upsample_w";
}

template <typename Dtype>
bool UpsampleLayer<Dtype>::KnowsPooling() const {
  const UpsampleParameter& param = this->layer_param_.upsample_param();
  return param.has_scale() || param.has_scale_h();
}

INSTANTIATE_CLASS(UpsampleLayer);
REGISTER_LAYER_CLASS(Upsample);

}  // namespace caffe
