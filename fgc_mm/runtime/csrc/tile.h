// The conv microkernel: a register block of output channels times vectors of
// pixels, and the loops over such tiles.
//
// Vectors hold pixels, weights are broadcast and addressed by channel index.
// Channel lists of inputs and outputs therefore need no repacked weights.
#pragma once

#include "maps.h"
#ifdef FGC_PAIRS
#include "pairs.h"
#endif

namespace fgc {
namespace {

#ifndef FGC_PAIRS
inline Vec broadcast_weight(const float* w) { return broadcast(*w); }
inline Vec multiply_add(Vec sum, Vec w, Vec x) { return sum + w * x; }
#endif

// Register block: accumulators, one row of x, some weights.
#if defined(__AVX512VL__)
constexpr int kMaxOut = 6, kMaxVec = 8, kMaxTile = 24;
#else
constexpr int kMaxOut = 4, kMaxVec = 6, kMaxTile = 12;
#endif

// Vectors of pixels per tile, given its number of output channels.
constexpr int vectors_per_tile(int out) {
  return kMaxTile / out < kMaxVec ? kMaxTile / out : kMaxVec;
}

// Epilogue of a tile: optional addend, clamp, store.
struct Epilogue {
  float* const* y;          // per output channel of the group
  const float* const* add;  // likewise, or null
  int64_t offset;           // of the tile in y and add
  int64_t last_count;       // elements in its last vector
  float low, high;
};

// Arguments of the microkernel.
struct TileArgs {
  const float* const* x;     // planes of the inputs
  const int64_t* weight_offsets;  // of each input, relative to w
  int64_t inputs;
  const float* const* w;     // weights per output channel of the group
  const int64_t* taps;       // offset of each kernel element in a plane
  int64_t tap_count;
  int64_t tap_step;          // stride between the weights of two taps
  bool prefetch;             // prefetch weights of subsequent inputs (kTaps)
  int64_t prefetch_step;     // additional prefetch offset per output
  int64_t prefetch_floats;   // prefetch distance (kOneTap, kPacked), or 0
  const float* packed;       // pixels of the tile, packed by input
  const Epilogue* epilogue;  // null: results are stored in acc
};

// Prefetch distance in inputs; weight_offsets has as many extra entries.
constexpr int64_t kPrefetchInputs = 8;

// Source of a tile's pixels: planes with several taps, planes with one tap,
// or a packed copy (one tap).
enum Pixels { kTaps, kOneTap, kPacked };

template <int OUT, int VECS>
inline void store_tile(const Vec (&a)[OUT][VECS], const Epilogue& f) {
  const Vec low = broadcast(f.low), high = broadcast(f.high);
#pragma GCC unroll 8
  for (int o = 0; o < OUT; ++o) {
    float* const y = f.y[o] + f.offset;
    const float* const add = f.add ? f.add[o] + f.offset : nullptr;
    // hardware prefetchers do not predict the next tile of this row
    __builtin_prefetch(y + VECS * kLanes, 1);
    __builtin_prefetch(y + 2 * VECS * kLanes - 1, 1);
    if (add) {
      __builtin_prefetch(add + VECS * kLanes);
      __builtin_prefetch(add + 2 * VECS * kLanes - 1);
    }
#pragma GCC unroll 8
    for (int v = 0; v < VECS; ++v) {
      Vec value = a[o][v];
      if (add) value += load(add + v * kLanes);
      value = clamp(value, low, high);
      if (v == VECS - 1 && f.last_count < kLanes)
        memcpy(y + v * kLanes, &value, size_t(f.last_count) * sizeof(float));
      else
        store(y + v * kLanes, value);
    }
  }
}

// acc[o][v] (+)= sum over inputs and taps of w * x, for pixels from p on.
// Without `start`, the accumulators are loaded from acc.
template <int OUT, int VECS, Pixels PIXELS>
void tile(const TileArgs& args, int64_t p, float* acc, int64_t acc_stride,
          const float* start) {
  Vec a[OUT][VECS];
  const float* w[OUT];
#pragma GCC unroll 8
  for (int o = 0; o < OUT; ++o) {
    w[o] = args.w[o];
#pragma GCC unroll 8
    for (int v = 0; v < VECS; ++v)
      a[o][v] = start ? broadcast(start[o])
                      : load(acc + o * acc_stride + v * kLanes);
  }
  const int64_t taps = PIXELS == kTaps ? args.tap_count : 1;
  const int64_t inputs = args.inputs;
  const auto add_input = [&](int64_t i, const float* plane)
                             __attribute__((always_inline)) {
    int64_t offset = args.weight_offsets[i];
    // weights of wide layers are outside the near caches
    if (PIXELS == kTaps && args.prefetch) {
      const int64_t later = args.weight_offsets[i + kPrefetchInputs];
#pragma GCC unroll 8
      for (int o = 0; o < OUT; ++o)
        __builtin_prefetch(w[o] + later + o * args.prefetch_step);
    }
    if (PIXELS != kTaps && args.prefetch_floats)
      __builtin_prefetch(w[0] + offset + args.prefetch_floats);
    for (int64_t t = 0; t < taps; ++t, offset += args.tap_step) {
      const float* from = PIXELS == kTaps ? plane + args.taps[t] : plane;
      if (PIXELS != kPacked && OUT <= VECS) {
        Vec weight[OUT];
#pragma GCC unroll 8
        for (int o = 0; o < OUT; ++o)
          weight[o] = broadcast_weight(w[o] + offset);
#pragma GCC unroll 8
        for (int v = 0; v < VECS; ++v) {
          Vec x = load(from + v * kLanes);
#pragma GCC unroll 8
          for (int o = 0; o < OUT; ++o)
            a[o][v] = multiply_add(a[o][v], weight[o], x);
        }
      } else {
        Vec x[VECS];
#pragma GCC unroll 8
        for (int v = 0; v < VECS; ++v) x[v] = load(from + v * kLanes);
#pragma GCC unroll 8
        for (int o = 0; o < OUT; ++o) {
          const Vec weight = broadcast_weight(w[o] + offset);
#pragma GCC unroll 8
          for (int v = 0; v < VECS; ++v)
            a[o][v] = multiply_add(a[o][v], weight, x[v]);
        }
      }
    }
  };
  // unrolling is not faster, and a third more code
  for (int64_t i = 0; i < inputs; ++i)
    add_input(i, PIXELS == kPacked ? args.packed + i * VECS * kLanes
                                   : args.x[i] + p);
  if (args.epilogue) return store_tile(a, *args.epilogue);
#pragma GCC unroll 8
  for (int o = 0; o < OUT; ++o)
#pragma GCC unroll 8
    for (int v = 0; v < VECS; ++v)
      store(acc + o * acc_stride + v * kLanes, a[o][v]);
}

using TileFn = void (*)(const TileArgs&, int64_t, float*, int64_t,
                        const float*);

template <int OUT, int VECS>
TileFn select(Pixels pixels) {
  if constexpr (OUT * VECS <= kMaxTile) {
#ifdef FGC_PAIRS  // bfloat16 convs have a plane per tap
    static constexpr TileFn all[] = {nullptr, tile<OUT, VECS, kOneTap>,
                                     tile<OUT, VECS, kPacked>};
#else
    static constexpr TileFn all[] = {tile<OUT, VECS, kTaps>,
                                     tile<OUT, VECS, kOneTap>,
                                     tile<OUT, VECS, kPacked>};
#endif
    return all[pixels];
  }
  return nullptr;
}

template <int OUT>
TileFn select_vectors(int vectors, Pixels pixels) {
  switch (vectors) {
    case 1: return select<OUT, 1>(pixels);
    case 2: return select<OUT, 2>(pixels);
    case 3: return select<OUT, 3>(pixels);
    case 4: return select<OUT, 4>(pixels);
    case 5: return select<OUT, 5>(pixels);
    case 6: return select<OUT, 6>(pixels);
    case 7: return select<OUT, 7>(pixels);
    default: return select<OUT, 8>(pixels);
  }
}

inline TileFn select_tile(int out, int vectors, Pixels pixels) {
  switch (out) {
    case 1: return select_vectors<1>(vectors, pixels);
    case 2: return select_vectors<2>(vectors, pixels);
    case 3: return select_vectors<3>(vectors, pixels);
    case 4: return select_vectors<4>(vectors, pixels);
    case 5: return select_vectors<5>(vectors, pixels);
    default: return select_vectors<6>(vectors, pixels);
  }
}

// Splits the inputs into passes of equal size, at most a quarter larger than
// requested.
inline int64_t pass_count(int64_t inputs, int64_t inputs_per_pass) {
  return max(1, ceil_div(4 * inputs, 5 * inputs_per_pass));
}

constexpr int64_t kInputsPerPass = 128;  // about, with one tap
constexpr int64_t kPackedInputs = kInputsPerPass * 5 / 4;  // see pass_count
// Minimum number of output groups for packing.
constexpr int64_t kMinPackedGroups = 4;
constexpr int kPackedVectors = 4;
static_assert(vectors_per_tile(kMaxOut * (kMinPackedGroups - 1) /
                                   kMinPackedGroups +
                               1) <= kPackedVectors,
              "the tiles of packed groups fit into PackedTile");

// Packed pixels of a tile; in the planes the inputs are far apart.
struct PackedTile {
  float pixels[kPackedInputs * kPackedVectors * kLanes]
      __attribute__((aligned(64)));

