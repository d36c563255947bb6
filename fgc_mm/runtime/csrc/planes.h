// Layout of conv inputs: one zero-padded plane per channel.
//
// A kernel element is then a constant offset into the plane, and neither row
// ends nor borders need special cases: results at padding columns are
// computed but not stored. With strides a plane is split into phases, so that
// each kernel element reads contiguous pixels. A map that is stored with
// enough padding is used in place.
#pragma once

#include "tile.h"

namespace fgc {
namespace {

struct Layout {
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  int64_t height, width, out_height, out_width;
  int64_t pitch, rows, phase_floats, plane_floats, halo;
  bool in_place;
  int64_t tap_count, phase_count;
  int64_t* taps;    // offset of every kernel element
  int64_t* phases;  // (row, column) of each phase that is read

  int64_t positions() const { return out_height * pitch; }
};

inline int64_t kernel_reach(const Op& op, int axis) {
  return op.dilation[axis] * (op.kernel[axis] - 1);
}

// Whether the map itself has the layout of planes: stride 1, enough padding
// for the kernel, and rows that are not shorter than those of the output.
inline bool is_padded_plane(const Op& op, const Value& x, const Value& y) {
  const int64_t below =
      y.height - 1 - op.padding[0] + kernel_reach(op, 0) - (x.height - 1);
  const int64_t right =
      y.width - 1 - op.padding[1] + kernel_reach(op, 1) - (x.width - 1);
  return op.stride[0] == 1 && op.stride[1] == 1 && x.pad >= op.padding[0] &&
         x.pad >= op.padding[1] && x.pad >= below && x.pad >= right &&
         y.width <= x.row_step &&
         (y.height == 1 || x.row_step <= x.width + x.width / 4 + 16);
}

// Number of phases along an axis; kernel element k reads phase k modulo it.
inline int64_t axis_phases(const Op& op, int axis) {
  int64_t divisor = op.stride[axis], rest = op.dilation[axis];
  while (rest) {  // greatest common divisor
    const int64_t next = divisor % rest;
    divisor = rest;
    rest = next;
  }
  return min(op.kernel[axis], op.stride[axis] / divisor);
}

// Sets the phases, and the offsets of the kernel elements in them.
inline void set_taps(const Op& op, Layout& layout) {
  const int64_t rows = axis_phases(op, 0), columns = axis_phases(op, 1);
  for (int64_t y = 0, tap = 0; y < op.kernel[0]; ++y)
    for (int64_t x = 0; x < op.kernel[1]; ++x, ++tap) {
      const int64_t dy = y * op.dilation[0], dx = x * op.dilation[1];
      const int64_t phase = y % rows * columns + x % columns;
      layout.phases[2 * phase] = dy % op.stride[0];
      layout.phases[2 * phase + 1] = dx % op.stride[1];
      layout.taps[tap] = phase * layout.phase_floats +
                         dy / op.stride[0] * layout.pitch +
                         dx / op.stride[1];
    }
  layout.phase_count = rows * columns;
}

// False if the planes would exceed any memory.
inline bool make_layout(const Op& op, const Value& x, const Value& y,
                        ModelMemory& memory, Layout& layout) {
  for (int axis = 0; axis < 2; ++axis) {
    layout.kernel[axis] = op.kernel[axis];
    layout.stride[axis] = op.stride[axis];
    layout.padding[axis] = op.padding[axis];
    layout.dilation[axis] = op.dilation[axis];
  }
  layout.height = x.height;
  layout.width = x.width;
  layout.out_height = y.height;
  layout.out_width = y.width;
  layout.halo = kernel_reach(op, 1) / layout.stride[1];
  layout.rows = layout.out_height + kernel_reach(op, 0) / layout.stride[0];
  layout.in_place = is_padded_plane(op, x, y);
  layout.pitch = layout.out_width + layout.halo;
  if (layout.stride[1] == 1) {  // right padding = left padding of next row
    const int64_t right =
        max(0, layout.pitch - layout.padding[1] - layout.width);
    layout.pitch -= min(min(layout.padding[1], layout.halo), right);
  }
  if (layout.in_place)
    layout.pitch = y.height == 1 && layout.kernel[0] == 1
                       ? max(x.width, y.width)
                       : x.row_step;
  if (layout.rows > kMaxBytes / (layout.pitch + 1)) return false;
  layout.phase_floats =
      layout.rows * layout.pitch + layout.halo + kLanes * (kMaxVec + 1);
  layout.phase_floats = round_up(layout.phase_floats, 16);
  layout.tap_count = layout.kernel[0] * layout.kernel[1];
  layout.taps = (int64_t*)allocate(memory, layout.tap_count * 8);
  layout.phases = (int64_t*)allocate(memory, layout.tap_count * 16);
  set_taps(op, layout);
  if (layout.phase_floats > kMaxBytes / layout.phase_count) return false;
  layout.plane_floats = layout.phase_floats * layout.phase_count;
  if (layout.plane_floats % 1024 == 0)
    layout.plane_floats += 16;  // avoids cache set conflicts
  return true;
}

// The columns [first, last) of a phase that lie in the map; column c reads
// pixel c * stride + shift.
struct Columns {
  int64_t first, last, shift;
};

inline Columns columns_of(const Layout& layout, int64_t phase) {
  const int64_t sx = layout.stride[1], shift = phase - layout.padding[1];
  // 0 <= c * sx + shift < width
  const int64_t first =
      min(layout.pitch, shift >= 0 ? 0 : ceil_div(-shift, sx));
  const int64_t end =
      shift >= layout.width ? 0 : ceil_div(layout.width - shift, sx);
  return {first, max(first, min(layout.pitch, end)), shift};
}

// Copies pixels of the columns [begin, end) of a row of a phase.
inline void copy_strided(const float* row, int64_t sx, int64_t shift,
                         int64_t begin, int64_t end, float* to) {
  if (sx == 1) return copy(row + begin + shift, to + begin, end - begin);
  for (int64_t c = begin; c < end; ++c) to[c] = row[sx * c + shift];
}

inline void fill_row(const Layout& layout, const Columns& k, const float* row,
                     float* to) {
  fill(to, k.first, 0.f);
  copy_strided(row, layout.stride[1], k.shift, k.first, k.last, to);
  fill(to + k.last, layout.pitch - k.last, 0.f);
}

// Splits a row into the two phases of stride 2: even and odd pixels.
inline void fill_two_rows(const Layout& layout, const Columns& a,
                          const Columns& b, const float* row, float* even,
                          float* odd) {
  const int64_t end = min(a.last, b.last);
  int64_t c = min(max(a.first, b.first), end);
  fill(even, a.first, 0.f);
  fill(odd, b.first, 0.f);
  copy_strided(row, 2, a.shift, a.first, c, even);
  copy_strided(row, 2, b.shift, b.first, c, odd);
  for (; c + kLanes <= end; c += kLanes) {
    const Vec x = load(row + 2 * c + a.shift);
    const Vec y = load(row + 2 * c + a.shift + kLanes);
    store(even + c, even_lanes(x, y));
    store(odd + c, odd_lanes(x, y));
  }
  copy_strided(row, 2, a.shift, c, a.last, even);
  copy_strided(row, 2, b.shift, c, b.last, odd);
  fill(even + a.last, layout.pitch - a.last, 0.f);
  fill(odd + b.last, layout.pitch - b.last, 0.f);
}

// As fill_rows, for stride 2 in both directions and maps with enough padding
// to read without bounds checks.
inline void fill_padded_rows(const Layout& layout, const float* from,
                             int64_t row_step, int64_t first_row,
                             int64_t rows, float* to) {
  const float* begin = from + (2 * first_row - layout.padding[0]) * row_step -
                       layout.padding[1];
  for (int64_t phase = 0; phase < 2; ++phase) {
    float* even = to + 2 * phase * layout.phase_floats;
    float* odd = even + layout.phase_floats;
    const float* row = begin + phase * row_step;
    for (int64_t r = 0; r < rows; ++r, row += 2 * row_step) {
      for (int64_t c = 0; c < layout.pitch; c += kLanes) {
        const Vec x = load(row + 2 * c), y = load(row + 2 * c + kLanes);
        store(even + c, even_lanes(x, y));
        store(odd + c, odd_lanes(x, y));
      }
      even += layout.pitch;
      odd += layout.pitch;
    }
  }
}

// Copies rows of a channel to its plane, with zero padding.
inline void fill_rows(const Layout& layout, const float* from,
                      int64_t row_step, int64_t first_row, int64_t rows,
                      float* to) {
  for (int64_t k = 0; k < layout.phase_count;) {
    const int64_t *phase = layout.phases + 2 * k, *next = phase + 2;
    const bool both = layout.stride[1] == 2 && k + 1 < layout.phase_count &&
                      next[0] == phase[0] && phase[1] == 0 && next[1] == 1;
    const Columns a = columns_of(layout, phase[1]), b = columns_of(layout, 1);
    float* row_to = to + k * layout.phase_floats;
    for (int64_t r = 0; r < rows; ++r, row_to += layout.pitch) {
      float* other = row_to + layout.phase_floats;
      const int64_t y =
          (first_row + r) * layout.stride[0] + phase[0] - layout.padding[0];
      if (y < 0 || y >= layout.height) {
        fill(row_to, layout.pitch, 0.f);
        if (both) fill(other, layout.pitch, 0.f);
      } else if (both) {
        fill_two_rows(layout, a, b, from + y * row_step, row_to, other);
      } else {
        fill_row(layout, a, from + y * row_step, row_to);
      }
    }
    // padding on the right of the last row
    fill(row_to, layout.halo + 1, 0.f);
    if (both) fill(row_to + layout.phase_floats, layout.halo + 1, 0.f);
    k += both ? 2 : 1;
  }
}

// Copies all rows.
inline void fill_plane(const Layout& layout, const float* from,
                       int64_t row_step, float* to) {
  fill_rows(layout, from, row_step, 0, layout.rows, to);
}

// First element of a plane that is used in place.
inline const float* plane_begin(const Layout& layout, const Map& x,
                                int64_t channel) {
  return x.at(channel) - layout.padding[0] * x.row - layout.padding[1];
}

}  // namespace
}  // namespace fgc
