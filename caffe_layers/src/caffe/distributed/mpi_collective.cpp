// The only file that knows MPI: compiled by `make mpi`, by MPI's own compiler,
// into a library of its own (mpi_library.hpp).
#include <mpi.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/distributed/collective.hpp"
#include "caffe/distributed/mpi_library.hpp"
#include "caffe/distributed/mpi_version.hpp"

namespace caffe {

namespace {

typedef std::chrono::steady_clock Clock;

const size_t LONGEST_NAME = 64;
const size_t MOST_VALUES = size_t(1) << 28;  // MPI counts in int
const double SECONDS_TO_ANSWER = 3;
const double SECONDS_TO_READ = 5;
const double SECONDS_AWAKE = 0.002;

double SecondsSince(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

template <typename T> MPI_Datatype TypeOf();
template <> MPI_Datatype TypeOf<float>() { return MPI_FLOAT; }
template <> MPI_Datatype TypeOf<double>() { return MPI_DOUBLE; }
template <> MPI_Datatype TypeOf<int64_t>() { return MPI_INT64_T; }

/// Open MPI's mpirun among the processes that this one comes from; 0: it is on
/// another host, or there is none.
pid_t FindLauncher() {
  pid_t process = getppid();
  while (process > 1) {
    const std::string folder = "/proc/" + std::to_string(process);
    std::string name;
    std::ifstream(folder + "/comm") >> name;
    if (name == "prterun") { return process; }
    std::ifstream status(folder + "/status");
    std::string word;
    process = 0;
    while (status >> word) {
      if (word == "PPid:") {
        status >> process;
        break;
      }
    }
  }
  return 0;
}

/**
 * @brief Ends Open MPI's mpirun a little later.
 *
 * Else it would wait for a host that it does not reach as long as the system's
 * connections do, a quarter of an hour, and then end as if all had gone well. It
 * asks whether one means it, so that it takes three signals.
 */
void EndLauncher() {
  const pid_t launcher = FindLauncher();
  if (launcher == 0 || fork() != 0) { return; }
  setsid();  // mpirun ends this process's group
  for (int i = 0; i < 3; ++i) {
    sleep(1);
    kill(launcher, SIGTERM);
  }
  _exit(0);
}

/// Waits for the launcher to read what this process has written: one that is
/// busy would hear of the end first, and tell it before the reason or without it.
void AwaitReader(int file) {
  struct stat kind = {};
  if (fstat(file, &kind) != 0 || !S_ISFIFO(kind.st_mode)) { return; }
  const Clock::time_point began = Clock::now();
  int unread = 0;
  while (ioctl(file, FIONREAD, &unread) == 0 && unread > 0 && SecondsSince(began) < SECONDS_TO_READ) { usleep(1000); }
}

/// What a rank tells another one that asks what keeps it.
struct Note {
  int64_t is_question;
  int64_t calls;      ///< of the rank that sends it, begun so far
  int64_t is_in_call;
  int64_t iteration;
};

/**
 * @brief Ranks that are processes of MPI.
 *
 * A call that takes too long asks all other ranks where they are; those that
 * wait, too, and those that compute answer, and so the one that keeps all others
 * is found.
 */
class MpiCollective : public Collective {
 public:
  explicit MpiCollective(double seconds)
      : seconds_(seconds), calls_(0), is_in_call_(false), first_stderr_(dup(STDERR_FILENO)) {
    MPI_Comm_dup(MPI_COMM_WORLD, &values_);
    MPI_Comm_dup(MPI_COMM_WORLD, &notes_);
    for (MPI_Comm communicator : {MPI_COMM_WORLD, values_, notes_}) {
      MPI_Comm_set_errhandler(communicator, MPI_ERRORS_RETURN);
    }
    MPI_Comm_rank(values_, &rank_);
    MPI_Comm_size(values_, &size_);
    std::vector<char> own(LONGEST_NAME);
    gethostname(own.data(), own.size() - 1);
    hosts_.resize(size_ * LONGEST_NAME);
    MPI_Allgather(own.data(), LONGEST_NAME, MPI_CHAR, hosts_.data(), LONGEST_NAME, MPI_CHAR, values_);
    told_.resize(size_);
    has_told_.resize(size_);
    sent_.assign(size_, MPI_REQUEST_NULL);
    sent_notes_.resize(size_);
    Listen();
  }

  virtual ~MpiCollective() {
    MPI_Request done;
    MPI_Ibarrier(values_, &done);
    Complete(&done, "the end");
    MPI_Cancel(&listens_);
    MPI_Wait(&listens_, MPI_STATUS_IGNORE);
    MPI_Finalize();
  }

  virtual int rank() const { return rank_; }
  virtual int size() const { return size_; }
  virtual std::string host(int rank) const { return &hosts_[rank * LONGEST_NAME]; }

  virtual void Broadcast(void* values, size_t bytes) {
    char* at = static_cast<char*>(values);
    for (size_t first = 0; first < bytes; first += MOST_VALUES) {
      MPI_Request done;
      Begin();
      Check(MPI_Ibcast(at + first, std::min(MOST_VALUES, bytes - first), MPI_CHAR, 0, values_, &done));
      Complete(&done, "the weights of the first process");
    }
  }
  virtual void Sum(float* values, size_t count) { SumOf(values, count); }
  virtual void Sum(double* values, size_t count) { SumOf(values, count); }
  virtual void Sum(int64_t* values, size_t count) { SumOf(values, count); }

  virtual void Poll() {
    int has_come = 0;
    MPI_Status status;
    while (MPI_Test(&listens_, &has_come, &status) == MPI_SUCCESS && has_come) {
      const Note note = heard_;
      const int from = status.MPI_SOURCE;
      Listen();
      if (note.is_question) { Send(from, false); }
      told_[from] = note;
      has_told_[from] = 1;
    }
  }

  [[noreturn]] virtual void Abort(int status) {
    fflush(NULL);
    for (int file : {STDOUT_FILENO, STDERR_FILENO, first_stderr_}) { AwaitReader(file); }
    MPI_Abort(MPI_COMM_WORLD, status);
    std::_Exit(status);
  }

 private:
  void Listen() {
    MPI_Irecv(&heard_, sizeof(heard_), MPI_BYTE, MPI_ANY_SOURCE, 0, notes_, &listens_);
  }

  void Send(int to, bool is_question) {
    int is_free = 0;
    MPI_Test(&sent_[to], &is_free, MPI_STATUS_IGNORE);
    if (!is_free) { return; }  // it has not heard the last one yet
    sent_notes_[to] = {is_question, calls_, is_in_call_, iteration()};
    MPI_Isend(&sent_notes_[to], sizeof(Note), MPI_BYTE, to, 0, notes_, &sent_[to]);
  }

  void Begin() {
    ++calls_;
    is_in_call_ = true;
  }

  template <typename T>
  void SumOf(T* values, size_t count) {
    for (size_t first = 0; first < count; first += MOST_VALUES) {
      MPI_Request done;
      Begin();
      Check(MPI_Iallreduce(MPI_IN_PLACE, values + first, std::min(MOST_VALUES, count - first), TypeOf<T>(), MPI_SUM,
          values_, &done));
      Complete(&done, "what all processes have computed");
    }
  }

  /// Waits for a call of all ranks; the processor is others' after a while.
  void Complete(MPI_Request* request, const char* what) {
    const Clock::time_point began = Clock::now();
    int is_done = 0;
    while (true) {
      Check(MPI_Test(request, &is_done, MPI_STATUS_IGNORE));
      if (is_done) { break; }
      const double seconds = SecondsSince(began);
      if (seconds > seconds_) { GiveUp(what); }
      if (seconds < SECONDS_AWAKE) {
        sched_yield();
      } else {
        Poll();
        usleep(50);
      }
    }
    is_in_call_ = false;
  }

  void Check(int error) {
    if (error == MPI_SUCCESS) { return; }
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(error, text, &length);
    Say(std::string("the other processes cannot be reached: ") + text);
    Abort(FAILED);
  }

  /// Says it also where standard error went at the start: by now a program may
  /// have sent what Caffe logs into a file.
  void Say(const std::string& text) const {
    fflush(stderr);
    struct stat now = {}, first = {};
    fstat(STDERR_FILENO, &now);
    fstat(first_stderr_, &first);
    const bool is_same = now.st_dev == first.st_dev && now.st_ino == first.st_ino;
    for (int file : {STDERR_FILENO, is_same ? -1 : first_stderr_}) {
      dprintf(file, "caffe: rank %d (%s): iteration %d: %s\n", rank_, host(rank_).c_str(), iteration(), text.c_str());
    }
  }

  /// Finds out who keeps all others, says it, and ends all.
  [[noreturn]] void GiveUp(const char* what) {
    std::fill(has_told_.begin(), has_told_.end(), 0);
    for (int rank = 0; rank < size_; ++rank) {
      if (rank != rank_) { Send(rank, true); }
    }
    const Clock::time_point began = Clock::now();
    while (SecondsSince(began) < SECONDS_TO_ANSWER) {
      Poll();
      usleep(1000);
    }
    std::ostringstream text;
    text << "waited " << seconds_ << " seconds for " << what;
    bool is_first = true, has_lost_host = false;
    for (int rank = 0; rank < size_; ++rank) {
      if (rank == rank_) { continue; }
      const bool waits = has_told_[rank] && told_[rank].is_in_call && told_[rank].calls == calls_;
      if (waits) {
        is_first = is_first && rank > rank_;
        continue;
      }
      text << "; rank " << rank << " (" << host(rank) << ") ";
      if (has_told_[rank]) {
        text << "is still busy in iteration " << told_[rank].iteration;
      } else {
        text << "does not answer";
        has_lost_host = has_lost_host || host(rank) != host(rank_);
      }
    }
    // of those that wait one tells it
    if (!is_first) { usleep(static_cast<int>(2e6 * SECONDS_TO_ANSWER)); }
    Say(text.str());
    if (has_lost_host) { EndLauncher(); }
    Abort(FAILED);
  }

  const double seconds_;
  MPI_Comm values_, notes_;
  int rank_, size_;
  std::vector<char> hosts_;
  int64_t calls_;
  bool is_in_call_;
  const int first_stderr_;
  Note heard_;
  MPI_Request listens_;
  std::vector<Note> told_, sent_notes_;
  std::vector<char> has_told_;
  std::vector<MPI_Request> sent_;
};

Collective* Start(double seconds, std::string* fault) {
  char version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(version, &length);
  const std::string found = MpiVersion(std::string(version, length));
  if (!AreMpisCompatible(found, CAFFE_MPI_VERSION)) {
    *fault = "MPI is " + found + ", and `make mpi` has built for " CAFFE_MPI_VERSION
        "; run it again";
    return NULL;
  }
  // Open MPI sums in place along a tree: as many times slower as that is high
  setenv("OMPI_MCA_coll_libnbc_iallreduce_algorithm", "ring", 0);
  int provided = 0;
  if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS ||
      provided < MPI_THREAD_SERIALIZED) {
    *fault = std::string(CAFFE_MPI_VERSION) + " does not start, or not for threads";
    return NULL;
  }
  return new MpiCollective(seconds);
}

}  // namespace

extern "C" const MpiLibrary caffe_mpi_library = {Collective::INTERFACE, &Start};

}  // namespace caffe
