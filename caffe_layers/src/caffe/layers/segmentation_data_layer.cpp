#ifdef USE_OPENCV
#ifdef USE_LMDB
#include <algorithm>
#include <cmath>
#include <opencv2/imgcodecs/imgcodecs.hpp>
#include <string>
#include <vector>

#include "caffe/layers/segmentation_data_layer.hpp"

namespace caffe {

namespace {

const int CHANNELS = 3;
const int LEVELS = 256;

// Folds coordinate 0, 1, ... of the padded image back into 0 .. size - 1:
// 0 1 2 3 2 1 0 1 2 3 ... for size 4.
inline int Reflect(int coordinate, int size) {
  if (size == 1) { return 0; }
  const int period = 2 * (size - 1);
  const int phase = coordinate % period;
  return std::min(phase, period - phase);
}

// The source columns (or rows) of a crop's columns, flipped if asked.
vector<int> SourceCoordinates(int offset, int crop, int size, bool flip) {
  vector<int> source(crop);
  for (int i = 0; i < crop; ++i) {
    source[i] = Reflect(offset + (flip ? crop - 1 - i : i), size);
  }
  return source;
}

}  // namespace

template <typename Dtype>
void SegmentationDataLayer<Dtype>::LayerSetUp(
    const vector<Blob<Dtype>*>& /* bottom */,
    const vector<Blob<Dtype>*>& top) {
  CheckParameters();
  const SegmentationDataParameter& param =
      this->layer_param_.segmentation_data_param();
  has_label_ = top.size() > 1;
  crop_height_ = param.crop_height();
  crop_width_ = param.crop_width();
  whole_image_ = crop_height_ == 0;
  batch_size_ = param.batch_size();
  OpenSources();
  const Source& last = sources_.back();
  order_.reset(new SampleOrder(param.seed(),
      last.first + last.images->keys().size(), param.shuffle()));
  augmentation_.reset(new Augmentation(param, *order_));
  LOG(INFO) << Name() << ": " << order_->count() << " images from "
      << sources_.size() << " source(s)";

  data_value_.resize(CHANNELS * LEVELS);
  for (int c = 0; c < CHANNELS; ++c) {
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

  const bool train = this->phase_ == TRAIN;
  solver_count_ = train ? Caffe::solver_count() : 1;
  solver_rank_ = train ? Caffe::solver_rank() : 0;
  next_forward_pass_ = 0;
  pool_.reset();
  batches_.clear();

  // A whole image's size is known when it comes; the first one's serves to set
  // the network up.
  int height = crop_height_, width = crop_width_;
  if (whole_image_) {
    const int64_t item = order_->Item(0);
    const cv::Mat image = Decode(SourceOf(item), item, false);
    height = image.rows;
    width = image.cols;
  }
  top[0]->Reshape(batch_size_, CHANNELS, height, width);
  if (has_label_) { top[1]->Reshape(batch_size_, 1, height, width); }
}

template <typename Dtype>
string SegmentationDataLayer<Dtype>::Name() const {
  return "SegmentationData layer '" + this->layer_param_.name() + "'";
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::CheckParameters() const {
  const SegmentationDataParameter& param =
      this->layer_param_.segmentation_data_param();
  const string layer = Name() + ": ";
  CHECK_GE(param.source_size(), 1) << layer << "no source given; expected the"
      << " folder of a prepared split, or several";
  CHECK_GE(param.batch_size(), 1u) << layer << "batch_size "
      << param.batch_size() << " given; expected 1 or more";
  CHECK_EQ(param.crop_height() == 0, param.crop_width() == 0) << layer
      << "crop_height " << param.crop_height() << " and crop_width "
      << param.crop_width() << " given; expected both 0 (whole images) or both"
      << " 1 or more";
  CHECK(param.crop_height() > 0 || param.batch_size() == 1) << layer
      << "batch_size " << param.batch_size() << " given without a crop;"
      << " expected batch_size 1, as whole images differ in size, or"
      << " crop_height and crop_width";
  const int means = param.mean_value_size();
  CHECK(means == 0 || means == 1 || means == CHANNELS) << layer
      << means << " mean_value fields given; expected none, 1 (for all channels)"
      << " or 3 (B, G, R)";
  for (int i = 0; i < means; ++i) {
    CHECK(std::isfinite(param.mean_value(i))) << layer << "mean_value "
        << param.mean_value(i) << " given; expected a finite number";
  }
  CHECK(std::isfinite(param.scale()) && param.scale() != 0) << layer
      << "scale " << param.scale() << " given; expected a finite number, not 0";
  CHECK_GE(param.prefetch_threads(), 1u) << layer << "prefetch_threads "
      << param.prefetch_threads() << " given; expected 1 or more";
  CHECK_GE(param.prefetch(), 1u) << layer << "prefetch " << param.prefetch()
      << " given; expected 1 batch or more";
  Augmentation::Check(param, layer);
  CHECK(!this->layer_param_.has_transform_param()) << layer
      << "transform_param given; expected mean_value, scale, mirror and the crop"
      << " in segmentation_data_param";
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::OpenSources() {
  const SegmentationDataParameter& param =
      this->layer_param_.segmentation_data_param();
  const string layer = Name();
  sources_.clear();
  int64_t first = 0;
  for (int i = 0; i < param.source_size(); ++i) {
    Source source;
    source.folder = param.source(i);
    source.first = first;
    source.images = LmdbReader::Open(source.folder + "/images.lmdb", layer);
    const vector<string>& keys = source.images->keys();
    CHECK(!keys.empty()) << layer << ": source '" << source.folder
        << "' is empty; expected at least one image";
    if (has_label_) {
      source.labels = LmdbReader::Open(source.folder + "/labels.lmdb", layer);
      const vector<string>& label_keys = source.labels->keys();
      const size_t common = std::min(keys.size(), label_keys.size());
      const size_t same = std::mismatch(keys.begin(), keys.begin() + common,
          label_keys.begin()).first - keys.begin();
      CHECK(same == keys.size() && same == label_keys.size()) << layer
          << ": source '" << source.folder << "' has " << keys.size()
          << " images and " << label_keys.size() << " labels, and number "
          << same << " is image '"
          << (same < keys.size() ? keys[same] : string()) << "' and label '"
          << (same < label_keys.size() ? label_keys[same] : string())
          << "'; expected the same keys in images.lmdb and labels.lmdb";
    }
    first += keys.size();
    sources_.push_back(source);
  }
}

template <typename Dtype>
const typename SegmentationDataLayer<Dtype>::Source&
SegmentationDataLayer<Dtype>::SourceOf(int64_t item) const {
  size_t i = sources_.size() - 1;
  while (sources_[i].first > item) { --i; }
  return sources_[i];
}

template <typename Dtype>
string SegmentationDataLayer<Dtype>::Describe(const Source& source,
    int64_t item) const {
  return Name() + ": '" + source.images->keys()[item - source.first] +
      "' of source '" + source.folder + "': ";
}

template <typename Dtype>
cv::Mat SegmentationDataLayer<Dtype>::Decode(const Source& source,
    int64_t item, bool label) const {
  const char* const kind = label ? "label" : "image";
  const LmdbReader& reader = label ? *source.labels : *source.images;
  Datum datum;
  CHECK(reader.Read(item - source.first, &datum)) << Describe(source, item)
      << "the " << kind << "'s value is no Datum";
  CHECK(datum.encoded()) << Describe(source, item) << "the " << kind
      << "'s Datum holds raw pixels; expected an encoded image";
  const string& bytes = datum.data();
  cv::Mat pixels;
  try {
    const cv::Mat encoded(1, static_cast<int>(bytes.size()), CV_8UC1,
        const_cast<char*>(bytes.data()));
    pixels = cv::imdecode(encoded, label ? cv::IMREAD_UNCHANGED :
        cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
  } catch (const cv::Exception& error) {
    LOG(FATAL) << Describe(source, item) << "the " << kind
        << " cannot be decoded: " << error.what();
  }
  CHECK(!pixels.empty()) << Describe(source, item) << "the " << kind
      << " cannot be decoded";
  if (label) {
    CHECK(pixels.type() == CV_8UC1) << Describe(source, item)
        << "the label has " << pixels.channels() << " channel(s) of "
        << 8 * pixels.elemSize1() << " bits; expected 1 channel of 8 bits";
  }
  return pixels;
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::LoadItem(Batch* batch, int64_t forward_pass,
    int item_of_batch) const {
  const SegmentationDataParameter& param =
      this->layer_param_.segmentation_data_param();
  const int64_t sample =
      (forward_pass * solver_count_ + solver_rank_) * batch_size_ +
      item_of_batch;
  const int64_t item = order_->Item(sample);
  const Source& source = SourceOf(item);
  cv::Mat image = Decode(source, item, false);
  cv::Mat label;
  if (has_label_) {
    label = Decode(source, item, true);
    CHECK(label.size() == image.size()) << Describe(source, item)
        << "the label has height " << label.rows << " and width " << label.cols
        << "; expected the image's " << image.rows << " and " << image.cols;
  }

  const cv::Size scaled = augmentation_->ScaledSize(sample, image.size());
  const int height = whole_image_ ? scaled.height : crop_height_;
  const int width = whole_image_ ? scaled.width : crop_width_;
  // The batch is this one image, so no other thread looks at it.
  if (whole_image_) { SetSize(height, width, batch); }
  cv::Rect crop(0, 0, width, height);
  crop.y = order_->Draw(sample, SampleOrder::CROP_ROW,
      std::max(scaled.height - height, 0) + 1);
  crop.x = order_->Draw(sample, SampleOrder::CROP_COLUMN,
      std::max(scaled.width - width, 0) + 1);
  bool flip =
      param.mirror() && order_->Draw(sample, SampleOrder::MIRROR, 2) == 1;
  if (augmentation_->enabled()) {
    // What comes back is the crop itself.
    augmentation_->Apply(sample, scaled, crop, flip, &image, &label);
    crop.x = crop.y = 0;
    flip = false;
  }
  const vector<int> rows =
      SourceCoordinates(crop.y, height, image.rows, false);
  const vector<int> columns =
      SourceCoordinates(crop.x, width, image.cols, flip);

  const size_t area = static_cast<size_t>(height) * width;
  Dtype* const values = static_cast<Dtype*>(batch->values.host());
  Dtype* const data = values + CHANNELS * area * item_of_batch;
  for (int y = 0; y < height; ++y) {
    const uchar* const pixels = image.ptr<uchar>(rows[y]);
    for (int c = 0; c < CHANNELS; ++c) {
      const Dtype* const value = &data_value_[c * LEVELS];
      Dtype* const out = data + c * area + y * width;
      for (int x = 0; x < width; ++x) {
        out[x] = value[pixels[CHANNELS * columns[x] + c]];
      }
    }
  }
  if (has_label_) {
    Dtype* const labels = values + DataCount(*batch) + area * item_of_batch;
    for (int y = 0; y < height; ++y) {
      const uchar* const classes = label.ptr<uchar>(rows[y]);
      Dtype* const out = labels + y * width;
      for (int x = 0; x < width; ++x) {
        out[x] = label_value_[classes[columns[x]]];
      }
    }
  }
}

template <typename Dtype>
size_t SegmentationDataLayer<Dtype>::DataCount(const Batch& batch) const {
  return static_cast<size_t>(batch_size_) * CHANNELS * batch.height *
      batch.width;
}

template <typename Dtype>
size_t SegmentationDataLayer<Dtype>::LabelCount(const Batch& batch) const {
  return has_label_ ? DataCount(batch) / CHANNELS : 0;
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::SetSize(int height, int width,
    Batch* batch) const {
  batch->height = height;
  batch->width = width;
  batch->values.Reserve(
      (DataCount(*batch) + LabelCount(*batch)) * sizeof(Dtype));
}

template <typename Dtype>
void SegmentationDataLayer<Dtype>::StartPool(int device) {
  const SegmentationDataParameter& param =
      this->layer_param_.segmentation_data_param();
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
      batch->values.Push(
          (DataCount(*batch) + LabelCount(*batch)) * sizeof(Dtype));
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
  top[0]->Reshape(batch_size_, CHANNELS, batch->height, batch->width);
  if (has_label_) {
    top[1]->Reshape(batch_size_, 1, batch->height, batch->width);
  }
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
