#ifdef USE_OPENCV
#ifdef USE_LMDB
#include "caffe/data/list_source.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/image_seg_data_layer.hpp"

namespace caffe {

template <typename Dtype>
typename ImageSegDataLayer<Dtype>::Settings
ImageSegDataLayer<Dtype>::ReadSettings() const {
  const ImageDataParameter& list = this->layer_param_.image_data_param();
  const TransformationParameter& transform =
      this->layer_param_.transform_param();
  const string layer = this->Name() + ": ";
  CHECK(list.has_source()) << layer << "no source given in image_data_param;"
      << " expected a list of files";
  CHECK(!transform.has_mean_file()) << layer << "mean_file given; a map of means"
      << " does not fit crops and sizes: expected mean_value";
  CHECK_EQ(list.new_height() > 0, list.new_width() > 0) << layer
      << "new_height " << list.new_height() << " and new_width "
      << list.new_width() << " given; expected both or none";
  CHECK(list.ignore_label() >= 0 && list.ignore_label() <= 255) << layer
      << "ignore_label " << list.ignore_label() << " given; expected 0 to 255";

  ListSource::Options options;
  options.root_folder = list.root_folder();
  options.label_kind =
      list.label_type() == ImageDataParameter_LabelType_PIXEL ?
      ListSource::FILE :
      list.label_type() == ImageDataParameter_LabelType_IMAGE ?
      ListSource::NUMBER : ListSource::NO_LABEL;
  options.color = list.is_color();
  options.height = list.new_height();
  options.width = list.new_width();
  options.no_label = Augmentation::IGNORED_LABEL;

  Settings settings;
  settings.source.reset(
      new ListSource(list.source(), options, this->Name()));
  settings.channels = list.is_color() ? 3 : 1;
  settings.fixed_size = list.batch_size() > 1 || list.new_height() > 0;
  settings.pads = true;
  settings.middle = this->phase_ == TEST;
  settings.solver_seed = true;
  settings.rand_skip = list.rand_skip();
  settings.param.set_batch_size(list.batch_size());
  settings.param.set_shuffle(list.shuffle());
  settings.param.set_ignore_label(list.ignore_label());
  settings.param.set_crop_height(transform.crop_size());
  settings.param.set_crop_width(transform.crop_size());
  settings.param.set_mirror(transform.mirror());
  *settings.param.mutable_mean_value() = transform.mean_value();
  settings.param.set_scale(transform.scale());
  return settings;
}

INSTANTIATE_CLASS(ImageSegDataLayer);
REGISTER_LAYER_CLASS(ImageSegData);

}  // namespace caffe

#endif  // USE_LMDB
#endif  // USE_OPENCV
