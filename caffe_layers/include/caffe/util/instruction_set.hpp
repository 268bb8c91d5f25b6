#ifndef CAFFE_UTIL_INSTRUCTION_SET_HPP_
#define CAFFE_UTIL_INSTRUCTION_SET_HPP_

namespace caffe {

/// What kernels are compiled for, lesser ones first.
enum InstructionSet { GENERIC, AVX2, AVX512 };

/// @brief The best that this processor has.
InstructionSet SupportedInstructionSet();

/// @brief The best that this processor has and that the environment variable
///        RENET_INSTRUCTION_SET (generic, avx2, avx512) allows.
InstructionSet ChosenInstructionSet();

}  // namespace caffe

#endif  // CAFFE_UTIL_INSTRUCTION_SET_HPP_
