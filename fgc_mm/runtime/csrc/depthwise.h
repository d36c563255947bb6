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

// Rows r0 to r1 of a channel's sums, clamped if the activation is a clamp;
// `plane` begins with the rows that r0 reads.
inline void write_sums(const Layout& at, const float* plane, const float* w,
                       float start, const Target& t, int64_t r0, int64_t r1,
                       float* to) {
  const Vec low = broadcast(t.clamps ? t.low : -__builtin_inff());
  const Vec high = broadcast(t.clamps ? t.high : __builtin_inff());
  const int64_t width = at.out_width;
  const int64_t blocks = ceil_div(r1 - r0, kMostRows);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = b * (r1 - r0) / blocks;
    const int64_t rows = (b + 1) * (r1 - r0) / blocks - first;
    const ColumnFn sum = pick_column(rows);
    for (int64_t c = 0; c < width; c += kLanes) {
      // the last vector has pixels of the one before again
      if (c + kLanes > width && width > kLanes) c = width - kLanes;
      const int64_t count = smaller(kLanes, width - c);
      const float* from = plane + first * at.pitch + c;
      float* out = to + (r0 + first) * t.y.row + c;
      Vec sums[kMostRows];
      sum(from, at.pitch, at.taps, at.tap_count, w, start, sums);
      for (int64_t r = 0; r < rows; ++r, out += t.y.row) {
        const Vec value = clamp(sums[r], low, high);
        if (count == kLanes)
          store(out, value);
        else
          memcpy(out, &value, size_t(count) * sizeof(float));
      }
    }
  }
}

// The zeros around a channel's rows, and an activation that is no clamp.
inline void finish_rows(const Target& t, float* to) {
  const Map& y = t.y;
  for (int64_t r = 0; r < y.height; ++r) {
    float* row = to + r * y.row;
    if (!t.clamps) apply(t.act, row, row, y.width);
    fill(row - y.pad, y.pad, 0.f);
    fill(row + y.width, y.pad, 0.f);
  }
  write_border(y, to, 0, y.height);
}

// Rows of the output whose input the first cache holds.
constexpr int64_t kCache1 = 16 * 1024;

inline int64_t rows_at_once(const Layout& at) {
  const int64_t row = at.pitch * at.phase_count * 4;
  const int64_t rows = kCache1 / row - (at.rows - at.out_height);
  if (rows >= at.out_height) return at.out_height;
  return larger(kMostRows, rows / kMostRows * kMostRows);
}

// One channel of the output, from the map or from copies of some rows.
inline void depthwise_channel(const Layout& at, const Map& x, int64_t input,
                              const float* w, float start, const Target& t,
                              int64_t channel, float* filled) {
  float* to = t.y.at(channel);
  if (at.in_place) {
    write_sums(at, begin_of(at, x, input), w, start, t, 0, at.out_height, to);
    return finish_rows(t, to);
  }
  const int64_t step = rows_at_once(at);
  for (int64_t r0 = 0; r0 < at.out_height; r0 += step) {
    const int64_t r1 = smaller(r0 + step, at.out_height);
    fill_rows(at, x.at(input), x.row, r0, r1 - r0 + at.rows - at.out_height,
              filled);
    write_sums(at, filled, w, start, t, r0, r1, to);
  }
  finish_rows(t, to);
}

// All rows, with something added to them.
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
      const int64_t input = o / each_in;
      const float* w = c.weights + op.weight + o * op.out_step;
      const float start = op.bias == kNone ? 0.f : c.weights[op.bias + o];
      if (to.adds) {
        if (!at.in_place) fill_plane(at, x.at(input), x.row, filled);
        const float* plane = at.in_place ? begin_of(at, x, input) : filled;
        depthwise_by_rows(at, plane, w, start, acc, to, o);
      } else {
        depthwise_channel(at, x, input, w, start, to, o, filled);
      }
    }
  });
}

}  // namespace
}  // namespace fgc
