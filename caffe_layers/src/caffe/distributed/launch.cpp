#include "caffe/distributed/launch.hpp"

#include <dlfcn.h>
#include <glog/logging.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <utility>

#include "caffe/common.hpp"
#include "caffe/distributed/mpi_library.hpp"

namespace caffe {

namespace {

const char SECONDS[] = "CAFFE_MPI_SECONDS";
const double DEFAULT_SECONDS = 50;

/// How many processes were started together, as those who start them say: Open
/// MPI's mpirun, Slurm's srun, MPICH's mpirun.
int StartedTogether() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "PMI_SIZE"}) {
    const char* const size = std::getenv(name);
    if (size != NULL && std::atoi(size) > 0) { return std::atoi(size); }
  }
  return 1;
}

string FolderOfThisLibrary() {
  const string file = LibraryOfCaffe();
  const size_t slash = file.rfind('/');
  return slash == string::npos ? "." : file.substr(0, slash);
}

[[noreturn]] void EndAllRanks() {
  CollectiveQueue* const ranks = CollectiveQueue::Current();
  if (ranks == NULL) { std::abort(); }  // another thread's, which named itself
  fprintf(stderr, "caffe: %s: iteration %d: ended by what is said above\n",
      ranks->Name(ranks->rank()).c_str(), ranks->iteration());
  ranks->Abort(FAILED);
}

}  // namespace

string LibraryOfCaffe() {
  Dl_info info;
  const bool is_found =
      dladdr(reinterpret_cast<void*>(&JoinRanks), &info) != 0;
  return is_found ? info.dli_fname : "libcaffe.so";
}

double SecondsOfPatience() {
  const char* const seconds = std::getenv(SECONDS);
  return seconds == NULL ? DEFAULT_SECONDS : std::atof(seconds);
}

std::unique_ptr<CollectiveQueue> JoinRanks(string* fault) {
  const int wanted = StartedTogether();
  if (wanted == 1) { return NULL; }
  std::ostringstream text;
  const string file = FolderOfThisLibrary() + "/libcaffe_mpi.so";
  void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (handle == NULL) {
    text << wanted << " processes were started together, and this build cannot "
        "let them train together; `make mpi` adds that (" << dlerror() << ")";
    *fault = text.str();
    return NULL;
  }
  const MpiLibrary* const library =
      static_cast<const MpiLibrary*>(dlsym(handle, MPI_LIBRARY));
  if (library == NULL || library->interface != Collective::INTERFACE) {
    *fault = file + ": is of another build; run `make mpi` again";
    return NULL;
  }
  const double limit = SecondsOfPatience();
  if (!(limit > 0)) {
    *fault = string(SECONDS) + "=" + std::getenv(SECONDS) + ": expected a number of seconds "
        "that one process waits for another, over 0";
    return NULL;
  }
  std::unique_ptr<Collective> collective(library->start(limit, fault));
  if (!collective) { return NULL; }
  if (collective->size() != wanted) {
    text << wanted << " processes were started together, and MPI knows of "
        << collective->size() << ": they were started by another MPI than `make "
        "mpi` has built for; `make mpi MPICXX=...` chooses";
    *fault = text.str();
    return NULL;
  }
  std::unique_ptr<CollectiveQueue> ranks(
      new CollectiveQueue(std::move(collective)));
  CollectiveQueue::SetCurrent(ranks.get());
  return ranks;
}

void NameRankWhereItFails() {
  google::InstallFailureFunction(
      reinterpret_cast<google::logging_fail_func_t>(&EndAllRanks));
}

}  // namespace caffe
