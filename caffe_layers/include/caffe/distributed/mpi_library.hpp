#ifndef CAFFE_DISTRIBUTED_MPI_LIBRARY_HPP_
#define CAFFE_DISTRIBUTED_MPI_LIBRARY_HPP_

#include <string>

#include "caffe/distributed/collective.hpp"

namespace caffe {

/// What the library that knows MPI tells of itself, at the symbol MPI_LIBRARY.
struct MpiLibrary {
  int interface;  ///< Collective::INTERFACE of its build
  /**
   * @brief Starts MPI for this process.
   *
   * @param seconds that a call may take before the training is given up
   * @param fault gets a line where MPI is another one than the library was
   *        built with, or does not start
   * @return NULL on a fault
   */
  Collective* (*start)(double seconds, std::string* fault);
};

const char MPI_LIBRARY[] = "caffe_mpi_library";

/// The exit status of all ranks where a training fails, whatever the fault.
const int FAILED = 2;

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_MPI_LIBRARY_HPP_
