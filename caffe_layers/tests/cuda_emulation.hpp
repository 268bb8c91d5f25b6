#ifndef CAFFE_TEST_CUDA_EMULATION_HPP_
#define CAFFE_TEST_CUDA_EMULATION_HPP_

/**
 * Runs the source of CUDA kernels on the host, one thread block after another,
 * so that their index arithmetic and their barriers are tested without a GPU.
 * Included before the .cuh headers in question, in builds without CUDA's own
 * headers (CPU_ONLY, and GPU=EMULATED, whose cuda_runtime.h includes it);
 * CAFFE_CUDA_EMULATION is defined where it is active.
 *
 * Every thread of a block is a fiber of one host thread. It runs until it
 * waits for others (__syncthreads, __syncwarp, a shuffle) or ends; then the
 * first runnable thread of a chosen order goes on. A kernel is right only if
 * every order gives the same result: a missing barrier shows as a difference
 * between Settings::ASCENDING and DESCENDING at the latest.
 *
 * What a device would answer with a hang or with garbage is an Error here,
 * which names the kernel, the block and the source line: barriers and shuffles
 * that not all threads reach, shuffles from lanes that take no part, too many
 * threads, too much shared memory, writes beyond it. Shared memory is full of
 * NaN (integers: -1) when a block starts.
 */
#if (defined(CPU_ONLY) || defined(CAFFE_EMULATED_GPU)) && !defined(__CUDACC__) \
    && !defined(__VECTOR_TYPES_H__)
#define CAFFE_CUDA_EMULATION

#include <cxxabi.h>
#include <dlfcn.h>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <new>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <vector>

#pragma GCC diagnostic ignored "-Wunknown-pragmas"  // #pragma unroll

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

// --- CUDA's vector types ---------------------------------------------------

#define CAFFE_EMULATED_VECTORS(scalar, name)                              \
  struct alignas(2 * sizeof(scalar)) name##2 { scalar x, y; };            \
  struct name##3 { scalar x, y, z; };                                     \
  struct alignas(sizeof(scalar) == 8 ? 16 : 4 * sizeof(scalar)) name##4 { \
    scalar x, y, z, w;                                                    \
  };                                                                      \
  inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }    \
  inline name##3 make_##name##3(scalar x, scalar y, scalar z) {           \
    return {x, y, z};                                                     \
  }                                                                       \
  inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { \
    return {x, y, z, w};                                                  \
  }
