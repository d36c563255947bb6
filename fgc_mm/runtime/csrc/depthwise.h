// Depthwise convs, with a direct kernel for stride 2.
#pragma once

#include "planes.h"

namespace fgc {
namespace {

constexpr int kMaxRows = 8;  // output rows in registers

// Accumulates one vector of each of ROWS output rows.
template <int ROWS>
void column(const float* plane, int64_t pitch, const int64_t* taps,
            int64_t tap_count, const float* w, float start, Vec* sums) {
  Vec a[ROWS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) a[r] = broadcast(start);
  for (int64_t t = 0; t < tap_count; ++t) {
    const Vec weight = broadcast(w[t]);
    const float* from = plane + taps[t];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) a[r] += weight * load(from + r * pitch);
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r) sums[r] = a[r];
}

using ColumnFn = void (*)(const float*, int64_t, const int64_t*, int64_t,
                          const float*, float, Vec*);

inline ColumnFn select_column(int64_t rows) {
  static const ColumnFn all[kMaxRows] = {column<1>, column<2>, column<3>,
                                         column<4>, column<5>, column<6>,
                                         column<7>, column<8>};
  return all[rows - 1];
}

// Bounds of the epilogue; infinite unless the activation is a clamp.
struct ClampLimits {
  Vec low, high;
  explicit ClampLimits(const Target& t)
      : low(broadcast(t.is_clamp ? t.low : -__builtin_inff())),
        high(broadcast(t.is_clamp ? t.high : __builtin_inff())) {}
};

// Calls sum(c, sums) for the vectors at column c of some output rows and
// stores the results from `out` on. The last vector overlaps the one before,
// unless the row is shorter than a vector.
template <class F>
inline void write_columns(int64_t width, int64_t rows,
                          const ClampLimits& limits, float* out,
                          int64_t row_step, const F& sum) {
  for (int64_t c = 0; c < width; c += kLanes) {
    if (c + kLanes > width && width > kLanes) c = width - kLanes;
    const int64_t count = min(kLanes, width - c);
    Vec sums[kMaxRows];
    sum(c, sums);
    float* to = out + c;
    for (int64_t r = 0; r < rows; ++r, to += row_step) {
      const Vec value = clamp(sums[r], limits.low, limits.high);
      if (count == kLanes)
        store(to, value);
      else
        memcpy(to, &value, size_t(count) * sizeof(float));
    }
  }
}

// Computes rows r0 to r1 of a channel without padding; `plane` begins with
// the input rows of r0.
inline void depthwise_rows(const Layout& layout, const float* plane,
                           const float* w, float start, const Target& t,
                           int64_t r0, int64_t r1, float* to) {
  const ClampLimits limits(t);
  const int64_t blocks = ceil_div(r1 - r0, kMaxRows);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = b * (r1 - r0) / blocks;
    const int64_t rows = (b + 1) * (r1 - r0) / blocks - first;
    const ColumnFn sum = select_column(rows);
    write_columns(layout.out_width, rows, limits, to + (r0 + first) * t.y.row,
                  t.y.row, [&](int64_t c, Vec* sums) {
                    sum(plane + first * layout.pitch + c, layout.pitch,
                        layout.taps, layout.tap_count, w, start, sums);
                  });
  }
}

// Applies an activation that is not a clamp, and zeroes the padding.
inline void finish_channel(const Target& t, float* to) {
  const Map& y = t.y;
  const int64_t all = (y.height - 1) * y.row + y.width;
  if (!t.is_clamp && !t.has_gaps)  // includes the padding between rows
    apply(t.act, to, to, all);
  for (int64_t r = 0; !t.is_clamp && t.has_gaps && r < y.height; ++r)
    apply(t.act, to + r * y.row, to + r * y.row, y.width);
  zero_padding(y, to, 0, y.height);
}

