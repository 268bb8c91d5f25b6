#ifndef CAFFE_DATA_SPLIT_SOURCE_HPP_
#define CAFFE_DATA_SPLIT_SOURCE_HPP_

#ifdef USE_OPENCV
#ifdef USE_LMDB

#include <memory>
#include <string>
#include <vector>

#include "caffe/data/lmdb_reader.hpp"
#include "caffe/data/sample_source.hpp"

namespace caffe {

/// A Datum's encoded image; ends the program where it has none. `kind` and
/// `describe` as of DecodeImage.
const std::string& EncodedImage(const Datum& datum, const char* kind,
    const std::string& describe);

/**
 * @brief The items of prepared splits, one split after the other: folders, each
 *        with images.lmdb and labels.lmdb (Datums with encoded images under the
 *        same keys).
 */
class SplitSource : public SampleSource {
 public:
  /// Without labels labels.lmdb is not looked for. `owner` begins messages.
  SplitSource(const std::vector<std::string>& folders, bool has_label,
      const std::string& owner);

  virtual int64_t count() const { return count_; }
  virtual std::string name() const;
  virtual std::string Describe(int64_t item) const;
  virtual cv::Mat Image(int64_t item) const;
  virtual cv::Mat Label(int64_t item, cv::Size image) const;

 private:
  struct Split {
    std::string folder;
    std::shared_ptr<const LmdbReader> images;
    std::shared_ptr<const LmdbReader> labels;  // empty without labels
    int64_t first;  // number of this split's first item among all
  };

  void Open(const std::string& folder, bool has_label);
  const Split& SplitOf(int64_t item) const;
  std::string Read(int64_t item, bool label) const;

  const std::string owner_;
  std::vector<Split> splits_;
  int64_t count_;
};

}  // namespace caffe

#endif  // USE_LMDB
#endif  // USE_OPENCV

#endif  // CAFFE_DATA_SPLIT_SOURCE_HPP_
