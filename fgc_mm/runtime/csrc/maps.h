// Views of the maps of one image, and the epilogue that writes their rows.
#pragma once

#include "functions.h"

namespace fgc {
namespace {

struct Map {
  float* data;  // first pixel of channel 0
  int64_t channels, height, width;
  int64_t channel, row;  // strides in floats
  int64_t pad;

  float* at(int64_t c) const { return data + c * channel; }
  // Whether the pixels of a channel are contiguous.
  bool flat() const { return height == 1 || (row == width && !pad); }
  int64_t pixels() const { return height * width; }
};

inline Map map_of(const Program& p, const Context& c, int64_t id) {
  const Value& v = p.values[id];
  const float* base = v.base == kArena   ? c.arena
                      : v.base == kImage ? c.image
                                         : c.weights;
  return {const_cast<float*>(base) + v.offset,
          v.channels,
          v.height,
          v.width,
          v.channel_step,
          v.row_step,
          v.pad};
}

// The channels of a set: a list, or all of them.
struct Channels {
  const int64_t* indices;
  int64_t count;
  int64_t operator[](int64_t i) const { return indices ? indices[i] : i; }
};

inline Channels channels_of(const Context& c, int64_t set, int64_t all) {
  if (set == kAll) return {nullptr, all};
  return {c.lists[set], c.counts[set]};
}

// An output map and its epilogue: an optional addend, then an activation.
struct Target {
  Map y;
  Map add;
  bool has_add;
  bool has_gaps;       // other values may lie between the rows
  bool exact;          // no element after a row may be written
  bool add_is_output;  // the addend and the output are the same memory
  bool is_clamp;       // the activation is a clamp or none
  float low, high;
  Act act;
};

inline Target target_of(const Program& p, const Context& c, int64_t y,
                        int64_t add, const Act& act) {
  Target t = {};
  t.y = map_of(p, c, y);
  t.has_add = add != kNone;
  if (t.has_add) t.add = map_of(p, c, add);
  t.act = act;
  t.is_clamp = act.kind == kNoAct || act.kind == kRelu || act.kind == kClamp;
  t.low = act.kind == kRelu ? 0.f : -__builtin_inff();
  t.high = __builtin_inff();
  if (act.kind == kClamp) {
    t.low = act.a;
    t.high = act.b;
  }
  // a row is followed by the next one, unless the row step leaves a gap, which
  // may contain other values, or the rows of several channels alternate
  const int64_t reach = (t.y.height - 1) * t.y.row + t.y.width;
  t.has_gaps = t.y.row != t.y.width + t.y.pad ||
               (t.y.channels > 1 && t.y.channel < reach);
  t.exact = t.has_gaps || t.y.row < kLanes;
  t.add_is_output = t.has_add && t.add.data == t.y.data;
  return t;
}

// Zeroes the padding above row 0 if r0 is 0, and below the last row if r1 is
// the height.
inline void zero_border(const Map& y, float* to, int64_t r0, int64_t r1) {
  if (!y.pad) return;
  const int64_t line = y.width + 2 * y.pad;
  for (int64_t k = 1; k <= y.pad && r0 == 0; ++k)
    fill(to - k * y.row - y.pad, line, 0.f);
  for (int64_t k = 0; k < y.pad && r1 == y.height; ++k)
    fill(to + (y.height + k) * y.row - y.pad, line, 0.f);
}

// Zeroes the padding around rows r0 to r1 of a channel; the right padding of
// a row need not be the left one of the next.
inline void zero_padding(const Map& y, float* to, int64_t r0, int64_t r1) {
  if (!y.pad || r0 == r1) return;
  float* row = to + r0 * y.row;
  for (int64_t r = r0; r < r1; ++r, row += y.row)
    if (y.pad == 1) {
      row[-1] = row[y.width] = 0.f;
    } else {
      fill(row - y.pad, y.pad, 0.f);
      fill(row + y.width, y.pad, 0.f);
    }
  zero_border(y, to, r0, r1);
}

// Zeroes the padding of all channels.
inline void zero_padding(const Map& y) {
  for (int64_t k = 0; y.pad && k < y.channels; ++k)
    zero_padding(y, y.at(k), 0, y.height);
}

// Writes one row: sums (plus `add`), clamped; nan is kept. Unless `exact`, up
// to one vector after the row is read and written; `preserve` writes it back
// unchanged.
inline void write_row(const float* sums, const float* add, float* to,
                      int64_t width, float low, float high, bool exact,
                      bool preserve) {
  const Vec lows = broadcast(low), highs = broadcast(high);
  const int64_t whole = exact || preserve ? width / kLanes * kLanes : width;
  int64_t c = 0;
  if (add)
    for (; c < whole; c += kLanes)
      store(to + c, clamp(load(sums + c) + load(add + c), lows, highs));
  else
    for (; c < whole; c += kLanes)
      store(to + c, clamp(load(sums + c), lows, highs));
  if (preserve && !exact && c < width) {
    const Vec last = clamp(load(sums + c) + load(add + c), lows, highs);
    store(to + c, kIndex < int32_t(width - c) ? last : load(to + c));
    return;
  }
  for (; c < width; ++c) {
    float value = add ? sums[c] + add[c] : sums[c];  // keeps -0
    value = value < low ? low : value;
    to[c] = value > high ? high : value;
  }
}

// Writes clamped rows and zeroes after each: the padding, and the rest of
// the last vector, which the next row or the border overwrites later. With
// `exact`, nothing after the padding of the last row is written.
inline void write_padded_rows(const float* sums, int64_t pitch, const Map& y,
                              float* to, int64_t rows, float low, float high,
                              bool exact) {
  const Vec lows = broadcast(low), highs = broadcast(high);
  const int64_t whole = y.width / kLanes * kLanes, rest = y.width - whole;
  const Ints inside = kIndex < int32_t(rest);
  const int64_t filled = whole + (rest ? kLanes : 0);
  for (int64_t r = 0; r < rows; ++r, sums += pitch, to += y.row) {
    int64_t c = 0;
    for (; c < whole; c += kLanes)
      store(to + c, clamp(load(sums + c), lows, highs));
    const Vec last = inside ? clamp(load(sums + c), lows, highs) : Vec{};
    if (exact && r == rows - 1) {
      memcpy(to + c, &last, size_t(rest) * sizeof(float));
      return fill(to + y.width, y.pad, 0.f);
    }
    if (rest) store(to + c, last);
    for (c = filled; c < y.width + y.pad; ++c) to[c] = 0.f;
  }
}

// Epilogue of rows r0 to r1 of a channel, padding included. Overwrites the
// sums unless the activation is a clamp.
inline void write_rows(float* sums, int64_t pitch, int64_t r0, int64_t r1,
                       const Target& t, int64_t channel) {
  const Map& y = t.y;
  float* to = y.at(channel);
  const float* add = t.has_add ? t.add.at(channel) : nullptr;
  if (!t.is_clamp) {
    for (int64_t r = r0; add && r < r1; ++r) {
      const float* from = add + r * t.add.row;
      float* sum = sums + (r - r0) * pitch;
      for (int64_t c = 0; c < y.width; ++c) sum[c] += from[c];
    }
    add = nullptr;
    // the buffer of sums is padded to whole vectors
    const int64_t used = (r1 - r0 - 1) * pitch + y.width;
    apply(t.act, sums, sums, round_up(used, kLanes));
  }
  if (y.row == y.width && pitch == y.width && !y.pad &&
      (!add || t.add.row == y.width)) {
    const int64_t from = r0 * y.width;  // the rows are contiguous
    write_row(sums, add ? add + from : nullptr, to + from,
              (r1 - r0) * y.width, t.low, t.high, true, false);
    return;
  }
  if (y.pad && !t.exact && !add) {
    write_padded_rows(sums, pitch, y, to + r0 * y.row, r1 - r0, t.low, t.high,
                      r1 < y.height);
    return zero_border(y, to, r0, r1);
  }
  for (int64_t r = r0; r < r1; ++r, sums += pitch) {
    float* row = to + r * y.row;
    fill(row - y.pad, y.pad, 0.f);
    write_row(sums, add ? add + r * t.add.row : nullptr, row, y.width, t.low,
              t.high, t.exact || r == r1 - 1, add && t.add_is_output);
    if (t.exact || r == r1 - 1) fill(row + y.width, y.pad, 0.f);
  }
  zero_border(y, to, r0, r1);
}

}  // namespace
}  // namespace fgc
