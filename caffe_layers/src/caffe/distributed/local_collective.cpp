#include "caffe/distributed/local_collective.hpp"

#include <cstdlib>
#include <cstring>

namespace caffe {

std::vector<std::unique_ptr<Collective> > LocalCollective::Make(int size) {
  const std::shared_ptr<Group> group(new Group(size));
  std::vector<std::unique_ptr<Collective> > ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back(new LocalCollective(rank, group));
  }
  return ranks;
}

int LocalCollective::size() const { return group_->places.size(); }

void LocalCollective::Group::Meet() {
  std::unique_lock<std::mutex> lock(mutex);
  const int64_t own = round;
  if (++waiting == places.size()) {
    waiting = 0;
    ++round;
    all_came.notify_all();
    return;
  }
  all_came.wait(lock, [this, own] { return round != own; });
}

void LocalCollective::Broadcast(void* values, size_t bytes) {
  group_->places[rank_] = values;
  group_->Meet();
  if (rank_ != 0) { std::memcpy(values, group_->places[0], bytes); }
  group_->Meet();
}

namespace {

template <typename T>
T Added(T a, T b) { return a + b; }
/// Of checksums, whose sum has no room in 64 bits.
template <>
int64_t Added(int64_t a, int64_t b) {
  return static_cast<uint64_t>(a) + static_cast<uint64_t>(b);
}

}  // namespace

template <typename T>
void LocalCollective::SumOf(T* values, size_t count) {
  group_->places[rank_] = values;
  group_->Meet();
  std::vector<T> sum(count);
  for (const void* place : group_->places) {
    const T* own = static_cast<const T*>(place);
    for (size_t i = 0; i < count; ++i) { sum[i] = Added(sum[i], own[i]); }
  }
  group_->Meet();
  std::copy(sum.begin(), sum.end(), values);
}

void LocalCollective::Abort(int status) { std::_Exit(status); }

}  // namespace caffe
