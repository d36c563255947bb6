// 3 x 3 convs with stride 1 by Winograd's F(2 x 2, 3 x 3): 16 multiplications
// for 4 pixels instead of 36 (S. Winograd, 1980; Lavin and Gray, 2015).
//
// A tile is 4 x 4 pixels of the input and 2 x 2 of the output. Each of the 16
// numbers of the transformed tiles is a 1 x 1 conv of its own, over planes of
// tiles; so here, too, channels are reached by their numbers.
#pragma once

#include "matvec.h"
#include "planes.h"

namespace fgc {
namespace {

constexpr int64_t kWorthTiles = 16;  // channels, on either side, at least
constexpr int64_t kTileBytes = 2048 * 1024;  // of all planes of tiles

// Bytes of weights that few tiles are worth: they are 16/9 of the conv's.
constexpr int64_t kWorthWeights = 4000000;
constexpr int64_t kInputs = 128;  // summed at a time, at most
constexpr int64_t kFar = 768;  // floats ahead that weights are asked for

struct Winograd {
  Layout at;       // the input's tiles as a 4 x 4 conv with stride 2
  bool padded;     // the input has zeros around it, and what lies behind may
                   // be read
  float* weights;  // transformed
  int64_t number_step;  // floats between the 16
  int64_t inputs, outputs, at_once;
  bool blocks;     // they lie in the order in which all channels are read
  int64_t rows;    // of tiles, at a time
  int64_t step;    // floats of a plane
  int64_t pitch;   // of the output's rows before they are written
};

inline bool suits_winograd(const Op& op, const Value& x, const Value& y) {
  const bool here = op.kernel[0] == 3 && op.kernel[1] == 3 &&
                    op.stride[0] == 1 && op.stride[1] == 1 &&
                    op.dilation[0] == 1 && op.dilation[1] == 1;
  return here && op.groups == 1 && x.channels >= kWorthTiles &&
         y.channels >= kWorthTiles && y.height >= 4 && y.width >= 4 &&
         (y.height * y.width >= 128 ||
          x.channels * y.channels * 64 <= kWorthWeights);
}

// g, 3 x 3, to G g G^T, 4 x 4; the numbers lie `step` floats apart.
inline void transform_weights(const float* g, float* to, int64_t step) {
  float half[4][3];
  for (int c = 0; c < 3; ++c) {
    half[0][c] = g[c];
    half[1][c] = (g[c] + g[3 + c] + g[6 + c]) * 0.5f;
    half[2][c] = (g[c] - g[3 + c] + g[6 + c]) * 0.5f;
    half[3][c] = g[6 + c];
  }
  for (int r = 0; r < 4; ++r) {
    const float *h = half[r], even = h[0] + h[2];
    to[(4 * r) * step] = h[0];
    to[(4 * r + 1) * step] = (even + h[1]) * 0.5f;
    to[(4 * r + 2) * step] = (even - h[1]) * 0.5f;
    to[(4 * r + 3) * step] = h[2];
  }
}

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

bool prepare_winograd(const Program& p, Op& op, Keep& keep, bool padded,
                      Winograd*& plan) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  plan = (Winograd*)take(keep, sizeof(Winograd));
  Winograd& w = *plan;
  Op tiles = op;
  Value map = y, from = x;
  for (int axis = 0; axis < 2; ++axis) {
    tiles.kernel[axis] = 4;
    tiles.stride[axis] = 2;
  }
  map.height = ceil_div(y.height, 2);
  map.width = ceil_div(y.width, 2);
  if (!lay_out(tiles, from, map, keep, w.at)) return false;
  // of an odd number of rows, one more is read, whose sums are not written
  w.padded = padded && (y.height % 2 == 0 ||
                        2 * round_up(w.at.pitch, kLanes) <= kSlack);
  const int64_t each = (x.channels + y.channels) * 64 * map.width;
  w.rows = smaller(map.height, larger(1, kTileBytes / each));
  w.rows = ceil_div(map.height, ceil_div(map.height, w.rows));
  w.step = round_up(w.rows * map.width + kLanes, 16) + 16;
  w.pitch = 2 * round_up(map.width, kLanes);
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
  op.own_bytes = larger(
      op.own_bytes, (w.at.plane_floats + 2 * w.rows * w.pitch + 256) * 4);
  return true;
}

// B^T d B for all tiles of some rows; d by the layout's taps.
inline void transform_input(const Winograd& w, const float* plane,
                            int64_t rows, int64_t number_step, float* to) {
  const Layout& at = w.at;
  for (int64_t q = 0; q < rows; ++q)
    for (int64_t x = 0; x < at.out_width; x += kLanes) {
      const float* from = plane + q * at.pitch + x;
      float* out = to + q * at.out_width + x;
      Vec c[4][4];
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        const int64_t* taps = at.taps + 4 * r;
        const Vec d0 = load(from + taps[0]), d1 = load(from + taps[1]);
        const Vec d2 = load(from + taps[2]), d3 = load(from + taps[3]);
        c[r][0] = d0 - d2;
        c[r][1] = d1 + d2;
        c[r][2] = d2 - d1;
        c[r][3] = d1 - d3;
      }
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        store(out + k * number_step, c[0][k] - c[2][k]);
        store(out + (4 + k) * number_step, c[1][k] + c[2][k]);
        store(out + (8 + k) * number_step, c[2][k] - c[1][k]);
        store(out + (12 + k) * number_step, c[1][k] - c[3][k]);
      }
    }
}

// A^T m A plus the bias: two rows of pixels for each row of tiles.
inline void transform_output(const Winograd& w, const float* from,
                             int64_t number_step, int64_t rows, float bias,
                             float* to) {
  const Vec start = broadcast(bias);
  for (int64_t q = 0; q < rows; ++q)
    for (int64_t x = 0; x < w.at.out_width; x += kLanes) {
      const float* m = from + q * w.at.out_width + x;
      Vec above[4], below[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const Vec m1 = load(m + (4 + k) * number_step);
        const Vec m2 = load(m + (8 + k) * number_step);
        above[k] = load(m + k * number_step) + (m1 + m2);
        below[k] = (m1 - m2) - load(m + (12 + k) * number_step);
      }
      float* out = to + 2 * q * w.pitch + 2 * x;
      interleave(above[0] + above[1] + above[2] + start,
                 above[1] - above[2] - above[3] + start, out);
      interleave(below[0] + below[1] + below[2] + start,
                 below[1] - below[2] - below[3] + start, out + w.pitch);
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
        const float* from = x.at(ins[i]);
        if (w.padded)
          fill_padded_rows(w.at, from, x.row, q0, rows + 1, plane);
        else
          fill_rows(w.at, from, x.row, q0, rows + 1, plane);
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
    share(op, c, outs.count, grain, [&](int64_t b, int64_t e,
                                        int64_t thread) {
      float* sums = (float*)(c.own + thread * c.own_step);
      for (int64_t j = b; j < e; ++j) {
        const float bias =
            op.bias == kNone ? 0.f : c.weights[op.bias + outs[j]];
        transform_output(w, m.outputs + j * w.step, outs.count * w.step, rows,
                         bias, sums);
        write_rows(sums, w.pitch, 2 * q0,
                   smaller(2 * (q0 + rows), to.y.height), to, outs[j]);
      }
    });
  }
}

}  // namespace
}  // namespace fgc