CAFFE_EMULATED_VECTORS(float, float)
CAFFE_EMULATED_VECTORS(double, double)
CAFFE_EMULATED_VECTORS(int, int)
CAFFE_EMULATED_VECTORS(unsigned, uint)
#undef CAFFE_EMULATED_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1)
      : x(x_size), y(y_size), z(z_size) {}
};

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace caffe {
namespace emulation {

/// What a launch answers where the kernel or the launch itself is wrong.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// How the launches that follow are run.
struct Settings {
  enum Order {
    ASCENDING,   // thread 0 goes first wherever it can
    DESCENDING,  // the last thread goes first
    SHUFFLED     // a new order after every barrier, drawn from `seed`
  };
  Order order = ASCENDING;
  unsigned seed = 1;
  size_t shared_memory_limit = 227 * 1024;  // bytes a block, those of sm_90
  std::string kernel;  // the kernel's name in messages; empty: its type
};

inline Settings& settings() {
  static Settings instance;
  return instance;
}

/// A line of source that threads wait at.
struct Place {
  const char* file;
  int line;
  bool operator==(const Place& other) const {
    return line == other.line
        && (file == other.file || !strcmp(file, other.file));
  }
};

inline std::ostream& operator<<(std::ostream& out, const Place& place) {
  const char* slash = strrchr(place.file, '/');
  return out << (slash ? slash + 1 : place.file) << ":" << place.line;
}

// --- Fibers ----------------------------------------------------------------

#ifdef __x86_64__
/// Keeps the registers that a call must preserve on this stack, whose top goes
/// to *from, and goes on from those that lie at `to`. (swapcontext does this
/// with a system call, thirty times as slow.)
__attribute__((naked, noinline)) inline void SwitchStacks(
    void** /* from */, void* /* to */) {
  asm("pushq %rbp\n pushq %rbx\n pushq %r12\n"
      "pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n"
      "popq %r12\n popq %rbx\n popq %rbp\n ret");
}
#endif

/// A stack and where its execution halted.
class Fiber {
 public:
  /// To run `entry`, which must never return, on the given stack.
  void Prepare(char* stack, size_t size, void (*entry)()) {
    stack_ = stack;
    size_ = size;
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(stack, size);
    fake_stack_ = NULL;
#endif
#ifdef __x86_64__
    void** top = reinterpret_cast<void**>(stack + size);
    memset(static_cast<void*>(top - 8), 0, 8 * sizeof(*top));
    top[-2] = reinterpret_cast<void*>(entry);  // below it: six registers
    halted_ = top - 8;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = size;
    context_.uc_link = NULL;
    makecontext(&context_, entry, 0);
#endif
  }

  void SwitchTo(Fiber* next) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&fake_stack_, next->stack_, next->size_);
#endif
#ifdef __x86_64__
    SwitchStacks(&halted_, next->halted_);
#else
    swapcontext(&context_, &next->context_);
#endif
    Arrived(this);
  }

  /// To be called first wherever execution goes on.
  static void Arrived(Fiber* self) {
    (void)self;
#ifdef __SANITIZE_ADDRESS__
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(self->fake_stack_, &bottom, &size);
    if (!launcher().stack_) {  // the first switch away from the launcher
      launcher().stack_ = const_cast<char*>(static_cast<const char*>(bottom));
      launcher().size_ = size;
    }
#endif
  }

  /// The execution that launches kernels, on the host thread's own stack.
  static Fiber& launcher() {
    static Fiber instance;
    return instance;
  }

 private:
  char* stack_ = NULL;
  size_t size_ = 0;
#ifdef __x86_64__
  void* halted_ = NULL;
#else
  ucontext_t context_;
#endif
#ifdef __SANITIZE_ADDRESS__
  void* fake_stack_ = NULL;
#endif
};

/// Stacks for the threads of a block, each behind a page that no one may touch.
inline char* Stack(int thread, size_t* size) {
  static const size_t kPage = 4096, kSize = 64 * kPage;
  static std::vector<char*> stacks;
  while (static_cast<int>(stacks.size()) <= thread) {
    void* memory = mmap(NULL, kPage + kSize, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kPage, PROT_NONE)) {
      throw std::bad_alloc();
    }
    stacks.push_back(static_cast<char*>(memory) + kPage);
  }
  *size = kSize;
  return stacks[thread];
}

// --- A block ---------------------------------------------------------------

/// Dynamic shared memory of exactly the asked size between two guard zones.
class SharedMemory {
 public:
  explicit SharedMemory(size_t bytes)
      : bytes_(bytes), memory_(static_cast<unsigned char*>(
            std::aligned_alloc(kGuard, 2 * kGuard + Rounded(bytes)))) {
    if (!memory_) throw std::bad_alloc();
    memset(memory_, 0xFF, 2 * kGuard + Rounded(bytes));
    Guard(true);
  }
  ~SharedMemory() {
    Guard(false);
    std::free(memory_);
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void* data() const { return memory_ + kGuard; }

  /// The first changed byte around the memory, counted from its start; 0 where
  /// there is none (and byte 0 is none of the guards').
  std::ptrdiff_t Overrun() {
    Guard(false);
    const std::ptrdiff_t guard = kGuard, end = guard + Rounded(bytes_) + guard;
    std::ptrdiff_t found = 0;
    for (std::ptrdiff_t i = 0; i < end && !found; ++i) {
      const bool outside =
          i < guard || i >= guard + static_cast<std::ptrdiff_t>(bytes_);
      if (outside && memory_[i] != 0xFF) found = i - guard;
    }
    return found;
  }

 private:
  static const size_t kGuard = 256;
  static size_t Rounded(size_t bytes) {
    return (bytes + kGuard - 1) / kGuard * kGuard;
  }

  /// AddressSanitizer then names the very access that goes beyond.
  void Guard(bool on) {
    (void)on;
#ifdef __SANITIZE_ADDRESS__
    const size_t after = 2 * kGuard + Rounded(bytes_) - kGuard - bytes_;
    if (on) {
      __asan_poison_memory_region(memory_, kGuard);
      __asan_poison_memory_region(memory_ + kGuard + bytes_, after);
    } else {
      __asan_unpoison_memory_region(memory_, kGuard);
      __asan_unpoison_memory_region(memory_ + kGuard + bytes_, after);
    }
#endif
  }

  size_t bytes_;
  unsigned char* memory_;
};

/// One thread block while it runs.
class Block {
 public:
  Block(const std::string& kernel, size_t shared_bytes,
      const std::function<void()>& body)
      : kernel_(kernel), body_(body), shared_(shared_bytes),
        threads_(blockDim.x * blockDim.y * blockDim.z),
        order_(threads_.size()), ready_((threads_.size() + 63) / 64),
        arrived_lanes_((threads_.size() + 31) / 32),
        random_(settings().seed + 7919 * (blockIdx.x
            + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z))) {}

