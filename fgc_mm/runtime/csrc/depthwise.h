// A conv of every channel with a kernel of its own.
#pragma once

#include "planes.h"

namespace fgc {
namespace {

constexpr int kMostRows = 8;  // of the output, in registers at a time

// A column of vectors: one vector of each of ROWS rows of the output.
template <int ROWS>
void column(const float* plane, int64_t pitch, const int64_t* taps,
            int64_t tap_count, const float* w, float start, Vec* sums) {
  Vec a[ROWS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) a[r] = broadcast(start);
  for (int64_t t = 0; t < tap_count; ++t) {
    const Vec wide = broadcast(w[t]);
    const float* from = plane + taps[t];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) a[r] += wide * load(from + r * pitch);
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) sums[r] = a[r];
}

using ColumnFn = void (*)(const float*, int64_t, const int64_t*, int64_t,
                          const float*, float, Vec*);

inline ColumnFn pick_column(int64_t rows) {
  static const ColumnFn all[kMostRows] = {
      column<1>, column<2>, column<3>, column<4>,
      column<5>, column<6>, column<7>, column<8>};
  return all[rows - 1];
}

// Sums of one channel, clamped if the activation is a clamp.
inline void write_sums(const Layout& at, const float* plane, const float* w,
                       float start, const Target& t, float* to) {
  const Vec low = broadcast(t.clamps ? t.low : -__builtin_inff());
  const Vec high = broadcast(t.clamps ? t.high : __builtin_inff());
  const int64_t width = at.out_width;
  const int64_t blocks = ceil_div(at.out_height, kMostRows);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t r0 = b * at.out_height / blocks;
    const int64_t rows = (b + 1) * at.out_height / blocks - r0;
    const ColumnFn sum = pick_column(rows);
    for (int64_t c = 0; c < width; c += kLanes) {
      // the last vector has pixels of the one before again
      if (c + kLanes > width && width > kLanes) c = width - kLanes;
      const int64_t count = smaller(kLanes, width - c);
      Vec sums[kMostRows];
      sum(plane + r0 * at.pitch + c, at.pitch, at.taps, at.tap_count, w,
          start, sums);
      for (int64_t r = 0; r < rows; ++r) {
        float* row = to + (r0 + r) * t.y.row + c;
        const Vec value = clamp(sums[r], low, high);
        if (count == kLanes)
          store(row, value);
        else
          memcpy(row, &value, size_t(count) * sizeof(float));
      }
    }
  }
}

// One channel of the output, and the zeros around it.
inline void depthwise_channel(const Layout& at, const float* plane,
                              const float* w, float start, const Target& t,
                              int64_t channel) {
  const Map& y = t.y;
  float* to = y.at(channel);
  write_sums(at, plane, w, start, t, to);
  for (int64_t r = 0; r < y.height; ++r) {
    float* row = to + r * y.row;
    if (!t.clamps) apply(t.act, row, row, y.width);
    fill(row - y.pad, y.pad, 0.f);
    fill(row + y.width, y.pad, 0.f);
  }
  write_border(y, to, 0, y.height);
}

// A plane that the first cache does not hold is read row by row.
constexpr int64_t kCache1 = 32 * 1024;

inline void depthwise_by_rows(const Layout& at, const float* plane,
                              const float* w, float start, float* acc,
                              const Target& to, int64_t o) {
  static const int64_t zero[1 + kAhead] = {};
  const int64_t used = at.positions() - (at.pitch - at.out_width);
  const Sum sum{&plane, zero, 1, &w, at.taps, at.tap_count, 1};
  sum_group(sum, 1, 0, ceil_div(used, kLanes), acc, 0, &start, 1);
  write_rows(acc, at.pitch, 0, at.out_height, to, o);
}

// One channel after the other.
inline void depthwise(const Op& op, Context& c, const Layout& at,
                      int64_t acc_floats, const Map& x, const Target& to) {
  const Channels outs = channels_of(c, op.out_set, to.y.channels);
  const int64_t each_in = to.y.channels / x.channels;
  const int64_t each = at.positions() * at.tap_count;
  const int64_t grain = larger(1, kWorthAThread / 2 / each);
  share(op, c, outs.count, grain, [&](int64_t b, int64_t e, int64_t thread) {
    float* acc = (float*)(c.own + thread * c.own_step);
    float* filled = acc + round_up(acc_floats, 16);
    for (int64_t i = b; i < e; ++i) {
      const int64_t o = outs[i];
      const float* plane = filled;
      if (at.in_place)
        plane = begin_of(at, x, o / each_in);
      else
        fill_plane(at, x.at(o / each_in), x.row, filled);
      const float* w = c.weights + op.weight + o * op.out_step;
      const float start = op.bias == kNone ? 0.f : c.weights[op.bias + o];
      if (to.adds || at.plane_floats * 4 > kCache1)
        depthwise_by_rows(at, plane, w, start, acc, to, o);
      else
        depthwise_channel(at, plane, w, start, to, o);
    }
  });
}

}  // namespace
}  // namespace fgc
