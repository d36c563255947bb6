// Layer norm of tokens (over the channels of each pixel) and group norm.
#pragma once

#include "pool.h"

namespace fgc {
namespace {

constexpr int kNormVecs = 4;  // vectors of pixels per block

// Normalises one block of pixels over all channels. Loads may extend beyond
// the row, stores do not.
template <int VECS>
void norm_pixels(const Op& op, const Context& c, const float* from,
                 int64_t from_step, float* to, int64_t to_step,
                 int64_t channels, int64_t count) {
  Vec mean[VECS] = {}, var[VECS] = {};
  for (int64_t k = 0; k < channels; ++k)
    for (int v = 0; v < VECS; ++v)
      mean[v] += load(from + k * from_step + v * kLanes);
  const float inverse = 1.f / float(channels);
  for (int v = 0; v < VECS; ++v) mean[v] *= inverse;
  for (int64_t k = 0; k < channels; ++k)
    for (int v = 0; v < VECS; ++v) {
      const Vec d = load(from + k * from_step + v * kLanes) - mean[v];
      var[v] += d * d;
    }
  const float eps = float(op.eps);
  for (int v = 0; v < VECS; ++v)
    var[v] = 1.f / sqrt_of(var[v] * inverse + eps);
  float row[VECS * kLanes];
  for (int64_t k = 0; k < channels; ++k) {
    const float w = weight_at(c, op.weight, k, 1.f);
    const float b = weight_at(c, op.bias, k, 0.f);
    const bool whole = count == VECS * kLanes;
    float* out = whole ? to + k * to_step : row;
    for (int v = 0; v < VECS; ++v)
      store(out + v * kLanes,
            (load(from + k * from_step + v * kLanes) - mean[v]) * var[v] * w +
                b);
    apply(op.act, out, out, count);
    if (!whole) copy(row, to + k * to_step, count);
  }
}

void norm_tokens(const Op& op, Context& c, Map x, Map y) {
  Map other = y;
  if (!y.pad) flatten_rows(y, x, other);
  const int64_t block = kNormVecs * kLanes;
  const int64_t blocks = ceil_div(y.width, block);
  const int64_t grain = max(1, kMinElementsPerThread / (block * y.channels));
  parallel_for(op, c, y.height * blocks, grain,
               [&](int64_t b, int64_t e, int64_t) {
                 for (int64_t i = b; i < e; ++i) {
                   const int64_t r = i / blocks;
                   int64_t at = i % blocks * block;
                   int64_t rest = min(block, y.width - at);
                   const float* from = x.data + r * x.row + at;
                   float* to = y.data + r * y.row + at;
                   if (rest > 2 * kLanes)
                     norm_pixels<kNormVecs>(op, c, from, x.channel, to,
                                            y.channel, y.channels, rest);
                   else if (rest > kLanes)
                     norm_pixels<2>(op, c, from, x.channel, to, y.channel,
                                    y.channels, rest);
                   else
                     norm_pixels<1>(op, c, from, x.channel, to, y.channel,
                                    y.channels, rest);
                 }
               });
}

// Sum of (x - mean)^2 over a row.
inline float squared_deviations(const float* x, float mean, int64_t count) {
  Vec sums[2] = {};
  const Vec m = broadcast(mean);
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes)
    for (int k = 0; k < 2; ++k) {
      const Vec d = load(x + i + k * kLanes) - m;
      sums[k] += d * d;
    }
  float total = horizontal_sum(sums[0] + sums[1]);
  for (; i < count; ++i) total += (x[i] - mean) * (x[i] - mean);
  return total;
}

void norm_group(const Op& op, const Context& c, const Map& x, const Map& y,
                int64_t first, int64_t last) {
  const int64_t rows = (last - first) * x.height;
  const auto row = [&](int64_t i) {
    return x.at(first + i / x.height) + i % x.height * x.row;
  };
  const double elements = double(rows) * double(x.width);
  double total = 0, squares = 0;
  for (int64_t i = 0; i < rows; ++i) total += row_sum(row(i), x.width);
  const float mean = float(total / elements);
  for (int64_t i = 0; i < rows; ++i)
    squares += squared_deviations(row(i), mean, x.width);
  const float scale =
      1.f / __builtin_sqrtf(float(squares / elements) + float(op.eps));
  for (int64_t k = first; k < last; ++k) {
    const float w = weight_at(c, op.weight, k, 1.f) * scale;
    const Act line = {kLinear, w,
                      weight_at(c, op.bias, k, 0.f) - mean * w};
    for (int64_t r = 0; r < y.height; ++r) {
      float* to = y.at(k) + r * y.row;
      apply(line, x.at(k) + r * x.row, to, y.width);
      apply(op.act, to, to, y.width);
    }
  }
}

void run_norm(const Program& p, const Op& op, Context& c) {
  Map x = map_of(p, c, op.x), y = map_of(p, c, op.y);
  const Map whole = y;
  if (op.groups == 0) {
    norm_tokens(op, c, x, y);
  } else {
    Map other = y;
    if (!y.pad) flatten_rows(y, x, other);
    const int64_t group_channels = x.channels / op.groups;
    const int64_t grain =
        max(1, kMinElementsPerThread / (group_channels * x.pixels()));
    parallel_for(op, c, op.groups, grain, [&](int64_t b, int64_t e, int64_t) {
      for (int64_t g = b; g < e; ++g)
        norm_group(op, c, x, y, g * group_channels, (g + 1) * group_channels);
    });
  }
  zero_padding(whole);
}

}  // namespace
}  // namespace fgc