// Stride 2 in both directions, directly from the map: a kernel element needs
// the even or the odd lanes of two neighbouring vectors.
constexpr int64_t kStridedRows = 4, kStridedKernel = 8;

// Whether the vectors at the row ends stay within the slack around the map's
// buffer, for any windows that a file may define.
inline bool supports_strided(const Layout& layout) {
  const int64_t end =
      2 * (layout.out_width - 1) + layout.kernel[1] - layout.padding[1];
  return layout.stride[0] == 2 && layout.stride[1] == 2 &&
         layout.dilation[0] == 1 && layout.dilation[1] == 1 &&
         layout.kernel[1] <= kStridedKernel &&
         layout.padding[1] <= kStridedKernel &&
         end <= layout.width + kStridedKernel &&
         layout.width < int64_t(1) << 30;
}

// Accumulates one vector of each of ROWS output rows. `inside` is zero in the
// lanes for which a kernel column reads outside of the map.
template <int ROWS>
void strided_column(const float* from, int64_t row, int64_t kernel_rows,
                    int64_t kernel_columns, const float* w,
                    const Ints* inside, float start, Vec* sums) {
  Vec a[ROWS];
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; ++r) a[r] = broadcast(start);
  for (int64_t y = 0; y < kernel_rows; ++y) {
    const float* at = from + y * row;
    int64_t x = 0;
    for (; x + 1 < kernel_columns; x += 2, at += 2, w += 2) {
      const Vec we = broadcast(w[0]), wo = broadcast(w[1]);
      const Ints ie = inside[x], io = inside[x + 1];
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; ++r) {
        const Vec p = load(at + 2 * r * row);
        const Vec q = load(at + 2 * r * row + kLanes);
        a[r] += we * (Vec)((Ints)even_lanes(p, q) & ie);
        a[r] += wo * (Vec)((Ints)odd_lanes(p, q) & io);
      }
    }
    if (x == kernel_columns) continue;
    const Vec we = broadcast(*w++);
    const Ints ie = inside[x];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r) {
      const Vec p = load(at + 2 * r * row);
      const Vec q = load(at + 2 * r * row + kLanes);
      a[r] += we * (Vec)((Ints)even_lanes(p, q) & ie);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; ++r) sums[r] = a[r];
}

using StridedFn = void (*)(const float*, int64_t, int64_t, int64_t,
                           const float*, const Ints*, float, Vec*);

// Computes all rows of an output channel.
inline void strided_channel(const Layout& layout, const Map& x, int64_t input,
                            const float* w, float start, const Target& t,
                            float* to) {
  static const StridedFn all[kStridedRows] = {
      strided_column<1>, strided_column<2>, strided_column<3>,
      strided_column<4>};
  const ClampLimits limits(t);
  const int64_t columns = layout.kernel[1];
  // output rows whose window lies inside of the map vertically
  const int64_t above =
      min(ceil_div(layout.padding[0], 2), layout.out_height);
  const int64_t fit = layout.height - layout.kernel[0] + layout.padding[0];
  const int64_t below =
      max(above, min(fit < 0 ? 0 : fit / 2 + 1, layout.out_height));
  for (int64_t r = 0; r < layout.out_height;) {
    const bool whole = r >= above && r < below;
    const int64_t rows = whole ? min(below - r, kStridedRows) : 1;
    const int64_t top = 2 * r - layout.padding[0];
    const int64_t k0 = min(max(0, -top), layout.kernel[0]);
    const int64_t k1 = max(k0, min(layout.kernel[0], layout.height - top));
    const StridedFn sum = all[rows - 1];
    write_columns(
        layout.out_width, rows, limits, to + r * t.y.row, t.y.row,
        [&](int64_t c, Vec* sums) {
          const int64_t left = 2 * c - layout.padding[1];
          Ints inside[kStridedKernel];
          for (int64_t k = 0; k < columns; ++k) {
            const Ints column = int32_t(left + k) + 2 * kIndex;
            inside[k] = (column >= 0) & (column < int32_t(layout.width));
          }
          sum(x.at(input) + (top + k0) * x.row + left, x.row, k1 - k0,
              columns, w + k0 * columns, inside, start, sums);
        });
    r += rows;
  }
}

