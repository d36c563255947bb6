// Convs of bfloat16: pixels become pairs of channels when they are read,
// weights when the model is loaded. Of the open inputs, both are packed.
#pragma once

#include "conv_sums.h"
#include "winograd_pairs.h"

namespace fgc {
namespace {

constexpr int64_t kWorthPairs = 16;   // channels, on either side, at least
constexpr int64_t kWorthPixels = 16;  // of the output, at least

struct PairPlan {
  Layout at;
  HalfWeights weights;
  WinogradPairs* winograd;  // or null
};

bool suits_pairs(const Program& p, const Op& op) {
  if (op.kind != kConv || op.groups != 1) return false;
  const Value &x = p.values[op.x], &y = p.values[op.y];
  return x.channels >= kWorthPairs && y.channels >= kWorthPairs &&
         y.height * y.width >= kWorthPixels;
}

bool prepare_pairs(const Program& p, Op& op, Keep& keep) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  PairPlan& plan = *(PairPlan*)take(keep, sizeof(PairPlan));
  op.plan = &plan;
  if (suits_pair_tiles(op, x, y))
    return prepare_winograd_pairs(p, op, keep, plan.winograd);
  if (!lay_out(op, x, y, keep, plan.at)) return false;
  const Layout& at = plan.at;
  const int64_t taps = at.tap_count;
  plan.weights = take_half_weights(keep, y.channels, taps, x.channels);
  for (int64_t o = 0; o < y.channels; ++o)
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t i = 0; i < x.channels; ++i)
        plan.weights.numbers[(o * taps + t) * plan.weights.row + i] =
            bfloat16_of(p.weights[op.weight + o * op.out_step +
                                  i * op.in_step + t]);
  const int64_t pairs = ceil_div(x.channels, 2);
  if (at.plane_floats > kMost / (x.channels * 4)) return false;
  op.shared_bytes = 4 * (pairs * at.plane_floats +
                         most_listed(plan.weights, y.channels)) +
                    16 * (taps * pairs + kAhead) + 8 * y.channels +
                    16 * x.channels + 1024;
  const int64_t rows = ceil_div(at.out_height, least_chunks(at));
  const int64_t acc = round_up(rows * at.pitch + kLanes, 16) + 16;
  op.own_bytes =
      4 * larger(2 * at.plane_floats + 64, kBlockOuts * acc) + 64;
  return true;
}

// Planes of pairs of the open inputs.
void merge_planes(const Op& op, Context& c, const Layout& at, const Map& x,
                  const OpenInputs& ins, float* planes) {
  const int64_t in_place = (at.out_height - 1) * at.pitch + at.out_width +
                           at.taps[at.tap_count - 1];
  const int64_t grain = larger(1, 131072 / at.plane_floats);
  share(op, c, ins.pairs(), grain, [&](int64_t b, int64_t e, int64_t thread) {
    float* const own = (float*)(c.own + thread * c.own_step);
    for (int64_t k = b; k < e; ++k) {
      float* const to = planes + k * at.plane_floats;
      const int64_t* const two = ins.numbers + 2 * k;
      const bool both = 2 * k + 1 < ins.count;
      if (at.in_place) {
        merge(begin_of(at, x, two[0]),
              both ? begin_of(at, x, two[1]) : nullptr, in_place, to);
        continue;
      }
      for (int j = 0; j < (both ? 2 : 1); ++j)
        fill_plane(at, x.at(two[j]), x.row, own + j * at.plane_floats);
      merge(own, both ? own + at.plane_floats : nullptr, at.plane_floats, to);
    }
  });
}

void run_pairs(const Program& p, const Op& op, Context& c) {
  const PairPlan& plan = *(const PairPlan*)op.plan;
  const Map x = map_of(p, c, op.x);
  const Target to = target_of(p, c, op.y, op.add, op.act);
  const Channels outs = channels_of(c, op.out_set, to.y.channels);
  Scratch memory{c.shared};
  int64_t* const numbers = memory.take<int64_t>(x.channels);
  const OpenInputs ins = open_inputs(
      channels_of(c, op.in_set, x.channels), x.channels, numbers,
      memory.take<uint32_t>(ceil_div(x.channels, kWord)));
  const float** const of = memory.take<const float*>(outs.count);
  if (plan.winograd)
    return run_winograd_pairs(op, c, *plan.winograd, x, to, ins, outs, of,
                              memory);
  const Layout& at = plan.at;
  const int64_t pairs = ins.pairs(), inputs = at.tap_count * pairs;
  const float** const planes = memory.take<const float*>(inputs);
  int64_t* const steps = memory.take<int64_t>(inputs + kAhead);
  float* const pixels = memory.take<float>(pairs * at.plane_floats);
  const PairWeights w =
      pair_weights(plan.weights, op, c, ins, outs, of,
                   memory.take<float>(0));
  merge_planes(op, c, at, x, ins, pixels);
  for (int64_t t = 0; t < at.tap_count; ++t)
    for (int64_t k = 0; k < pairs; ++k) {
      planes[t * pairs + k] = pixels + k * at.plane_floats + at.taps[t];
      steps[t * pairs + k] = t * w.step + k;
    }
  for (int64_t k = 0; k < kAhead; ++k) steps[inputs + k] = 0;
  static const int64_t tap[1] = {0};
  sum_outputs({op, c, at, to, outs, 0, w.of},
              {planes, steps, inputs, nullptr, tap, 1, 1}, pairs);
}

}  // namespace
}  // namespace fgc
