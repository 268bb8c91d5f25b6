#ifdef USE_OPENCV
#include "caffe/data/augmentation.hpp"

#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc/imgproc.hpp>
#include <string>

namespace caffe {

namespace {

const double RADIANS = CV_PI / 180;
// Finer sampling than this costs more than decoding; images that shrink further
// are close to smooth at that scale.
const int MOST_SUBSAMPLES = 4;

// Written so that NaN fails.
void CheckRange(const std::string& layer, const char* name, double value,
    double least, double most) {
  CHECK(value >= least && value <= most) << layer << name << " " << value
      << " given; expected " << least << " to " << most;
}

// How many samples along one axis make a pixel of an image scaled by `scale`:
// neighbours are at most 1.5 pixels apart, so that bilinear samples miss none.
int Subsamples(double scale) {
  return std::min(std::max(cvRound(1 / scale), 1), MOST_SUBSAMPLES);
}

}  // namespace

void Augmentation::Check(const SegmentationDataParameter& param,
    const std::string& layer) {
  CheckRange(layer, "scale_min", param.scale_min(), 0.1f, 10);
  CheckRange(layer, "scale_max", param.scale_max(), 0.1f, 10);
  CHECK_LE(param.scale_min(), param.scale_max()) << layer << "scale_min "
      << param.scale_min() << " and scale_max " << param.scale_max()
      << " given; expected the smaller one first";
  CheckRange(layer, "aspect", param.aspect(), 1, 2);
  CheckRange(layer, "rotation", param.rotation(), 0, 180);
  CheckRange(layer, "brightness", param.brightness(), 0, 1);
  CheckRange(layer, "contrast", param.contrast(), 0, 1);
  CheckRange(layer, "saturation", param.saturation(), 0, 1);
  CheckRange(layer, "hue", param.hue(), 0, 180);
  CheckRange(layer, "blur", param.blur(), 0, 20);
  CheckRange(layer, "cutout", param.cutout(), 0, 100);
  CheckRange(layer, "cutout_size", param.cutout_size(), 0, 1);
}

Augmentation::Augmentation(const SegmentationDataParameter& param,
    const SampleOrder& order)
    : param_(param), order_(order),
      warps_(param.scale_min() != 1 || param.scale_max() != 1 ||
          param.aspect() != 1 || param.rotation() != 0 ||
          param.padding() != SegmentationDataParameter::REFLECTION),
      colours_(param.brightness() != 0 || param.contrast() != 0 ||
          param.saturation() != 0 || param.hue() != 0),
      blurs_(param.blur() != 0), cuts_(param.cutout() != 0) {
  for (int c = 0; c < 3 && param.mean_value_size() > 0; ++c) {
    mean_[c] = cvRound(param.mean_value(param.mean_value_size() == 1 ? 0 : c));
  }
}

double Augmentation::AtMost(int64_t sample, SampleOrder::Purpose purpose,
    double range) const {
  return order_.Uniform(sample, purpose, -range, range);
}

cv::Size Augmentation::ScaledSize(int64_t sample, cv::Size image) const {
  const double scale = std::exp(order_.Uniform(sample, SampleOrder::SCALE,
      std::log(param_.scale_min()), std::log(param_.scale_max())));
  const double stretch = std::exp(
      AtMost(sample, SampleOrder::ASPECT, std::log(param_.aspect())) / 2);
  return cv::Size(std::max(cvRound(image.width * scale * stretch), 1),
      std::max(cvRound(image.height * scale / stretch), 1));
}

void Augmentation::Apply(int64_t sample, cv::Size scaled, const cv::Rect& crop,
    bool flip, cv::Mat* image, cv::Mat* label) const {
  Warp(sample, scaled, crop, flip, image, label);
  if (colours_) { Colour(sample, image); }
  if (blurs_) { Blur(sample, image); }
  if (cuts_) { CutOut(sample, image, label); }
}

void Augmentation::Warp(int64_t sample, cv::Size scaled, const cv::Rect& crop,
    bool flip, cv::Mat* image, cv::Mat* label) const {
  const double angle =
      AtMost(sample, SampleOrder::ROTATION, param_.rotation()) * RADIANS;
  const double cosine = std::cos(angle), sine = std::sin(angle);
  const cv::Point2d middle((crop.width - 1) / 2., (crop.height - 1) / 2.);
  const cv::Point2d scale(static_cast<double>(scaled.width) / image->cols,
      static_cast<double>(scaled.height) / image->rows);
  // Where the image has what sample (x, y) of the crop shows; the crop's pixels
  // are `parts` samples wide and high. Pixels' middles are whole numbers.
  auto source = [&](double x, double y, cv::Size parts) {
    const double right = ((x + 0.5) / parts.width - 0.5 - middle.x) *
        (flip ? -1 : 1);
    const double down = (y + 0.5) / parts.height - 0.5 - middle.y;
    const double column = crop.x + middle.x + cosine * right + sine * down;
    const double row = crop.y + middle.y - sine * right + cosine * down;
    return cv::Point2d((column + 0.5) / scale.x - 0.5,
        (row + 0.5) / scale.y - 0.5);
  };
  const bool reflect =
      param_.padding() == SegmentationDataParameter::REFLECTION;
  auto warp = [&](const cv::Mat& from, cv::Size parts, int interpolation,
      const cv::Scalar& beyond) {
    const cv::Point2d origin = source(0, 0, parts);
    const cv::Point2d across = source(1, 0, parts) - origin;
    const cv::Point2d along = source(0, 1, parts) - origin;
    const cv::Matx23d map(across.x, along.x, origin.x,
        across.y, along.y, origin.y);
    cv::Mat to;
    cv::warpAffine(from, to, map,
        cv::Size(crop.width * parts.width, crop.height * parts.height),
        interpolation | cv::WARP_INVERSE_MAP,
        reflect ? cv::BORDER_REFLECT_101 : cv::BORDER_CONSTANT, beyond);
    return to;
  };
  const cv::Size parts(Subsamples(scale.x), Subsamples(scale.y));
  cv::Mat fine = warp(*image, parts, cv::INTER_LINEAR, mean_);
  if (parts == cv::Size(1, 1)) {
    *image = fine;
  } else {
    cv::Mat pixels;  // not into *image: what it was is shared
    cv::resize(fine, pixels, crop.size(), 0, 0, cv::INTER_AREA);
    *image = pixels;
  }
  if (!label->empty()) {
    *label = warp(*label, cv::Size(1, 1), cv::INTER_NEAREST,
        cv::Scalar(IGNORED_LABEL));
  }
}

void Augmentation::Colour(int64_t sample, cv::Mat* image) const {
  const double brightness =
      1 + AtMost(sample, SampleOrder::BRIGHTNESS, param_.brightness());
  const double contrast =
      1 + AtMost(sample, SampleOrder::CONTRAST, param_.contrast());
  const double saturation =
      1 + AtMost(sample, SampleOrder::SATURATION, param_.saturation());
  const double hue = AtMost(sample, SampleOrder::HUE, param_.hue()) * RADIANS;
  // The luma of ITU-R BT.601, as cvtColor has it.
  const cv::Matx13d grey(0.114, 0.587, 0.299);
  const cv::Matx31d ones(1, 1, 1);
  const cv::Matx33d identity = cv::Matx33d::eye();
  const cv::Matx33d saturate =
      saturation * identity + (1 - saturation) * (ones * grey);
  // Rodrigues' formula about the axis of greys, from red to green to blue.
  const double cosine = std::cos(hue), sine = std::sin(hue) / std::sqrt(3.);
  const cv::Matx33d turn = cosine * identity +
      (1 - cosine) / 3 * (ones * ones.t()) +
      sine * cv::Matx33d(0, 1, -1, -1, 0, 1, 1, -1, 0);
  const cv::Matx33d colour = (brightness * contrast) * (turn * saturate);
  double level = 0;  // what contrast keeps of the mean grey
  if (contrast != 1) {
    const cv::Scalar mean = cv::mean(*image);
    level = (1 - contrast) * brightness *
        (grey * cv::Matx31d(mean[0], mean[1], mean[2]))(0);
  }
  cv::Matx34d map;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) { map(i, j) = colour(i, j); }
    map(i, 3) = level;
  }
  cv::Mat coloured;
  cv::transform(*image, coloured, map);
  *image = coloured;
}

void Augmentation::Blur(int64_t sample, cv::Mat* image) const {
  const double deviation =
      order_.Uniform(sample, SampleOrder::BLUR, 0, param_.blur());
  // 0 would have OpenCV choose.
  if (deviation > 0) {
    cv::GaussianBlur(*image, *image, cv::Size(), deviation);
  }
}

void Augmentation::CutOut(int64_t sample, cv::Mat* image,
    cv::Mat* label) const {
  int draws = 0;
  auto draw = [&](int bound) {
    return static_cast<int>(
        order_.Draw(sample, SampleOrder::CUTOUT, bound, draws++));
  };
  for (uint32_t i = 0; i < param_.cutout(); ++i) {
    const int height = draw(cvRound(param_.cutout_size() * image->rows) + 1);
    const int width = draw(cvRound(param_.cutout_size() * image->cols) + 1);
    const int row = draw(image->rows - height + 1);
    const int column = draw(image->cols - width + 1);
    const cv::Rect hole(column, row, width, height);
    (*image)(hole).setTo(mean_);
    if (!label->empty() && !param_.cutout_keeps_label()) {
      (*label)(hole).setTo(cv::Scalar(IGNORED_LABEL));
    }
  }
}

}  // namespace caffe
#endif  // USE_OPENCV
