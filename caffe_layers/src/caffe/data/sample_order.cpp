#include "caffe/data/sample_order.hpp"

#include <glog/logging.h>

#include <cmath>
#include <utility>

#include "caffe/util/mix_bits.hpp"

namespace caffe {

namespace {

inline uint64_t Hash(uint64_t seed, uint64_t purpose, uint64_t number,
    uint64_t step) {
  return MixBits(MixBits(MixBits(MixBits(seed) ^ purpose) ^ number) ^ step);
}

const uint64_t PERMUTATION = 0;  // beside SampleOrder::Purpose

}  // namespace

SampleOrder::SampleOrder(uint64_t seed, int64_t count, bool shuffle)
    : seed_(seed), count_(count), shuffle_(shuffle) {
  CHECK_GE(count, 1) << "SampleOrder needs at least one item";
}

int64_t SampleOrder::Item(int64_t sample) const {
  DCHECK_GE(sample, 0);
  const int64_t position = sample % count_;
  if (!shuffle_) { return position; }
  const int64_t epoch = sample / count_;
  std::lock_guard<std::mutex> lock(mutex_);
  for (size_t i = 0; i < recent_.size(); ++i) {
    if (recent_[i].first == epoch) { return recent_[i].second[position]; }
  }
  if (recent_.size() == 2) { recent_.pop_front(); }
  recent_.push_back(std::make_pair(epoch, Shuffled(epoch)));
  return recent_.back().second[position];
}

int64_t SampleOrder::Draw(int64_t sample, Purpose purpose, int64_t bound,
    int step) const {
  DCHECK_GE(bound, 1);
  // The remainder's bias is bound / 2^64: nothing for an image's sizes.
  return Hash(seed_, purpose, sample, step) % static_cast<uint64_t>(bound);
}

double SampleOrder::Uniform(int64_t sample, Purpose purpose, double low,
    double high) const {
  // 53 bits are what a double's mantissa holds.
  const double share = std::ldexp(
      static_cast<double>(Hash(seed_, purpose, sample, 0) >> 11), -53);
  return low + (high - low) * share;
}

// Fisher and Yates's shuffle: every permutation is equally likely.
SampleOrder::Permutation SampleOrder::Shuffled(int64_t epoch) const {
  Permutation items(count_);
  for (int64_t i = 0; i < count_; ++i) { items[i] = i; }
  for (int64_t i = count_ - 1; i > 0; --i) {
    const int64_t other =
        Hash(seed_, PERMUTATION, epoch, i) % static_cast<uint64_t>(i + 1);
    std::swap(items[i], items[other]);
  }
  return items;
}

}  // namespace caffe
