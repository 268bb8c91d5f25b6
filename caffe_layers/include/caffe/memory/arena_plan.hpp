#ifndef CAFFE_MEMORY_ARENA_PLAN_HPP_
#define CAFFE_MEMORY_ARENA_PLAN_HPP_

#include <cstddef>
#include <vector>

namespace caffe {

/// Something that takes memory for a while.
struct ArenaPiece {
  size_t bytes;
  int first, last;  // the steps at which it is in use, both included
  size_t offset;    // where PlanArena() puts it
};

/**
 * @brief Places pieces in one arena so that no two that are in use at the same
 *        step overlap.
 *
 * The largest piece comes first; each goes to the smallest gap that holds it
 * between those placed that are in use with it, else behind them (greedy by
 * size: Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net
 * Inference, 2020). Offsets are multiples of 64.
 *
 * @return the bytes that the arena must have.
 */
size_t PlanArena(std::vector<ArenaPiece>* pieces);

}  // namespace caffe

#endif  // CAFFE_MEMORY_ARENA_PLAN_HPP_
