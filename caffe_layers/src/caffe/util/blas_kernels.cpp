#include "caffe/util/blas_kernels.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace caffe {

namespace {

const char CORE_TYPE[] = "OPENBLAS_CORETYPE";

}  // namespace

const char* BetterBlasKernels(const string& chosen, InstructionSet set) {
  // of OpenBLAS's names those without AVX2 that it may end at
  const char* const old[] = {"Unknown", "Prescott", "Core2", "Penryn",
      "Dunnington", "Nehalem", "Sandybridge", "Barcelona", "Bulldozer"};
  const bool is_old =
      std::find(std::begin(old), std::end(old), chosen) != std::end(old);
  return !is_old || set < AVX2 ? NULL : set < AVX512 ? "HASWELL" : "SKYLAKEX";
}

void ChooseBlasKernels() {
  typedef char* CoreName();
  CoreName* const core_name = reinterpret_cast<CoreName*>(
      dlsym(RTLD_DEFAULT, "openblas_get_corename"));
  if (core_name == NULL || std::getenv(CORE_TYPE) != NULL) { return; }
  const char* const better =
      BetterBlasKernels(core_name(), SupportedInstructionSet());
  if (better == NULL) { return; }
  // as they were before anybody took some out
  std::ifstream words("/proc/self/cmdline");
  std::vector<string> arguments;
  for (string word; std::getline(words, word, '\0');) {
    arguments.push_back(word);
  }
  std::vector<char*> pointers;
  for (string& argument : arguments) { pointers.push_back(&argument[0]); }
  pointers.push_back(NULL);
  setenv(CORE_TYPE, better, 1);
  execv("/proc/self/exe", pointers.data());
  unsetenv(CORE_TYPE);
}

}  // namespace caffe
