#ifdef USE_OPENCV
#include "caffe/data/list_source.hpp"

#include <glog/logging.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>  // NOLINT(readability/streams)
#include <iterator>
#include <opencv2/imgproc/imgproc.hpp>
#include <sstream>
#include <string>

namespace caffe {

ListSource::ListSource(const std::string& list, const Options& options,
    const std::string& owner) : list_(list), options_(options), owner_(owner) {
  std::ifstream file(list.c_str());
  CHECK(file.is_open()) << owner << ": cannot open the list '" << list << "': "
      << strerror(errno) << "; source is a text file with a line for each image";
  std::string text;
  for (int number = 1; std::getline(file, text); ++number) {
    if (text.find_first_not_of(" \t\r") != std::string::npos) {
      lines_.push_back(Parse(text, number));
    }
  }
  CHECK(!file.bad()) << owner << ": cannot read the list '" << list << "'";
  CHECK(!lines_.empty()) << owner << ": the list '" << list
      << "' is empty; expected a line for each image";
}

ListSource::Line ListSource::Parse(const std::string& text, int number) const {
  static const char* const kExpected[] = {
    "an image's file", "an image's file and its class number",
    "an image's file and its label's file"
  };
  Line line;
  line.number = number;
  line.class_number = options_.no_label;
  std::istringstream words(text);
  words >> line.image;
  bool whole = true;
  if (options_.label_kind != NO_LABEL) {
    whole = static_cast<bool>(words >> line.label);
  }
  if (whole && options_.label_kind == NUMBER) {
    char* end;
    const long value = strtol(line.label.c_str(), &end, 10);  // NOLINT
    whole = *end == '\0' && value >= 0 && value <= 255;
    line.class_number = value;
  }
  CHECK(whole) << owner_ << ": line " << number << " of list '" << list_
      << "' is '" << text << "'; expected " << kExpected[options_.label_kind]
      << ", apart by a blank";
  return line;
}

std::string ListSource::Describe(int64_t item) const {
  const Line& line = lines_[item];
  return owner_ + ": line " + std::to_string(line.number) + " of list '" +
      list_ + "' ('" + options_.root_folder + line.image + "'): ";
}

std::string ListSource::Read(int64_t item, const std::string& file,
    const char* kind) const {
  const std::string path = options_.root_folder + file;
  std::ifstream stream(path.c_str(), std::ios::binary);
  CHECK(stream.is_open()) << Describe(item) << "cannot open the " << kind
      << " '" << path << "': " << strerror(errno);
  const std::string bytes((std::istreambuf_iterator<char>(stream)),
      std::istreambuf_iterator<char>());
  CHECK(!bytes.empty()) << Describe(item) << "the " << kind << " '" << path
      << "' is empty or cannot be read";
  return bytes;
}

cv::Mat ListSource::Resized(const cv::Mat& pixels, int interpolation) const {
  const cv::Size size(options_.width, options_.height);
  if (options_.height == 0 || pixels.size() == size) { return pixels; }
  cv::Mat resized;
  cv::resize(pixels, resized, size, 0, 0, interpolation);
  return resized;
}

cv::Mat ListSource::Image(int64_t item) const {
  return Resized(DecodePixels(Read(item, lines_[item].image, "image"),
      options_.color, Describe(item)), cv::INTER_LINEAR);
}

cv::Mat ListSource::Label(int64_t item, cv::Size image) const {
  if (options_.label_kind != FILE) {
    return cv::Mat(image, CV_8UC1, cv::Scalar(lines_[item].class_number));
  }
  const std::string describe =
      Describe(item) + "'" + options_.root_folder + lines_[item].label + "': ";
  const cv::Mat label = Resized(DecodeLabel(
      Read(item, lines_[item].label, "label"), describe), cv::INTER_NEAREST);
  CheckLabelSize(label.size(), image, describe);
  return label;
}

}  // namespace caffe
#endif  // USE_OPENCV
