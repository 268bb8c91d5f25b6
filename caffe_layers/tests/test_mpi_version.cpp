#include <gtest/gtest.h>

#include <string>

#include "caffe/distributed/mpi_version.hpp"

namespace caffe {

TEST(MpiVersionTest, IsTheNameAndTheNumberInOneLine) {
  EXPECT_EQ("Open MPI v5.0.11", MpiVersion("Open MPI v5.0.11, package: Open MPI builder, ident: 5.0.11"));
  EXPECT_EQ("MPICH Version: 5.0.2", MpiVersion("MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25\n"));
  EXPECT_EQ("MVAPICH2 Version: 2.3.7", MpiVersion("MVAPICH2 Version:\t2.3.7\nMVAPICH2 Release date: x"));
  EXPECT_EQ("Intel(R) MPI Library 2021.11 for Linux* OS",
      MpiVersion(std::string("Intel(R) MPI Library 2021.11 for Linux* OS\n\n\0", 44)));
  EXPECT_EQ("", MpiVersion(""));
}

TEST(MpiVersionTest, FitsWithTheSameNameAndFirstNumber) {
  EXPECT_TRUE(AreMpisCompatible("MPICH Version: 5.0.2", "MPICH Version: 5.1"));
  EXPECT_FALSE(AreMpisCompatible("MPICH Version: 5.0.2", "MPICH Version: 4.0.2"));
  EXPECT_FALSE(AreMpisCompatible("Open MPI v5.0.11", "MPICH Version: 5.0.2"));
}

}  // namespace caffe
