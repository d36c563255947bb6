// Float32 convs over channel lists: dense, grouped, depthwise, 1 x 1.
#pragma once

#include "conv_sums.h"
#include "depthwise.h"
#include "matvec.h"
#include "winograd.h"

namespace fgc {
namespace {

enum ConvAlgorithm { kDense, kDepthwise, kMatvec };

struct ConvPlan {
  Layout layout;
  ConvAlgorithm algorithm;
  int64_t acc_floats;  // accumulators of one output channel
  WinogradPlan* winograd;  // null if Winograd's algorithm does not apply
  float* packed;  // repacked weights, or null
  int64_t group_floats;  // floats of one group of kMaxOut outputs in `packed`
};

// If all outputs are computed, weights larger than this are repacked: the
// outputs of a group are interleaved for each input and tap. They are then
// read sequentially, and the weights of a closed input are skipped as one
// piece.
constexpr int64_t kMinPackedBytes = 64 * 1024;

inline void pack_weights(const Program& p, const Op& op, int64_t inputs,
                         int64_t outputs, ModelMemory& memory,
                         ConvPlan& plan) {
  const int64_t taps = plan.layout.tap_count;
  if (op.groups != 1 || op.out_set != kAll ||
      inputs * outputs * taps * 4 < kMinPackedBytes)
    return;
  plan.group_floats = inputs * taps * kMaxOut;
  const int64_t floats = ceil_div(outputs, kMaxOut) * plan.group_floats;
  plan.packed = (float*)allocate(memory, (floats + kSlack) * 4);
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t i = 0; i < inputs; ++i) {
      const float* from =
          p.weights + op.weight + o * op.out_step + i * op.in_step;
      float* to = plan.packed + o / kMaxOut * plan.group_floats +
                  i * taps * kMaxOut + o % kMaxOut;
      for (int64_t t = 0; t < taps; ++t) to[t * kMaxOut] = from[t];
    }
}

bool prepare_conv(const Program& p, Op& op, ModelMemory& memory) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  ConvPlan& plan = *(ConvPlan*)allocate(memory, sizeof(ConvPlan));
  op.plan = &plan;
  if (is_matvec(op, x, y)) {
    plan.algorithm = kMatvec;
    return prepare_matvec(op, x, y);
  }
  plan.algorithm =
      op.groups > 1 && op.groups == x.channels ? kDepthwise : kDense;
  if (!make_layout(op, x, y, memory, plan.layout)) return false;
  const Layout& layout = plan.layout;
  plan.acc_floats =
      acc_floats_of(layout, plan.algorithm == kDense ? max_rows(layout)
                                                     : layout.out_height);
  const int64_t inputs = x.channels / op.groups;
  const int64_t planes = layout.in_place ? 0 : layout.plane_floats;
  if (plan.algorithm == kDepthwise) {
    op.thread_bytes = (planes + plan.acc_floats + 64) * 4;
    return true;
  }
  if (planes > kMaxBytes / (inputs * 4)) return false;
  op.shared_bytes = inputs * (planes * 4 + 16) +
                    8 * (kPrefetchInputs + y.channels / op.groups) + 256;
  op.thread_bytes = kBlockOuts * plan.acc_floats * 4 + 64;
  if (supports_winograd(op, x, y))
    return prepare_winograd(p, op, memory, plan.winograd);
  pack_weights(p, op, inputs, y.channels, memory, plan);
  return true;
}

void run_dense(ConvGroup g, const ConvPlan& plan, const Map& x,
               const Channels& ins, const float* weight) {
  const Layout& layout = g.layout;
  Context& c = g.c;
  const int64_t inputs = x.channels / g.op.groups;
  const float** planes = (const float**)c.shared_scratch;
  int64_t* weight_offsets = (int64_t*)(planes + inputs);
  const float** weights =
      (const float**)(weight_offsets + inputs + kPrefetchInputs);
  const float** end = weights + g.outs.count;
  float* plane_memory = (float*)round_up(int64_t(end), 64);
  const bool packed = plan.packed;
  for (int64_t i = 0; i < ins.count + kPrefetchInputs && ins.count; ++i)
    weight_offsets[i] = ins[min(i, ins.count - 1)] *
                        (packed ? layout.tap_count * kMaxOut : g.op.in_step);
  for (int64_t o = 0; o < g.outs.count; ++o)
    weights[o] =
        packed ? plan.packed + o / kMaxOut * plan.group_floats + o % kMaxOut
               : weight + g.outs[o] * g.op.out_step;
  g.weights = weights;
  if (layout.in_place) {
    for (int64_t i = 0; i < ins.count; ++i)
      planes[i] = plane_begin(layout, x, ins[i]);
  } else {
    const int64_t grain =
        max(1, kMinElementsPerThread / 4 / layout.plane_floats);
    parallel_for(g.op, c, ins.count, grain,
                 [&](int64_t b, int64_t e, int64_t) {
                   for (int64_t i = b; i < e; ++i) {
                     float* plane = plane_memory + i * layout.plane_floats;
                     fill_plane(layout, x.at(ins[i]), x.row, plane);
                     planes[i] = plane;
                   }
                 });
  }
  compute_sums(
      g,
      {planes, weight_offsets, ins.count, nullptr, layout.taps,
       layout.tap_count, packed ? kMaxOut : 1, false, packed ? 15 : 0,
       packed && layout.tap_count == 1 ? kPrefetchFloats : 0},
      ins.count);
}

void run_conv(const Program& p, const Op& op, Context& c) {
  const ConvPlan& plan = *(const ConvPlan*)op.plan;
  const Map x = map_of(p, c, op.x);
  const Target to = target_of(p, c, op.y, op.add, op.act);
  if (plan.algorithm == kMatvec) return run_matvec(op, c, x, to);
  if (plan.algorithm == kDepthwise)
    return run_depthwise(op, c, plan.layout, plan.acc_floats, x, to);
  const Channels read = channels_of(c, op.in_set, x.channels);
  const Channels written = channels_of(c, op.out_set, to.y.channels);
  if (plan.winograd && read.count >= kMinWinogradChannels &&
      written.count >= kMinWinogradChannels)
    return run_winograd(op, c, *plan.winograd, x, to, read, written);
  const int64_t ins = x.channels / op.groups, outs = to.y.channels / op.groups;
  for (int64_t k = 0; k < op.groups; ++k) {
    Map group_x = x;
    group_x.data += k * ins * x.channel;
    run_dense({op, c, plan.layout, to, channels_of(c, op.out_set, outs),
               k * outs, nullptr},
              plan, group_x, channels_of(c, op.in_set, ins),
              c.weights + op.weight + k * outs * op.out_step);
  }
}

}  // namespace
}  // namespace fgc
