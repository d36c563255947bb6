// Bfloat16 convs with the matrix registers of AMX: a tile of weights (16
// outputs, 32 inputs) times a tile of pixels (16 pairs of inputs, 16 pixels).
// Tiles of pixels are loaded from the planes of pairs, shifted by the offset
// of a kernel element. Convs of few inputs would leave most rows of such a
// tile empty; their tiles are gathered from the planes of several kernel
// elements.
#pragma once

#include "pair_planes.h"
#include "tile_registers.h"

namespace fgc {
namespace {

constexpr int64_t kMinTileChannels = 3;  // minimum number of input channels
constexpr int64_t kMaxGatheredInputs = 16;
constexpr int64_t kBlockTiles = 2;  // tiles per block, in both directions

struct TileConvPlan {
  Layout layout;
  Bfloat16Weights weights;
  bool gathers;
  int64_t acc_floats;  // accumulators of one output channel
  uint16_t* tiles;     // of all weights, or null if there are lists
};

// The tiles that are multiplied for one output, with `inputs` open inputs.
struct TileSteps {
  int64_t taps, per_tap;  // without gathering
  int64_t count;
  int64_t tap_elements;  // distance of the weights of two taps

  TileSteps(const TileConvPlan& plan, int64_t inputs)
      : taps(plan.layout.tap_count),
        per_tap(ceil_div(inputs, kTileInputs)),
        count(plan.gathers
                  ? ceil_div(taps * ceil_div(inputs, 2), kTileRows)
                  : taps * per_tap),
        tap_elements(plan.gathers ? round_up(inputs, 2)
                                  : per_tap * kTileInputs) {}

