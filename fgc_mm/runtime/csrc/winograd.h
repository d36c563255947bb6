// 3 x 3 convs by Winograd's algorithm, in float32.
#pragma once

#include "winograd_tiles.h"

namespace fgc {
namespace {

constexpr int64_t kInputs = 128;  // summed at a time, at most
constexpr int64_t kFar = 768;  // floats ahead that weights are asked for

struct Winograd : Tiles {
  float* weights;  // transformed
  int64_t number_step;  // floats between the 16
  int64_t inputs, outputs, at_once;
  bool blocks;     // they lie in the order in which all channels are read
};

// Where weights lie: some inputs of all groups of outputs, then the next
// ones; of a group, an input's outputs side by side. Where outputs are listed
// a cache line would have closed ones: one output after the other, there.
inline int64_t at_output(const Winograd& w, int64_t o) {
  return w.blocks ? o / kMaxOut * kMaxOut * w.at_once + o % kMaxOut
                  : o * w.inputs;
}

inline int64_t at_input(const Winograd& w, int64_t i) {
  if (!w.blocks) return i;
  const int64_t rest = i % w.at_once;
  return (i - rest) * w.outputs + rest * kMaxOut;
}

bool prepare_winograd(const Program& p, Op& op, Keep& keep,
                      Winograd*& plan) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  plan = (Winograd*)take(keep, sizeof(Winograd));
  Winograd& w = *plan;
  if (!lay_out_tiles(op, x, y, x.channels, keep, w)) return false;
  w.blocks = op.out_set == kAll;
  w.inputs = x.channels;
  w.outputs = round_up(y.channels, kMaxOut);
  w.at_once = smaller(kInputs, x.channels);
  w.number_step = round_up(x.channels, w.at_once) * w.outputs;
  w.weights = (float*)take(keep, (w.number_step * 16 + kSlack) * 4);
  for (int64_t o = 0; o < y.channels; ++o)
    for (int64_t i = 0; i < x.channels; ++i)
      transform_weights(p.weights + op.weight + o * op.out_step +
                            i * op.in_step,
                        w.weights + at_output(w, o) + at_input(w, i),
                        w.number_step);
  const int64_t floats = 16 * (x.channels + y.channels) * w.step;
  op.shared_bytes =
      larger(op.shared_bytes, floats * 4 + (x.channels + kAhead) * 16 + 256);
  op.own_bytes = larger(op.own_bytes, tile_bytes(w));
  return true;
}

inline void transform_input(const Winograd& w, const float* plane,
                            int64_t rows, int64_t number_step, float* to) {
  for (int64_t q = 0; q < rows; ++q)
    for (int64_t x = 0; x < w.at.out_width; x += kLanes) {
      float* const out = to + q * w.at.out_width + x;
      transform_tile(w.at, plane + q * w.at.pitch + x, [&](int k, Vec value) {
        store(out + k * number_step, value);
      });
    }
}

struct WinogradMemory {
  float *inputs, *outputs;  // planes of tiles
  const float** planes;
  int64_t* steps;
};

inline WinogradMemory memory_of(const Winograd& w, char* shared,
                                const Channels& ins, const Channels& outs) {
  WinogradMemory m;
  m.inputs = (float*)shared;
  m.outputs = m.inputs + 16 * ins.count * w.step;
  m.planes = (const float**)(m.outputs + 16 * outs.count * w.step);
  m.steps = (int64_t*)(m.planes + ins.count);
  for (int64_t i = 0; i < ins.count; ++i)
    m.planes[i] = m.inputs + i * w.step;
  for (int64_t i = 0; i < ins.count + kAhead; ++i)
    m.steps[i] = at_input(w, ins[smaller(i, ins.count - 1)]);
  return m;
}

// One of the 16 numbers of outputs o0 to o1, for all tiles.
inline void sum_tiles(const Winograd& w, const WinogradMemory& m,
                      const Channels& ins, const Channels& outs,
                      int64_t number, int64_t o0, int64_t o1, int64_t tiles) {
  static const int64_t tap[1] = {0};
  static const float zero[kBlockOuts] = {};
  const float* weights[kBlockOuts];
  for (int64_t o = o0; o < o1; ++o)
    weights[o - o0] =
        w.weights + number * w.number_step + at_output(w, outs[o]);
  const Sum sum{m.planes, m.steps, ins.count, weights, tap, 1, 1, false, 0,
                w.blocks ? kFar : 0};
  sum_block(sum, o1 - o0, number * ins.count * w.step,
            ceil_div(tiles, kLanes),
            m.outputs + (number * outs.count + o0) * w.step, w.step, zero,
            w.at_once, nullptr);
}

void run_winograd(const Op& op, Context& c, const Winograd& w, const Map& x,
                  const Target& to, const Channels& ins,
                  const Channels& outs) {
  const WinogradMemory m = memory_of(w, c.shared, ins, outs);
  const int64_t blocks = ceil_div(outs.count, kBlockOuts);
  const int64_t each_block = round_up(ceil_div(outs.count, blocks), kMaxOut);
  for (int64_t q0 = 0; q0 < w.at.out_height; q0 += w.rows) {
    const int64_t rows = smaller(w.rows, w.at.out_height - q0);
    const int64_t tiles = rows * w.at.out_width;
    const int64_t grain = larger(1, 4096 / tiles);
    share(op, c, ins.count, grain, [&](int64_t b, int64_t e, int64_t thread) {
      float* plane = (float*)(c.own + thread * c.own_step);
      for (int64_t i = b; i < e; ++i) {
        fill_tiles(w, x, ins[i], q0, rows, plane);
        transform_input(w, plane, rows, ins.count * w.step,
                        m.inputs + i * w.step);
      }
    });
    const int64_t each = ins.count * each_block * tiles;
    share(op, c, 16 * blocks, larger(1, kWorthAThread / 8 / each),
          [&](int64_t b, int64_t e, int64_t) {
            for (int64_t k = b; k < e; ++k) {
              const int64_t o0 = k % blocks * each_block;
              sum_tiles(w, m, ins, outs, k / blocks, smaller(o0, outs.count),
                        smaller(o0 + each_block, outs.count), tiles);
            }
          });
    write_tiles(op, c, w, outs, m.outputs, q0, rows, grain, to);
  }
}

}  // namespace
}  // namespace fgc
