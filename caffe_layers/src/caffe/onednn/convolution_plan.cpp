#include "caffe/onednn/convolution_plan.hpp"

#include <glog/logging.h>

#include <algorithm>
#include <sstream>
#include <tuple>
#include <utility>

namespace caffe {

std::array<int, 16> ConvolutionShape::Numbers() const {
  return {{num, in_channels, in_height, in_width, out_channels, out_height,
           out_width, kernel_height, kernel_width, pad_height, pad_width,
           stride_height, stride_width, dilation_height, dilation_width,
           group}};
}

std::string ConvolutionShape::Text() const {
  std::ostringstream text;
  text << "x " << num << "x" << in_channels << "x" << in_height << "x"
       << in_width << ", w " << out_channels << "x" << in_channels / group
       << "x" << kernel_height << "x" << kernel_width << ", y " << num << "x"
       << out_channels << "x" << out_height << "x" << out_width << ", pad "
       << pad_height << "x" << pad_width << ", stride " << stride_height << "x"
       << stride_width << ", dilation " << dilation_height << "x"
       << dilation_width << ", group " << group;
  return text.str();
}

bool ConvolutionKey::operator<(const ConvolutionKey& other) const {
  return std::make_tuple(pass, is_double, allow_tf32, shape.Numbers()) <
         std::make_tuple(other.pass, other.is_double, other.allow_tf32,
                         other.shape.Numbers());
}

const ConvolutionCandidate* ChooseCandidate(
    const std::vector<ConvolutionCandidate>& candidates, size_t limit) {
  const ConvolutionCandidate* fits = nullptr;
  for (const ConvolutionCandidate& candidate : candidates) {
    if (candidate.workspace > limit) { continue; }
    if (candidate.deterministic) { return &candidate; }
    if (fits == nullptr) { fits = &candidate; }
  }
  return fits;
}

size_t ConvolutionWorkspaceLimit(size_t device_memory) {
  return std::min(device_memory / 16, static_cast<size_t>(1) << 30);
}

ConvolutionPlanner::ConvolutionPlanner(size_t limit, const Allocate& allocate,
                                       const Release& release)
    : limit_(limit), allocate_(allocate), release_(release),
      workspace_(nullptr), workspace_size_(0) {}

ConvolutionPlanner::~ConvolutionPlanner() {
  if (workspace_ != nullptr) { release_(workspace_); }
}

bool ConvolutionPlanner::Take(size_t size) {
  workspace_ = size > 0 ? allocate_(size) : nullptr;
  workspace_size_ = workspace_ != nullptr ? size : 0;
  return workspace_size_ == size;
}

bool ConvolutionPlanner::Reserve(size_t size) {
  if (size <= workspace_size_) { return true; }
  const size_t before = workspace_size_;
  // Released first: a growing workspace never needs the memory of two.
  if (workspace_ != nullptr) { release_(workspace_); }
  if (Take(size)) { return true; }
  // Algorithms that were chosen for a larger workspace are not to be used.
  if (!Take(before)) { plans_.clear(); }
  return false;
}

ConvolutionCandidate ConvolutionPlanner::Plan(const ConvolutionKey& key,
                                              const ListCandidates& list) {
  const auto found = plans_.find(key);
  if (found != plans_.end()) { return found->second; }
  const std::vector<ConvolutionCandidate> candidates = list();
  size_t limit = limit_;
  const ConvolutionCandidate* chosen = ChooseCandidate(candidates, limit);
  if (chosen != nullptr && !Reserve(chosen->workspace)) {
    limit = workspace_size_;
    chosen = ChooseCandidate(candidates, limit);
  }
  CHECK(chosen != nullptr)
      << "cuDNN offers " << candidates.size() << " algorithms for the "
      << "convolution " << key.shape.Text() << ", and none makes do with "
      << limit << " bytes of workspace; engine: CAFFE in its layer does";
  plans_.insert(std::make_pair(key, *chosen));
  return *chosen;
}

}  // namespace caffe
