#include <climits>
#include <vector>

#include "caffe/layer_factory.hpp"
#include "caffe/layers/interp_layer.hpp"

namespace caffe {

template <typename Dtype>
void InterpLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& /*top*/) {
  const InterpParameter& param = this->layer_param_.interp_param();
  const bool has_size = param.has_height() || param.has_width();
  const bool has_factors = param.has_zoom_factor() || param.has_shrink_factor();
  const bool has_reference = bottom.size() == 2;
  CHECK_EQ(1, has_size + has_factors + has_reference)
      << this->Name() << ": the size of the result is said in one way: by "
      << "interp_param's height and width, by its zoom_factor and "
      << "shrink_factor, or by a second bottom that has it";
  CHECK(!has_size || (param.height() > 0 && param.width() > 0))
      << this->Name() << ": interp_param's height and width must both be 1 or "
      << "more, not " << param.height() << " and " << param.width();
  CHECK(param.zoom_factor() > 0 && param.shrink_factor() > 0)
      << this->Name() << ": interp_param's zoom_factor and shrink_factor must "
      << "be 1 or more, not " << param.zoom_factor() << " and "
      << param.shrink_factor();
  CHECK(param.pad_beg() <= 0 && param.pad_end() <= 0)
      << this->Name() << ": interp_param's pad_beg and pad_end leave rows and "
      << "columns out and must be 0 or less, not " << param.pad_beg() << " and "
      << param.pad_end();
}

template <typename Dtype>
BilinearWindow InterpLayer<Dtype>::Window(int length) const {
  const InterpParameter& param = this->layer_param_.interp_param();
  const int64_t left = static_cast<int64_t>(length) + param.pad_beg() +
      param.pad_end();
  CHECK_GT(left, 0)
      << this->Name() << ": interp_param's pad_beg " << param.pad_beg()
      << " and pad_end " << param.pad_end() << " leave nothing of a map of "
      << length << " rows or columns";
  return { length, -param.pad_beg(), static_cast<int>(left) };
}

template <typename Dtype>
int InterpLayer<Dtype>::Resized(int size) const {
  const InterpParameter& param = this->layer_param_.interp_param();
  const int64_t resized = static_cast<int64_t>(
      (size - 1) / param.shrink_factor()) * param.zoom_factor() + 1;
  CHECK_LE(resized, INT_MAX) << this->Name() << ": interp_param's zoom_factor "
      << param.zoom_factor() << " is too large for " << size << " rows or columns";
  return resized;
}

template <typename Dtype>
void InterpLayer<Dtype>::ChooseSizes(const vector<Blob<Dtype>*>& bottom,
    int* height, int* width) {
  const InterpParameter& param = this->layer_param_.interp_param();
  this->row_window_ = Window(bottom[0]->shape(2));
  this->column_window_ = Window(bottom[0]->shape(3));
  if (bottom.size() == 2) {
    this->CheckMap(bottom, 1);
    *height = bottom[1]->shape(2);
    *width = bottom[1]->shape(3);
  } else if (param.has_height()) {
    *height = param.height();
    *width = param.width();
  } else {
    *height = Resized(this->row_window_.size);
    *width = Resized(this->column_window_.size);
  }
}

INSTANTIATE_CLASS(InterpLayer);
REGISTER_LAYER_CLASS(Interp);

}  // namespace caffe
