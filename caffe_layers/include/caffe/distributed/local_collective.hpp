#ifndef CAFFE_DISTRIBUTED_LOCAL_COLLECTIVE_HPP_
#define CAFFE_DISTRIBUTED_LOCAL_COLLECTIVE_HPP_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "caffe/distributed/collective.hpp"

namespace caffe {

/// Ranks that are threads of one process.
class LocalCollective : public Collective {
 public:
  /// Makes this many ranks that belong together.
  static std::vector<std::unique_ptr<Collective> > Make(int size);

  virtual int rank() const { return rank_; }
  virtual int size() const;
  virtual std::string host(int /* rank */) const { return "localhost"; }
  virtual void Broadcast(void* values, size_t bytes);
  virtual void Sum(float* values, size_t count) { SumOf(values, count); }
  virtual void Sum(double* values, size_t count) { SumOf(values, count); }
  virtual void Sum(int64_t* values, size_t count) { SumOf(values, count); }
  [[noreturn]] virtual void Abort(int status);

 private:
  struct Group {
    explicit Group(int size) : places(size), waiting(0), round(0) {}
    /// Waits until all ranks have come.
    void Meet();

    std::vector<void*> places;  ///< the ranks' values
    std::mutex mutex;
    std::condition_variable all_came;
    size_t waiting;
    int64_t round;
  };

  LocalCollective(int rank, const std::shared_ptr<Group>& group)
      : rank_(rank), group_(group) {}
  template <typename T>
  void SumOf(T* values, size_t count);

  const int rank_;
  const std::shared_ptr<Group> group_;
};

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_LOCAL_COLLECTIVE_HPP_
