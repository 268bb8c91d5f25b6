#include "caffe/util/bfloat16.hpp"

#include <glog/logging.h>

#include <cstdlib>
#include <string>

namespace caffe {

bool ParseAllowBfloat16(const char* value) {
  const std::string text = value ? value : "";
  CHECK(text.empty() || text == "0" || text == "1")
      << "CAFFE_ALLOW_BF16 is \"" << text << "\"; 1 lets convolutions and "
      << "ReNet layers on the CPU round the factors of their products to "
      << "bfloat16, 0 (or no such variable) keeps them float32";
  return text == "1";
}

bool AllowBfloat16() {
  return ParseAllowBfloat16(std::getenv("CAFFE_ALLOW_BF16"));
}

}  // namespace caffe
