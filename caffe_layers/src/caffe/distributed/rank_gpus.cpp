#include "caffe/distributed/rank_gpus.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/util/hash_bytes.hpp"

namespace caffe {

string ChooseGpu(const CollectiveQueue& ranks, vector<int>* gpus) {
  if (gpus->size() <= 1) { return ""; }
  std::map<string, size_t> ranks_of;
  size_t own = 0;
  for (int rank = 0; rank < ranks.size(); ++rank) {
    const size_t number = ranks_of[ranks.host(rank)]++;
    if (rank == ranks.rank()) { own = number; }
  }
  for (const auto& machine : ranks_of) {
    if (machine.second > gpus->size()) {
      std::ostringstream text;
      text << machine.first << " has " << machine.second << " processes and "
          << gpus->size() << " GPUs for them; expected one for each (or one "
          "GPU that they share: -gpu 0)";
      return text.str();
    }
  }
  gpus->assign(1, (*gpus)[own]);
  return "";
}

#ifdef CPU_ONLY
bool HaveGpusOfTheirOwn(CollectiveQueue* /* ranks */) {
  NO_GPU;
  return false;
}
#else
bool HaveGpusOfTheirOwn(CollectiveQueue* ranks) {
  int device;
  CUDA_CHECK(cudaGetDevice(&device));
  cudaDeviceProp properties;
  CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  const string host = ranks->host(ranks->rank());
  vector<int64_t> cards(ranks->size());
  cards[ranks->rank()] = HashBytes(&properties.uuid, sizeof(properties.uuid),
      HashBytes(host.data(), host.size(), 0));
  ranks->Sum(cards.data(), cards.size());
  std::sort(cards.begin(), cards.end());
  return std::adjacent_find(cards.begin(), cards.end()) == cards.end();
}
#endif

}  // namespace caffe
