#include "caffe/distributed/exchange_plan.hpp"

#include <algorithm>
#include <vector>

namespace caffe {

ExchangePlan::ExchangePlan(const std::vector<Parameter>& parameters,
    size_t value_bytes) : count_(0) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].learns && parameters[i].count > 0) {
      places_.push_back({static_cast<int>(i), 0});
    }
  }
  std::stable_sort(places_.begin(), places_.end(),
      [&parameters](const Place& one, const Place& other) {
        return parameters[one.parameter].lowest_layer >
            parameters[other.parameter].lowest_layer;
      });
  bool is_open = false;
  for (Place& place : places_) {
    const Parameter& parameter = parameters[place.parameter];
    if (!is_open) { buckets_.push_back({count_, 0, 0}); }
    Bucket& bucket = buckets_.back();
    place.first = count_;
    count_ += parameter.count;
    bucket.count += parameter.count;
    bucket.ready_after = parameter.lowest_layer;
    is_open = bucket.count * value_bytes <
        (buckets_.size() == 1 ? FIRST_BUCKET_BYTES : BUCKET_BYTES);
  }
}

}  // namespace caffe