  /// The block that runs now; outside of kernels there is none.
  static Block*& current() {
    static Block* block = NULL;
    return block;
  }

  void* shared() const { return shared_.data(); }

  void Run() {
    current() = this;
    for (size_t i = 0; i < threads_.size(); ++i) {
      threads_[i].index = make_uint3(i % blockDim.x,
          i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y));
      order_[i] = static_cast<int>(i);
    }
    if (settings().order == Settings::DESCENDING) {
      std::reverse(order_.begin(), order_.end());
    }
    ReleaseAll();
    running_ = NULL;
    Next();
    current() = NULL;
    if (exception_) std::rethrow_exception(exception_);
    if (!error_.empty()) throw Error(error_);
    if (const std::ptrdiff_t byte = shared_.Overrun()) {
      std::ostringstream text;
      Describe(&text);
      text << "wrote outside of its shared memory: byte " << byte;
      throw Error(text.str());
    }
  }

  /// __syncthreads().
  void Barrier(const Place& place) {
    running_->waits = BARRIER;
    running_->place = place;
    if (!arrived_) barrier_ = place;
    // one at another barrier is left waiting, and is reported in the end
    arrived_ += barrier_ == place;
    if (arrived_ == threads_.size()) ReleaseAll();
    Next();
  }

  /// Waits for the lanes of this warp that `mask` names; the last one calls
  /// combine(lanes) with the 32 lanes' `mine` (NULL: takes no part).
  template <typename Data, typename Combine>
  void Collective(unsigned mask, Data* mine, const Place& place,
      const Combine& combine) {
    const int self = static_cast<int>(running_ - threads_.data());
    const int first = self / 32 * 32;
    if (!(mask >> (self - first) & 1)) {
      std::ostringstream text;
      text << "lane " << self - first << " is not in its own mask " << std::hex
           << mask;
      Fail(text.str(), place);
    }
    running_->waits = COLLECTIVE;
    running_->place = place;
    running_->mask = mask;
    running_->data = mine;
    unsigned& arrived = arrived_lanes_[first / 32];
    arrived |= 1u << (self - first);
    // where the block ends within a warp, the lanes beyond are left out
    const int exist = std::min(32, static_cast<int>(threads_.size()) - first);
    const unsigned needed = mask & (exist == 32 ? ~0u : (1u << exist) - 1);
    if ((arrived & needed) != needed) return Next();  // a later one completes
    Data* lanes[32] = {};
    for (int lane = 0; lane < 32; ++lane) {
      if (!(needed >> lane & 1)) continue;
      const Thread& other = threads_[first + lane];
      if (other.mask != mask || !(other.place == place)) return Next();
      lanes[lane] = static_cast<Data*>(other.data);
    }
    combine(lanes);
    for (int lane = 0; lane < 32; ++lane) {
      if (lanes[lane]) Release(first + lane);
    }
    arrived &= ~needed;
    Next();
  }

  /// Ends the launch with an Error.
  [[noreturn]] void Fail(const std::string& what, const Place& place) {
    std::ostringstream text;
    Describe(&text);
    text << what << " (" << place << ")";
    throw Error(text.str());  // out of the kernel, see Enter
  }

 private:
  enum Wait { NOTHING, BARRIER, COLLECTIVE, ENDED };

  struct Thread {
    Fiber fiber;
    uint3 index;
    Wait waits = NOTHING;
    Place place = {"", 0};
    unsigned mask = 0;
    void* data = NULL;
    int rank = 0;  // place in order_
    bool has_begun = false;
  };

  void Describe(std::ostringstream* text) const {
    *text << kernel_ << ", block (" << blockIdx.x << ", " << blockIdx.y << ", "
          << blockIdx.z << ") of " << threads_.size() << " threads: ";
  }

  void Release(int thread) {
    threads_[thread].waits = NOTHING;
    const int rank = threads_[thread].rank;
    ready_[rank / 64] |= uint64_t(1) << rank % 64;
  }

  void ReleaseAll() {
    arrived_ = 0;
    if (settings().order == Settings::SHUFFLED) {
      std::shuffle(order_.begin(), order_.end(), random_);
    }
    for (size_t rank = 0; rank < order_.size(); ++rank) {
      threads_[order_[rank]].rank = static_cast<int>(rank);
    }
    for (size_t i = 0; i < threads_.size(); ++i) Release(static_cast<int>(i));
  }

  /// Runs the first runnable thread of the order; comes back when it is this
  /// one's turn again. Ready threads are those that wait for nothing; a thread
  /// that runs stays among them.
  void Next() {
    Thread* const next = Ready();
    if (!next) {
      error_ = Stuck();
      End();
    }
    Fiber* const self = running_ ? &running_->fiber : &Fiber::launcher();
    if (running_ == next) return;
    if (!next->has_begun) {
      size_t size;
      char* const stack = Stack(static_cast<int>(next - threads_.data()), &size);
      next->fiber.Prepare(stack, size, &Block::Enter);
      next->has_begun = true;
    }
    running_ = next;
    threadIdx = next->index;
    self->SwitchTo(&next->fiber);
  }

  /// The thread that is to run now; NULL: none can.
  Thread* Ready() {
    if (running_ && running_->waits != NOTHING) {
      ready_[running_->rank / 64] &= ~(uint64_t(1) << running_->rank % 64);
    }
    size_t word = 0;
    while (word < ready_.size() && !ready_[word]) ++word;
    return word == ready_.size() ? NULL
        : &threads_[order_[64 * word + __builtin_ctzll(ready_[word])]];
  }

  /// Makes the next thread the one that runs, on the stack of this one, which
  /// has ended. Most kernels' threads wait for nobody, and need no other stack.
  bool GoesOnAsNext() {
    Thread* const next = Ready();
    if (!next || next->has_begun) return false;
    next->has_begun = true;
    std::swap(next->fiber, running_->fiber);
    running_ = next;
    threadIdx = next->index;
    return true;
  }

  /// Goes back to the launcher for good.
  [[noreturn]] void End() {
    running_->fiber.SwitchTo(&Fiber::launcher());
    std::abort();  // no one comes back to a block that has ended
  }

  /// Why no thread can run: empty when all have ended.
  std::string Stuck() const {
    size_t ended = 0;
    for (const Thread& thread : threads_) ended += thread.waits == ENDED;
    if (ended == threads_.size()) return std::string();
    std::ostringstream text;
    Describe(&text);
    text << "the threads wait for each other for ever: " << ended << " ended";
    std::vector<char> told(threads_.size());
    for (size_t i = 0; i < threads_.size(); ++i) {
      const Thread& first = threads_[i];
      if (first.waits == ENDED || told[i]) continue;
      size_t count = 0;
      for (size_t j = i; j < threads_.size(); ++j) {
        if (threads_[j].waits == first.waits
            && threads_[j].place == first.place
            && threads_[j].mask == first.mask) {
          told[j] = 1;
          ++count;
        }
      }
      text << ", " << count << (count == 1 ? " waits" : " wait") << " at "
           << first.place;
      if (first.waits == COLLECTIVE) {
        text << " with mask " << std::hex << first.mask << std::dec;
      }
      text << " (first: thread " << i << ")";
    }
    return text.str();
  }

  static void Enter() {
    Block* const block = current();
    Fiber::Arrived(&block->running_->fiber);
    do {
      try {
        block->body_();
      } catch (...) {
        block->exception_ = std::current_exception();
      }
      if (block->exception_) block->End();
      block->running_->waits = ENDED;
    } while (block->GoesOnAsNext());
    block->Next();
    std::abort();  // an ended thread is not chosen again
  }

  const std::string kernel_;
  const std::function<void()>& body_;
  SharedMemory shared_;
  std::vector<Thread> threads_;
  std::vector<int> order_;  // threads, the first to run first
  std::vector<uint64_t> ready_;  // one bit a rank
  size_t arrived_ = 0;  // threads at the barrier that the first came to
  Place barrier_ = {"", 0};
  std::vector<unsigned> arrived_lanes_;  // of each warp, in a collective
  std::mt19937 random_;
  Thread* running_ = NULL;
  std::string error_;
  std::exception_ptr exception_;
};