// Part of the L1 cache that the input rows of a pass may use.
constexpr int64_t kL1Bytes = 16 * 1024;

inline int64_t rows_per_pass(const Layout& layout) {
  const int64_t row = layout.pitch * layout.phase_count * 4;
  const int64_t rows = kL1Bytes / row - (layout.rows - layout.out_height);
  if (rows >= layout.out_height) return layout.out_height;
  return max(kMaxRows, rows / kMaxRows * kMaxRows);
}

// Computes one output channel from the map itself or from padded copies of
// some of its rows.
inline void depthwise_channel(const Layout& layout, const Map& x,
                              int64_t input, const float* w, float start,
                              const Target& t, int64_t channel,
                              float* plane_rows) {
  float* to = t.y.at(channel);
  if (layout.in_place) {
    depthwise_rows(layout, plane_begin(layout, x, input), w, start, t, 0,
                   layout.out_height, to);
    return finish_channel(t, to);
  }
  if (supports_strided(layout)) {
    strided_channel(layout, x, input, w, start, t, to);
    return finish_channel(t, to);
  }
  const int64_t step = rows_per_pass(layout);
  for (int64_t r0 = 0; r0 < layout.out_height; r0 += step) {
    const int64_t r1 = min(r0 + step, layout.out_height);
    fill_rows(layout, x.at(input), x.row, r0,
              r1 - r0 + layout.rows - layout.out_height, plane_rows);
    depthwise_rows(layout, plane_rows, w, start, t, r0, r1, to);
  }
  finish_channel(t, to);
}

// Computes all rows of a channel and adds another value.
inline void depthwise_with_add(const Layout& layout, const float* plane,
                               const float* w, float start, float* acc,
                               const Target& to, int64_t o) {
  static const int64_t zero[1 + kPrefetchInputs] = {};
  const int64_t used = layout.positions() - (layout.pitch - layout.out_width);
  const TileArgs args{&plane, zero, 1, &w, layout.taps, layout.tap_count, 1};
  accumulate_block(args, 1, 0, ceil_div(used, kLanes), acc, 0, &start, 1,
                   nullptr);
  write_rows(acc, layout.pitch, 0, layout.out_height, to, o);
}

// Channels are distributed over the threads.
inline void run_depthwise(const Op& op, Context& c, const Layout& layout,
                          int64_t acc_floats, const Map& x,
                          const Target& to) {
  const Channels outs = channels_of(c, op.out_set, to.y.channels);
  const int64_t outputs_per_input = to.y.channels / x.channels;
  const int64_t work = layout.positions() * layout.tap_count;
  const int64_t grain = max(1, kMinWorkPerThread / 2 / work);
  parallel_for(
      op, c, outs.count, grain, [&](int64_t b, int64_t e, int64_t thread) {
        float* acc = (float*)(c.thread_scratch + thread * c.thread_step);
        float* plane_rows = acc + round_up(acc_floats, 16);
        for (int64_t i = b; i < e; ++i) {
          const int64_t o = outs[i];
          const int64_t input = o / outputs_per_input;
          const float* w = c.weights + op.weight + o * op.out_step;
          const float start = op.bias == kNone ? 0.f : c.weights[op.bias + o];
          if (to.has_add) {
            if (!layout.in_place)
              fill_plane(layout, x.at(input), x.row, plane_rows);
            const float* plane =
                layout.in_place ? plane_begin(layout, x, input) : plane_rows;
            depthwise_with_add(layout, plane, w, start, acc, to, o);
          } else {
            depthwise_channel(layout, x, input, w, start, to, o, plane_rows);
          }
        }
      });
}

}  // namespace
}  // namespace fgc
