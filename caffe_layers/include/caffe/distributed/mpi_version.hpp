#ifndef CAFFE_DISTRIBUTED_MPI_VERSION_HPP_
#define CAFFE_DISTRIBUTED_MPI_VERSION_HPP_

#include <sstream>
#include <string>

namespace caffe {

/// An MPI's name and version, of all that MPI_Get_library_version tells of it:
/// "MPICH Version: 5.0.2". scripts/mpi_library.py writes it in the same way.
inline std::string MpiVersion(const std::string& told) {
  std::istringstream words(told.substr(0, told.find_first_of(std::string(",\n\0", 3))));
  std::string version, word;
  while (words >> word) { version += (version.empty() ? "" : " ") + word; }
  return version;
}

/// Whether a library built for one version works with the other: the name and
/// the first number are the same.
inline bool AreMpisCompatible(const std::string& one, const std::string& other) {
  return one.substr(0, one.find('.')) == other.substr(0, other.find('.'));
}

}  // namespace caffe

#endif  // CAFFE_DISTRIBUTED_MPI_VERSION_HPP_
