#ifdef USE_OPENCV
#ifdef USE_LMDB
#include "caffe/data/list_source.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/dense_image_data_layer.hpp"

namespace caffe {

template <typename Dtype>
typename DenseImageDataLayer<Dtype>::Settings
DenseImageDataLayer<Dtype>::ReadSettings() const {
  const DenseImageDataParameter& list =
      this->layer_param_.dense_image_data_param();
  const TransformationParameter& transform =
      this->layer_param_.transform_param();
  const string layer = this->Name() + ": ";
  CHECK(list.has_source()) << layer << "no source given in"
      << " dense_image_data_param; expected a list of files";
  CHECK(!list.has_mean_file() && !transform.has_mean_file()) << layer
      << "mean_file given; a map of means does not fit crops and sizes: expected"
      << " mean_value in transform_param";
  CHECK(!transform.mirror() && transform.crop_size() == 0) << layer
      << "mirror or crop_size given in transform_param, where they leave the"
      << " label out; expected mirror, crop_height and crop_width in"
      << " dense_image_data_param";
  CHECK_EQ(list.new_height() > 0, list.new_width() > 0) << layer
      << "new_height " << list.new_height() << " and new_width "
      << list.new_width() << " given; expected both or none";

  ListSource::Options options;
  options.root_folder = list.root_folder();
  options.color = list.is_color();
  options.height = list.new_height();
  options.width = list.new_width();

  Settings settings;
  settings.source.reset(
      new ListSource(list.source(), options, this->Name()));
  settings.channels = list.is_color() ? 3 : 1;
  settings.fixed_size = list.batch_size() > 1 || list.new_height() > 0;
  settings.solver_seed = true;
  settings.rand_skip = list.rand_skip();
  settings.param.set_batch_size(list.batch_size());
  settings.param.set_shuffle(list.shuffle());
  settings.param.set_crop_height(list.crop_height());
  settings.param.set_crop_width(list.crop_width());
  settings.param.set_mirror(list.mirror());
  *settings.param.mutable_mean_value() = transform.mean_value();
  settings.param.set_scale(transform.scale());
  return settings;
}

INSTANTIATE_CLASS(DenseImageDataLayer);
REGISTER_LAYER_CLASS(DenseImageData);

}  // namespace caffe

#endif  // USE_LMDB
#endif  // USE_OPENCV
