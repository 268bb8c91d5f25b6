// libFuzzer: our layers, any message and any bottoms. Each works or ends in a CHECK.
#include "any_layer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  caffe::EndsInCheck([=] {
    caffe::FuzzInput input(data, size);
    caffe::RunAnyLayer(&input);
  });
  return 0;
}
