// How convolutions on a GPU choose and remember their algorithms: the part that
// needs no GPU.
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "caffe/onednn/convolution_plan.hpp"
#include "caffe/gpu/gpu_device.hpp"
#include "caffe/gpu/gpu_precision.hpp"

namespace caffe {

namespace {

// A device with little memory, which watches over what is taken of it.
class SmallMemory {
 public:
  explicit SmallMemory(size_t size) : left_(size), allocations_(0) {}

  ConvolutionPlanner::Allocate allocate() {
    return [this](size_t size) -> void* {
      if (size > left_) { return nullptr; }
      left_ -= size;
      ++allocations_;
      size_t* const memory =
          static_cast<size_t*>(std::malloc(sizeof(size_t)));
      *memory = size;
      held_.insert(memory);
      return memory;
    };
  }
  ConvolutionPlanner::Release release() {
    return [this](void* memory) {
      EXPECT_EQ(1u, held_.erase(memory)) << "not what was allocated";
      left_ += *static_cast<size_t*>(memory);
      std::free(memory);
    };
  }

  size_t left_;
  int allocations_;
  std::set<void*> held_;
};

ConvolutionKey KeyOf(int height,
                     ConvolutionPass pass = ConvolutionPass::FORWARD) {
  ConvolutionKey key = {pass, false, false, ConvolutionShape()};
  key.shape.in_height = height;
  return key;
}

// Algorithms as cuDNN's heuristics list them, and how often they were asked.
class Heuristics {
 public:
  explicit Heuristics(const std::vector<ConvolutionCandidate>& candidates)
      : asked_(0), candidates_(candidates) {}
  ConvolutionPlanner::ListCandidates list() {
    return [this] {
      ++asked_;
      return candidates_;
    };
  }
  int asked_;

