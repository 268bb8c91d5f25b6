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
// Written so that NaN fails.
void CheckRange(const std::string& layer, const char* name, double value,
    double least, double most) {
  CHECK(value >= least && value <= most) << layer << name << " " << value
      << " given; expected " << least << " to " << most;
}

// The length at which an axis is resampled. Down to two thirds, bilinear samples
// are at most 1.5 pixels apart and miss none.
int ShrunkLength(int scaled, int length) {
  return 3 * scaled < 2 * length ? scaled : length;
}

// Scales by area each axis that becomes much shorter; the others stay.
cv::Mat Shrink(const cv::Mat& image, cv::Size scaled) {
  const cv::Size size(ShrunkLength(scaled.width, image.cols),
      ShrunkLength(scaled.height, image.rows));
  if (size == image.size()) { return image; }
  cv::Mat shrunk;
  cv::resize(image, shrunk, size, 0, 0, cv::INTER_AREA);
  return shrunk;
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
  const bool reflect =
      param_.padding() == SegmentationDataParameter::REFLECTION;
  // Image and label meet at one axis at any scale where that is the image's edge;
  // unscaled, the middle of the last pixel is, as without augmentation.
  const int reflection = scaled == image->size() ? cv::BORDER_REFLECT_101 :
      cv::BORDER_REFLECT;
  auto warp = [&](const cv::Mat& pixels, int interpolation,
      const cv::Scalar& beyond) {
    const double scale_x = static_cast<double>(scaled.width) / pixels.cols;
    const double scale_y = static_cast<double>(scaled.height) / pixels.rows;
    // What pixel (x, y) of the crop shows; pixels' middles are whole numbers.
    auto source = [&](double x, double y) {
      const double right = flip ? middle.x - x : x - middle.x;
      const double down = y - middle.y;
      const double column = crop.x + middle.x + cosine * right + sine * down;
      const double row = crop.y + middle.y - sine * right + cosine * down;
      return cv::Point2d((column + 0.5) / scale_x - 0.5,
          (row + 0.5) / scale_y - 0.5);
    };
    const cv::Point2d across = source(1, 0) - source(0, 0);
    const cv::Point2d along = source(0, 1) - source(0, 0);
    cv::Point2d origin = source(0, 0);
    cv::Mat padded = pixels, warped;
    if (reflect) {
      // warpAffine reflects, too, but takes several times as long for pixels
      // beyond the image. One more pixel on each side is for interpolation.
      int left = 0, right = 0, top = 0, bottom = 0;
      for (int corner = 0; corner < 4; ++corner) {
        const cv::Point2d at = source(corner % 2 * (crop.width - 1),
            corner / 2 * (crop.height - 1));
        left = std::max(left, 1 - cvFloor(at.x));
        right = std::max(right, cvCeil(at.x) + 2 - pixels.cols);
        top = std::max(top, 1 - cvFloor(at.y));
        bottom = std::max(bottom, cvCeil(at.y) + 2 - pixels.rows);
      }
      if (left + right + top + bottom > 0) {
        cv::copyMakeBorder(pixels, padded, top, bottom, left, right,
            reflection);
        origin += cv::Point2d(left, top);
      }
    }
    const cv::Matx23d map(across.x, along.x, origin.x,
        across.y, along.y, origin.y);
    cv::warpAffine(padded, warped, map, crop.size(),
        interpolation | cv::WARP_INVERSE_MAP, cv::BORDER_CONSTANT, beyond);
    return warped;
  };
  *image = warp(Shrink(*image, scaled), cv::INTER_LINEAR, mean_);
  if (!label->empty()) {
    *label = warp(*label, cv::INTER_NEAREST, cv::Scalar(IGNORED_LABEL));
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
