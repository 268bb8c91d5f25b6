#ifndef CAFFE_MEMORY_WORK_AREAS_HPP_
#define CAFFE_MEMORY_WORK_AREAS_HPP_

#include <array>
#include <cstddef>

namespace caffe {

/// Work areas of a thread. What one layer left there is gone when the next one
/// runs.
enum WorkArea {
  WORK_SOURCE, WORK_OTHER_SOURCE, WORK_PARTS, WORK_TARGET, WORK_WEIGHTS,
  WORK_BIAS, WORK_SCRATCH, WORK_AREAS
};

/// A work area with room for so many bytes at least: in what was lent, where
/// that is large enough, else in memory of its own, which stays.
float* Work(WorkArea area, size_t bytes);

/// Lends memory for a work area of this thread, in place of what was lent
/// before; 0 bytes: lends none any more.
void LendWork(WorkArea area, void* memory, size_t bytes);

/// The most bytes that each work area of this thread was asked for since the
/// last call.
std::array<size_t, WORK_AREAS> TakeWorkSizes();

/// Bytes of the memory of their own of this thread's work areas.
size_t OwnWorkSize();
/// Gives it back.
void FreeWork();

}  // namespace caffe

#endif  // CAFFE_MEMORY_WORK_AREAS_HPP_
