#ifndef CAFFE_DISTRIBUTED_COLLECTIVE_QUEUE_HPP_
#define CAFFE_DISTRIBUTED_COLLECTIVE_QUEUE_HPP_

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "caffe/distributed/collective.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief A thread that alone calls a Collective, in the order in which it was
 *        asked: as all ranks ask in the same order, none waits for ever for
 *        another, whatever goes on beside backward.
 */
class CollectiveQueue {
 public:
  explicit CollectiveQueue(std::unique_ptr<Collective> collective);
  /// Does first what was asked.
  ~CollectiveQueue();

  /// That of the ranks which the calling thread trains with; NULL: with none.
  static CollectiveQueue* Current();
  /// Lets the calling thread train with these ranks, NULL: alone, Caffe's
  /// solver_rank and solver_count included.
  static void SetCurrent(CollectiveQueue* queue);

  int rank() const { return collective_->rank(); }
  int size() const { return collective_->size(); }
  /// The name of the machine of a rank.
  std::string host(int rank) const { return collective_->host(rank); }
  /// A rank and its machine, in words.
  std::string Name(int rank) const;
  [[noreturn]] void Abort(int status);
  int iteration() const { return collective_->iteration(); }
  void set_iteration(int iteration) { collective_->set_iteration(iteration); }

  /// As Collective's; they come back when all ranks have what they ask for.
  void Broadcast(void* values, size_t bytes);
  template <typename T>
  void Sum(T* values, size_t count);
  /// Adds those of all ranks to the values, which may be more on one than on
  /// another; afterwards all ranks have the same, in the same order.
  template <typename T>
  void Gather(std::vector<T>* values);
  /// Puts the means over all ranks in the place of the values.
  template <typename T>
  void Average(T* values, size_t count);
  /// Begins with that; the values are in use until Wait.
  template <typename T>
  void AverageLater(T* values, size_t count);
  /// Waits until all is done that was asked.
  void Wait();

  /// Sleeps: for a rank that knows that another one ends all.
  [[noreturn]] void AwaitEnd();

  /// Something that the asking thread has done.
  struct Event {
    double seconds;  ///< when, of a clock that begins anywhere
    size_t bytes;    ///< that it asked to be exchanged; 0: it has waited for all
  };
  /// Adds from now on what is asked to `events`, NULL: to none.
  void Record(std::vector<Event>* events) { events_ = events; }

  /// Seconds that the asking thread has waited so far: what of communication
  /// was not hidden behind computation, the waiting for slower ranks included.
  double waited_seconds() const { return waited_seconds_; }
  /// Adds what it has waited for something that other means exchange.
  void AddWaited(double seconds) { waited_seconds_ += seconds; }

 private:
  void Post(size_t bytes, const std::function<void()>& job);
  void Note(size_t bytes);
  void Run();

  const std::unique_ptr<Collective> collective_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()> > jobs_;
  bool is_busy_, ends_;
  double waited_seconds_;
  std::vector<Event>* events_;
  std::thread thread_;  // last: it uses all others

  CollectiveQueue(const CollectiveQueue&) = delete;
  CollectiveQueue& operator=(const CollectiveQueue&) = delete;
};

/// The ranks that a layer of a net in this phase computes together with; NULL
/// where it is alone: with its own part of the batch (LOCAL), or in a TEST net,
/// of which the ranks see batches of their own each.
inline CollectiveQueue* RanksOf(Phase phase, BatchScope scope = WHOLE) {
  return phase == TRAIN && scope == WHOLE ? CollectiveQueue::Current() : NULL;
}

/// Puts the means over all ranks in the place of the values.
template <typename Dtype>
void AverageOverRanks(Phase phase, int count, Dtype* values) {
  if (CollectiveQueue* ranks = RanksOf(phase)) {
    ranks->Average(values, count);
  }
}

/**
 * @brief What a loss divides the sum over its rank's part of the batch by, so
 *        that the mean of the ranks' losses is the loss of the whole batch;
 *        with the scope LOCAL, what it divides by alone.
 *
 * @param loss the layer
 * @param own what it would be for this part: a number of pixels, of images;
 *        0 counts as 1, for all parts together
 * @param adds_up whether that of the whole batch is the parts' sum
 */
double NormalizerOverRanks(const LayerParameter& loss, double own,
    bool adds_up);

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_COLLECTIVE_QUEUE_HPP_
