// What the bfloat16 convs share. The pixels of two channels are packed into
// planes of pairs at run time, the weights are converted when the model is
// loaded. With a list of open inputs, the pixels and weights of these are
// packed densely.
#pragma once

#include "conv_sums.h"

namespace fgc {
namespace {

constexpr int64_t kMinPairOutputs = 16;  // minimum number of output channels
constexpr int64_t kMinPairPixels = 16;   // minimum number of output pixels

inline bool supports_planes(const Program& p, const Op& op,
                            int64_t min_inputs) {
  if (op.kind != kConv || op.groups != 1) return false;
  const Value &x = p.values[op.x], &y = p.values[op.y];
  return x.channels >= min_inputs && y.channels >= kMinPairOutputs &&
         y.height * y.width >= kMinPairPixels;
}

// A row per output and tap.
inline Bfloat16Weights convert_weights(const Program& p, const Op& op,
                                       int64_t taps, ModelMemory& memory) {
  const int64_t inputs = p.values[op.x].channels;
  const int64_t outputs = p.values[op.y].channels;
  const Bfloat16Weights w =
      allocate_bfloat16_weights(memory, outputs, taps, inputs);
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t i = 0; i < inputs; ++i)
        w.data[(o * taps + t) * w.row + i] = bfloat16_of(
            p.weights[op.weight + o * op.out_step + i * op.in_step + t]);
  return w;
}

// Packs the planes of the open inputs into planes of pairs.
inline void pack_planes(const Op& op, Context& c, const Layout& layout, const Map& x,
                 const OpenInputs& ins, float* planes) {
  const int64_t map_floats = (layout.out_height - 1) * layout.pitch +
                             layout.out_width +
                             layout.taps[layout.tap_count - 1];
  const int64_t grain =
      max(1, kMinElementsPerThread / 4 / layout.plane_floats);
  parallel_for(
      op, c, ins.pairs(), grain, [&](int64_t b, int64_t e, int64_t thread) {
        float* const thread_scratch =
            (float*)(c.thread_scratch + thread * c.thread_step);
        for (int64_t k = b; k < e; ++k) {
          float* const to = planes + k * layout.plane_floats;
          const int64_t* const channels = ins.indices + 2 * k;
          const bool both = 2 * k + 1 < ins.count;
          if (layout.in_place) {
            pack_pairs(plane_begin(layout, x, channels[0]),
                       both ? plane_begin(layout, x, channels[1]) : nullptr,
                       map_floats, to);
            continue;
          }
          for (int j = 0; j < (both ? 2 : 1); ++j)
            fill_plane(layout, x.at(channels[j]), x.row,
                       thread_scratch + j * layout.plane_floats);
          pack_pairs(thread_scratch,
                     both ? thread_scratch + layout.plane_floats : nullptr,
                     layout.plane_floats, to);
        }
      });
}

}  // namespace
}  // namespace fgc
