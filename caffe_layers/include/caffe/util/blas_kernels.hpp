#ifndef CAFFE_UTIL_BLAS_KERNELS_HPP_
#define CAFFE_UTIL_BLAS_KERNELS_HPP_

#include <string>

#include "caffe/common.hpp"
#include "caffe/util/instruction_set.hpp"

namespace caffe {

/**
 * @brief What OPENBLAS_CORETYPE should name for a processor with this
 *        instruction set where OpenBLAS has chosen the kernels `chosen`; NULL
 *        where they will do.
 */
const char* BetterBlasKernels(const string& chosen, InstructionSet set);

/**
 * @brief Starts this program again, with OPENBLAS_CORETYPE, where OpenBLAS does
 *        not know the processor.
 *
 * OpenBLAS chooses its kernels while it is loaded, by the processor's model: on
 * one that is newer than the library those of 2004, at a quarter of the speed.
 * Where the variable is set, or the start fails, all stays as it is.
 */
void ChooseBlasKernels();

}  // namespace caffe

#endif  // CAFFE_UTIL_BLAS_KERNELS_HPP_
