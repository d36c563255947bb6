// 3 x 3 convs by Winograd's algorithm, in bfloat16: tiles are transformed in
// float32, and become pairs of channels when they are stored.
#pragma once

#include "winograd_tiles.h"

namespace fgc {
namespace {

constexpr int64_t kPairsAtOnce = 128;  // summed at a time, about

// Sixteen rows of weights must be packed for each output, instead of nine.
constexpr int64_t kWorthPairTiles = 64;    // channels, on either side
constexpr int64_t kWorthTilePixels = 128;  // of the output

inline bool suits_pair_tiles(const Op& op, const Value& x, const Value& y) {
  return suits_winograd(op, x, y) && x.channels >= kWorthPairTiles &&
         y.channels >= kWorthPairTiles &&
         y.height * y.width >= kWorthTilePixels;
}

struct WinogradPairs : Tiles {
  HalfWeights weights;  // transformed; 16 rows of every output
};

bool prepare_winograd_pairs(const Program& p, Op& op, Keep& keep,
                            WinogradPairs*& plan) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  plan = (WinogradPairs*)take(keep, sizeof(WinogradPairs));
  WinogradPairs& w = *plan;
  const int64_t pairs = ceil_div(x.channels, 2);
  if (!lay_out_tiles(op, x, y, pairs, keep, w)) return false;
  w.weights = take_half_weights(keep, y.channels, 16, x.channels);
  for (int64_t o = 0; o < y.channels; ++o)
    for (int64_t i = 0; i < x.channels; ++i) {
      float numbers[16];
      transform_weights(
          p.weights + op.weight + o * op.out_step + i * op.in_step, numbers,
          1);
      for (int64_t k = 0; k < 16; ++k)
        w.weights.numbers[(o * 16 + k) * w.weights.row + i] =
            bfloat16_of(numbers[k]);
    }
  op.shared_bytes = 4 * (16 * (pairs + y.channels) * w.step +
                         most_listed(w.weights, y.channels)) +
                    16 * (pairs + kAhead) + 8 * y.channels +
                    16 * x.channels + 1024;
  op.own_bytes = tile_bytes(w) + 4 * w.at.plane_floats;
  return true;
}

// Tiles of two channels; b may be null: zeros.
inline void transform_pairs(const Tiles& w, const float* a, const float* b,
                            int64_t rows, int64_t number_step, float* to) {
  for (int64_t q = 0; q < rows; ++q)
    for (int64_t x = 0; x < w.at.out_width; x += kLanes) {
      const int64_t from = q * w.at.pitch + x;
      float* const out = to + q * w.at.out_width + x;
      Vec first[16];
      transform_tile(w.at, a + from,
                     [&](int k, Vec value) { first[k] = value; });
      const auto put = [&](int k, Vec value) {
        store(out + k * number_step, pair_of(first[k], value));
      };
      if (b)
        transform_tile(w.at, b + from, put);
      else
        for (int k = 0; k < 16; ++k) put(k, Vec{});
    }
}

void run_winograd_pairs(const Op& op, Context& c, const WinogradPairs& w,
                        const Map& x, const Target& to, const OpenInputs& ins,
                        const Channels& outs, const float** of,
                        Scratch memory) {
  const int64_t pairs = ins.pairs();
  float* const pixels = memory.take<float>(16 * pairs * w.step);
  float* const sums = memory.take<float>(16 * outs.count * w.step);
  const float** const planes = memory.take<const float*>(pairs);
  int64_t* const steps = memory.take<int64_t>(pairs + kAhead);
  const PairWeights weights = pair_weights(w.weights, op, c, ins, outs, of,
                                           memory.take<float>(0));
  for (int64_t k = 0; k < pairs; ++k) planes[k] = pixels + k * w.step;
  for (int64_t k = 0; k < pairs + kAhead; ++k) steps[k] = k;
  const int64_t blocks = larger(1, ceil_div(outs.count, kBlockOuts));
  const int64_t each_block = round_up(ceil_div(outs.count, blocks), kMaxOut);
  static const int64_t tap[1] = {0};
  static const float zero[kBlockOuts] = {};
  for (int64_t q0 = 0; q0 < w.at.out_height; q0 += w.rows) {
    const int64_t rows = smaller(w.rows, w.at.out_height - q0);
    const int64_t tiles = rows * w.at.out_width;
    const int64_t grain = larger(1, 4096 / tiles);
    share(op, c, pairs, grain, [&](int64_t b, int64_t e, int64_t thread) {
      float* const own = (float*)(c.own + thread * c.own_step);
      for (int64_t k = b; k < e; ++k) {
        const bool both = 2 * k + 1 < ins.count;
        for (int j = 0; j < (both ? 2 : 1); ++j)
          fill_tiles(w, x, ins.numbers[2 * k + j], q0, rows,
                     own + j * w.at.plane_floats);
        transform_pairs(w, own, both ? own + w.at.plane_floats : nullptr,
                        rows, pairs * w.step, pixels + k * w.step);
      }
    });
    const int64_t each = pairs * each_block * tiles;
    share(op, c, 16 * blocks, larger(1, kWorthAThread / 8 / (each + 1)),
          [&](int64_t b, int64_t e, int64_t) {
            for (int64_t k = b; k < e; ++k) {
              const int64_t number = k / blocks;
              const int64_t o0 =
                  smaller(k % blocks * each_block, outs.count);
              const int64_t o1 = smaller(o0 + each_block, outs.count);
              const float* rows_of[kBlockOuts];
              for (int64_t o = o0; o < o1; ++o)
                rows_of[o - o0] = weights.of[o] + number * weights.step;
              const Sum sum{planes, steps, pairs, rows_of, tap, 1, 1};
              if (o1 > o0)
                sum_block(sum, o1 - o0, number * pairs * w.step,
                          ceil_div(tiles, kLanes),
                          sums + (number * outs.count + o0) * w.step, w.step,
                          zero, kPairsAtOnce, nullptr);
            }
          });
    write_tiles(op, c, w, outs, sums, q0, rows, grain, to);
  }
}

}  // namespace
}  // namespace fgc
