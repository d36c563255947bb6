// Vector types and basic functions. All functions of a build have internal
// linkage: the linker must not replace them by those of another build.
#pragma once

#include <stdint.h>
#include <string.h>

#include "program.h"

// AVX-512 builds use 16 lanes, or the 32 registers with 8 lanes each.
#define FGC_LANES_OF_avx512 16
#define FGC_LANES_OF_bfloat16 16
#define FGC_LANES_OF_amx 16
#define FGC_JOIN(a, b) a##b
#define FGC_LANES_OF(build) FGC_JOIN(FGC_LANES_OF_, build)
#ifndef FGC_BUILD
#define FGC_BUILD baseline
#endif
#ifdef FGC_LANES  // a compiler option
#elif FGC_LANES_OF(FGC_BUILD) == 16
#define FGC_LANES 16
#elif defined(__AVX__)
#define FGC_LANES 8
#else
#define FGC_LANES 4
#endif

namespace fgc {
namespace {

constexpr int kLanes = FGC_LANES;
typedef float Vec
    __attribute__((vector_size(4 * FGC_LANES), aligned(4), may_alias));
typedef int32_t Ints
    __attribute__((vector_size(4 * FGC_LANES), aligned(4), may_alias));

inline Vec load(const float* from) { return *(const Vec*)from; }
inline void store(float* to, Vec value) { *(Vec*)to = value; }
inline Vec broadcast(float value) { return value - Vec{}; }

#if FGC_LANES == 16
constexpr Ints kIndex = {0, 1, 2,  3,  4,  5,  6,  7,
                         8, 9, 10, 11, 12, 13, 14, 15};
#elif FGC_LANES == 8
constexpr Ints kIndex = {0, 1, 2, 3, 4, 5, 6, 7};
#else
constexpr Ints kIndex = {0, 1, 2, 3};
#endif

// Stores two vectors: the lanes of a and b, interleaved.
inline void interleave(Vec a, Vec b, float* to) {
#if FGC_LANES == 16
  store(to, __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20,
                                    5, 21, 6, 22, 7, 23));
  store(to + kLanes,
        __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                13, 29, 14, 30, 15, 31));
#elif FGC_LANES == 8
  store(to, __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11));
  store(to + kLanes,
        __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15));
#else
  store(to, __builtin_shufflevector(a, b, 0, 4, 1, 5));
  store(to + kLanes, __builtin_shufflevector(a, b, 2, 6, 3, 7));
#endif
}

// Even (odd) lanes of a, then of b.
inline Vec even_lanes(Vec a, Vec b) {
#if FGC_LANES == 16
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20,
                                 22, 24, 26, 28, 30);
#elif FGC_LANES == 8
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6);
#endif
}

inline Vec odd_lanes(Vec a, Vec b) {
#if FGC_LANES == 16
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21,
                                 23, 25, 27, 29, 31);
#elif FGC_LANES == 8
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  return __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

inline void fill(float* to, int64_t count, float value) {
  for (int64_t i = 0; i < count; ++i) to[i] = value;
}

inline void copy(const float* from, float* to, int64_t count) {
  if (count > 0) memcpy(to, from, size_t(count) * sizeof(float));
}

constexpr int64_t kMaxBytes = int64_t(1) << 40;  // limit of any allocation

// Minimum number of multiply-adds, or of elements that are read or written,
// for which another thread is worthwhile: about 5 microseconds. Starting one
// that is awake takes 0.4 microseconds; the rest is the maps that the threads
// read from each other's caches.
constexpr int64_t kMinWorkPerThread = 1 << 18;
constexpr int64_t kMinElementsPerThread = 1 << 14;

inline float horizontal_sum(Vec v) {
  float total = 0;
  for (int k = 0; k < kLanes; ++k) total += v[k];
  return total;
}

// Calls f(begin, end, thread) for ranges of at least `grain` items, on the
// threads of the context.
template <class F>
inline void parallel_for(const Op& op, Context& c, int64_t items,
                         int64_t grain, const F& f) {
  if (c.threads <= 1 || op.single_threaded || items <= grain) {
    if (items > 0) f(int64_t(0), items, int64_t(0));
    return;
  }
  fgc::parallel_for(
      c.thread_pool, c.threads, items, grain,
      [](void* data, int64_t begin, int64_t end, int64_t thread) {
        (*(const F*)data)(begin, end, thread);
      },
      (void*)&f);
}

// Number of threads that an op may use.
inline int64_t thread_count(const Op& op, const Context& c) {
  return op.single_threaded ? 1 : c.threads;
}

}  // namespace
}  // namespace fgc
