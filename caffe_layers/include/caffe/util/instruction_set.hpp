#ifndef CAFFE_UTIL_INSTRUCTION_SET_HPP_
#define CAFFE_UTIL_INSTRUCTION_SET_HPP_

namespace caffe {

/// What kernels are compiled for, lesser ones first; the last two are AVX512
/// with products of bfloat16, for kernels that are asked to round to it.
enum InstructionSet { GENERIC, AVX2, AVX512, AVX512_BF16, AMX };

/// @brief The best that this processor has.
InstructionSet SupportedInstructionSet();

/// @brief The best that this processor has and that the environment variable
///        RENET_INSTRUCTION_SET (generic, avx2, avx512, avx512_bf16, amx)
///        allows.
InstructionSet ChosenInstructionSet();

}  // namespace caffe

#endif  // CAFFE_UTIL_INSTRUCTION_SET_HPP_
