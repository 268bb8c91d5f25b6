#include "caffe/util/instruction_set.hpp"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "caffe/common.hpp"

namespace caffe {

InstructionSet SupportedInstructionSet() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    return GENERIC;
  }
  const bool avx512 = __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return avx512 ? AVX512 : AVX2;
#else
  return GENERIC;
#endif
}

InstructionSet ChosenInstructionSet() {
  const char* const asked = getenv("RENET_INSTRUCTION_SET");
  if (asked == NULL) { return SupportedInstructionSet(); }
  const char* const names[] = {"generic", "avx2", "avx512"};
  const int limit = std::find(names, names + 3, std::string(asked)) - names;
  CHECK_LT(limit, 3) << "RENET_INSTRUCTION_SET is \"" << asked
      << "\"; it may be generic, avx2 or avx512.";
  return std::min(SupportedInstructionSet(),
      static_cast<InstructionSet>(limit));
}

}  // namespace caffe
