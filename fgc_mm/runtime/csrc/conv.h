// A conv that reads and writes listed channels only.
#pragma once

#include "conv_sums.h"
#include "depthwise.h"
#include "matvec.h"
#include "winograd.h"

namespace fgc {
namespace {

enum ConvWay { kDense, kDepthwise, kMatvec };

struct ConvPlan {
  Layout at;
  ConvWay way;
  int64_t acc_floats;  // of every thread
  Winograd* winograd;  // or null
  float* blocks;       // weights in the order in which they are read, or null
  int64_t block;       // of so many floats for each group of outputs
};

// Where all outputs are computed, convs with more bytes of weights than this
// read a copy: of a group of outputs, the weights of an input's tap side by
// side, so that memory is read in order and closed inputs are skipped whole.
constexpr int64_t kWorthBlocks = 64 * 1024;

inline void copy_blocks(const Program& p, const Op& op, int64_t inputs,
                        int64_t outputs, Keep& keep, ConvPlan& plan) {
  const int64_t taps = plan.at.tap_count;
  if (op.groups != 1 || op.out_set != kAll ||
      inputs * outputs * taps * 4 < kWorthBlocks)
    return;
  plan.block = inputs * taps * kMaxOut;
  const int64_t floats = ceil_div(outputs, kMaxOut) * plan.block;
  plan.blocks = (float*)take(keep, (floats + kSlack) * 4);
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t i = 0; i < inputs; ++i) {
      const float* from =
          p.weights + op.weight + o * op.out_step + i * op.in_step;
      float* to = plan.blocks + o / kMaxOut * plan.block +
                  i * taps * kMaxOut + o % kMaxOut;
      for (int64_t t = 0; t < taps; ++t) to[t * kMaxOut] = from[t];
    }
}

bool prepare_conv(const Program& p, Op& op, Keep& keep) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  ConvPlan& plan = *(ConvPlan*)take(keep, sizeof(ConvPlan));
  op.plan = &plan;
  if (is_matvec(op, x, y)) {
    plan.way = kMatvec;
    return prepare_matvec(op, x, y);
  }
  plan.way = op.groups > 1 && op.groups == x.channels ? kDepthwise : kDense;
  if (!lay_out(op, x, y, keep, plan.at)) return false;
  const Layout& at = plan.at;
  const int64_t rows =
      plan.way == kDense ? ceil_div(at.out_height, least_chunks(at))
                         : at.out_height;
  plan.acc_floats = round_up(rows * at.pitch + kLanes, 16) + 16;
  const int64_t inputs = x.channels / op.groups;
  const int64_t planes = at.in_place ? 0 : at.plane_floats;
  if (plan.way == kDepthwise) {
    op.own_bytes = (planes + plan.acc_floats + 64) * 4;
    return true;
  }
  if (planes > kMost / (inputs * 4)) return false;
  op.shared_bytes = inputs * (planes * 4 + 16) +
                    8 * (kAhead + y.channels / op.groups) + 256;
  op.own_bytes = kBlockOuts * plan.acc_floats * 4 + 64;
  if (suits_winograd(op, x, y))
    return prepare_winograd(p, op, keep, plan.winograd);
  copy_blocks(p, op, inputs, y.channels, keep, plan);
  return true;
}

void dense(Group g, const ConvPlan& plan, const Map& x, const Channels& ins,
           const float* weight) {
  const Layout& at = g.at;
  Context& c = g.c;
  const int64_t inputs = g.op.in_set == kAll ? x.channels / g.op.groups
                                             : x.channels;
  const float** planes = (const float**)c.shared;
  int64_t* w_of_in = (int64_t*)(planes + inputs);
  const float** weights = (const float**)(w_of_in + inputs + kAhead);
  const float** behind = weights + g.outs.count;
  float* memory = (float*)round_up(int64_t(behind), 64);
  const bool ordered = plan.blocks;
  for (int64_t i = 0; i < ins.count + kAhead && ins.count; ++i)
    w_of_in[i] = ins[smaller(i, ins.count - 1)] *
                 (ordered ? at.tap_count * kMaxOut : g.op.in_step);
  for (int64_t o = 0; o < g.outs.count; ++o)
    weights[o] = ordered
                     ? plan.blocks + o / kMaxOut * plan.block + o % kMaxOut
                     : weight + g.outs[o] * g.op.out_step;
  g.weights = weights;
  if (at.in_place) {
    for (int64_t i = 0; i < ins.count; ++i)
      planes[i] = begin_of(at, x, ins[i]);
  } else {
    const int64_t grain = larger(1, 262144 / at.plane_floats);
    share(g.op, c, ins.count, grain, [&](int64_t b, int64_t e, int64_t) {
      for (int64_t i = b; i < e; ++i) {
        float* plane = memory + i * at.plane_floats;
        fill_plane(at, x.at(ins[i]), x.row, plane);
        planes[i] = plane;
      }
    });
  }
  sum_outputs(g,
              {planes, w_of_in, ins.count, nullptr, at.taps, at.tap_count,
               ordered ? kMaxOut : 1, false, ordered ? 15 : 0,
               ordered && at.tap_count == 1 ? kFar : 0},
              ins.count);
}

void run_conv(const Program& p, const Op& op, Context& c) {
  const ConvPlan& plan = *(const ConvPlan*)op.plan;
  const Map x = map_of(p, c, op.x);
  const Target to = target_of(p, c, op.y, op.add, op.act);
  if (plan.way == kMatvec) return run_matvec(p, op, c, x, to);
  if (plan.way == kDepthwise)
    return depthwise(op, c, plan.at, plan.acc_floats, x, to);
  const Channels read = channels_of(c, op.in_set, x.channels);
  const Channels written = channels_of(c, op.out_set, to.y.channels);
  if (plan.winograd && read.count >= kWorthTiles &&
      written.count >= kWorthTiles)
    return run_winograd(op, c, *plan.winograd, x, to, read, written);
  const int64_t ins = x.channels / op.groups, outs = to.y.channels / op.groups;
  for (int64_t k = 0; k < op.groups; ++k) {
    Map part = x;
    part.data += k * ins * x.channel;
    const bool one = op.groups == 1;
    const Channels outputs =
        one ? channels_of(c, op.out_set, outs) : Channels{nullptr, outs};
    const Channels inputs =
        one ? channels_of(c, op.in_set, ins) : Channels{nullptr, ins};
    dense({op, c, plan.at, to, outputs, k * outs, nullptr}, plan, part,
          inputs, c.weights + op.weight + k * outs * op.out_step);
  }
}

}  // namespace
}  // namespace fgc
