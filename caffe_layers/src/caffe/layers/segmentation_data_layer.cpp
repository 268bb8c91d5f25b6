#ifdef USE_OPENCV
#ifdef USE_LMDB
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <string>
#include <vector>

#include "caffe/data/split_source.hpp"
#include "caffe/distributed/collective_queue.hpp"
#include "caffe/layers/segmentation_data_layer.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/rng.hpp"

namespace caffe {

namespace {

const int LEVELS = 256;
const uint32_t MOST_THREADS = 1024;
const uint32_t MOST_BATCHES = 1024;  // that are kept ready

// Folds coordinate 0, 1, ... of the padded image back into 0 .. size - 1:
// 0 1 2 3 2 1 0 1 2 3 ... for size 4.
inline int Reflect(int coordinate, int size) {
  if (size == 1) { return 0; }
  const int period = 2 * (size - 1);
  const int phase = coordinate % period;
  return std::min(phase, period - phase);
}

// The source columns (or rows) of a crop's columns, flipped if asked. Beyond the
// source they are reflected, or (`pads`) BEYOND.
const int BEYOND = -1;
vector<int> SourceCoordinates(int offset, int crop, int size, bool flip,
    bool pads) {
  vector<int> source(crop);
  for (int i = 0; i < crop; ++i) {
    const int coordinate = offset + (flip ? crop - 1 - i : i);
    source[i] = pads && coordinate >= size ? BEYOND :
        Reflect(coordinate, size);
  }
  return source;
}

}  // namespace

template <typename Dtype>
void SegmentationDataLayer<Dtype>::LayerSetUp(
    const vector<Blob<Dtype>*>& /* bottom */,
    const vector<Blob<Dtype>*>& top) {
  has_label_ = top.size() > 1;
  has_sizes_ = top.size() > 2;
  settings_ = ReadSettings();
  CheckParameters();
  const SegmentationDataParameter& param = settings_.param;
  crop_height_ = param.crop_height();
  crop_width_ = param.crop_width();
  whole_image_ = crop_height_ == 0;
  batch_size_ = param.batch_size();
  next_forward_pass_ = 0;
  SetOrder(settings_.solver_seed ? caffe_rng_rand() : param.seed());
  LOG(INFO) << Name() << ": " << order_->count() << " images from "
      << settings_.source->name();

  data_value_.resize(settings_.channels * LEVELS);
  for (int c = 0; c < settings_.channels; ++c) {
    const int means = param.mean_value_size();
    const Dtype mean =
        means == 0 ? Dtype(0) : param.mean_value(means == 1 ? 0 : c);
    for (int level = 0; level < LEVELS; ++level) {
      data_value_[c * LEVELS + level] = (level - mean) * param.scale();
    }
  }
  label_value_.resize(LEVELS);
  for (int level = 0; level < LEVELS; ++level) { label_value_[level] = level; }
  label_value_[Augmentation::IGNORED_LABEL] = param.ignore_label();

  // a test is one rank's alone, unless the ranks divide it among them
  const bool divided =
      this->phase_ == TRAIN || CollectiveQueue::Current() != NULL;
  solver_count_ = divided ? Caffe::solver_count() : 1;
  solver_rank_ = divided ? Caffe::solver_rank() : 0;
  batches_.clear();

  // A whole image's size is known when it comes; the first one's serves to set
  // the network up.
  int height = crop_height_, width = crop_width_;
  if (whole_image_) {
    const cv::Mat image =
        settings_.source->Image(order_->Item(first_sample_));
    height = image.rows;
    width = image.cols;
  }
  if (settings_.fixed_size && whole_image_) {
    whole_image_ = false;
    crop_height_ = height;
    crop_width_ = width;
  }
  ShapeTops(height, width, top);
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::ShapeTops(int height, int width,
    const vector<Blob<Dtype>*>& top) {
  top[0]->Reshape(batch_size_, settings_.channels, height, width);
  if (has_label_) { top[1]->Reshape(batch_size_, 1, height, width); }
  if (has_sizes_) { top[2]->Reshape(batch_size_, 1, 1, 2); }
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::SetOrder(uint64_t seed) {
  pool_.reset();  // its threads read what is replaced
  augmentation_.reset();
  order_.reset(new SampleOrder(seed, settings_.source->count(),
      settings_.param.shuffle()));
  augmentation_.reset(new Augmentation(settings_.param, *order_));
  first_sample_ = settings_.rand_skip == 0 ? 0 :
      order_->Draw(0, SampleOrder::SKIP, settings_.rand_skip);
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::SetSeed(uint64_t seed) {
  if (settings_.solver_seed) { SetOrder(seed); }
}

template <typename Dtype>
string SegmentationDataLayer<Dtype>::Name() const {
  return string(this->type()) + " layer '" + this->layer_param_.name() + "'";
}

template <typename Dtype>
typename SegmentationDataLayer<Dtype>::Settings
SegmentationDataLayer<Dtype>::ReadSettings() const {
  Settings settings;
  settings.param = this->layer_param_.segmentation_data_param();
  const string layer = Name() + ": ";
  CHECK_GE(settings.param.source_size(), 1) << layer << "no source given;"
      << " expected the folder of a prepared split, or several";
  CHECK(!this->layer_param_.has_transform_param()) << layer
      << "transform_param given; expected mean_value, scale, mirror and the crop"
      << " in segmentation_data_param";
  settings.source.reset(new SplitSource(vector<string>(
      settings.param.source().begin(), settings.param.source().end()),
      has_label_, Name()));
  return settings;
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::CheckBound(const char* field,
    uint32_t value, uint32_t least, uint32_t most) const {
  CHECK(value >= least && value <= most) << Name() << ": " << field << " "
      << value << " given; expected " << least << " to " << most;
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::CheckParameters() const {
  const SegmentationDataParameter& param = settings_.param;
  const string layer = Name() + ": ";
  CheckBound("batch_size", param.batch_size(), 1, INT_MAX);
  CheckBound("crop_height", param.crop_height(), 0, INT_MAX);
  CheckBound("crop_width", param.crop_width(), 0, INT_MAX);
  CHECK_EQ(param.crop_height() == 0, param.crop_width() == 0) << layer
      << "crop_height " << param.crop_height() << " and crop_width "
      << param.crop_width() << " given; expected both 0 (whole images) or both"
      << " 1 or more";
  CHECK(param.crop_height() > 0 || param.batch_size() == 1 ||
      settings_.fixed_size) << layer
      << "batch_size " << param.batch_size() << " given without a crop;"
      << " expected batch_size 1, as whole images differ in size, or"
      << " crop_height and crop_width";
  const int means = param.mean_value_size();
  CHECK(means == 0 || means == 1 || means == settings_.channels) << layer
      << means << " mean_value fields given; expected none, 1 (for all channels)"
      << (settings_.channels == 3 ? " or 3 (B, G, R)" : "");
  for (int i = 0; i < means; ++i) {
    CHECK(std::isfinite(param.mean_value(i))) << layer << "mean_value "
        << param.mean_value(i) << " given; expected a finite number";
  }
  CHECK(std::isfinite(param.scale()) && param.scale() != 0) << layer
      << "scale " << param.scale() << " given; expected a finite number, not 0";
  CHECK_LE(param.ignore_label(), 255u) << layer << "ignore_label "
      << param.ignore_label() << " given; expected 0 to 255, as labels have";
  CheckBound("prefetch_threads", param.prefetch_threads(), 1, MOST_THREADS);
  CheckBound("prefetch", param.prefetch(), 1, MOST_BATCHES);
  const double bytes = 1. * param.prefetch() * param.batch_size() *
      param.crop_height() * param.crop_width() * (settings_.channels + 1) *
      sizeof(Dtype);
  const double memory = 1. * sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE);
  CHECK_LE(bytes, memory) << layer << "prefetch " << param.prefetch()
      << " batches of batch_size " << param.batch_size() << ", crop_height "
      << param.crop_height() << " and crop_width " << param.crop_width()
      << " take " << std::llround(bytes / 1e6) << " MB, and this machine has "
      << std::llround(memory / 1e6);
  Augmentation::Check(param, layer);
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::LoadItem(Batch* batch, int64_t forward_pass,
    int item_of_batch) const {
  const SegmentationDataParameter& param = settings_.param;
  const int channels = settings_.channels;
  const int64_t sample = first_sample_ +
      (forward_pass * solver_count_ + solver_rank_) * batch_size_ +
      item_of_batch;
  const int64_t item = order_->Item(sample);
  cv::Mat image = settings_.source->Image(item);
  cv::Mat label;
  if (has_label_) { label = settings_.source->Label(item, image.size()); }
  const cv::Size decoded = image.size();
  CHECK(!settings_.fixed_size || param.crop_height() > 0 ||
      decoded == cv::Size(crop_width_, crop_height_))
      << settings_.source->Describe(item) << "the image has height "
      << decoded.height << " and width " << decoded.width
      << ", where the first one has " << crop_height_ << " and " << crop_width_
      << "; give a crop, one size for all, or batch_size: 1";

  const cv::Size scaled = augmentation_->ScaledSize(sample, image.size());
  const int height = whole_image_ ? scaled.height : crop_height_;
  const int width = whole_image_ ? scaled.width : crop_width_;
  // The batch is this one image, so no other thread looks at it.
  if (whole_image_) { SetSize(height, width, batch); }
  cv::Rect crop(0, 0, width, height);
  const int rows_left = std::max(scaled.height - height, 0);
  const int columns_left = std::max(scaled.width - width, 0);
  crop.y = settings_.middle ? rows_left / 2 :
      order_->Draw(sample, SampleOrder::CROP_ROW, rows_left + 1);
  crop.x = settings_.middle ? columns_left / 2 :
      order_->Draw(sample, SampleOrder::CROP_COLUMN, columns_left + 1);
  bool flip =
      param.mirror() && order_->Draw(sample, SampleOrder::MIRROR, 2) == 1;
  if (augmentation_->enabled()) {
    // What comes back is the crop itself.
    try {
      augmentation_->Apply(sample, scaled, crop, flip, &image, &label);
    } catch (const cv::Exception& error) {  // one too long for OpenCV
      LOG(FATAL) << settings_.source->Describe(item) << "an image of "
          << decoded.height << " x " << decoded.width
          << " cannot be augmented: " << error.what();
    }
    crop.x = crop.y = 0;
    flip = false;
  }
  const vector<int> rows =
      SourceCoordinates(crop.y, height, image.rows, false, settings_.pads);
  const vector<int> columns =
      SourceCoordinates(crop.x, width, image.cols, flip, settings_.pads);

  const size_t area = static_cast<size_t>(height) * width;
  Dtype* const values = static_cast<Dtype*>(batch->values.host());
  Dtype* const data = values + channels * area * item_of_batch;
  for (int y = 0; y < height; ++y) {
    const uchar* const pixels =
        rows[y] == BEYOND ? NULL : image.ptr<uchar>(rows[y]);
    for (int c = 0; c < channels; ++c) {
      const Dtype* const value = &data_value_[c * LEVELS];
      Dtype* const out = data + c * area + y * width;
      for (int x = 0; x < width; ++x) {
        out[x] = pixels == NULL || columns[x] == BEYOND ? Dtype(0) :
            value[pixels[channels * columns[x] + c]];
      }
    }
  }
  if (has_label_) {
    Dtype* const labels = values + DataCount(*batch) + area * item_of_batch;
    for (int y = 0; y < height; ++y) {
      const uchar* const classes =
          rows[y] == BEYOND ? NULL : label.ptr<uchar>(rows[y]);
      Dtype* const out = labels + y * width;
      for (int x = 0; x < width; ++x) {
        out[x] = label_value_[classes == NULL || columns[x] == BEYOND ?
            static_cast<int>(Augmentation::IGNORED_LABEL) :
            classes[columns[x]]];
      }
    }
  }
  if (has_sizes_) {
    Dtype* const sizes = values + DataCount(*batch) + LabelCount(*batch) +
        2 * item_of_batch;
    sizes[0] = std::min(height, decoded.height);
    sizes[1] = std::min(width, decoded.width);
  }
}

template <typename Dtype>
size_t SegmentationDataLayer<Dtype>::DataCount(const Batch& batch) const {
  return static_cast<size_t>(batch_size_) * settings_.channels *
      batch.height * batch.width;
}

template <typename Dtype>
size_t SegmentationDataLayer<Dtype>::LabelCount(const Batch& batch) const {
  return has_label_ ? DataCount(batch) / settings_.channels : 0;
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::SetSize(int height, int width,
    Batch* batch) const {
  batch->height = height;
  batch->width = width;
  batch->values.Reserve(Count(*batch) * sizeof(Dtype));
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::StartPool(int device) {
  const SegmentationDataParameter& param = settings_.param;
  pool_.reset();
  if (batches_.empty() || batches_[0]->values.device_id() != device) {
    batches_.clear();
    for (size_t i = 0; i < param.prefetch(); ++i) {
      batches_.emplace_back(new Batch(device, Name()));
      // Once for all, and not beside the solver's own allocations.
      if (!whole_image_) {
        SetSize(crop_height_, crop_width_, batches_[i].get());
      }
    }
  }
  PrefetchPool::Finish finish;
#ifndef CPU_ONLY
  if (device != StagedBuffer::NO_DEVICE) {
    finish = [this](int slot) {
      Batch* const batch = batches_[slot].get();
      batch->values.Push(Count(*batch) * sizeof(Dtype));
    };
  }
#endif
  pool_.reset(new PrefetchPool(param.prefetch_threads(), batches_.size(),
      batch_size_, next_forward_pass_,
      [this](int slot, int64_t forward_pass, int item) {
        LoadItem(batches_[slot].get(), forward_pass, item);
      }, finish));
}

template <typename Dtype>
typename SegmentationDataLayer<Dtype>::Batch*
SegmentationDataLayer<Dtype>::NextBatch(const vector<Blob<Dtype>*>& top) {
  Batch* const batch = batches_[pool_->Wait()].get();
  ShapeTops(batch->height, batch->width, top);
  return batch;
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::ReleaseBatch() {
  pool_->Release();
  ++next_forward_pass_;
}

// After a change from GPU to CPU mode the batches still come on the device,
// too: changes back and forth throw nothing away.
template <typename Dtype>
void SegmentationDataLayer<Dtype>::Forward_cpu(
    const vector<Blob<Dtype>*>& /* bottom */,
    const vector<Blob<Dtype>*>& top) {
  if (!pool_) {
    StartPool(batches_.empty() ? static_cast<int>(StagedBuffer::NO_DEVICE) :
        batches_[0]->values.device_id());
  }
  Batch* const batch = NextBatch(top);
  const Dtype* const values =
      static_cast<const Dtype*>(batch->values.host());
  std::copy(values, values + DataCount(*batch), top[0]->mutable_cpu_data());
  if (has_label_) {
    const Dtype* const labels = values + DataCount(*batch);
    std::copy(labels, labels + LabelCount(*batch),
        top[1]->mutable_cpu_data());
  }
  if (has_sizes_) {
    const Dtype* const sizes = values + DataCount(*batch) + LabelCount(*batch);
    std::copy(sizes, sizes + SizeCount(), top[2]->mutable_cpu_data());
  }
  ReleaseBatch();
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::ResumeAt(int forward_passes) {
  CHECK_GE(forward_passes, 0) << Name() << ": cannot resume at forward pass "
      << forward_passes << "; expected 0 or more";
  pool_.reset();  // what was read ahead is of no use
  next_forward_pass_ = forward_passes;
}

#ifdef CPU_ONLY
STUB_GPU_FORWARD(SegmentationDataLayer, Forward);
#endif

INSTANTIATE_CLASS(SegmentationDataLayer);
REGISTER_LAYER_CLASS(SegmentationData);

}  // namespace caffe

#endif  // USE_LMDB
#endif  // USE_OPENCV
