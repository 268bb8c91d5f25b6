#include <algorithm>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/memory/arena_plan.hpp"

namespace caffe {

namespace {

ArenaPiece Piece(size_t bytes, int first, int last) {
  const ArenaPiece piece = {bytes, first, last, 0};
  return piece;
}

void ExpectApart(const std::vector<ArenaPiece>& pieces, size_t total) {
  for (size_t i = 0; i < pieces.size(); ++i) {
    const ArenaPiece& a = pieces[i];
    EXPECT_EQ(0u, a.offset % 64);
    EXPECT_LE(a.offset + a.bytes, total);
    for (size_t j = 0; j < i; ++j) {
      const ArenaPiece& b = pieces[j];
      EXPECT_TRUE(a.last < b.first || b.last < a.first
          || a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset)
          << i << " at " << a.offset << " and " << j << " at " << b.offset;
    }
  }
}

}  // namespace

TEST(ArenaPlanTest, NothingTakesNothing) {
  std::vector<ArenaPiece> pieces;
  EXPECT_EQ(0u, PlanArena(&pieces));
}

TEST(ArenaPlanTest, AChainTakesItsTwoLargestNeighbours) {
  std::vector<ArenaPiece> pieces = {Piece(6400, 0, 1), Piece(12800, 1, 2),
      Piece(3200, 2, 3), Piece(6400, 3, 4)};
  const size_t total = PlanArena(&pieces);
  EXPECT_EQ(6400u + 12800u, total);
  ExpectApart(pieces, total);
}

TEST(ArenaPlanTest, WhatOnlyTouchesAStepIsInUseThere) {
  std::vector<ArenaPiece> pieces = {Piece(64, 0, 3), Piece(64, 3, 5)};
  EXPECT_EQ(128u, PlanArena(&pieces));
  pieces = {Piece(64, 0, 3), Piece(64, 4, 5)};
  EXPECT_EQ(64u, PlanArena(&pieces));
}

TEST(ArenaPlanTest, TakesTheSmallestGapThatHolds) {
  // [0, 512) until 9, a gap of 256, [768, 1024), a gap of 128, [1152, ...)
  std::vector<ArenaPiece> pieces = {Piece(1024, 0, 9), Piece(512, 0, 4),
      Piece(448, 0, 9), Piece(256, 0, 4), Piece(192, 0, 9), Piece(128, 5, 9)};
  const size_t total = PlanArena(&pieces);
  ExpectApart(pieces, total);
  EXPECT_EQ(pieces[3].offset, pieces[5].offset);
}

TEST(ArenaPlanTest, SizesThatNoAlignmentFits) {
  std::vector<ArenaPiece> pieces = {Piece(1, 0, 1), Piece(65, 0, 1), Piece(0, 1, 1)};
  const size_t total = PlanArena(&pieces);
  EXPECT_EQ(192u, total);
  ExpectApart(pieces, total);
}

TEST(ArenaPlanTest, ApartWhateverThePieces) {
  std::mt19937 random(1701);
  for (int round = 0; round < 50; ++round) {
    std::vector<ArenaPiece> pieces;
    size_t sum = 0, most = 0;
    std::vector<size_t> in_use(40, 0);
    for (int i = 0; i < 60; ++i) {
      const int first = random() % 40;
      const int last = std::min<int>(39, first + random() % 12);
      pieces.push_back(Piece((random() % 300) * 64, first, last));
      sum += pieces.back().bytes;
      for (int step = first; step <= last; ++step) {
        in_use[step] += pieces.back().bytes;
        most = std::max(most, in_use[step]);
      }
    }
    const size_t total = PlanArena(&pieces);
    ExpectApart(pieces, total);
    EXPECT_GE(total, most);
    EXPECT_LT(total, sum / 2);  // most are in use for a seventh of the steps
  }
}

}  // namespace caffe
