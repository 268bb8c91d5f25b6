#ifndef CAFFE_ONEDNN_CONVOLUTION_PLAN_HPP_
#define CAFFE_ONEDNN_CONVOLUTION_PLAN_HPP_

#include <array>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace caffe {

/**
 * One convolution: y = x * w with
 *   x  num x in_channels x in_height x in_width
 *   w  out_channels x (in_channels / group) x kernel_height x kernel_width
 *   y  num x out_channels x out_height x out_width
 * A deconvolution is the same one read backwards, from y to x.
 */
struct ConvolutionShape {
  int num = 0;
  int in_channels = 0, in_height = 0, in_width = 0;
  int out_channels = 0, out_height = 0, out_width = 0;
  int kernel_height = 0, kernel_width = 0;
  int pad_height = 0, pad_width = 0;
  int stride_height = 1, stride_width = 1;
  int dilation_height = 1, dilation_width = 1;
  int group = 1;

  /// All of it as numbers, for comparisons.
  std::array<int, 16> Numbers() const;
  /// For messages: "x 1x3x8x8, w 4x3x3x3, y 1x4x8x8, pad 1x1, ...".
  std::string Text() const;
};

/// The three ways through a convolution; each has algorithms of its own.
enum class ConvolutionPass { FORWARD, BACKWARD_DATA, BACKWARD_FILTER };

/// All that the choice of an algorithm depends on, on one device.
struct ConvolutionKey {
  ConvolutionPass pass;
  bool is_double;
  bool allow_tf32;
  ConvolutionShape shape;

  bool operator<(const ConvolutionKey& other) const;
};

/// An algorithm that could be used; the fastest stands first in a list.
struct ConvolutionCandidate {
  int algorithm;
  size_t workspace;  // bytes
  bool deterministic;
};

/**
 * The first deterministic candidate whose workspace is within `limit` bytes,
 * else the first one within it, else null. Deterministic ones come first so
 * that a seed gives the same training twice; the others (sums by atomic
 * additions) are hardly ever the fastest.
 */
const ConvolutionCandidate* ChooseCandidate(
    const std::vector<ConvolutionCandidate>& candidates, size_t limit);

/// Bytes that convolutions may use on a device of so much memory: a sixteenth
/// of it, and no more than 1 GiB.
size_t ConvolutionWorkspaceLimit(size_t device_memory);

/**
 * Remembers the algorithm of every convolution that was met, and holds one
 * workspace for all of them. One planner serves one thread on one device; its
 * convolutions follow each other on one stream, so that none writes into the
 * workspace while another uses it.
 *
 * A network whose images change their size meets each size once: nothing is
 * searched and nothing allocated when a size comes back.
 */
class ConvolutionPlanner {
 public:
  /// Returns null where there is no memory.
  typedef std::function<void*(size_t)> Allocate;
  typedef std::function<void(void*)> Release;
  typedef std::function<std::vector<ConvolutionCandidate>()> ListCandidates;

  ConvolutionPlanner(size_t limit, const Allocate& allocate,
                     const Release& release);
  ~ConvolutionPlanner();

  /**
   * The algorithm for `key`; `list` is called where the key is new. The
   * workspace is large enough for it afterwards. Where the device's memory is
   * too short for the best algorithm, one is taken that makes do with what is
   * there. Fatal where no algorithm fits.
   */
  ConvolutionCandidate Plan(const ConvolutionKey& key,
                            const ListCandidates& list);

  void* workspace() const { return workspace_; }
  size_t workspace_size() const { return workspace_size_; }
  size_t remembered() const { return plans_.size(); }

 private:
  // Makes the workspace at least `size` bytes large, if that is possible.
  bool Reserve(size_t size);
  // Takes `size` bytes in place of no workspace; false where there is no memory.
  bool Take(size_t size);

  ConvolutionPlanner(const ConvolutionPlanner&) = delete;
  ConvolutionPlanner& operator=(const ConvolutionPlanner&) = delete;

  const size_t limit_;
  const Allocate allocate_;
  const Release release_;
  std::map<ConvolutionKey, ConvolutionCandidate> plans_;
  void* workspace_;
  size_t workspace_size_;
};

}  // namespace caffe

#endif  // CAFFE_ONEDNN_CONVOLUTION_PLAN_HPP_
