// libFuzzer: what SegmentationData reads of a split, a Datum with an encoded image.
#include "any_datum.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  caffe::EndsInCheck([=] {
    caffe::FuzzInput input(data, size);
    caffe::ReadAnyDatum(&input);
  });
  return 0;
}
