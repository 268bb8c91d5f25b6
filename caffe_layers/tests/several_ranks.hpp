#ifndef CAFFE_TEST_SEVERAL_RANKS_HPP_
#define CAFFE_TEST_SEVERAL_RANKS_HPP_

#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "caffe/distributed/collective_queue.hpp"
#include "caffe/distributed/local_collective.hpp"

namespace caffe {

/// Does something in threads that are ranks of each other, and waits for all.
inline void OnRanks(int size, const std::function<void(CollectiveQueue*)>& work) {
  std::vector<std::unique_ptr<Collective> > ranks = LocalCollective::Make(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    std::unique_ptr<Collective>* const own = &ranks[rank];
    threads.emplace_back([own, &work] {
      CollectiveQueue queue(std::move(*own));
      CollectiveQueue::SetCurrent(&queue);
      work(&queue);
    });
  }
  for (std::thread& thread : threads) { thread.join(); }
}

}  // namespace caffe

#endif  // CAFFE_TEST_SEVERAL_RANKS_HPP_
