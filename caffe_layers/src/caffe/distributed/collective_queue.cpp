#include "caffe/distributed/collective_queue.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <numeric>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "caffe/common.hpp"

namespace caffe {

namespace {

const std::chrono::milliseconds BETWEEN_POLLS(100);

thread_local CollectiveQueue* current = NULL;

}  // namespace

CollectiveQueue::CollectiveQueue(std::unique_ptr<Collective> collective)
    : collective_(std::move(collective)), is_busy_(false), ends_(false),
      waited_seconds_(0), events_(NULL), thread_(&CollectiveQueue::Run, this) {}

CollectiveQueue::~CollectiveQueue() {
  if (current == this) { SetCurrent(NULL); }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

CollectiveQueue* CollectiveQueue::Current() { return current; }

void CollectiveQueue::SetCurrent(CollectiveQueue* queue) {
  current = queue;
  Caffe::set_solver_count(queue == NULL ? 1 : queue->size());
  Caffe::set_solver_rank(queue == NULL ? 0 : queue->rank());
}

string CollectiveQueue::Name(int rank) const {
  std::ostringstream name;
  name << "rank " << rank << " (" << host(rank) << ")";
  return name.str();
}

void CollectiveQueue::Abort(int status) {
  collective_->Abort(status);
  std::abort();  // which a compiler cannot know to be too much
}

void CollectiveQueue::AwaitEnd() {
  while (true) { std::this_thread::sleep_for(std::chrono::seconds(1)); }
}

void CollectiveQueue::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    if (jobs_.empty()) {
      if (ends_) { return; }
      if (changed_.wait_for(lock, BETWEEN_POLLS) == std::cv_status::timeout) {
        lock.unlock();
        collective_->Poll();
        lock.lock();
      }
      continue;
    }
    const std::function<void()> job = jobs_.front();
    jobs_.pop_front();
    is_busy_ = true;
    lock.unlock();
    job();
    lock.lock();
    is_busy_ = false;
    if (jobs_.empty()) { changed_.notify_all(); }
  }
}

void CollectiveQueue::Note(size_t bytes) {
  if (events_ == NULL) { return; }
  events_->push_back({std::chrono::duration<double>(
      std::chrono::steady_clock::now().time_since_epoch()).count(), bytes});
}

void CollectiveQueue::Post(size_t bytes, const std::function<void()>& job) {
  Note(bytes);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(job);
  }
  changed_.notify_all();
}

void CollectiveQueue::Wait() {
  const auto began = std::chrono::steady_clock::now();
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return jobs_.empty() && !is_busy_; });
  }
  waited_seconds_ += std::chrono::duration<double>(
      std::chrono::steady_clock::now() - began).count();
  Note(0);
}

void CollectiveQueue::Broadcast(void* values, size_t bytes) {
  Post(bytes, [=] { collective_->Broadcast(values, bytes); });
  Wait();
}

template <typename T>
void CollectiveQueue::Sum(T* values, size_t count) {
  Post(count * sizeof(T), [=] { collective_->Sum(values, count); });
  Wait();
}

template <typename T>
void CollectiveQueue::Gather(std::vector<T>* values) {
  std::vector<int64_t> counts(size());
  counts[rank()] = values->size();
  Sum(counts.data(), counts.size());
  std::partial_sum(counts.begin(), counts.end(), counts.begin());
  std::vector<T> all(counts.back());
  std::copy(values->begin(), values->end(),
      all.begin() + (counts[rank()] - values->size()));
  Sum(all.data(), all.size());
  values->swap(all);
}

template <typename T>
void CollectiveQueue::Average(T* values, size_t count) {
  AverageLater(values, count);
  Wait();
}

template <typename T>
void CollectiveQueue::AverageLater(T* values, size_t count) {
  Post(count * sizeof(T), [=] {
    collective_->Sum(values, count);
    const T size = this->size();
    for (size_t i = 0; i < count; ++i) { values[i] /= size; }
  });
}

template void CollectiveQueue::Sum(int64_t* values, size_t count);
template void CollectiveQueue::Sum(double* values, size_t count);
template void CollectiveQueue::Sum(float* values, size_t count);
template void CollectiveQueue::Gather(std::vector<double>* values);
template void CollectiveQueue::Gather(std::vector<float>* values);
template void CollectiveQueue::Average(double* values, size_t count);
template void CollectiveQueue::Average(float* values, size_t count);
template void CollectiveQueue::AverageLater(double* values, size_t count);
template void CollectiveQueue::AverageLater(float* values, size_t count);

double NormalizerOverRanks(const LayerParameter& loss, double own,
    bool adds_up) {
  CollectiveQueue* const ranks =
      RanksOf(loss.phase(), loss.loss_param().scope());
  double all = own;
  if (ranks != NULL && adds_up) { ranks->Sum(&all, 1); }
  if (!(all > 0)) { all = 1; }
  return ranks == NULL ? all : all / ranks->size();
}

}  // namespace caffe
