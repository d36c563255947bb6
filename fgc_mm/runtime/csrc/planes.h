// Where the pixels that a conv reads lie: flat, padded, one plane a channel.
//
// A kernel element is then one constant offset, and neither rows nor borders
// need care: what is summed at the pad columns is never written. With a
// stride, each plane is split into its phases, so that every element reads
// neighbouring pixels. A map that was written with zeros around it is such a
// plane already.
#pragma once

#include "tile.h"

namespace fgc {
namespace {

struct Layout {
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  int64_t height, width, out_height, out_width;
  int64_t pitch, rows, phase_floats, plane_floats, beside;
  bool in_place;
  int64_t tap_count, phase_count;
  int64_t* taps;    // offset of every kernel element
  int64_t* phases;  // row and column of those that some element reads

  int64_t positions() const { return out_height * pitch; }
};

inline int64_t reach_of(const Op& op, int axis) {
  return op.dilation[axis] * (op.kernel[axis] - 1);
}

// Whether a map is padded planes already: stride 1, and zeros (or pixels)
// wherever the kernel reaches.
inline bool lies_padded(const Op& op, const Value& x, const Value& y) {
  const int64_t below =
      y.height - 1 - op.padding[0] + reach_of(op, 0) - (x.height - 1);
  const int64_t beside =
      y.width - 1 - op.padding[1] + reach_of(op, 1) - (x.width - 1);
  return op.stride[0] == 1 && op.stride[1] == 1 && x.pad >= op.padding[0] &&
         x.pad >= op.padding[1] && x.pad >= below && x.pad >= beside &&
         (y.height == 1 || x.row_step <= x.width + x.width / 4 + 16);
}

inline int64_t tap_at(Layout& at, int64_t y, int64_t x) {
  const int64_t dy = y * at.dilation[0], dx = x * at.dilation[1];
  const int64_t row = dy % at.stride[0], column = dx % at.stride[1];
  int64_t k = 0;
  while (k < at.phase_count &&
         (at.phases[2 * k] != row || at.phases[2 * k + 1] != column))
    ++k;
  if (k == at.phase_count) {
    at.phases[2 * k] = row;
    at.phases[2 * k + 1] = column;
    ++at.phase_count;
  }
  return k * at.phase_floats + dy / at.stride[0] * at.pitch +
         dx / at.stride[1];
}

// False: the planes are larger than any memory.
inline bool lay_out(const Op& op, const Value& x, const Value& y, Keep& keep,
                    Layout& at) {
  for (int axis = 0; axis < 2; ++axis) {
    at.kernel[axis] = op.kernel[axis];
    at.stride[axis] = op.stride[axis];
    at.padding[axis] = op.padding[axis];
    at.dilation[axis] = op.dilation[axis];
  }
  at.height = x.height;
  at.width = x.width;
  at.out_height = y.height;
  at.out_width = y.width;
  at.beside = reach_of(op, 1) / at.stride[1];
  at.rows = at.out_height + reach_of(op, 0) / at.stride[0];
  at.in_place = lies_padded(op, x, y);
  at.pitch = at.out_width + at.beside;
  if (at.stride[1] == 1) {  // the right border is the next row's left one
    const int64_t right =
        larger(0, at.pitch - at.padding[1] - at.width);
    at.pitch -= smaller(smaller(at.padding[1], at.beside), right);
  }
  if (at.in_place)
    at.pitch = y.height == 1 && at.kernel[0] == 1
                   ? larger(x.width, y.width)
                   : x.row_step;
  if (at.rows > kMost / (at.pitch + 1)) return false;
  at.phase_floats = at.rows * at.pitch + at.beside + kLanes * (kMaxVec + 1);
  at.phase_floats = round_up(at.phase_floats, 16);
  at.tap_count = at.kernel[0] * at.kernel[1];
  at.taps = (int64_t*)take(keep, at.tap_count * 8);
  at.phases = (int64_t*)take(keep, at.tap_count * 16);
  for (int64_t r = 0, t = 0; r < at.kernel[0]; ++r)
    for (int64_t c = 0; c < at.kernel[1]; ++c)
      at.taps[t++] = tap_at(at, r, c);
  if (at.phase_floats > kMost / at.phase_count) return false;
  at.plane_floats = at.phase_floats * at.phase_count;
  if (at.plane_floats % 1024 == 0) at.plane_floats += 16;  // not one cache set
  return true;
}

// Columns of a phase: those whose pixel exists, the pixel of column 0.
struct Columns {
  int64_t first, last, shift;
};

inline Columns columns_of(const Layout& at, int64_t phase) {
  const int64_t sx = at.stride[1], shift = phase - at.padding[1];
  // 0 <= c * sx + shift < width
  const int64_t first =
      smaller(at.pitch, shift >= 0 ? 0 : ceil_div(-shift, sx));
  const int64_t behind =
      shift >= at.width ? 0 : ceil_div(at.width - shift, sx);
  return {first, larger(first, smaller(at.pitch, behind)), shift};
}

// Pixels of columns `begin` to `end` of one phase's row.
inline void pick(const float* row, int64_t sx, int64_t shift, int64_t begin,
                 int64_t end, float* to) {
  if (sx == 1) return copy(row + begin + shift, to + begin, end - begin);
  for (int64_t c = begin; c < end; ++c) to[c] = row[sx * c + shift];
}

inline void fill_row(const Layout& at, const Columns& k, const float* row,
                     float* to) {
  fill(to, k.first, 0.f);
  pick(row, at.stride[1], k.shift, k.first, k.last, to);
  fill(to + k.last, at.pitch - k.last, 0.f);
}

// A row of the two phases of stride 2: pixels at even and at odd places.
inline void fill_two_rows(const Layout& at, const Columns& a,
                          const Columns& b, const float* row, float* even,
                          float* odd) {
  const int64_t end = smaller(a.last, b.last);
  int64_t c = smaller(larger(a.first, b.first), end);
  fill(even, a.first, 0.f);
  fill(odd, b.first, 0.f);
  pick(row, 2, a.shift, a.first, c, even);
  pick(row, 2, b.shift, b.first, c, odd);
  for (; c + kLanes <= end; c += kLanes) {
    const Vec x = load(row + 2 * c + a.shift);
    const Vec y = load(row + 2 * c + a.shift + kLanes);
    store(even + c, evens(x, y));
    store(odd + c, odds(x, y));
  }
  pick(row, 2, a.shift, c, a.last, even);
  pick(row, 2, b.shift, c, b.last, odd);
  fill(even + a.last, at.pitch - a.last, 0.f);
  fill(odd + b.last, at.pitch - b.last, 0.f);
}

// As fill_rows, of two phases in each direction, where the map has pixels or
// zeros wherever a kernel element reads that matters.
inline void fill_padded_rows(const Layout& at, const float* from,
                             int64_t row_step, int64_t first_row, int64_t rows,
                             float* to) {
  const float* begin = from + (2 * first_row - at.padding[0]) * row_step -
                       at.padding[1];
  for (int64_t phase = 0; phase < 2; ++phase) {
    float* even = to + 2 * phase * at.phase_floats;
    float* odd = even + at.phase_floats;
    const float* row = begin + phase * row_step;
    for (int64_t r = 0; r < rows; ++r, row += 2 * row_step) {
      for (int64_t c = 0; c < at.pitch; c += kLanes) {
        const Vec x = load(row + 2 * c), y = load(row + 2 * c + kLanes);
        store(even + c, evens(x, y));
        store(odd + c, odds(x, y));
      }
      even += at.pitch;
      odd += at.pitch;
    }
  }
}

// Rows of one channel's plane, written into `to` (plane_floats).
inline void fill_rows(const Layout& at, const float* from, int64_t row_step,
                      int64_t first_row, int64_t rows, float* to) {
  for (int64_t k = 0; k < at.phase_count;) {
    const int64_t *own = at.phases + 2 * k, *next = own + 2;
    const bool two = at.stride[1] == 2 && k + 1 < at.phase_count &&
                     next[0] == own[0] && own[1] == 0 && next[1] == 1;
    const Columns a = columns_of(at, own[1]), b = columns_of(at, 1);
    float* row_to = to + k * at.phase_floats;
    for (int64_t r = 0; r < rows; ++r, row_to += at.pitch) {
      float* other = row_to + at.phase_floats;
      const int64_t y =
          (first_row + r) * at.stride[0] + own[0] - at.padding[0];
      if (y < 0 || y >= at.height) {
        fill(row_to, at.pitch, 0.f);
        if (two) fill(other, at.pitch, 0.f);
      } else if (two) {
        fill_two_rows(at, a, b, from + y * row_step, row_to, other);
      } else {
        fill_row(at, a, from + y * row_step, row_to);
      }
    }
    // the last row's right border
    fill(row_to, at.beside + 1, 0.f);
    if (two) fill(row_to + at.phase_floats, at.beside + 1, 0.f);
    k += two ? 2 : 1;
  }
}

// All of them.
inline void fill_plane(const Layout& at, const float* from, int64_t row_step,
                       float* to) {
  fill_rows(at, from, row_step, 0, at.rows, to);
}

// Where a plane begins that lies in a map.
inline const float* begin_of(const Layout& at, const Map& x, int64_t channel) {
  return x.at(channel) - at.padding[0] * x.row - at.padding[1];
}

}  // namespace
}  // namespace fgc
