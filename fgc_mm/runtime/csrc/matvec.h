// Linear layers of one pixel: matrix-vector products. The loops are
// vectorised over outputs or inputs, depending on which of them the weights
// store contiguously.
#pragma once

#include "tile.h"

namespace fgc {
namespace {

constexpr int64_t kMatvecBlock = 8 * kLanes;  // outputs in a register block

inline bool is_matvec(const Op& op, const Value& x, const Value& y) {
  return op.groups == 1 && x.height == 1 && x.width == 1 && y.height == 1 &&
         y.width == 1 && op.kernel[0] == 1 && op.kernel[1] == 1 &&
         op.padding[0] == 0 && op.padding[1] == 0;
}

// Scratch memory: inputs, sums of all outputs, listed outputs.
bool prepare_matvec(Op& op, const Value& x, const Value& y) {
  const int64_t floats =
      round_up(x.channels, 64) + 2 * round_up(y.channels, 64) + 3 * 64;
  op.shared_bytes = floats * 4;
  return true;
}

// sums[o] = bias[o] + sum over i of w[i * step + o] x[i], for one block of
// outputs.
inline void block_sums(const float* w, int64_t step, const Channels& ins,
                       const Map& x, const float* bias, int64_t count,
                       float* sums) {
  Vec a[8] = {};
  if (count == kMatvecBlock) {
    for (int64_t i = 0; i < ins.count; ++i) {
      const Vec value = broadcast(*x.at(ins[i]));
      const float* from = w + ins[i] * step;
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) a[v] += value * load(from + v * kLanes);
    }
  } else {
    const int64_t vectors = ceil_div(count, kLanes);
    for (int64_t v = 0; v < vectors; ++v)
      for (int64_t i = 0; i < ins.count; ++i)
        a[v] += broadcast(*x.at(ins[i])) *
                load(w + ins[i] * step + v * kLanes);
  }
  for (int v = 0; v < 8; ++v) store(sums + v * kLanes, a[v]);
  for (int64_t o = 0; bias && o < count; ++o) sums[o] += bias[o];
}

// Dot product.
inline float dot(const float* a, const float* b, int64_t count) {
  Vec sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes)
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k)
      sums[k] += load(a + i + k * kLanes) * load(b + i + k * kLanes);
  float total = horizontal_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; i < count; ++i) total += a[i] * b[i];
  return total;
}

// Epilogue of a (C, 1, 1) map: values of the listed channels, plus the
// addend, activated. Overwrites the values.
inline void write_vector(float* values, const Channels& outs,
                         const Target& to) {
  for (int64_t j = 0; to.has_add && j < outs.count; ++j)
    values[j] += *to.add.at(outs[j]);
  apply(to.act, values, values, outs.count);
  if (!outs.indices && to.y.channel == 1 && !to.y.pad) {
    copy(values, to.y.data, outs.count);
    return;
  }
  for (int64_t j = 0; j < outs.count; ++j) {
    float* at = to.y.at(outs[j]);
    *at = values[j];
    fill(at - to.y.pad, to.y.pad, 0.f);
    fill(at + 1, to.y.pad, 0.f);
    zero_border(to.y, at, 0, 1);
  }
}

void run_matvec(const Op& op, Context& c, const Map& x, const Target& to) {
  const Channels ins = channels_of(c, op.in_set, x.channels);
  const Channels outs = channels_of(c, op.out_set, to.y.channels);
  float* dense = (float*)c.shared_scratch;
  float* sums = dense + round_up(x.channels, 64) + 64;
  float* listed = sums + round_up(to.y.channels, 64) + 64;
  const float* w = c.weights + op.weight;
  const float* bias = op.bias == kNone ? nullptr : c.weights + op.bias;
  if (op.out_step == 1) {
    const int64_t all = to.y.channels;
    const int64_t grain =
        max(1, kMinWorkPerThread / (kMatvecBlock * (ins.count + 1)));
    parallel_for(op, c, ceil_div(all, kMatvecBlock), grain,
                 [&](int64_t b, int64_t e, int64_t) {
                   for (int64_t o = b * kMatvecBlock;
                        o < min(all, e * kMatvecBlock); o += kMatvecBlock)
                     block_sums(w + o, op.in_step, ins, x,
                                bias ? bias + o : nullptr,
                                min(kMatvecBlock, all - o), sums + o);
                 });
    if (outs.indices)
      for (int64_t j = 0; j < outs.count; ++j) listed[j] = sums[outs[j]];
    write_vector(outs.indices ? listed : sums, outs, to);
    return;
  }
  const bool rows = op.in_step == 1;
  if (rows && ins.indices) fill(dense, x.channels, 0.f);
  for (int64_t i = 0; i < ins.count; ++i)
    dense[rows ? ins[i] : i] = *x.at(ins[i]);
  const int64_t grain = max(1, kMinWorkPerThread / (ins.count + 1));
  parallel_for(op, c, outs.count, grain, [&](int64_t b, int64_t e, int64_t) {
    for (int64_t j = b; j < e; ++j) {
      const float* row = w + outs[j] * op.out_step;
      float sum = bias ? bias[outs[j]] : 0.f;
      if (rows)
        sum += dot(row, dense, x.channels);
      else
        for (int64_t i = 0; i < ins.count; ++i)
          sum += row[ins[i] * op.in_step] * dense[i];
      listed[j] = sum;
    }
  });
  write_vector(listed, outs, to);
}

}  // namespace
}  // namespace fgc
