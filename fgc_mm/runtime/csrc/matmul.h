// Matrix products for each channel.
#pragma once

#include "maps.h"

namespace fgc {
namespace {

constexpr int kMatRows = 4;  // rows of x in a register block

// Register block of `rows` rows and kVectors vectors of columns.
template <int kVectors>
inline void matmul_block(const Map& x, const Map& w, const Map& y,
                         int64_t channel, int64_t first, int64_t rows,
                         int64_t at, int64_t count) {
  const float* from = x.at(channel) + first * x.row;
  const float* right = w.at(channel) + at;
  Vec sums[kMatRows][kVectors] = {};
  for (int64_t k = 0; k < x.width; ++k)
    for (int v = 0; v < kVectors; ++v) {
      const Vec b = load(right + k * w.row + v * kLanes);
      for (int r = 0; r < kMatRows; ++r)
        sums[r][v] += from[min(r, rows - 1) * x.row + k] * b;
    }
  float out_row[kVectors * kLanes];
  for (int64_t r = 0; r < rows; ++r) {
    for (int v = 0; v < kVectors; ++v)
      store(out_row + v * kLanes, sums[r][v]);
    copy(out_row, y.at(channel) + (first + r) * y.row + at, count);
  }
}

void run_matmul(const Program& p, const Op& op, Context& c) {
  const Map x = map_of(p, c, op.x), w = map_of(p, c, op.x2);
  const Map y = map_of(p, c, op.y);
  const int64_t blocks = ceil_div(y.height, kMatRows);
  const int64_t work = max(1, kMatRows * x.width * y.width);
  const int64_t grain = max(1, kMinWorkPerThread / work);
  parallel_for(op, c, y.channels * blocks, grain,
               [&](int64_t b, int64_t e, int64_t) {
                 for (int64_t i = b; i < e; ++i) {
                   const int64_t first = i % blocks * kMatRows;
                   const int64_t rows = min(kMatRows, y.height - first);
                   int64_t at = 0;
                   for (; y.width - at > kLanes; at += 2 * kLanes)
                     matmul_block<2>(x, w, y, i / blocks, first, rows, at,
                                     min(2 * kLanes, y.width - at));
                   if (at < y.width)
                     matmul_block<1>(x, w, y, i / blocks, first, rows, at,
                                     y.width - at);
                 }
               });
  zero_padding(y);
}

}  // namespace
}  // namespace fgc
