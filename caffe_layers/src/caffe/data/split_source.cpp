#ifdef USE_OPENCV
#ifdef USE_LMDB
#include "caffe/data/split_source.hpp"

#include <glog/logging.h>

#include <algorithm>
#include <string>
#include <vector>

namespace caffe {

const std::string& EncodedImage(const Datum& datum, const char* kind,
    const std::string& describe) {
  CHECK(datum.encoded()) << describe << "the " << kind
      << "'s Datum holds raw pixels; expected an encoded image";
  return datum.data();
}

SplitSource::SplitSource(const std::vector<std::string>& folders,
    bool has_label, const std::string& owner) : owner_(owner), count_(0) {
  for (const std::string& folder : folders) { Open(folder, has_label); }
}

void SplitSource::Open(const std::string& folder, bool has_label) {
  Split split;
  split.folder = folder;
  split.first = count_;
  split.images = LmdbReader::Open(folder + "/images.lmdb", owner_);
  const std::vector<std::string>& keys = split.images->keys();
  CHECK(!keys.empty()) << owner_ << ": source '" << folder
      << "' is empty; expected at least one image";
  if (has_label) {
    split.labels = LmdbReader::Open(folder + "/labels.lmdb", owner_);
    const std::vector<std::string>& label_keys = split.labels->keys();
    const size_t common = std::min(keys.size(), label_keys.size());
    const size_t same = std::mismatch(keys.begin(), keys.begin() + common,
        label_keys.begin()).first - keys.begin();
    CHECK(same == keys.size() && same == label_keys.size()) << owner_
        << ": source '" << folder << "' has " << keys.size()
        << " images and " << label_keys.size() << " labels, and number "
        << same << " is image '"
        << (same < keys.size() ? keys[same] : std::string()) << "' and label '"
        << (same < label_keys.size() ? label_keys[same] : std::string())
        << "'; expected the same keys in images.lmdb and labels.lmdb";
  }
  count_ += keys.size();
  splits_.push_back(split);
}

std::string SplitSource::name() const {
  return std::to_string(splits_.size()) + " source(s)";
}

const SplitSource::Split& SplitSource::SplitOf(int64_t item) const {
  size_t i = splits_.size() - 1;
  while (splits_[i].first > item) { --i; }
  return splits_[i];
}

std::string SplitSource::Describe(int64_t item) const {
  const Split& split = SplitOf(item);
  return owner_ + ": '" + split.images->keys()[item - split.first] +
      "' of source '" + split.folder + "': ";
}

std::string SplitSource::Read(int64_t item, bool label) const {
  const char* const kind = label ? "label" : "image";
  const Split& split = SplitOf(item);
  const LmdbReader& reader = label ? *split.labels : *split.images;
  Datum datum;
  CHECK(reader.Read(item - split.first, &datum)) << Describe(item)
      << "the " << kind << "'s value is no Datum";
  return EncodedImage(datum, kind, Describe(item));
}

cv::Mat SplitSource::Image(int64_t item) const {
  return DecodePixels(Read(item, false), true, Describe(item));
}

cv::Mat SplitSource::Label(int64_t item, cv::Size image) const {
  const cv::Mat label = DecodeLabel(Read(item, true), Describe(item));
  CheckLabelSize(label.size(), image, Describe(item));
  return label;
}

}  // namespace caffe

#endif  // USE_LMDB
#endif  // USE_OPENCV
