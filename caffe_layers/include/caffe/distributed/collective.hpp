#ifndef CAFFE_DISTRIBUTED_COLLECTIVE_HPP_
#define CAFFE_DISTRIBUTED_COLLECTIVE_HPP_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace caffe {

/**
 * @brief What a number of processes (ranks) that train together do together.
 *
 * All ranks make the same calls in the same order. A call that cannot be done,
 * as another rank is gone or does not come, ends the process with a line that
 * says so. One thread at a time may call.
 *
 * This header knows nothing else of Caffe: the library that knows MPI is
 * compiled by another compiler than Caffe may be.
 */
class Collective {
 public:
  /// Changes with this class, so that no library of another build is used.
  static const int INTERFACE = 1;

  Collective() : iteration_(0) {}
  virtual ~Collective() {}
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// The name of the machine of a rank.
  virtual std::string host(int rank) const = 0;
  /// Gives all ranks what rank 0 has.
  virtual void Broadcast(void* values, size_t bytes) = 0;
  /// Puts the sums over all ranks in the place of the values, on every rank.
  virtual void Sum(float* values, size_t count) = 0;
  virtual void Sum(double* values, size_t count) = 0;
  virtual void Sum(int64_t* values, size_t count) = 0;
  /// To be called now and then by the calling thread while it has nothing to do.
  virtual void Poll() {}
  /// Ends all ranks with this exit status; of this one without a farewell.
  [[noreturn]] virtual void Abort(int status) = 0;

  /// Where the training is, for messages.
  int iteration() const { return iteration_; }
  void set_iteration(int iteration) { iteration_ = iteration; }

 private:
  std::atomic<int> iteration_;
};

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_COLLECTIVE_HPP_