  int64_t elements() const { return count * kTileInputs; }
};

// What the blocks of a conv have in common.
struct TileConv {
  const TileConvPlan& plan;
  TileSteps steps;
  const OpenInputs& ins;
  const float* pixels;  // planes of pairs
};

inline bool supports_tiles(const Program& p, const Op& op) {
  return supports_planes(p, op, kMinTileChannels);
}

// The weights of output o of the open inputs, by tap: those of the plan, or
// packed into `row`. Prefetches those of output `next`.
inline const uint16_t* packed_row(const TileConv& conv, int64_t o,
                                  int64_t next, uint16_t* row) {
  const OpenInputs& ins = conv.ins;
  const Bfloat16Weights& w = conv.plan.weights;
  const TileSteps& steps = conv.steps;
  const int64_t taps = conv.plan.layout.tap_count;
  for (int64_t i = 0; i < taps * w.row; i += kTileInputs)
    __builtin_prefetch(w.rows_of(next) + i);
  if (!ins.is_list() && !conv.plan.gathers) return w.rows_of(o);
  for (int64_t t = 0; t < taps; ++t) {
    const uint16_t* const from = w.rows_of(o) + t * w.row;
    uint16_t* const to = row + t * steps.tap_elements;
    if (ins.is_list())
      compress(from, ins.mask, ins.mask_words, to);
    else
      memcpy(to, from, size_t(w.row) * 2);
    for (int64_t i = ins.count; i < steps.tap_elements; ++i) to[i] = 0;
  }
  for (int64_t i = taps * steps.tap_elements; i < steps.elements(); ++i)
    row[i] = 0;
  return row;
}

// Copies the weights of `count` outputs and the open inputs to tiles, by
// groups of 16 outputs, then by step. Rows of missing outputs are zero.
inline void pack_tiles(const TileConv& conv, const Channels& outs,
                       int64_t first, int64_t count, uint16_t* row,
                       uint16_t* tiles) {
  const int64_t steps = conv.steps.count, rows = round_up(count, kTileRows);
  for (int64_t k = 0; k < rows; ++k) {
    uint16_t* to = tiles + k / kTileRows * steps * kTileBytes / 2 +
                   k % kTileRows * kTileInputs;
    const uint16_t* from =
        k < count ? packed_row(conv, outs[first + k],
                               outs[first + min(k + 1, count - 1)], row)
                  : nullptr;
    for (int64_t s = 0; s < steps; ++s, to += kTileBytes / 2)
      if (from)
        memcpy(to, from + s * kTileInputs, 64);
      else
        memset(to, 0, 64);
  }
}

bool prepare_tiles(const Program& p, Op& op, ModelMemory& memory) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  TileConvPlan& plan = *(TileConvPlan*)allocate(memory, sizeof(TileConvPlan));
  op.plan = &plan;
  if (!make_layout(op, x, y, memory, plan.layout)) return false;
  const Layout& layout = plan.layout;
  plan.gathers = x.channels <= kMaxGatheredInputs;
  plan.weights = convert_weights(p, op, layout.tap_count, memory);
  const TileSteps steps(plan, x.channels);
  const int64_t inputs = round_up(x.channels, kTileInputs);
  if (layout.plane_floats > kMaxBytes / (inputs * 4)) return false;
  op.shared_bytes =
      2 * inputs * layout.plane_floats + 16 * x.channels + 1024;
  plan.acc_floats = acc_floats_of(layout, max_rows(layout));
  const int64_t weights = kBlockOuts * steps.elements() * 2;
  const int64_t row = (steps.elements() + 2 * kMaskBits) * 2;
  const int64_t gathered =
      plan.gathers ? steps.count * kBlockTiles * kTileBytes : 0;
  op.thread_bytes =
      max(8 * layout.plane_floats,
          4 * kBlockOuts * plan.acc_floats + weights + row + gathered) +
      512;
  if (op.in_set != kAll || op.out_set != kAll) return true;
  const OpenInputs all = {x.channels, nullptr, nullptr, 0};
  plan.tiles = (uint16_t*)allocate(
      memory, round_up(y.channels, kTileRows) * steps.elements() * 2);
  pack_tiles({plan, steps, all, nullptr}, {nullptr, y.channels}, 0, y.channels,
             (uint16_t*)allocate(memory, row), plan.tiles);
  return true;
}

// Tiles of pixels from `begin` on, of all taps and pairs; the rows of the
// tiles of a step alternate.
inline void gather_pixels(const TileConv& conv, int64_t begin, int64_t tiles,
                          float* to) {
  const Layout& layout = conv.plan.layout;
  const int64_t width = tiles * kTileFloats;
  float* const end = to + conv.steps.count * kTileRows * width;
  for (int64_t t = 0; t < layout.tap_count; ++t)
    for (int64_t k = 0; k < conv.ins.pairs(); ++k, to += width) {
      const float* const from =
          conv.pixels + k * layout.plane_floats + layout.taps[t] + begin;
      for (int64_t x = 0; x < width; x += kLanes)
        store(to + x, load(from + x));
    }
  for (; to < end; to += kLanes) store(to, Vec{});
}

// Calls f(tile of pixels, distance of its rows) for every step.
template <class F>
inline void for_each_step(const TileConv& conv, int64_t begin,
                          const float* gathered, int64_t width, const F& f) {
  if (conv.plan.gathers) {
    for (int64_t s = 0; s < conv.steps.count; ++s)
      f(gathered + s * kTileRows * width, width);
    return;
  }
  const Layout& layout = conv.plan.layout;
  for (int64_t t = 0; t < conv.steps.taps; ++t)
    for (int64_t k = 0; k < conv.steps.per_tap; ++k)
      f(conv.pixels + k * kTileRows * layout.plane_floats + layout.taps[t] +
            begin,
        layout.plane_floats);
}

// Sums of OUTS x PIXELS tiles.
template <int OUTS, int PIXELS>
void multiply_block(const TileConv& conv, const uint16_t* weights,
                    int64_t begin, const float* gathered, const float* start,
                    float* to, int64_t to_step) {
  const int64_t group = conv.steps.count * kTileBytes / 2;
  // the compiler does not know what the instructions read
  __asm__ volatile("" : : : "memory");
  FGC_LOAD_TILE(0, start, kTileFloats);
  if constexpr (PIXELS == 2) FGC_LOAD_TILE(1, start, kTileFloats);
  if constexpr (OUTS == 2) {
    FGC_LOAD_TILE(2, start + kTileBytes / 4, kTileFloats);
    if constexpr (PIXELS == 2)
      FGC_LOAD_TILE(3, start + kTileBytes / 4, kTileFloats);
  }
  for_each_step(conv, begin, gathered, PIXELS * kTileFloats,
                [&](const float* x, int64_t step) {
                  FGC_LOAD_TILE(4, weights, kTileFloats);
                  FGC_LOAD_TILE(6, x, step);
                  FGC_MULTIPLY_TILES(0, 4, 6);
                  if constexpr (PIXELS == 2) {
                    FGC_LOAD_TILE(7, x + kTileFloats, step);
                    FGC_MULTIPLY_TILES(1, 4, 7);
                  }
                  if constexpr (OUTS == 2) {
                    FGC_LOAD_TILE(5, weights + group, kTileFloats);
                    FGC_MULTIPLY_TILES(2, 5, 6);
                    if constexpr (PIXELS == 2) FGC_MULTIPLY_TILES(3, 5, 7);
                  }
                  weights += kTileBytes / 2;
                });
  FGC_STORE_TILE(0, to, to_step);
  if constexpr (PIXELS == 2) FGC_STORE_TILE(1, to + kTileFloats, to_step);
  if constexpr (OUTS == 2) {
    to += kTileRows * to_step;
    FGC_STORE_TILE(2, to, to_step);
    if constexpr (PIXELS == 2) FGC_STORE_TILE(3, to + kTileFloats, to_step);
  }
}

using BlockFn = void (*)(const TileConv&, const uint16_t*, int64_t,
                         const float*, const float*, float*, int64_t);

inline void accumulate_tiles(const TileConv& conv, const Channels& channels,
                             const Block& b) {
  static constexpr BlockFn blocks[2][2] = {
      {multiply_block<1, 1>, multiply_block<1, 2>},
      {multiply_block<2, 1>, multiply_block<2, 2>}};
  const TileRegisters registers;
  constexpr int64_t kWidth = kBlockTiles * kTileFloats;
  float start[kBlockOuts * kTileFloats] __attribute__((aligned(64)));
  const int64_t group = conv.steps.count * kTileBytes / 2;
  ScratchAllocator scratch{
      (char*)(b.acc + conv.plan.acc_floats * kBlockOuts)};
  uint16_t* const packed =
      scratch.allocate<uint16_t>(kBlockOuts / kTileRows * group);
  uint16_t* const row = scratch.allocate<uint16_t>(conv.steps.elements() +
                                                   2 * kMaskBits);
  float* const gathered = scratch.allocate<float>(0);
  const int64_t outs = b.o1 - b.o0;
  for (int64_t o = 0; o < round_up(outs, kTileRows); ++o)
    fill(start + o * kTileFloats, kTileFloats, o < outs ? b.start[o] : 0.f);
  const uint16_t* weights = packed;
  if (conv.plan.tiles)
    weights = conv.plan.tiles + b.o0 / kTileRows * group;
  else
    pack_tiles(conv, channels, b.o0, outs, row, packed);
  const int64_t pixels = round_up(b.vectors * kLanes, kTileFloats);
  for (int64_t x = 0; x < pixels; x += kWidth) {
    const int64_t tiles = min(kBlockTiles, (pixels - x) / kTileFloats);
    if (conv.plan.gathers)
      gather_pixels(conv, b.begin + x, tiles, gathered);
    for (int64_t o = 0; o < outs; o += kWidth) {
      const int64_t o1 = min(o + kWidth, outs);
      const int64_t groups = ceil_div(o1 - o, kTileRows);
      blocks[groups - 1][tiles - 1](
          conv, weights + o / kTileRows * group, b.begin + x, gathered,
          start + o * kTileFloats, b.acc + o * b.acc_stride + x,
          b.acc_stride);
    }
  }
  // not by tile: a store that misses the caches delays the loads of tiles that
  // are stored after it
  for (int64_t o = 0; b.rows && o < outs; ++o)
    write_row(b.acc + o * b.acc_stride,
              b.rows->has_add ? b.rows->add[o] : nullptr, b.rows->y[o],
              b.rows->count, b.rows->low, b.rows->high, true, false);
}

constexpr int64_t kTileL2Bytes = 512 * 1024;  // as kL2Bytes, of such CPUs
constexpr int64_t kTileSpeed = 16;  // multiply-adds in the time of float32

void run_tiles(const Program& p, const Op& op, Context& c) {
  const TileConvPlan& plan = *(const TileConvPlan*)op.plan;
  const Layout& layout = plan.layout;
  const Map x = map_of(p, c, op.x);
  const Target to = target_of(p, c, op.y, op.add, op.act);
  const Channels outs = channels_of(c, op.out_set, to.y.channels);
  ScratchAllocator scratch{c.shared_scratch};
  int64_t* const indices = scratch.allocate<int64_t>(x.channels);
  const OpenInputs ins = find_open_inputs(
      channels_of(c, op.in_set, x.channels), x.channels, indices,
      scratch.allocate<uint32_t>(ceil_div(x.channels, kMaskBits)));
  const TileSteps steps(plan, ins.count);
  float* const pixels = scratch.allocate<float>(0);
  pack_planes(op, c, layout, x, ins, pixels);
  if (!plan.gathers)
    fill(pixels + ins.pairs() * layout.plane_floats,
         (steps.per_tap * kTileRows - ins.pairs()) * layout.plane_floats,
         0.f);
  const TileConv conv{plan, steps, ins, pixels};
  compute_outputs({op, c, layout, to, outs, 0, nullptr},
                  {steps.elements() / kTileSpeed, ins.pairs(),
                   kTileRows * kBlockTiles, kTileL2Bytes},
                  [&](const Block& b) { accumulate_tiles(conv, outs, b); });
}

}  // namespace
}  // namespace fgc
