#include "caffe/util/instruction_set.hpp"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <string>

#include "caffe/common.hpp"

namespace caffe {

namespace {

const char* const NAMES[] = {"generic", "avx2", "avx512", "avx512_bf16", "amx"};

#if defined(__x86_64__)
/// Whether the system lets this process use AMX's tiles, which it grants on
/// request since every thread that does has 8 KB more to be kept.
bool MayUseTiles() {
#if defined(__linux__)
  const int request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

bool HasAmx() {
  unsigned a, b, c, d;
  const unsigned bf16 = 1u << 22, tile = 1u << 24;  // leaf 7, EDX
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & bf16) && (d & tile) &&
      MayUseTiles();
}
#endif

}  // namespace

InstructionSet SupportedInstructionSet() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    return GENERIC;
  }
  const bool avx512 = __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (!avx512) { return AVX2; }
  if (!__builtin_cpu_supports("avx512bf16")) { return AVX512; }
  static const bool has_amx = HasAmx();
  return has_amx ? AMX : AVX512_BF16;
#else
  return GENERIC;
#endif
}

InstructionSet ChosenInstructionSet() {
  const char* const asked = getenv("RENET_INSTRUCTION_SET");
  if (asked == NULL) {
    const InstructionSet best = SupportedInstructionSet();
#if defined(__x86_64__)
    // whose vector units take longer for products of bfloat16 than of float32
    if (best == AVX512_BF16 && __builtin_cpu_is("intel")) { return AVX512; }
#endif
    return best;
  }
  const int count = sizeof(NAMES) / sizeof(NAMES[0]);
  const int limit = std::find(NAMES, NAMES + count, std::string(asked)) - NAMES;
  CHECK_LT(limit, count) << "RENET_INSTRUCTION_SET is \"" << asked
      << "\"; it may be generic, avx2, avx512, avx512_bf16 or amx.";
  return std::min(SupportedInstructionSet(),
      static_cast<InstructionSet>(limit));
}

}  // namespace caffe
