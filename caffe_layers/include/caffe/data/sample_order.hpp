#ifndef CAFFE_DATA_SAMPLE_ORDER_HPP_
#define CAFFE_DATA_SAMPLE_ORDER_HPP_

#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

namespace caffe {

/**
 * @brief Says what training sample number n is: which item of the data set, and
 *        which random draws it comes with.
 *
 * Every answer is a pure function of (seed, n), so a run that stops after n
 * samples goes on exactly where it was, whatever the number of threads and
 * whoever asks in which order. No state is carried from one sample to the next
 * and nothing depends on a standard library's distributions: all random numbers
 * are splitmix64 hashes of what they are for, equal on every machine.
 *
 * With shuffle each epoch (count samples) is a permutation of its own, so each
 * item comes exactly once an epoch. Safe to call from several threads.
 */
class SampleOrder {
 public:
  /// What a random draw is for. Draws for different purposes are independent.
  /// The numbers are part of what a seed means: none is ever given anew.
  enum Purpose {
    CROP_ROW = 1, CROP_COLUMN = 2, MIRROR = 3, SCALE = 4, ASPECT = 5,
    ROTATION = 6, BRIGHTNESS = 7, CONTRAST = 8, SATURATION = 9, HUE = 10,
    BLUR = 11, CUTOUT = 12, SKIP = 13
  };

  /// count: number of items, at least 1.
  SampleOrder(uint64_t seed, int64_t count, bool shuffle);

  int64_t count() const { return count_; }

  /// The item, 0 .. count - 1, that is sample number `sample` (0, 1, 2, ...).
  int64_t Item(int64_t sample) const;

  /// A uniform integer 0 .. bound - 1 for this sample; bound is at least 1. Where
  /// a purpose takes several draws, `step` counts them.
  int64_t Draw(int64_t sample, Purpose purpose, int64_t bound,
      int step = 0) const;

  /// A uniform number of low <= x < high for this sample, or low where both are
  /// equal.
  double Uniform(int64_t sample, Purpose purpose, double low,
      double high) const;

 private:
  typedef std::vector<int64_t> Permutation;

  Permutation Shuffled(int64_t epoch) const;

  const uint64_t seed_;
  const int64_t count_;
  const bool shuffle_;
  // The latest epochs' permutations. Two are kept because batches that are
  // being decoded at the same time may belong to neighbouring epochs.
  mutable std::mutex mutex_;
  mutable std::deque<std::pair<int64_t, Permutation> > recent_;
};

}  // namespace caffe

#endif  // CAFFE_DATA_SAMPLE_ORDER_HPP_
