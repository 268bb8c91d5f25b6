#include "caffe/gpu/gpu_precision.hpp"

#include <glog/logging.h>

#include <cstdlib>
#include <string>

namespace caffe {

bool ParseAllowTF32(const char* value) {
  const std::string text = value ? value : "";
  CHECK(text.empty() || text == "0" || text == "1")
      << "CAFFE_ALLOW_TF32 is \"" << text << "\"; 1 lets GPUs round float32 "
      << "products to TF32, 0 (or no such variable) keeps them float32";
  return text == "1";
}

bool AllowTF32() { return ParseAllowTF32(std::getenv("CAFFE_ALLOW_TF32")); }

}  // namespace caffe