inline Block& RunningBlock() {
  if (!Block::current()) throw Error("device code called outside of a kernel");
  return *Block::current();
}

inline void* DynamicShared() { return RunningBlock().shared(); }

/// See Block::Collective; how device code that only a warp as a whole can do
/// (matrix instructions) is written for the emulation.
template <typename Data, typename Combine>
inline void WarpCollective(unsigned mask, Data* mine, const Combine& combine,
    const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  RunningBlock().Collective(mask, mine, Place{file, line}, combine);
}

/// The linked name where the program tells it, else the type.
inline std::string KernelName(void* address, const std::type_info& type) {
  if (!settings().kernel.empty()) return settings().kernel;
  Dl_info found;
  const char* name = dladdr(address, &found) && found.dli_sname
      ? found.dli_sname : type.name();
  int status;
  char* readable = abi::__cxa_demangle(name, NULL, NULL, &status);
  const std::string text = readable ? readable : name;
  std::free(readable);
  return text;
}

/// Runs `body` as each thread of a grid, finished when it returns.
inline void LaunchBody(const std::string& name, dim3 grid, dim3 block,
    size_t shared_bytes, const std::function<void()>& body) {
  const size_t threads = size_t(block.x) * block.y * block.z;
  std::ostringstream text;
  text << name << ": ";
  if (threads < 1 || threads > 1024 || block.z > 64) {
    text << "a block has 1 to 1024 threads, asked for: " << block.x << " x "
         << block.y << " x " << block.z;
    throw Error(text.str());
  }
  if (!grid.x || grid.x > 0x7FFFFFFFu || !grid.y || grid.y > 65535 || !grid.z
      || grid.z > 65535) {
    text << "no grid can have the size " << grid.x << " x " << grid.y << " x "
         << grid.z;
    throw Error(text.str());
  }
  if (shared_bytes > settings().shared_memory_limit) {
    text << "asked for " << shared_bytes << " bytes of shared memory, a block "
         << "may have " << settings().shared_memory_limit;
    throw Error(text.str());
  }
  gridDim = grid;
  blockDim = block;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        Block(name, shared_bytes, body).Run();
      }
    }
  }
}

