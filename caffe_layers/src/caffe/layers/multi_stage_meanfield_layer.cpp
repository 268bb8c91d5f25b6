#include "caffe/layers/multi_stage_meanfield_layer.hpp"

#include <cmath>
#include <sstream>
#include <string>

#include "caffe/layer_factory.hpp"

namespace caffe {

namespace {

/// Numbers that blanks separate, onto the diagonal of a matrix.
template <typename Dtype>
void FillDiagonal(const string& who, const char* name, const string& numbers,
    Blob<Dtype>* matrix) {
  const int classes = matrix->shape(-1);
  std::istringstream from(numbers);
  float number;
  int count = 0;
  for (; from >> number && std::isfinite(number); ++count) {
    if (count < classes) {
      matrix->mutable_cpu_data()[count * (classes + 1)] = number;
    }
  }
  CHECK(from.eof() && count == classes)
      << who << name << " \"" << numbers << "\" must be " << classes
      << " numbers, one for each class, with blanks between them";
}

}  // namespace

template <typename Dtype>
DenseCRFParameter MultiStageMeanfieldLayer<Dtype>::Settings() const {
  const MultiStageMeanfieldParameter& theirs =
      this->layer_param_.multi_stage_meanfield_param();
  DenseCRFParameter crf;
  crf.set_max_iter(theirs.num_iterations());
  crf.set_pos_w(theirs.spatial_filter_weight());
  crf.set_pos_xy_std(theirs.theta_gamma());
  crf.set_bi_w(theirs.bilateral_filter_weight());
  crf.set_bi_xy_std(theirs.theta_alpha());
  crf.set_bi_rgb_std(theirs.theta_beta());
  crf.set_output(DenseCRFParameter_Output_SCORE);
  crf.set_order(DenseCRFParameter_Order_RGB);  // as they come
  crf.set_normalization(DenseCRFParameter_Normalization_AFTER);
  crf.set_kernel_weights(DenseCRFParameter_ClassMatrix_MATRIX);
  crf.set_compatibility(DenseCRFParameter_ClassMatrix_MATRIX);
  return crf;
}

template <typename Dtype>
void MultiStageMeanfieldLayer<Dtype>::LayerSetUp(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const MultiStageMeanfieldParameter& theirs =
      this->layer_param_.multi_stage_meanfield_param();
  CHECK(theirs.theta_alpha() > 0 && theirs.theta_beta() > 0 &&
      theirs.theta_gamma() > 0)
      << this->Who() << "theta_alpha, theta_beta and theta_gamma are standard "
      << "deviations and must all be set, above 0 (CRF-as-RNN has 160, 3 and "
      << "3)";
  const bool loaded = !this->blobs_.empty();
  DenseCRFLayer<Dtype>::LayerSetUp(bottom, top);
  if (loaded) { return; }
  if (theirs.has_spatial_filter_weights_str()) {
    FillDiagonal(this->Who(), "spatial_filter_weights_str",
        theirs.spatial_filter_weights_str(), this->blobs_[0].get());
  }
  if (theirs.has_bilateral_filter_weights_str()) {
    FillDiagonal(this->Who(), "bilateral_filter_weights_str",
        theirs.bilateral_filter_weights_str(), this->blobs_[1].get());
  }
}

INSTANTIATE_CLASS(MultiStageMeanfieldLayer);
REGISTER_LAYER_CLASS(MultiStageMeanfield);

}  // namespace caffe
