#ifndef CAFFE_DATA_LIST_SOURCE_HPP_
#define CAFFE_DATA_LIST_SOURCE_HPP_

#ifdef USE_OPENCV

#include <string>
#include <vector>

#include "caffe/data/sample_source.hpp"

namespace caffe {

/**
 * @brief The items of a list, a text file whose lines have an image's file and
 *        what its label is, apart by blanks. Empty lines are passed over.
 */
class ListSource : public SampleSource {
 public:
  enum LabelKind {
    NO_LABEL,      // nothing: every pixel has none
    NUMBER,        // the class number of all pixels
    FILE           // a label map's file, 8 bits of one channel
  };
  struct Options {
    Options() : label_kind(FILE), color(true), height(0), width(0),
        no_label(255) {}

    std::string root_folder;  // comes before every file's name as it stands
    LabelKind label_kind;
    bool color;               // else images come as grey
    int height, width;        // both above 0: the size that images and labels
                              // are brought to, labels to the nearest pixel
    int no_label;             // what NO_LABEL gives
  };

  /// `owner` begins messages.
  ListSource(const std::string& list, const Options& options,
      const std::string& owner);

  virtual int64_t count() const { return lines_.size(); }
  virtual std::string name() const { return "list '" + list_ + "'"; }
  virtual std::string Describe(int64_t item) const;
  virtual cv::Mat Image(int64_t item) const;
  virtual cv::Mat Label(int64_t item, cv::Size image) const;

 private:
  struct Line {
    int number;
    std::string image, label;
    int class_number;
  };

  Line Parse(const std::string& text, int number) const;
  std::string Read(int64_t item, const std::string& file,
      const char* kind) const;
  cv::Mat Resized(const cv::Mat& pixels, int interpolation) const;

  const std::string list_;
  const Options options_;
  const std::string owner_;
  std::vector<Line> lines_;
};

}  // namespace caffe

#endif  // USE_OPENCV

#endif  // CAFFE_DATA_LIST_SOURCE_HPP_
