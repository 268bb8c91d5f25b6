#ifndef CAFFE_DISTRIBUTED_PYTHON_RANKS_HPP_
#define CAFFE_DISTRIBUTED_PYTHON_RANKS_HPP_

#include <boost/python.hpp>

#include <algorithm>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "caffe/distributed/emulated_collective.hpp"
#include "caffe/distributed/gradient_exchange.hpp"
#include "caffe/distributed/launch.hpp"
#include "caffe/distributed/rank_comparison.hpp"
#include "caffe/distributed/rank_gpus.hpp"
#include "caffe/gpu/gpu_device.hpp"

namespace caffe {

/// The ranks that a Python program trains with: caffe.join_ranks() of pycaffe.
class PythonRanks {
 public:
  /// None where the process trains alone; a RuntimeError tells a fault.
  static boost::python::object Join() {
    std::string fault;
    std::unique_ptr<CollectiveQueue> queue = JoinRanks(&fault);
    if (!fault.empty()) { throw std::runtime_error(fault); }
    if (!queue) { return boost::python::object(); }
    return boost::python::object(
        shared_ptr<PythonRanks>(new PythonRanks(std::move(queue))));
  }

  /// The first of this many ranks, alone (EmulatedCollective); it records what
  /// would be exchanged.
  static shared_ptr<PythonRanks> Emulate(int size) {
    const shared_ptr<PythonRanks> ranks(
        new PythonRanks(std::unique_ptr<CollectiveQueue>(new CollectiveQueue(
            std::unique_ptr<Collective>(new EmulatedCollective(size))))));
    CollectiveQueue::SetCurrent(ranks->queue_.get());
    ranks->queue_->Record(&ranks->events_);
    return ranks;
  }

  int rank() const { return queue_->rank(); }
  int size() const { return queue_->size(); }
  std::string Name(int rank) const { return queue_->Name(rank); }
  double waited_seconds() const { return queue_->waited_seconds(); }
  void Abort(int status) { queue_->Abort(status); }

  /// The sums over all ranks of a list's numbers: T is int64_t or double.
  template <typename T>
  boost::python::list Sum(const boost::python::list& numbers) {
    std::vector<T> values(boost::python::len(numbers));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = boost::python::extract<T>(numbers[i]);
    }
    queue_->Sum(values.data(), values.size());
    boost::python::list sums;
    for (const T value : values) { sums.append(value); }
    return sums;
  }

  /// The one of these GPUs, [] of all that are visible, that is this rank's.
  int ChooseGpu(const boost::python::list& numbers) const {
    std::vector<int> gpus;
    for (int i = 0; i < boost::python::len(numbers); ++i) {
      gpus.push_back(boost::python::extract<int>(numbers[i]));
    }
    if (gpus.empty()) {
      // where there is none the first is asked for, whose absence is told
      gpus.resize(std::max(1, GpuCount()));
      std::iota(gpus.begin(), gpus.end(), 0);
    }
    const std::string fault = caffe::ChooseGpu(*queue_, &gpus);
    if (!fault.empty()) { throw std::runtime_error(fault); }
    return gpus[0];
  }

  /// FindDifference's line.
  std::string FindDifferenceOfText(const std::string& what,
      const std::string& own) {
    return FindDifference(what, own, queue_.get());
  }
  std::string FindDifferenceOfSolver(const shared_ptr<Solver<float> >& solver) {
    return FindDifference(solver.get(), queue_.get());
  }
  std::string FindDifferenceOfNet(const shared_ptr<Net<float> >& net) {
    return FindDifferenceOfData(*net, queue_.get());
  }

  /// Takes the events (seconds, bytes) that were recorded since the last time.
  boost::python::list TakeEvents() {
    boost::python::list events;
    for (const CollectiveQueue::Event& event : events_) {
      events.append(boost::python::make_tuple(event.seconds, event.bytes));
    }
    events_.clear();
    return events;
  }

  /// Lets a solver, which has its first weights, train with those of all ranks.
  void Exchange(const shared_ptr<Solver<float> >& solver) {
    solver_ = solver;
    exchange_.reset(new GradientExchange<float>(solver.get(), queue_.get()));
  }

  /// Ends the connection to the other ranks, which all do.
  void Leave() {
    CollectiveQueue::SetCurrent(NULL);
    queue_.reset();
  }

  static void Define() {
    using boost::python::class_;
    class_<PythonRanks, shared_ptr<PythonRanks>, boost::noncopyable>(
        "Ranks", boost::python::no_init)
        .add_property("rank", &PythonRanks::rank)
        .add_property("size", &PythonRanks::size)
        .add_property("waited_seconds", &PythonRanks::waited_seconds)
        .def("name", &PythonRanks::Name)
        .def("sum_integers", &PythonRanks::Sum<int64_t>)
        .def("sum_floats", &PythonRanks::Sum<double>)
        .def("choose_gpu", &PythonRanks::ChooseGpu)
        .def("difference", &PythonRanks::FindDifferenceOfText)
        .def("difference_of_solver", &PythonRanks::FindDifferenceOfSolver)
        .def("difference_of_data", &PythonRanks::FindDifferenceOfNet)
        .def("take_events", &PythonRanks::TakeEvents)
        .def("exchange", &PythonRanks::Exchange)
        .def("abort", &PythonRanks::Abort)
        .def("leave", &PythonRanks::Leave);
    boost::python::def("join_ranks", &PythonRanks::Join);
    boost::python::def("emulate_ranks", &PythonRanks::Emulate);
  }

 private:
  explicit PythonRanks(std::unique_ptr<CollectiveQueue> queue)
      : queue_(std::move(queue)) {}

  std::vector<CollectiveQueue::Event> events_;  // recorded by the queue
  std::unique_ptr<CollectiveQueue> queue_;
  shared_ptr<Solver<float> > solver_;  // gradients are in the exchange's memory
  std::unique_ptr<GradientExchange<float> > exchange_;
};

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_PYTHON_RANKS_HPP_
