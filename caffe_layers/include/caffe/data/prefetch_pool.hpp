#ifndef CAFFE_DATA_PREFETCH_POOL_HPP_
#define CAFFE_DATA_PREFETCH_POOL_HPP_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace caffe {

/**
 * @brief Threads that prepare batches ahead of their use and hand them over in
 *        order.
 *
 * A batch has `items` parts, each made by one call of `load(slot, batch, item)`
 * in some thread; the caller owns `slots` buffers and batch number b lies in
 * buffer b % slots. At most `slots` batches are in the buffers at any time, so
 * memory is bounded. Which thread makes what does not change what is made.
 *
 * `finish(slot)`, where it is given, is called once for each batch when all of
 * its parts are made, by the thread that made the last one and before the batch
 * is handed over; batches may be finished at the same time and in any order.
 *
 * An exception in `load` or `finish` ends the program with its message, as a failing CHECK
 * would: there is no one to whom the thread could return it.
 */
class PrefetchPool {
 public:
  typedef std::function<void(int slot, int64_t batch, int item)> Load;
  typedef std::function<void(int slot)> Finish;

  /// Starts the threads at once, with batch number first_batch.
  PrefetchPool(int threads, int slots, int items, int64_t first_batch,
      const Load& load, const Finish& finish = Finish());
  /// Waits for the loads under way, drops everything else.
  ~PrefetchPool();

  /// Waits until the next batch is complete and returns its slot, which is the
  /// caller's until Release.
  int Wait();
  /// Gives the slot of the last Wait back.
  void Release();

 private:
  PrefetchPool(const PrefetchPool&);
  PrefetchPool& operator=(const PrefetchPool&);

  void Run();

  const int slots_;
  const int items_;
  const Load load_;
  const Finish finish_;
  std::mutex mutex_;
  std::condition_variable slot_free_;
  std::condition_variable batch_complete_;
  bool stop_;
  int64_t next_batch_;  // the next part to load is item next_item_ of this
  int next_item_;
  int64_t current_;     // the batch that the caller waits for or holds
  // What each slot's batch waits for: parts not loaded yet, and one more until
  // it is finished.
  std::vector<int> missing_;
  std::vector<std::thread> threads_;
};

}  // namespace caffe

#endif  // CAFFE_DATA_PREFETCH_POOL_HPP_
