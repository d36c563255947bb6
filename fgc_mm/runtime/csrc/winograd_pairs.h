// 3 x 3 bfloat16 convs with Winograd's algorithm. Tiles are transformed in
// float32 and rounded to pairs of channels when they are stored.
#pragma once

#include "winograd_tiles.h"

namespace fgc {
namespace {

constexpr int64_t kPairsPerPass = 128;  // input pairs per pass, about

// Minimum sizes: per output, 16 rows of weights must be packed instead of 9.
constexpr int64_t kMinWinogradPairChannels = 64;  // input and output channels
constexpr int64_t kMinWinogradPairPixels = 128;   // output pixels

inline bool supports_winograd_pairs(const Op& op, const Value& x,
                                    const Value& y) {
  return supports_winograd(op, x, y) &&
         x.channels >= kMinWinogradPairChannels &&
         y.channels >= kMinWinogradPairChannels &&
         y.height * y.width >= kMinWinogradPairPixels;
}

struct WinogradPairPlan : TileLayout {
  Bfloat16Weights weights;  // transformed, 16 rows per output
};

bool prepare_winograd_pairs(const Program& p, Op& op, ModelMemory& memory,
                            WinogradPairPlan*& plan) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  plan = (WinogradPairPlan*)allocate(memory, sizeof(WinogradPairPlan));
  WinogradPairPlan& w = *plan;
  const int64_t pairs = ceil_div(x.channels, 2);
  if (!make_tile_layout(op, x, y, pairs, memory, w)) return false;
  w.weights = allocate_bfloat16_weights(memory, y.channels, 16, x.channels);
  for (int64_t o = 0; o < y.channels; ++o)
    for (int64_t i = 0; i < x.channels; ++i) {
      float elements[16];
      transform_weights(
          p.weights + op.weight + o * op.out_step + i * op.in_step, elements,
          1);
      for (int64_t k = 0; k < 16; ++k)
        w.weights.data[(o * 16 + k) * w.weights.row + i] =
            bfloat16_of(elements[k]);
    }
  op.shared_bytes = 4 * (16 * (pairs + y.channels) * w.step +
                         max_packed_floats(w.weights, y.channels)) +
                    16 * (pairs + kPrefetchInputs) + 8 * y.channels +
                    16 * x.channels + 1024;
  op.thread_bytes = tile_bytes(w, w.rows) + 4 * w.layout.plane_floats;
  return true;
}

// Transforms the tiles of two channels; b may be null (zeros).
inline void transform_pairs(const TileLayout& w, const float* a,
                            const float* b, int64_t rows,
                            int64_t element_step, float* to) {
  for (int64_t q = 0; q < rows; ++q)
    for (int64_t x = 0; x < w.layout.out_width; x += kLanes) {
      const int64_t from = q * w.layout.pitch + x;
      float* const out = to + q * w.layout.out_width + x;
      Vec first[16];
      transform_tile(w.layout, a + from,
                     [&](int k, Vec value) { first[k] = value; });
      const auto put = [&](int k, Vec value) {
        store(out + k * element_step, pack_pair(first[k], value));
      };
      if (b)
        transform_tile(w.layout, b + from, put);
      else
        for (int k = 0; k < 16; ++k) put(k, Vec{});
    }
}

void run_winograd_pairs(const Op& op, Context& c, const WinogradPairPlan& w,
                        const Map& x, const Target& to, const OpenInputs& ins,
                        const Channels& outs, const float** weight_rows,
                        ScratchAllocator scratch) {
  const int64_t pairs = ins.pairs();
  float* const pixels = scratch.allocate<float>(16 * pairs * w.step);
  float* const sums = scratch.allocate<float>(16 * outs.count * w.step);
  const float** const planes = scratch.allocate<const float*>(pairs);
  int64_t* const offsets = scratch.allocate<int64_t>(pairs + kPrefetchInputs);
  const PackedWeights weights = pack_open_weights(
      w.weights, op, c, ins, outs, weight_rows, scratch.allocate<float>(0));
  for (int64_t k = 0; k < pairs; ++k) planes[k] = pixels + k * w.step;
  for (int64_t k = 0; k < pairs + kPrefetchInputs; ++k) offsets[k] = k;
  const int64_t blocks = max(1, ceil_div(outs.count, kBlockOuts));
  const int64_t block_outputs =
      round_up(ceil_div(outs.count, blocks), kMaxOut);
  static const int64_t tap[1] = {0};
  static const float zero[kBlockOuts] = {};
  for (int64_t q0 = 0; q0 < w.layout.out_height; q0 += w.rows) {
    const int64_t rows = min(w.rows, w.layout.out_height - q0);
    const TilePass pass{op, c, w, to, outs, q0, rows, w.step};
    const int64_t tiles = pass.tile_count();
    const int64_t grain = max(1, kMinElementsPerThread / 16 / tiles);
    parallel_for(
        op, c, pairs, grain, [&](int64_t b, int64_t e, int64_t thread) {
          float* const thread_scratch =
              (float*)(c.thread_scratch + thread * c.thread_step);
          for (int64_t k = b; k < e; ++k) {
            const bool both = 2 * k + 1 < ins.count;
            for (int j = 0; j < (both ? 2 : 1); ++j)
              fill_tiles(w, x, ins.indices[2 * k + j], q0, rows,
                         thread_scratch + j * w.layout.plane_floats);
            transform_pairs(
                w, thread_scratch,
                both ? thread_scratch + w.layout.plane_floats : nullptr, rows,
                pairs * w.step, pixels + k * w.step);
          }
        });
    const int64_t work = pairs * block_outputs * tiles;
    parallel_for(
        op, c, 16 * blocks, max(1, kMinWorkPerThread / 8 / (work + 1)),
        [&](int64_t b, int64_t e, int64_t) {
          for (int64_t k = b; k < e; ++k) {
            const int64_t element = k / blocks;
            const int64_t o0 = k % blocks * block_outputs;
            const int64_t o1 = min(o0 + block_outputs, outs.count);
            const float* element_rows[kBlockOuts];
            for (int64_t o = o0; o < o1; ++o)
              element_rows[o - o0] = weights.rows[o] + element * weights.step;
            const TileArgs args{planes, offsets, pairs, element_rows,
                                tap,    1,       1};
            if (o1 > o0)
              accumulate_block(args, o1 - o0, element * pairs * w.step,
                               ceil_div(tiles, kLanes),
                               sums + (element * outs.count + o0) * w.step,
                               w.step, zero, kPairsPerPass, nullptr);
          }
        });
    parallel_for(op, c, outs.count, grain,
                 [&](int64_t b, int64_t e, int64_t thread) {
                   pass.write(sums, b, e, thread);
                 });
  }
}

}  // namespace
}  // namespace fgc
