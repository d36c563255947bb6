// 3 x 3 float32 convs with Winograd's algorithm.
#pragma once

#include "winograd_tiles.h"

namespace fgc {
namespace {

constexpr int64_t kWinogradInputs = 128;  // inputs per pass, at most
// Prefetch distance of packed weights, in floats.
constexpr int64_t kPrefetchFloats = 768;

struct WinogradPlan : TileLayout {
  float* weights;  // transformed
  int64_t element_step;  // stride between the 16 tile elements, in floats
  int64_t inputs, outputs, inputs_per_pass;
  bool packed;  // weights are in packed order
};

// Layout of the transformed weights. Packed: by pass of inputs, group of
// outputs, input, output. With listed outputs, a cache line of that order
// would contain closed ones: there, by output, then input.
inline int64_t output_offset(const WinogradPlan& w, int64_t o) {
  return w.packed ? o / kMaxOut * kMaxOut * w.inputs_per_pass + o % kMaxOut
                  : o * w.inputs;
}

inline int64_t input_offset(const WinogradPlan& w, int64_t i) {
  if (!w.packed) return i;
  const int64_t rest = i % w.inputs_per_pass;
  return (i - rest) * w.outputs + rest * kMaxOut;
}

bool prepare_winograd(const Program& p, Op& op, ModelMemory& memory,
                      WinogradPlan*& plan) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  plan = (WinogradPlan*)allocate(memory, sizeof(WinogradPlan));
  WinogradPlan& w = *plan;
  if (!make_tile_layout(op, x, y, x.channels, memory, w)) return false;
  w.packed = op.out_set == kAll;
  w.inputs = x.channels;
  w.outputs = round_up(y.channels, kMaxOut);
  w.inputs_per_pass = min(kWinogradInputs, x.channels);
  w.element_step = round_up(x.channels, w.inputs_per_pass) * w.outputs;
  w.weights = (float*)allocate(memory, (w.element_step * 16 + kSlack) * 4);
  for (int64_t o = 0; o < y.channels; ++o)
    for (int64_t i = 0; i < x.channels; ++i)
      transform_weights(
          p.weights + op.weight + o * op.out_step + i * op.in_step,
          w.weights + output_offset(w, o) + input_offset(w, i),
          w.element_step);
  const int64_t floats = 16 * (x.channels + y.channels) * w.step;
  op.shared_bytes =
      max(op.shared_bytes,
          floats * 4 + (x.channels + kPrefetchInputs) * 16 + 256);
  op.thread_bytes = max(op.thread_bytes, tile_bytes(w));
  return true;
}

inline void transform_input(const WinogradPlan& w, const float* plane,
                            int64_t rows, int64_t element_step, float* to) {
  for (int64_t q = 0; q < rows; ++q)
    for (int64_t x = 0; x < w.layout.out_width; x += kLanes) {
      float* const out = to + q * w.layout.out_width + x;
      transform_tile(
          w.layout, plane + q * w.layout.pitch + x,
          [&](int k, Vec value) { store(out + k * element_step, value); });
    }
}

struct WinogradScratch {
  float *inputs, *outputs;  // transformed tiles
  const float** planes;
  int64_t* offsets;
};

inline WinogradScratch make_scratch(const WinogradPlan& w, char* shared,
                                    const Channels& ins,
                                    const Channels& outs) {
  WinogradScratch m;
  m.inputs = (float*)shared;
  m.outputs = m.inputs + 16 * ins.count * w.step;
  m.planes = (const float**)(m.outputs + 16 * outs.count * w.step);
  m.offsets = (int64_t*)(m.planes + ins.count);
  for (int64_t i = 0; i < ins.count; ++i)
    m.planes[i] = m.inputs + i * w.step;
  for (int64_t i = 0; i < ins.count + kPrefetchInputs; ++i)
    m.offsets[i] = input_offset(w, ins[min(i, ins.count - 1)]);
  return m;
}

// Accumulates one of the 16 tile elements for outputs o0 to o1.
inline void accumulate_tiles(const WinogradPlan& w, const WinogradScratch& m,
                             const Channels& ins, const Channels& outs,
                             int64_t element, int64_t o0, int64_t o1,
                             int64_t tiles) {
  static const int64_t tap[1] = {0};
  static const float zero[kBlockOuts] = {};
  const float* weights[kBlockOuts];
  for (int64_t o = o0; o < o1; ++o)
    weights[o - o0] =
        w.weights + element * w.element_step + output_offset(w, outs[o]);
  const TileArgs args{m.planes, m.offsets, ins.count, weights, tap, 1, 1,
                      false, 0, w.packed ? kPrefetchFloats : 0};
  accumulate_block(args, o1 - o0, element * ins.count * w.step,
                   ceil_div(tiles, kLanes),
                   m.outputs + (element * outs.count + o0) * w.step, w.step,
                   zero, w.inputs_per_pass, nullptr);
}

void run_winograd(const Op& op, Context& c, const WinogradPlan& w,
                  const Map& x, const Target& to, const Channels& ins,
                  const Channels& outs) {
  const WinogradScratch m = make_scratch(w, c.shared_scratch, ins, outs);
  const int64_t blocks = ceil_div(outs.count, kBlockOuts);
  const int64_t block_outputs =
      round_up(ceil_div(outs.count, blocks), kMaxOut);
  for (int64_t q0 = 0; q0 < w.layout.out_height; q0 += w.rows) {
    const int64_t rows = min(w.rows, w.layout.out_height - q0);
    const int64_t tiles = rows * w.layout.out_width;
    const int64_t grain = max(1, 4096 / tiles);
    parallel_for(
        op, c, ins.count, grain, [&](int64_t b, int64_t e, int64_t thread) {
          float* plane = (float*)(c.thread_scratch + thread * c.thread_step);
          for (int64_t i = b; i < e; ++i) {
            fill_tiles(w, x, ins[i], q0, rows, plane);
            transform_input(w, plane, rows, ins.count * w.step,
                            m.inputs + i * w.step);
          }
        });
    const int64_t work = ins.count * block_outputs * tiles;
    parallel_for(op, c, 16 * blocks, max(1, kMinWorkPerThread / 8 / work),
                 [&](int64_t b, int64_t e, int64_t) {
                   for (int64_t k = b; k < e; ++k) {
                     const int64_t o0 = k % blocks * block_outputs;
                     accumulate_tiles(w, m, ins, outs, k / blocks, o0,
                                      min(o0 + block_outputs, outs.count),
                                      tiles);
                   }
                 });
    write_tiles(op, c, w, outs, m.outputs, q0, rows, grain, to);
  }
}

}  // namespace
}  // namespace fgc