 private:
  const std::vector<ConvolutionCandidate> candidates_;
};

TEST(ConvolutionPlanTest, TheFastestThatFitsAndIsDeterministicIsChosen) {
  const std::vector<ConvolutionCandidate> candidates = {
      {5, 1000, true}, {4, 10, false}, {3, 100, true}, {2, 0, true}};
  EXPECT_EQ(5, ChooseCandidate(candidates, 1000)->algorithm);
  EXPECT_EQ(3, ChooseCandidate(candidates, 999)->algorithm);
  EXPECT_EQ(3, ChooseCandidate(candidates, 100)->algorithm);
  EXPECT_EQ(2, ChooseCandidate(candidates, 99)->algorithm);
  EXPECT_EQ(2, ChooseCandidate(candidates, 0)->algorithm);
}

TEST(ConvolutionPlanTest, OneThatIsNotDeterministicServesWhereNoOtherFits) {
  const std::vector<ConvolutionCandidate> candidates = {
      {5, 1000, true}, {4, 10, false}, {3, 5, false}};
  EXPECT_EQ(4, ChooseCandidate(candidates, 999)->algorithm);
  EXPECT_EQ(3, ChooseCandidate(candidates, 9)->algorithm);
  EXPECT_EQ(nullptr, ChooseCandidate(candidates, 4));
  EXPECT_EQ(nullptr, ChooseCandidate({}, 1000));
}

TEST(ConvolutionPlanTest, EveryNumberOfAShapeMatters) {
  const ConvolutionKey first = KeyOf(7);
  std::set<ConvolutionKey> keys = {first};
  ConvolutionKey other = first;
  int ConvolutionShape::*const fields[] = {
      &ConvolutionShape::num, &ConvolutionShape::in_channels,
      &ConvolutionShape::in_height, &ConvolutionShape::in_width,
      &ConvolutionShape::out_channels, &ConvolutionShape::out_height,
      &ConvolutionShape::out_width, &ConvolutionShape::kernel_height,
      &ConvolutionShape::kernel_width, &ConvolutionShape::pad_height,
      &ConvolutionShape::pad_width, &ConvolutionShape::stride_height,
      &ConvolutionShape::stride_width, &ConvolutionShape::dilation_height,
      &ConvolutionShape::dilation_width, &ConvolutionShape::group};
  for (int ConvolutionShape::*field : fields) {
    other = first;
    other.shape.*field += 1;
    EXPECT_TRUE(keys.insert(other).second) << other.shape.Text();
  }
  other = first;
  other.is_double = true;
  EXPECT_TRUE(keys.insert(other).second);
  other = first;
  other.allow_tf32 = true;
  EXPECT_TRUE(keys.insert(other).second);
  other = first;
  other.pass = ConvolutionPass::BACKWARD_FILTER;
  EXPECT_TRUE(keys.insert(other).second);
  EXPECT_FALSE(keys.insert(first).second);
  EXPECT_EQ(1 + first.shape.Numbers().size() + 3, keys.size());
}

TEST(ConvolutionPlanTest, AShapeThatComesBackCostsNothing) {
  SmallMemory memory(10000);
  ConvolutionPlanner planner(1000, memory.allocate(), memory.release());
  Heuristics heuristics({{7, 400, true}});
  for (int round = 0; round < 3; ++round) {
    for (int height = 1; height <= 5; ++height) {
      EXPECT_EQ(7, planner.Plan(KeyOf(height), heuristics.list()).algorithm);
    }
  }
  EXPECT_EQ(5, heuristics.asked_);
  EXPECT_EQ(5u, planner.remembered());
  EXPECT_EQ(1, memory.allocations_);
}

TEST(ConvolutionPlanTest, OneWorkspaceGrowsForAll) {
  SmallMemory memory(10000);
  {
    ConvolutionPlanner planner(1000, memory.allocate(), memory.release());
    Heuristics none({{1, 0, true}}), small({{2, 300, true}}),
        large({{3, 900, true}}), too_large({{4, 1001, true}, {5, 500, true}});
    planner.Plan(KeyOf(1), none.list());
    EXPECT_EQ(nullptr, planner.workspace());
    planner.Plan(KeyOf(2), small.list());
    EXPECT_EQ(300u, planner.workspace_size());
    planner.Plan(KeyOf(3), large.list());
    EXPECT_EQ(900u, planner.workspace_size());
    EXPECT_EQ(5, planner.Plan(KeyOf(4), too_large.list()).algorithm);
    EXPECT_EQ(900u, planner.workspace_size());
    EXPECT_EQ(1u, memory.held_.size());
    EXPECT_EQ(10000u - 900u, memory.left_);
  }
  EXPECT_TRUE(memory.held_.empty());
}

TEST(ConvolutionPlanTest, WhereMemoryIsShortASmallerWorkspaceServes) {
  SmallMemory memory(500);
  ConvolutionPlanner planner(1000, memory.allocate(), memory.release());
  Heuristics small({{2, 300, true}}), large({{3, 900, true}, {4, 250, true}});
  planner.Plan(KeyOf(1), small.list());
  EXPECT_EQ(4, planner.Plan(KeyOf(2), large.list()).algorithm);
  EXPECT_EQ(300u, planner.workspace_size());
  EXPECT_EQ(2u, planner.remembered());
}

TEST(ConvolutionPlanTest, PlansThatLostTheirWorkspaceAreMadeAnew) {
  SmallMemory memory(500);
  // Somebody else takes all memory in the moment between two workspaces.
  const ConvolutionPlanner::Release release = memory.release();
  ConvolutionPlanner planner(1000, memory.allocate(), [&](void* workspace) {
    release(workspace);
    memory.left_ = 0;
  });
  Heuristics small({{2, 300, true}, {1, 0, true}}),
      large({{3, 900, true}, {4, 0, true}});
  EXPECT_EQ(2, planner.Plan(KeyOf(1), small.list()).algorithm);
  EXPECT_EQ(4, planner.Plan(KeyOf(2), large.list()).algorithm);
  EXPECT_EQ(nullptr, planner.workspace());
  EXPECT_EQ(0u, planner.workspace_size());
  EXPECT_EQ(1, planner.Plan(KeyOf(1), small.list()).algorithm);
  EXPECT_EQ(2, small.asked_);
}

TEST(ConvolutionPlanDeathTest, AConvolutionWithoutAlgorithmIsNamed) {
  SmallMemory memory(0);
  ConvolutionPlanner planner(1000, memory.allocate(), memory.release());
  Heuristics large({{3, 900, true}});
  ConvolutionKey key = KeyOf(1);
  key.shape.kernel_height = 11;
  EXPECT_DEATH(planner.Plan(key, large.list()),
               "cuDNN offers 1 algorithms for the convolution .*x11x0.*none "
               "makes do with 0 bytes of workspace");
}

TEST(ConvolutionPlanTest, TheWorkspaceIsASmallPartOfTheDevice) {
  const size_t gigabyte = static_cast<size_t>(1) << 30;
  EXPECT_EQ(gigabyte / 4, ConvolutionWorkspaceLimit(4 * gigabyte));
  EXPECT_EQ(gigabyte, ConvolutionWorkspaceLimit(141 * gigabyte));
}

TEST(GpuPrecisionTest, TheVariableIsReadStrictly) {
  EXPECT_FALSE(ParseAllowTF32(nullptr));
  EXPECT_FALSE(ParseAllowTF32(""));
  EXPECT_FALSE(ParseAllowTF32("0"));
  EXPECT_TRUE(ParseAllowTF32("1"));
}

TEST(GpuPrecisionDeathTest, AnotherValueIsNamed) {
  EXPECT_DEATH(ParseAllowTF32("yes"), "CAFFE_ALLOW_TF32 is \"yes\"; 1 lets");
}

TEST(GpuDeviceTest, ANumberThatNoGpuHasIsAFault) {
  EXPECT_NE("", GpuFault(-1));
  EXPECT_NE("", GpuFault(1000));
  EXPECT_EQ(std::string::npos, GpuFault(1000).find('\n'));
#ifdef CPU_ONLY
  EXPECT_EQ(0, GpuCount());
  EXPECT_NE(std::string::npos, GpuFault(0).find("make gpu"));
#endif
}

}  // namespace

}  // namespace caffe
