// bfloat16: numbers of two channels lie in the place of one float32, that of
// the first in its lower half. Products of pairs are summed in float32.
#pragma once

#include "simd.h"

#if defined(__AVX512BF16__) && defined(__AVX512VBMI2__) && FGC_LANES == 16
#include <immintrin.h>
#define FGC_BFLOAT16_SET 1
#endif

namespace fgc {
namespace {

constexpr int64_t kWord = 32;  // channels of a word of open ones

// To the nearest, of two to the even one; nan stays nan.
inline uint16_t bfloat16_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (x != x) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#ifdef FGC_BFLOAT16_SET

inline Vec pair_of(Vec a, Vec b) {
  const __m512i places = _mm512_set_epi16(
      31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
      6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512bh both = _mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
  return (Vec)_mm512_permutexvar_epi16(places, (__m512i)both);
}

inline Vec spread(const float* pair) {
  int32_t bits;
  memcpy(&bits, pair, 4);
  return (Vec)_mm512_set1_epi32(bits);
}

inline Vec multiply_add(Vec sum, Vec w, Vec x) {
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
}

// The numbers whose channels are open, side by side; kWord numbers behind
// them may be written.
inline void compress(const uint16_t* from, const uint32_t* open,
                     int64_t words, uint16_t* to) {
  for (int64_t k = 0; k < words; ++k) {
    const __m512i all = _mm512_loadu_si512(from + k * kWord);
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi16(open[k], all));
    to += __builtin_popcount(open[k]);
  }
  *to = 0;
}

#else

inline Ints rounded(Vec x) {
  const Ints bits = (Ints)x;
  const Ints up = bits + 0x7fff + (bits >> 16 & 1);
  return x != x ? bits | 0x400000 : up;
}

inline Vec pair_of(Vec a, Vec b) {
  return (Vec)((rounded(a) >> 16 & 0xffff) | (rounded(b) & ~0xffff));
}

inline Vec spread(const float* pair) {
  int32_t bits;
  memcpy(&bits, pair, 4);
  return (Vec)(Ints{} + bits);
}

inline Vec multiply_add(Vec sum, Vec w, Vec x) {
  const Ints wide = (Ints)w, pixels = (Ints)x;
  const Vec first = (Vec)(wide << 16) * (Vec)(pixels << 16);
  return sum + first + (Vec)(wide & ~0xffff) * (Vec)(pixels & ~0xffff);
}

inline void compress(const uint16_t* from, const uint32_t* open,
                     int64_t words, uint16_t* to) {
  for (int64_t k = 0; k < words; ++k)
    for (uint32_t left = open[k]; left; left &= left - 1)
      *to++ = from[k * kWord + __builtin_ctz(left)];
  *to = 0;
}

#endif

// Scratch memory, piece by piece.
struct Scratch {
  char* at;

  template <class T>
  T* take(int64_t count) {
    T* const found = (T*)round_up(int64_t(at), 64);
    at = (char*)(found + count);
    return found;
  }
};

// Pairs of two planes; b may be null: zeros. Whole vectors are read.
inline void merge(const float* a, const float* b, int64_t count, float* to) {
  for (int64_t k = 0; k < count; k += kLanes)
    store(to + k, pair_of(load(a + k), b ? load(b + k) : Vec{}));
}

// The channels that are read, in ascending order.
struct OpenInputs {
  int64_t count;
  int64_t* numbers;
  uint32_t* open;  // a bit for each, or null: all are
  int64_t words;

  int64_t pairs() const { return ceil_div(count, 2); }
  bool listed() const { return open; }
};

inline OpenInputs open_inputs(const Channels& ins, int64_t all,
                              int64_t* numbers, uint32_t* open) {
  OpenInputs found = {0, numbers, nullptr, ceil_div(all, kWord)};
  if (!ins.numbers) {
    for (; found.count < all; ++found.count)
      numbers[found.count] = found.count;
    return found;
  }
  found.open = open;
  memset(open, 0, size_t(found.words) * 4);
  for (int64_t i = 0; i < ins.count; ++i)
    open[ins[i] / kWord] |= uint32_t(1) << ins[i] % kWord;
  for (int64_t k = 0; k < found.words; ++k)
    for (uint32_t left = open[k]; left; left &= left - 1)
      numbers[found.count++] = k * kWord + __builtin_ctz(left);
  return found;
}

// Weights in bfloat16: of every output so many rows, a number in each for
// every input, and zeros up to a whole word.
struct HalfWeights {
  uint16_t* numbers;
  int64_t rows, row;

  const uint16_t* of(int64_t output) const {
    return numbers + output * rows * row;
  }
};

inline HalfWeights take_half_weights(Keep& keep, int64_t outputs,
                                     int64_t rows, int64_t inputs) {
  const int64_t row = round_up(inputs, kWord);
  return {(uint16_t*)take(keep, outputs * rows * row * 2), rows, row};
}

// Floats that the open inputs' weights take at most; kWord numbers more than
// a row has are written.
inline int64_t most_listed(const HalfWeights& w, int64_t outputs) {
  return outputs * w.rows * (w.row + kWord) / 2 + kWord;
}

// Weights of the outputs that are computed, as pairs of the inputs that are
// read: rows of `step` pairs each.
struct PairWeights {
  const float** of;
  int64_t step;
};

inline PairWeights pair_weights(const HalfWeights& w, const Op& op,
                                Context& c, const OpenInputs& ins,
                                const Channels& outs, const float** of,
                                float* memory) {
  if (!ins.listed()) {
    for (int64_t o = 0; o < outs.count; ++o)
      of[o] = (const float*)w.of(outs[o]);
    return {of, w.row / 2};
  }
  const int64_t step = ceil_div(ins.count + kWord, 2);
  for (int64_t o = 0; o < outs.count; ++o) of[o] = memory + o * w.rows * step;
  const int64_t grain = larger(1, 65536 / (w.rows * w.row));
  share(op, c, outs.count, grain, [&](int64_t b, int64_t e, int64_t) {
    for (int64_t o = b; o < e; ++o)
      for (int64_t r = 0; r < w.rows; ++r)
        compress(w.of(outs[o]) + r * w.row, ins.open, ins.words,
                 (uint16_t*)(of[o] + r * step));
  });
  return {of, step};
}

}  // namespace
}  // namespace fgc
