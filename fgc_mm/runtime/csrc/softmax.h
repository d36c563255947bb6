// Softmax over the channels of each pixel.
#pragma once

#include "maps.h"

namespace fgc {
namespace {

// Softmax of `count` pixels, at most one vector.
inline void softmax_pixels(const float* from, int64_t from_step, float* to,
                           int64_t to_step, int64_t channels, int64_t count) {
  Vec largest = load(from);
  for (int64_t k = 1; k < channels; ++k) {
    const Vec x = load(from + k * from_step);
    largest = x > largest ? x : largest;
  }
  Vec total = {};
  for (int64_t k = 0; k < channels; ++k)
    total += exp_of(load(from + k * from_step) - largest);
  const Vec inverse = 1.f / total;
  float row[kLanes];
  for (int64_t k = 0; k < channels; ++k) {
    store(row, exp_of(load(from + k * from_step) - largest) * inverse);
    copy(row, to + k * to_step, count);
  }
}

void run_softmax(const Program& p, const Op& op, Context& c) {
  const Map x = map_of(p, c, op.x), y = map_of(p, c, op.y);
  for (int64_t r = 0; r < y.height; ++r)
    for (int64_t at = 0; at < y.width; at += kLanes)
      softmax_pixels(x.data + r * x.row + at, x.channel,
                     y.data + r * y.row + at, y.channel, y.channels,
                     min(kLanes, y.width - at));
  zero_padding(y);
}

}  // namespace
}  // namespace fgc
