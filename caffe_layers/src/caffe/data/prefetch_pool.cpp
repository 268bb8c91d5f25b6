#include "caffe/data/prefetch_pool.hpp"

#include <glog/logging.h>

#include <exception>

namespace caffe {

PrefetchPool::PrefetchPool(int threads, int slots, int items,
    int64_t first_batch, const Load& load, const Finish& finish)
    : slots_(slots), items_(items), load_(load), finish_(finish), stop_(false),
      next_batch_(first_batch), next_item_(0), current_(first_batch),
      missing_(slots, items + 1) {
  CHECK_GE(threads, 1) << "PrefetchPool needs at least one thread";
  CHECK_GE(slots, 1) << "PrefetchPool needs room for at least one batch";
  CHECK_GE(items, 1) << "PrefetchPool: a batch has at least one item";
  CHECK_GE(first_batch, 0) << "PrefetchPool: batches are counted from 0";
  try {
    for (int i = 0; i < threads; ++i) {
      threads_.push_back(std::thread(&PrefetchPool::Run, this));
    }
  } catch (const std::exception& error) {
    LOG(FATAL) << "Cannot start " << threads << " prefetch threads: "
               << error.what();
  }
}

PrefetchPool::~PrefetchPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  slot_free_.notify_all();
  for (size_t i = 0; i < threads_.size(); ++i) { threads_[i].join(); }
}

int PrefetchPool::Wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  const int slot = current_ % slots_;
  while (missing_[slot] > 0) { batch_complete_.wait(lock); }
  return slot;
}

void PrefetchPool::Release() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    missing_[current_ % slots_] = items_ + 1;
    ++current_;
  }
  slot_free_.notify_all();
}

void PrefetchPool::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    while (!stop_ && next_batch_ >= current_ + slots_) {
      slot_free_.wait(lock);
    }
    if (stop_) { return; }
    const int64_t batch = next_batch_;
    const int item = next_item_;
    if (++next_item_ == items_) {
      next_item_ = 0;
      ++next_batch_;
    }
    const int slot = batch % slots_;
    lock.unlock();
    try {
      load_(slot, batch, item);
      lock.lock();
      const bool last = --missing_[slot] == 1;
      if (!last) { continue; }
      if (finish_) {
        lock.unlock();
        finish_(slot);
        lock.lock();
      }
    } catch (const std::exception& error) {
      LOG(FATAL) << "Prefetch thread: " << error.what();
    }
    missing_[slot] = 0;
    batch_complete_.notify_all();
  }
}

}  // namespace caffe
