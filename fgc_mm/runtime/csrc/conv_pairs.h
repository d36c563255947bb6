// Bfloat16 convs with vectors of pairs.
#pragma once

#include "pair_planes.h"
#include "winograd_pairs.h"

namespace fgc {
namespace {

constexpr int64_t kMinPairChannels = 16;  // input channels

struct PairConvPlan {
  Layout layout;
  Bfloat16Weights weights;
  WinogradPairPlan* winograd;  // null if Winograd's algorithm does not apply
};

inline bool supports_pairs(const Program& p, const Op& op) {
  return supports_planes(p, op, kMinPairChannels);
}

bool prepare_pairs(const Program& p, Op& op, ModelMemory& memory) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  PairConvPlan& plan = *(PairConvPlan*)allocate(memory, sizeof(PairConvPlan));
  op.plan = &plan;
  if (supports_winograd_pairs(op, x, y))
    return prepare_winograd_pairs(p, op, memory, plan.winograd);
  if (!make_layout(op, x, y, memory, plan.layout)) return false;
  const Layout& layout = plan.layout;
  const int64_t taps = layout.tap_count;
  plan.weights = convert_weights(p, op, taps, memory);
  const int64_t pairs = ceil_div(x.channels, 2);
  if (layout.plane_floats > kMaxBytes / (x.channels * 4)) return false;
  op.shared_bytes = 4 * (pairs * layout.plane_floats +
                         max_packed_floats(plan.weights, y.channels)) +
                    16 * (taps * pairs + kPrefetchInputs) + 8 * y.channels +
                    16 * x.channels + 1024;
  const int64_t acc = acc_floats_of(layout, max_rows(layout));
  op.thread_bytes =
      4 * max(2 * layout.plane_floats + 64, kBlockOuts * acc) + 64;
  return true;
}

void run_pairs(const Program& p, const Op& op, Context& c) {
  const PairConvPlan& plan = *(const PairConvPlan*)op.plan;
  const Map x = map_of(p, c, op.x);
  const Target to = target_of(p, c, op.y, op.add, op.act);
  const Channels outs = channels_of(c, op.out_set, to.y.channels);
  ScratchAllocator scratch{c.shared_scratch};
  int64_t* const indices = scratch.allocate<int64_t>(x.channels);
  const OpenInputs ins = find_open_inputs(
      channels_of(c, op.in_set, x.channels), x.channels, indices,
      scratch.allocate<uint32_t>(ceil_div(x.channels, kMaskBits)));
  const float** const rows = scratch.allocate<const float*>(outs.count);
  if (plan.winograd)
    return run_winograd_pairs(op, c, *plan.winograd, x, to, ins, outs, rows,
                              scratch);
  const Layout& layout = plan.layout;
  const int64_t pairs = ins.pairs(), inputs = layout.tap_count * pairs;
  const float** const planes = scratch.allocate<const float*>(inputs);
  int64_t* const offsets =
      scratch.allocate<int64_t>(inputs + kPrefetchInputs);
  float* const pixels = scratch.allocate<float>(pairs * layout.plane_floats);
  const PackedWeights w = pack_open_weights(plan.weights, op, c, ins, outs,
                                            rows, scratch.allocate<float>(0));
  pack_planes(op, c, layout, x, ins, pixels);
  for (int64_t t = 0; t < layout.tap_count; ++t)
    for (int64_t k = 0; k < pairs; ++k) {
      planes[t * pairs + k] =
          pixels + k * layout.plane_floats + layout.taps[t];
      offsets[t * pairs + k] = t * w.step + k;
    }
  for (int64_t k = 0; k < kPrefetchInputs; ++k) offsets[inputs + k] = 0;
  static const int64_t tap[1] = {0};
  compute_sums({op, c, layout, to, outs, 0, w.rows},
               {planes, offsets, inputs, nullptr, tap, 1, 1}, pairs);
}

}  // namespace
}  // namespace fgc
