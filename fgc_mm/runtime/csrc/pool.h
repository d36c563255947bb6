// Max and average pooling (separable: rows, then columns), and global means.
#pragma once

#include "elementwise.h"

namespace fgc {
namespace {

bool prepare_pool(const Program& p, Op& op, ModelMemory&) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  op.thread_bytes = (round_up(x.width, 16) + round_up(y.width, 16) + 64) * 4;
  return true;
}

// nan propagates as in torch
inline float nan_max(float a, float b) { return a > b || a != a ? a : b; }

template <bool AVERAGE>
inline Vec reduce(Vec x, Vec so_far) {
  return AVERAGE ? so_far + x : (x > so_far || x != x) ? x : so_far;
}

// The taps t in [first, last) of a window with begin + t * step in [low,
// high).
struct Taps {
  int64_t first, last;
  int64_t count() const { return max(0, last - first); }
};

inline Taps taps_within(int64_t begin, int64_t step, int64_t kernel,
                        int64_t low, int64_t high) {
  const int64_t first = begin >= low ? 0 : ceil_div(low - begin, step);
  const int64_t last = begin >= high ? 0 : ceil_div(high - begin, step);
  return {first, min(kernel, last)};
}

// Reduces the rows of a window; one result per input column.
template <bool AVERAGE>
inline void pool_rows(const float* from, int64_t step, int64_t count,
                      int64_t width, float* in_row) {
  fill(in_row, width, AVERAGE ? 0.f : -__builtin_inff());
  for (int64_t t = 0; t < count; ++t, from += step)
    for (int64_t c = 0; c < width; ++c)
      in_row[c] = AVERAGE ? in_row[c] + from[c] : nan_max(from[c], in_row[c]);
}

template <bool AVERAGE>
inline void pool_columns(const Op& op, const float* in_row, int64_t width,
                         int64_t out_width, float* out_row) {
  fill(out_row, out_width, AVERAGE ? 0.f : -__builtin_inff());
  const int64_t s = op.stride[1];
  for (int64_t t = 0; t < op.kernel[1]; ++t) {
    const int64_t shift = t * op.dilation[1] - op.padding[1];
    // 0 <= c * s + shift < width
    const int64_t first = shift >= 0 ? 0 : ceil_div(-shift, s);
    const int64_t last =
        min(out_width, shift >= width ? 0 : ceil_div(width - shift, s));
    const float* from = in_row + shift;
    int64_t c = first;
    for (; s == 2 && c + kLanes <= last; c += kLanes) {
      const float* const pixels = from + 2 * c;
      const Vec x = even_lanes(load(pixels), load(pixels + kLanes));
      store(out_row + c, reduce<AVERAGE>(x, load(out_row + c)));
    }
    for (; c < last; ++c)
      out_row[c] = AVERAGE ? out_row[c] + from[c * s]
                           : nan_max(from[c * s], out_row[c]);
  }
}

// Divides a row of sums by the number of pixels in each window.
inline void divide(const Op& op, int64_t row_begin, const Map& x,
                   int64_t out_width, float* out_row) {
  const int64_t out0 = op.count_outside ? op.padding[0] : 0;
  const int64_t out1 = op.count_outside ? op.padding[1] : 0;
  const int64_t rows = taps_within(row_begin, op.dilation[0], op.kernel[0],
                                   -out0, x.height + out0)
                           .count();
  for (int64_t c = 0; c < out_width; ++c) {
    const int64_t begin = c * op.stride[1] - op.padding[1];
    const int64_t columns = taps_within(begin, op.dilation[1], op.kernel[1],
                                        -out1, x.width + out1)
                                .count();
    out_row[c] /= float(max(1, rows * columns));
  }
}

template <bool AVERAGE>
void pool_channel(const Op& op, const Map& x, const Target& to, int64_t k,
                  float* in_row, float* out_row) {
  for (int64_t r = 0; r < to.y.height; ++r) {
    const int64_t begin = r * op.stride[0] - op.padding[0];
    const Taps taps =
        taps_within(begin, op.dilation[0], op.kernel[0], 0, x.height);
    const float* from =
        x.at(k) +
        (taps.count() ? begin + taps.first * op.dilation[0] : 0) * x.row;
    pool_rows<AVERAGE>(from, op.dilation[0] * x.row, taps.count(), x.width,
                       in_row);
    pool_columns<AVERAGE>(op, in_row, x.width, to.y.width, out_row);
    if (AVERAGE) divide(op, begin, x, to.y.width, out_row);
    write_rows(out_row, to.y.width, r, r + 1, to, k);
  }
}

void run_pool(const Program& p, const Op& op, Context& c) {
  const Map x = map_of(p, c, op.x);
  const Target to = target_of(p, c, op.y, kNone, op.act);
  const Channels channels = channels_of(c, op.set, to.y.channels);
  const int64_t grain = max(1, 2 * kMinElementsPerThread / x.pixels());
  parallel_for(
      op, c, channels.count, grain,
      [&](int64_t b, int64_t e, int64_t thread) {
        float* in_row = (float*)(c.thread_scratch + thread * c.thread_step);
        float* out_row = in_row + round_up(x.width, 16) + 16;
        for (int64_t i = b; i < e; ++i)
          if (op.average)
            pool_channel<true>(op, x, to, channels[i], in_row, out_row);
          else
            pool_channel<false>(op, x, to, channels[i], in_row, out_row);
      });
}

inline float row_sum(const float* x, int64_t count) {
  Vec sums[4] = {};
  int64_t p = 0;
  for (; p + 4 * kLanes <= count; p += 4 * kLanes)
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) sums[k] += load(x + p + k * kLanes);
  for (; p + kLanes <= count; p += kLanes) sums[0] += load(x + p);
  float total = horizontal_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; p < count; ++p) total += x[p];
  return total;
}

constexpr int64_t kSumBlock = 16384;  // elements summed in float32

// The sums may include the padding, which is zero.
inline float channel_mean(const Map& x, int64_t channel) {
  const float* from = x.at(channel);
  const bool whole = x.row == x.width + x.pad;
  const int64_t rows = whole ? 1 : x.height;
  const int64_t length =
      whole ? (x.height - 1) * x.row + x.width : x.width;
  double total = 0;
  for (int64_t r = 0; r < rows; ++r, from += x.row)
    for (int64_t p = 0; p < length; p += kSumBlock)
      total += row_sum(from + p, min(kSumBlock, length - p));
  return float(total / double(x.pixels()));
}

bool prepare_mean(const Program& p, Op& op, ModelMemory&) {
  op.shared_bytes = round_up(p.values[op.x].channels, 16) * 4;
  return true;
}

void run_mean(const Program& p, const Op& op, Context& c) {
  const Map x = map_of(p, c, op.x);
  const Target to = target_of(p, c, op.y, kNone, op.act);
  const Channels channels = channels_of(c, op.set, x.channels);
  float* means = (float*)c.shared_scratch;
  const int64_t grain = max(1, 4 * kMinElementsPerThread / (x.pixels() + 1));
  parallel_for(op, c, channels.count, grain,
               [&](int64_t b, int64_t e, int64_t) {
                 for (int64_t i = b; i < e; ++i)
                   means[i] = channel_mean(x, channels[i]);
               });
  write_vector(means, channels, to);
}

}  // namespace
}  // namespace fgc