  const float* pack(const TileArgs& args, int64_t p, int64_t vectors) {
    float* to = pixels;
    for (int64_t i = 0; i < args.inputs; ++i) {
      const float* from = args.x[i] + p;
      for (int64_t v = 0; v < vectors; ++v, to += kLanes)
        store(to, load(from + v * kLanes));
    }
    return pixels;
  }
};

// Groups of outputs that share the cached pixels.
constexpr int64_t kGroupsPerBlock = 16;
constexpr int64_t kBlockOuts = kGroupsPerBlock * kMaxOut;

// Output rows of a block that have the layout of its accumulators.
struct OutputRows {
  float* y[kBlockOuts];
  const float* add[kBlockOuts];
  bool has_add;
  float low, high;
  int64_t count;  // elements to be written
};

// Accumulates over all inputs for up to kBlockOuts outputs and all their
// vectors, and stores to `rows` or, if null, to `acc`. The pixels of a tile
// stay in the L1 cache for all groups of outputs, the weights of a pass in
// the L2 cache.
inline void accumulate_block(TileArgs args, int64_t outs, int64_t begin,
                             int64_t vectors, float* acc, int64_t acc_stride,
                             const float* start, int64_t inputs_per_pass,
                             const OutputRows* rows) {
  PackedTile packed;
  const int64_t groups = ceil_div(outs, kMaxOut);
  const int64_t max_vectors = vectors_per_tile(int(ceil_div(outs, groups)));
  const int64_t tiles = ceil_div(vectors, max_vectors);
  const int64_t all = args.inputs;
  const bool packs = args.tap_count == 1 && groups >= kMinPackedGroups &&
                     inputs_per_pass <= kInputsPerPass;
  const Pixels pixels = packs                 ? kPacked
                        : args.tap_count == 1 ? kOneTap
                                              : kTaps;
  const float* const* x = args.x;
  const float* const* w = args.w;
  const int64_t* weight_offsets = args.weight_offsets;
  const int64_t passes = pass_count(all, inputs_per_pass);
  for (int64_t pass = 0; pass < passes; ++pass) {
    const int64_t first = pass * all / passes;
    const bool stores = rows && pass == passes - 1;
    args.x = x + first;
    args.weight_offsets = weight_offsets + first;
    args.inputs = (pass + 1) * all / passes - first;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t from = t * vectors / tiles;
      const int64_t to = (t + 1) * vectors / tiles;
      args.prefetch = t == 0;  // later tiles find them in the cache
      if (packs)
        args.packed = packed.pack(args, begin + from * kLanes, to - from);
      Epilogue epilogue;
      if (stores) {
        epilogue.low = rows->low;
        epilogue.high = rows->high;
        epilogue.offset = from * kLanes;
        epilogue.last_count = min(kLanes, rows->count - (to - 1) * kLanes);
        args.epilogue = &epilogue;
      }
      for (int64_t k = 0; k < groups; ++k) {
        const int64_t o0 = k * outs / groups, o1 = (k + 1) * outs / groups;
        args.w = w + o0;
        if (stores) {
          epilogue.y = rows->y + o0;
          epilogue.add = rows->has_add ? rows->add + o0 : nullptr;
        }
        select_tile(int(o1 - o0), int(to - from), pixels)(
            args, begin + from * kLanes,
            acc + o0 * acc_stride + from * kLanes, acc_stride,
            pass ? nullptr : start + o0);
      }
    }
  }
}

}  // namespace
}  // namespace fgc
