// The innermost loops: a few output channels times a few vectors of pixels.
//
// Pixels lie in vectors, a weight is one number that is broadcast, reached by
// its channels' numbers. So any list of open channels, on either side, costs
// no copy of weights.
#pragma once

#include "maps.h"

namespace fgc {
namespace {

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

struct Sum {
  const float* const* x;    // plane of every input channel that is read
  const int64_t* w_of_in;   // where its weights lie behind a pointer of w
  int64_t inputs;
  const float* const* w;    // weights of every output channel of the group
  const int64_t* taps;      // kernel elements as offsets into a plane
  int64_t tap_count;
  bool ahead;               // ask for the weights of the inputs to come
  int64_t far;              // of one tap: how many floats on, or 0
};

// So many inputs ahead; w_of_in has as many entries more.
constexpr int64_t kAhead = 8;

// acc[o][v] (+)= sum over inputs and taps of w * x, from position p on.
template <int OUT, int VECS, bool ONE_TAP>
void tile(const Sum& sum, int64_t p, float* acc, int64_t acc_stride,
          const float* start) {
  Vec a[OUT][VECS];
  const float* w[OUT];
#pragma GCC unroll 8
  for (int o = 0; o < OUT; ++o) {
    w[o] = sum.w[o];
#pragma GCC unroll 8
    for (int v = 0; v < VECS; ++v)
      a[o][v] = start ? broadcast(start[o])
                      : load(acc + o * acc_stride + v * kLanes);
  }
  const int64_t taps = ONE_TAP ? 1 : sum.tap_count;
  const int64_t inputs = sum.inputs;
#pragma GCC unroll 2
  for (int64_t i = 0; i < inputs; ++i) {
    const float* plane = sum.x[i] + p;
    int64_t at = sum.w_of_in[i];
    // wide layers' weights come from afar: ask for them in time
    if (!ONE_TAP && sum.ahead) {
      const int64_t later = sum.w_of_in[i + kAhead];
#pragma GCC unroll 8
      for (int o = 0; o < OUT; ++o) __builtin_prefetch(w[o] + later);
    }
    if (ONE_TAP && sum.far) __builtin_prefetch(w[0] + at + sum.far);
    for (int64_t t = 0; t < taps; ++t, ++at) {
      const float* from = ONE_TAP ? plane : plane + sum.taps[t];
      if (OUT <= VECS) {
        Vec wide[OUT];
#pragma GCC unroll 8
        for (int o = 0; o < OUT; ++o) wide[o] = broadcast(w[o][at]);
#pragma GCC unroll 8
        for (int v = 0; v < VECS; ++v) {
          Vec x = load(from + v * kLanes);
#pragma GCC unroll 8
          for (int o = 0; o < OUT; ++o) a[o][v] += wide[o] * x;
        }
      } else {
        Vec x[VECS];
#pragma GCC unroll 8
        for (int v = 0; v < VECS; ++v) x[v] = load(from + v * kLanes);
#pragma GCC unroll 8
        for (int o = 0; o < OUT; ++o) {
          Vec wide = broadcast(w[o][at]);
#pragma GCC unroll 8
          for (int v = 0; v < VECS; ++v) a[o][v] += wide * x[v];
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < OUT; ++o)
#pragma GCC unroll 8
    for (int v = 0; v < VECS; ++v)
      store(acc + o * acc_stride + v * kLanes, a[o][v]);
}

using TileFn = void (*)(const Sum&, int64_t, float*, int64_t, const float*);

template <int OUT, int VECS>
TileFn pick(bool one_tap) {
  if constexpr (OUT * VECS <= kMaxTile)
    return one_tap ? tile<OUT, VECS, true> : tile<OUT, VECS, false>;
  return nullptr;
}

template <int OUT>
TileFn pick_vectors(int vectors, bool one_tap) {
  switch (vectors) {
    case 1: return pick<OUT, 1>(one_tap);
    case 2: return pick<OUT, 2>(one_tap);
    case 3: return pick<OUT, 3>(one_tap);
    case 4: return pick<OUT, 4>(one_tap);
    case 5: return pick<OUT, 5>(one_tap);
    case 6: return pick<OUT, 6>(one_tap);
    case 7: return pick<OUT, 7>(one_tap);
    default: return pick<OUT, 8>(one_tap);
  }
}

inline TileFn pick_tile(int out, int vectors, bool one_tap) {
  switch (out) {
    case 1: return pick_vectors<1>(vectors, one_tap);
    case 2: return pick_vectors<2>(vectors, one_tap);
    case 3: return pick_vectors<3>(vectors, one_tap);
    case 4: return pick_vectors<4>(vectors, one_tap);
    case 5: return pick_vectors<5>(vectors, one_tap);
    default: return pick_vectors<6>(vectors, one_tap);
  }
}

// Inputs are summed in passes of equal size, a quarter larger than asked for
// at most.
inline int64_t passes_of(int64_t inputs, int64_t at_once) {
  return larger(1, ceil_div(4 * inputs, 5 * at_once));
}

// Sums over all inputs for a group of output channels and all its vectors.
// Weights of `inputs_at_once` inputs stay in the first cache meanwhile.
inline void sum_group(Sum sum, int out, int64_t begin, int64_t vectors,
                      float* acc, int64_t acc_stride, const float* start,
                      int64_t inputs_at_once) {
  const int64_t most = vectors_beside(out);
  const int64_t tiles = (vectors + most - 1) / most;
  const int64_t all = sum.inputs;
  const bool one_tap = sum.tap_count == 1;
  const float* const* x = sum.x;
  const int64_t* w_of_in = sum.w_of_in;
  const int64_t far = sum.far;
  const int64_t passes = passes_of(all, inputs_at_once);
  for (int64_t pass = 0; pass < passes; ++pass) {
    const int64_t first = pass * all / passes;
    sum.x = x + first;
    sum.w_of_in = w_of_in + first;
    sum.inputs = (pass + 1) * all / passes - first;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t from = t * vectors / tiles;
      const int64_t to = (t + 1) * vectors / tiles;
      sum.ahead = t == 0;  // the other tiles find them there
      sum.far = t == 0 ? far : 0;
      pick_tile(out, int(to - from), one_tap)(
          sum, begin + from * kLanes, acc + from * kLanes, acc_stride,
          first ? nullptr : start);
    }
  }
}

// As tile, of one tap; vectors of an input's pixels lie side by side, those
// of the next input behind them.
template <int OUT, int VECS>
void packed_tile(const float* x, const Sum& sum, float* acc,
                 int64_t acc_stride, const float* start) {
  Vec a[OUT][VECS];
  const float* w[OUT];
#pragma GCC unroll 8
  for (int o = 0; o < OUT; ++o) {
    w[o] = sum.w[o];
#pragma GCC unroll 8
    for (int v = 0; v < VECS; ++v)
      a[o][v] = start ? broadcast(start[o])
                      : load(acc + o * acc_stride + v * kLanes);
  }
  const int64_t inputs = sum.inputs;
  const int64_t* const ats = sum.w_of_in;
#pragma GCC unroll 4
  for (int64_t i = 0; i < inputs; ++i, x += VECS * kLanes) {
    const int64_t at = ats[i];
    Vec pixels[VECS];
#pragma GCC unroll 8
    for (int v = 0; v < VECS; ++v) pixels[v] = load(x + v * kLanes);
#pragma GCC unroll 8
    for (int o = 0; o < OUT; ++o) {
      const Vec wide = broadcast(w[o][at]);
#pragma GCC unroll 8
      for (int v = 0; v < VECS; ++v) a[o][v] += wide * pixels[v];
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < OUT; ++o)
#pragma GCC unroll 8
    for (int v = 0; v < VECS; ++v)
      store(acc + o * acc_stride + v * kLanes, a[o][v]);
}

using PackedFn = void (*)(const float*, const Sum&, float*, int64_t,
                          const float*);

template <int OUT, int VECS>
PackedFn packed_or_none() {
  if constexpr (OUT * VECS <= kMaxTile) return packed_tile<OUT, VECS>;
  return nullptr;
}

template <int OUT>
PackedFn pick_packed_vectors(int vectors) {
  switch (vectors) {
    case 1: return packed_or_none<OUT, 1>();
    case 2: return packed_or_none<OUT, 2>();
    case 3: return packed_or_none<OUT, 3>();
    case 4: return packed_or_none<OUT, 4>();
    case 5: return packed_or_none<OUT, 5>();
    case 6: return packed_or_none<OUT, 6>();
    case 7: return packed_or_none<OUT, 7>();
    default: return packed_or_none<OUT, 8>();
  }
}

inline PackedFn pick_packed(int out, int vectors) {
  switch (out) {
    case 1: return pick_packed_vectors<1>(vectors);
    case 2: return pick_packed_vectors<2>(vectors);
    case 3: return pick_packed_vectors<3>(vectors);
    case 4: return pick_packed_vectors<4>(vectors);
    case 5: return pick_packed_vectors<5>(vectors);
    default: return pick_packed_vectors<6>(vectors);
  }
}

constexpr int64_t kWorthPacking = 4;  // groups of outputs that read a tile
constexpr int64_t kPacked = 240;      // inputs of it, at most

// Pixels of a tile, whose inputs are far apart in their planes.
struct PackedTile {
  float pixels[kPacked * kMaxVec * kLanes] __attribute__((aligned(64)));

  void take(const Sum& sum, int64_t p, int64_t vectors) {
    float* to = pixels;
    for (int64_t i = 0; i < sum.inputs; ++i) {
      const float* from = sum.x[i] + p;
      for (int64_t v = 0; v < vectors; ++v, to += kLanes)
        store(to, load(from + v * kLanes));
    }
  }
};

constexpr int64_t kGroups = 16;  // of outputs, that use what is in a cache
constexpr int64_t kBlockOuts = kGroups * kMaxOut;

// Sums over all inputs for up to kBlockOuts outputs and all their vectors. A
// tile of pixels of some inputs stays in the first cache while all groups of
// outputs use it, their weights in the second.
inline void sum_block(Sum sum, int64_t outs, int64_t begin, int64_t vectors,
                      float* acc, int64_t acc_stride, const float* start,
                      int64_t inputs_at_once) {
  PackedTile packed;
  const int64_t groups = ceil_div(outs, kMaxOut);
  const int64_t most = vectors_beside(int(ceil_div(outs, groups)));
  const int64_t tiles = ceil_div(vectors, most);
  const int64_t all = sum.inputs, far = sum.far;
  const bool one_tap = sum.tap_count == 1;
  const float* const* x = sum.x;
  const float* const* w = sum.w;
  const int64_t* w_of_in = sum.w_of_in;
  const int64_t passes = passes_of(all, inputs_at_once);
  for (int64_t pass = 0; pass < passes; ++pass) {
    const int64_t first = pass * all / passes;
    sum.x = x + first;
    sum.w_of_in = w_of_in + first;
    sum.inputs = (pass + 1) * all / passes - first;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t from = t * vectors / tiles;
      const int64_t to = (t + 1) * vectors / tiles;
      sum.ahead = t == 0;  // the other tiles find them there
      sum.far = t == 0 ? far : 0;
      const bool packs = one_tap && !far && groups >= kWorthPacking &&
                         sum.inputs <= kPacked;
      if (packs) packed.take(sum, begin + from * kLanes, to - from);
      for (int64_t k = 0; k < groups; ++k) {
        const int64_t o0 = k * outs / groups, o1 = (k + 1) * outs / groups;
        sum.w = w + o0;
        if (packs) {
          pick_packed(int(o1 - o0), int(to - from))(
              packed.pixels, sum, acc + o0 * acc_stride + from * kLanes,
              acc_stride, pass ? nullptr : start + o0);
          continue;
        }
        pick_tile(int(o1 - o0), int(to - from), one_tap)(
            sum, begin + from * kLanes,
            acc + o0 * acc_stride + from * kLanes, acc_stride,
            first ? nullptr : start + o0);
      }
    }
  }
}

}  // namespace
}  // namespace fgc
