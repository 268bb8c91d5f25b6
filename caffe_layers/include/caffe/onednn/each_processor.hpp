#ifndef CAFFE_ONEDNN_EACH_PROCESSOR_HPP_
#define CAFFE_ONEDNN_EACH_PROCESSOR_HPP_

/// Before a function: code for the vectors of each kind of processor, chosen when
/// the program is loaded. Sanitizers are not ready yet by then.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) \
    && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define FOR_EACH_PROCESSOR \
  __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#endif  // CAFFE_ONEDNN_EACH_PROCESSOR_HPP_
