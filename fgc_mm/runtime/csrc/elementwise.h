// Elementwise ops: unary, binary, affine.
#pragma once

#include "matvec.h"

namespace fgc {
namespace {

// Treats channels that are contiguous in all maps as single rows.
inline void flatten_rows(Map& y, Map& a, Map& b) {
  if (!y.flat() || !a.flat() || !b.flat()) return;
  Map* const all[3] = {&y, &a, &b};
  for (Map* m : all) {
    m->width = m->pixels();
    m->row = m->width;
    m->height = 1;
  }
}

inline int64_t grain_of(const Map& y) {
  return max(1, kMinElementsPerThread / y.pixels());
}

// Calls f(from, to, count, channel) for every row of the listed channels.
template <class F>
void for_each_row(const Op& op, Context& c, Map x, Map y, const F& f) {
  const Channels channels = channels_of(c, op.set, y.channels);
  Map other = y;
  if (!y.pad) flatten_rows(y, x, other);
  parallel_for(op, c, channels.count, grain_of(y),
               [&](int64_t b, int64_t e, int64_t) {
                 for (int64_t i = b; i < e; ++i) {
                   const int64_t k = channels[i];
                   for (int64_t r = 0; r < y.height; ++r)
                     f(x.at(k) + r * x.row, y.at(k) + r * y.row, y.width, k);
                   zero_padding(y, y.at(k), 0, y.height);
                 }
               });
}

// Whether all channels together are contiguous, so that the map may be
// processed as a single channel.
inline bool is_dense(const Map& m) {
  return m.flat() && !m.pad && m.channel == m.pixels();
}

inline void flatten_channels(Map& m) {
  m.width = m.channels * m.pixels();
  m.row = m.width;
  m.height = m.channels = 1;
}

void run_unary(const Program& p, const Op& op, Context& c) {
  Map x = map_of(p, c, op.x), y = map_of(p, c, op.y);
  if (op.set == kAll && y.pixels() < 64 && is_dense(x) && is_dense(y)) {
    flatten_channels(x);
    flatten_channels(y);
  }
  for_each_row(op, c, x, y,
               [&](const float* from, float* to, int64_t count, int64_t) {
                 apply(op.act, from, to, count);
               });
}

// Element k of an array of weights, or the fallback for kNone.
inline float weight_at(const Context& c, int64_t at, int64_t k,
                       float fallback) {
  return at == kNone ? fallback : c.weights[at + k];
}

void run_affine(const Program& p, const Op& op, Context& c) {
  const Map x = map_of(p, c, op.x), y = map_of(p, c, op.y);
  for_each_row(op, c, x, y,
               [&](const float* from, float* to, int64_t count, int64_t k) {
                 const Act line = {kLinear, weight_at(c, op.scale_at, k, 1.f),
                                   weight_at(c, op.shift_at, k, 0.f)};
                 apply(line, from, to, count);
                 if (op.slope_at != kNone) {
                   const Act slope = {kLeakyRelu,
                                      c.weights[op.slope_at + k], 0};
                   apply(slope, to, to, count);
                 }
                 apply(op.act, to, to, count);
               });
}

template <int MATH>
inline Vec math_of(Vec a, Vec b) {
  switch (MATH) {
    case kAdd: return a + b;
    case kSub: return a - b;
    case kMul: return a * b;
    case kDiv: return a / b;
    // nan propagates as in torch
    case kMax: return (a > b) | (a != a) ? a : b;
    default: return (a < b) | (a != a) ? a : b;
  }
}

// A step of 0 broadcasts the first element.
template <int MATH>
void math_row(const float* a, int64_t a_step, const float* b, int64_t b_step,
              float* to, int64_t count) {
  const Vec one = broadcast(*a), two = broadcast(*b);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    store(to + i, math_of<MATH>(a_step ? load(a + i) : one,
                                b_step ? load(b + i) : two));
  if (i == count) return;
  float x[kLanes] = {}, y[kLanes] = {};
  copy(a + i, x, a_step ? count - i : 0);
  copy(b + i, y, b_step ? count - i : 0);
  store(x, math_of<MATH>(a_step ? load(x) : one, b_step ? load(y) : two));
  copy(x, to + i, count - i);
}

using MathFn = void (*)(const float*, int64_t, const float*, int64_t, float*,
                        int64_t);
constexpr MathFn kMathRows[kMaths] = {math_row<0>, math_row<1>, math_row<2>,
                                      math_row<3>, math_row<4>, math_row<5>};

// Broadcast axes get a stride of 0.
inline void broadcast_axes(Map& x) {
  if (x.channels == 1) x.channel = 0;
  if (x.height == 1) x.row = 0;
}

void run_binary(const Program& p, const Op& op, Context& c) {
  Map y = map_of(p, c, op.y);
  Map a = map_of(p, c, op.x), b = map_of(p, c, op.x2);
  const auto same = [&](const Map& m) {
    return m.channels == y.channels && m.height == y.height &&
           m.width == y.width;
  };
  const bool all = op.set == kAll && is_dense(y);
  if (all && same(a) && same(b) && is_dense(a) && is_dense(b)) {
    flatten_channels(y);
    flatten_channels(a);
    flatten_channels(b);
  }
  // a map with one pixel per channel can also be treated as one row
  const auto flat = [&](const Map& m) {
    return m.pixels() == 1 || (m.flat() && m.pixels() == y.pixels());
  };
  if (y.flat() && !y.pad && flat(a) && flat(b)) {
    Map* const maps[3] = {&y, &a, &b};
    for (Map* m : maps) {
      m->width = m->pixels();
      m->height = 1;
    }
  }
  broadcast_axes(a);
  broadcast_axes(b);
  const int64_t a_step = a.width == y.width ? 1 : 0;
  const int64_t b_step = b.width == y.width ? 1 : 0;
  const Channels channels = channels_of(c, op.set, y.channels);
  parallel_for(op, c, channels.count, grain_of(y),
               [&](int64_t from, int64_t to, int64_t) {
                 for (int64_t i = from; i < to; ++i) {
                   const int64_t k = channels[i];
                   for (int64_t r = 0; r < y.height; ++r) {
                     float* row = y.at(k) + r * y.row;
                     kMathRows[op.math](a.at(k) + r * a.row, a_step,
                                        b.at(k) + r * b.row, b_step, row,
                                        y.width);
                     apply(op.act, row, row, y.width);
                   }
                   zero_padding(y, y.at(k), 0, y.height);
                 }
               });
}

}  // namespace
}  // namespace fgc
