// The innermost loops: a few output channels times a few vectors of pixels.
//
// Pixels lie in vectors, a weight is one number that is broadcast, reached by
// its channels' numbers. So any list of open channels, on either side, costs
// no copy of weights.
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

// What fits into the registers: accumulators, one row of x, some weights.
#if defined(__AVX512VL__)
constexpr int kMaxOut = 6, kMaxVec = 8, kMaxTile = 24;
#else
constexpr int kMaxOut = 4, kMaxVec = 6, kMaxTile = 12;
#endif

// Vectors of pixels that go with a number of output channels.
constexpr int vectors_beside(int out) {
  return kMaxTile / out < kMaxVec ? kMaxTile / out : kMaxVec;
}

// How sums are written that are complete: what is added, and a clamp.
struct Epilogue {
  float* const* y;          // of every output channel of the group
  const float* const* add;  // likewise, or null
  int64_t offset;           // where the tile begins, in y and in add
  int64_t last_count;       // numbers of its last vector
  float low, high;
};

struct TileArgs {
  const float* const* x;    // plane of every input channel that is read
  const int64_t*
      weight_offsets;  // where its weights lie behind a pointer of w
  int64_t inputs;
  const float* const* w;    // weights of every output channel of the group
  const int64_t* taps;      // kernel elements as offsets into a plane
  int64_t tap_count;
  int64_t tap_step;         // floats between the weights of two taps
  bool prefetch;            // ask for the weights of the inputs to come
  int64_t prefetch_step;    // floats on, for each output more
  int64_t prefetch_floats;  // of one tap: how many floats on, or 0
  const float* packed;      // pixels of a tile, one input behind the other
  const Epilogue* epilogue;  // or null: the sums go into acc
};

// So many inputs ahead; w_of_in has as many entries more.
constexpr int64_t kPrefetchInputs = 8;

// Where a tile's pixels are read: of several taps or of one tap in the planes,
// or of one tap in a copy.
enum Pixels { kTaps, kOneTap, kPacked };

template <int OUT, int VECS>
inline void store_tile(const Vec (&a)[OUT][VECS], const Epilogue& f) {
  const Vec low = broadcast(f.low), high = broadcast(f.high);
#pragma GCC unroll 8
  for (int o = 0; o < OUT; ++o) {
    float* const y = f.y[o] + f.offset;
    const float* const add = f.add ? f.add[o] + f.offset : nullptr;
    // no CPU foresees that the next tile is written here after many others
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

// acc[o][v] (+)= sum over inputs and taps of w * x, from position p on.
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
  const auto add_input =
      [&](int64_t i, const float* plane) __attribute__((always_inline)) {
        int64_t offset = args.weight_offsets[i];
        // wide layers' weights come from afar: ask for them in time
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
  // not unrolled: no faster, and a third more code
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
#ifdef FGC_PAIRS  // of each tap they have planes of their own
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

// Inputs are summed in passes of equal size, a quarter larger than asked for
// at most.
inline int64_t pass_count(int64_t inputs, int64_t inputs_per_pass) {
  return max(1, ceil_div(4 * inputs, 5 * inputs_per_pass));
}

// Sums over all inputs for a group of output channels and all its vectors.
// Weights of `inputs_at_once` inputs stay in the first cache meanwhile.
inline void accumulate_group(TileArgs args, int out, int64_t begin,
                             int64_t vectors, float* acc, int64_t acc_stride,
                             const float* start, int64_t inputs_per_pass) {
  const int64_t max_vectors = vectors_beside(out);
  const int64_t tiles = (vectors + max_vectors - 1) / max_vectors;
  const int64_t all = args.inputs;
  const Pixels pixels = args.tap_count == 1 ? kOneTap : kTaps;
  const float* const* x = args.x;
  const int64_t* weight_offsets = args.weight_offsets;
  const int64_t prefetch_floats = args.prefetch_floats;
  const int64_t passes = pass_count(all, inputs_per_pass);
  for (int64_t pass = 0; pass < passes; ++pass) {
    const int64_t first = pass * all / passes;
    args.x = x + first;
    args.weight_offsets = weight_offsets + first;
    args.inputs = (pass + 1) * all / passes - first;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t from = t * vectors / tiles;
      const int64_t to = (t + 1) * vectors / tiles;
      args.prefetch = t == 0;  // the other tiles find them there
      args.prefetch_floats = t == 0 ? prefetch_floats : 0;
      select_tile(out, int(to - from), pixels)(
          args, begin + from * kLanes, acc + from * kLanes, acc_stride,
          first ? nullptr : start);
    }
  }
}

constexpr int64_t kInputsPerPass = 128;  // summed in one pass, about
constexpr int64_t kPackedInputs = kInputsPerPass * 5 / 4;  // see passes_of
constexpr int64_t kMinPackedGroups = 4;  // of outputs: worth a copy of a tile
constexpr int kPackedVectors = 4;
static_assert(vectors_beside(kMaxOut*(kMinPackedGroups - 1) /
                                 kMinPackedGroups +
                             1) <= kPackedVectors,
              "so many groups of outputs are as large as that");

// Pixels of a tile, whose inputs are far apart in their planes.
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

constexpr int64_t kGroupsPerBlock =
    16;  // of outputs, that use what is in a cache
constexpr int64_t kBlockOuts = kGroupsPerBlock * kMaxOut;

// Rows of outputs: where they are written, just as their sums lie.
struct OutputRows {
  float* y[kBlockOuts];
  const float* add[kBlockOuts];
  bool has_add;
  float low, high;
  int64_t count;  // of numbers
};

// Sums over all inputs for up to kBlockOuts outputs and all their vectors,
// into `rows` or, without them, into `acc`. A tile of pixels of some inputs
// stays in the first cache while all groups of outputs use it, their weights
// in the second.
inline void accumulate_block(TileArgs args, int64_t outs, int64_t begin,
                             int64_t vectors, float* acc, int64_t acc_stride,
                             const float* start, int64_t inputs_per_pass,
                             const OutputRows* rows) {
  PackedTile packed;
  const int64_t groups = ceil_div(outs, kMaxOut);
  const int64_t max_vectors = vectors_beside(int(ceil_div(outs, groups)));
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
      args.prefetch = t == 0;  // the other tiles find them there
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
