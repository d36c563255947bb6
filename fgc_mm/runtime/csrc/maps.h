// Maps of one image, and how rows are written into them.
#pragma once

#include "functions.h"

namespace fgc {
namespace {

struct Map {
  float* data;  // first pixel of the first channel
  int64_t channels, height, width;
  int64_t channel, row;  // steps, in floats
  int64_t pad;

  float* at(int64_t c) const { return data + c * channel; }
  // Whether a channel is one row without gaps.
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

// Channels of one set: all, or those listed.
struct Channels {
  const int64_t* indices;
  int64_t count;
  int64_t operator[](int64_t i) const { return indices ? indices[i] : i; }
};

inline Channels channels_of(const Context& c, int64_t set, int64_t all) {
  if (set == kAll) return {nullptr, all};
  return {c.lists[set], c.counts[set]};
}

// A map to be written, what is added to it, and what is done to the sum.
struct Target {
  Map y;
  Map add;
  bool has_add;
  bool has_gaps;   // between its rows lies more than their pad
  bool exact;      // nothing behind a row may be written
  bool add_is_output;  // what is added lies where the sum is written
  bool is_clamp;       // the activation is a clamp, or none
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
  // behind a row lies the next one's begin, unless there is a gap in which
  // something else may lie, or channels lie between the rows
  const int64_t reach = (t.y.height - 1) * t.y.row + t.y.width;
  t.has_gaps = t.y.row != t.y.width + t.y.pad ||
               (t.y.channels > 1 && t.y.channel < reach);
  t.exact = t.has_gaps || t.y.row < kLanes;
  t.add_is_output = t.has_add && t.add.data == t.y.data;
  return t;
}

// Zeros above row r0 = 0 and below the last one, and on the right of it.
inline void zero_border(const Map& y, float* to, int64_t r0, int64_t r1) {
  if (!y.pad) return;
  const int64_t line = y.width + 2 * y.pad;
  for (int64_t k = 1; k <= y.pad && r0 == 0; ++k)
    fill(to - k * y.row - y.pad, line, 0.f);
  for (int64_t k = 0; k < y.pad && r1 == y.height; ++k)
    fill(to + (y.height + k) * y.row - y.pad, line, 0.f);
}

// Zeros around rows r0 to r1 of one channel, which are written.
inline void zero_padding(const Map& y, float* to, int64_t r0, int64_t r1) {
  if (!y.pad || r0 == r1) return;
  float* row = to + r0 * y.row;
  if (y.pad == 1) {
    for (int64_t r = r0; r < r1; ++r, row += y.row) row[-1] = 0.f;
    row[y.width - y.row] = 0.f;
  } else {
    for (int64_t r = r0; r < r1; ++r, row += y.row)
      fill(row - y.pad, y.pad, 0.f);
    fill(row + y.width - y.row, y.pad, 0.f);
  }
  zero_border(y, to, r0, r1);
}

// One row: sums (and what is added) clamped; nan stays nan. Unless `exact`,
// up to a vector more is read and written behind it (`keep`: as it was).
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
    float value = sums[c] + (add ? add[c] : 0.f);
    value = value < low ? low : value;
    to[c] = value > high ? high : value;
  }
}

// Rows, clamped, and zeros behind each: the pad, and as many as fill a
// vector, where the next row or the border is written later. Of the last row
// nothing behind the pad is written if it is `exact`.
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

// Rows r0 to r1 of one channel, and the zeros around them. Unless the
// activation is a clamp, the sums are overwritten.
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
    // sums have room for whole vectors
    const int64_t used = (r1 - r0 - 1) * pitch + y.width;
    apply(t.act, sums, sums, round_up(used, kLanes));
  }
  if (y.row == y.width && pitch == y.width && !y.pad &&
      (!add || t.add.row == y.width)) {
    const int64_t from = r0 * y.width;  // one long row
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