/// kernel<<<grid, block, shared_bytes>>>(args...), finished when it returns.
template <typename... P, typename... A>
void Launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
    A... args) {
  const std::tuple<P...> parameters(args...);
  LaunchBody(KernelName(reinterpret_cast<void*>(kernel), typeid(kernel)), grid,
      block, shared_bytes, [&]() { std::apply(kernel, parameters); });
}

/// What a lane gives to a shuffle and gets from it.
template <typename T>
struct Shuffled {
  T value;
  int source;  // lane
};

template <typename T>
T Shuffle(unsigned mask, T value, int source, const Place& place) {
  Shuffled<T> mine = {value, source};
  Block& block = RunningBlock();
  block.Collective(mask, &mine, place, [&](Shuffled<T>* const* lanes) {
    T values[32];
    for (int lane = 0; lane < 32; ++lane) {
      if (lanes[lane]) values[lane] = lanes[lane]->value;
    }
    for (int lane = 0; lane < 32; ++lane) {
      if (!lanes[lane]) continue;
      const int from = lanes[lane]->source;
      if (from < 0 || from > 31 || !lanes[from]) {
        std::ostringstream text;
        text << "lane " << lane << " reads lane " << from
             << ", which takes no part in the shuffle";
        block.Fail(text.str(), place);
      }
      lanes[lane]->value = values[from];
    }
  });
  return mine.value;
}

