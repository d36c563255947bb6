// Peak rate of multiply-adds of one thread: the conv microkernel with all
// operands in the L1 cache.
#pragma once

#include <time.h>

#include "tile.h"

namespace fgc {
namespace {

inline double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// Highest rate of runs of f, each of `work` multiply-adds.
template <class F>
double best_rate(double work, double seconds, const F& f) {
  double best = 0;
  const double begin = now();
  do {
    const double from = now();
    f();
    const double rate = work / (now() - from + 1e-12);
    best = rate > best ? rate : best;
  } while (now() - begin < seconds);
  return best;
}

inline double peak(double seconds) {
  constexpr int64_t kInputs = 64, kRuns = 200;
  constexpr int kVecs = vectors_per_tile(kMaxOut);
  static const int64_t tap[1] = {0};
  float x[kVecs * kLanes + 1] = {}, w[kInputs + kPrefetchInputs] = {};
  float acc[kMaxOut * kVecs * kLanes] = {}, start[kMaxOut] = {};
  const float* planes[kInputs];
  const float* weights[kMaxOut];
  int64_t offsets[kInputs + kPrefetchInputs];
  for (int64_t i = 0; i < kInputs; ++i) planes[i] = x;
  for (int64_t i = 0; i < kInputs + kPrefetchInputs; ++i)
    offsets[i] = i % kInputs;
  for (int o = 0; o < kMaxOut; ++o) weights[o] = w;
  const TileArgs args{planes, offsets, kInputs, weights, tap, 1, 1};
  const TileFn f = select_tile(kMaxOut, kVecs, kOneTap);
  const double work = double(kRuns * kInputs * kMaxOut * kVecs * kLanes);
  return best_rate(work, seconds, [&] {
    for (int64_t r = 0; r < kRuns; ++r) {
      f(args, 0, acc, kVecs * kLanes, start);
      // keeps every run from being optimised away
      __asm__ volatile("" : : "r"(acc) : "memory");
    }
  });
}

}  // namespace
}  // namespace fgc
