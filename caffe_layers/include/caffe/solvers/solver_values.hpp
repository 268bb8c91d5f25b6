#ifndef CAFFE_SOLVERS_SOLVER_VALUES_HPP_
#define CAFFE_SOLVERS_SOLVER_VALUES_HPP_

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/// Ends the program with a message that names the field where a solver's value
/// makes no sense: one that trains nothing, or never ends, or is no number.
void CheckSolverValues(const SolverParameter& param);

}  // namespace caffe

#endif  // CAFFE_SOLVERS_SOLVER_VALUES_HPP_