inline int Lane() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z))
      % 32;
}

template <typename To, typename From>
To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

}  // namespace emulation
}  // namespace caffe

// --- What kernels call -----------------------------------------------------

#define DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::caffe::emulation::DynamicShared())

#define CAFFE_EMULATED_PLACE \
  const char* file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CAFFE_EMULATED_PLACE) {
  caffe::emulation::RunningBlock().Barrier({file, line});
}

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, CAFFE_EMULATED_PLACE) {
  char nothing;
  caffe::emulation::WarpCollective(mask, &nothing, [](char* const*) {}, file,
      line);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
    CAFFE_EMULATED_PLACE) {
  const int first = caffe::emulation::Lane() / width * width;
  return caffe::emulation::Shuffle(mask, value,
      first + (source & (width - 1)), {file, line});
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
    CAFFE_EMULATED_PLACE) {
  const int lane = caffe::emulation::Lane(), source = lane ^ bits;
  return caffe::emulation::Shuffle(mask, value,
      source < lane / width * width + width ? source : lane, {file, line});
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
    CAFFE_EMULATED_PLACE) {
  const int lane = caffe::emulation::Lane(), source = lane + int(delta);
  return caffe::emulation::Shuffle(mask, value,
      source < lane / width * width + width ? source : lane, {file, line});
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
    CAFFE_EMULATED_PLACE) {
  const int lane = caffe::emulation::Lane(), source = lane - int(delta);
  return caffe::emulation::Shuffle(mask, value,
      source >= lane / width * width ? source : lane, {file, line});
}

#undef CAFFE_EMULATED_PLACE

template <typename T>
T __ldg(const T* address) { return *address; }
template <typename T>
T __ldcs(const T* address) { return *address; }
template <typename T>
T __ldcg(const T* address) { return *address; }
template <typename T>
void __stcs(T* address, T value) { *address = value; }
template <typename T>
void __stcg(T* address, T value) { *address = value; }
template <typename T>
T atomicAdd(T* address, T value) {
  const T before = *address;
  *address += value;
  return before;
}

// Atomic for the processor's threads, too: tests have several of them insert.
// The pointer alone says the type, as in CUDA.
template <typename T>
T atomicCAS(T* address, std::common_type_t<T> expected,
    std::common_type_t<T> value) {
  __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_SEQ_CST,
      __ATOMIC_SEQ_CST);
  return expected;
}
/// Puts the value in the place of those that it comes before.
template <typename T, typename Before>
T CaffeEmulatedExtremum(T* address, T value, Before is_before) {
  T before = __atomic_load_n(address, __ATOMIC_SEQ_CST);
  while (is_before(value, before) && !__atomic_compare_exchange_n(address, &before,
      value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
  return before;
}
template <typename T>
T atomicMin(T* address, std::common_type_t<T> value) {
  return CaffeEmulatedExtremum(address, value, std::less<T>());
}
template <typename T>
T atomicMax(T* address, std::common_type_t<T> value) {
  return CaffeEmulatedExtremum(address, value, std::greater<T>());
}

inline unsigned __float_as_uint(float x) {
  return caffe::emulation::BitCast<unsigned>(x);
}
inline int __float_as_int(float x) {
  return caffe::emulation::BitCast<int>(x);
}
inline float __uint_as_float(unsigned x) {
  return caffe::emulation::BitCast<float>(x);
}
inline float __int_as_float(int x) {
  return caffe::emulation::BitCast<float>(x);
}
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
[[noreturn]] inline void __trap() {
  throw caffe::emulation::Error("the kernel called __trap");
}
inline void __threadfence() {}
inline void __threadfence_block() {}

using std::max;
using std::min;

#endif  // CPU_ONLY without CUDA's headers

#endif  // CAFFE_TEST_CUDA_EMULATION_HPP_
