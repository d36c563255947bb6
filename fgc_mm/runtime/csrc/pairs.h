// Bfloat16 in pairs: two channels of a pixel are packed into 32 bits, the
// first one in the lower half. Products are accumulated in float32.
#pragma once

#include "simd.h"

#if defined(__AVX512BF16__) && defined(__AVX512VBMI2__) && FGC_LANES == 16
#include <immintrin.h>
#define FGC_BFLOAT16_SET 1
#endif

namespace fgc {
namespace {

// channels per word of the mask of open inputs
constexpr int64_t kMaskBits = 32;

// Rounds to nearest even; nan is kept.
inline uint16_t bfloat16_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (x != x) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#ifdef FGC_BFLOAT16_SET

inline Vec pack_pair(Vec a, Vec b) {
  const __m512i places = _mm512_set_epi16(
      31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
      6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512bh both = _mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
  return (Vec)_mm512_permutexvar_epi16(places, (__m512i)both);
}

inline Vec broadcast_weight(const float* pair) {
  int32_t bits;
  memcpy(&bits, pair, 4);
  return (Vec)_mm512_set1_epi32(bits);
}

inline Vec multiply_add(Vec sum, Vec w, Vec x) {
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
}

// Packs the elements of open channels densely; up to kMaskBits elements
// after them may be overwritten.
inline void compress(const uint16_t* from, const uint32_t* mask,
                     int64_t mask_words, uint16_t* to) {
  for (int64_t k = 0; k < mask_words; ++k) {
    const __m512i all = _mm512_loadu_si512(from + k * kMaskBits);
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi16(mask[k], all));
    to += __builtin_popcount(mask[k]);
  }
  *to = 0;
}

#else

inline Ints round_bits(Vec x) {
  const Ints bits = (Ints)x;
  const Ints up = bits + 0x7fff + (bits >> 16 & 1);
  return x != x ? bits | 0x400000 : up;
}

inline Vec pack_pair(Vec a, Vec b) {
  return (Vec)((round_bits(a) >> 16 & 0xffff) | (round_bits(b) & ~0xffff));
}

inline Vec broadcast_weight(const float* pair) {
  int32_t bits;
  memcpy(&bits, pair, 4);
  return (Vec)(Ints{} + bits);
}

inline Vec multiply_add(Vec sum, Vec w, Vec x) {
  const Ints wide = (Ints)w, pixels = (Ints)x;
  const Vec first = (Vec)(wide << 16) * (Vec)(pixels << 16);
  return sum + first + (Vec)(wide & ~0xffff) * (Vec)(pixels & ~0xffff);
}

inline void compress(const uint16_t* from, const uint32_t* mask,
                     int64_t mask_words, uint16_t* to) {
  for (int64_t k = 0; k < mask_words; ++k)
    for (uint32_t bits = mask[k]; bits; bits &= bits - 1)
      *to++ = from[k * kMaskBits + __builtin_ctz(bits)];
  *to = 0;
}

#endif

// Bump allocator of scratch memory.
struct ScratchAllocator {
  char* next;

  template <class T>
  T* allocate(int64_t count) {
    T* const found = (T*)round_up(int64_t(next), 64);
    next = (char*)(found + count);
    return found;
  }
};

// Packs two planes into pairs; b may be null (zeros). Loads are whole
// vectors.
inline void pack_pairs(const float* a, const float* b, int64_t count,
                       float* to) {
  for (int64_t k = 0; k < count; k += kLanes) {
    __builtin_prefetch(a + k + 512);
    if (b) __builtin_prefetch(b + k + 512);
    store(to + k, pack_pair(load(a + k), b ? load(b + k) : Vec{}));
  }
}

// The inputs that are read, in ascending order.
struct OpenInputs {
  int64_t count;
  int64_t* indices;
  uint32_t* mask;  // one bit per input, or null if all are open
  int64_t mask_words;

  int64_t pairs() const { return ceil_div(count, 2); }
  bool is_list() const { return mask; }
};

inline OpenInputs find_open_inputs(const Channels& ins, int64_t all,
                                   int64_t* indices, uint32_t* mask) {
  OpenInputs found = {0, indices, nullptr, ceil_div(all, kMaskBits)};
  if (!ins.indices) {
    for (; found.count < all; ++found.count)
      indices[found.count] = found.count;
    return found;
  }
  found.mask = mask;
  memset(mask, 0, size_t(found.mask_words) * 4);
  for (int64_t i = 0; i < ins.count; ++i)
    mask[ins[i] / kMaskBits] |= uint32_t(1) << ins[i] % kMaskBits;
  for (int64_t k = 0; k < found.mask_words; ++k)
    for (uint32_t bits = mask[k]; bits; bits &= bits - 1)
      indices[found.count++] = k * kMaskBits + __builtin_ctz(bits);
  return found;
}

// Bfloat16 weights: `rows` rows for every output, each with one element per
// input, zero-padded to a multiple of kMaskBits.
struct Bfloat16Weights {
  uint16_t* data;
  int64_t rows, row;

  const uint16_t* rows_of(int64_t output) const {
    return data + output * rows * row;
  }
};

inline Bfloat16Weights allocate_bfloat16_weights(ModelMemory& memory,
                                                 int64_t outputs,
                                                 int64_t rows,
                                                 int64_t inputs) {
  const int64_t row = round_up(inputs, kMaskBits);
  return {(uint16_t*)allocate(memory, outputs * rows * row * 2), rows, row};
}

// Maximum size of the packed weights of open inputs, in floats, including the
// kMaskBits elements that may be written after each row.
inline int64_t max_packed_floats(const Bfloat16Weights& w, int64_t outputs) {
  return outputs * w.rows * (w.row + kMaskBits) / 2 + kMaskBits;
}

// Weights of the computed outputs as pairs of the open inputs; `step` pairs
// per row.
struct PackedWeights {
  const float** rows;
  int64_t step;
};

inline PackedWeights pack_open_weights(const Bfloat16Weights& w, const Op& op,
                                       Context& c, const OpenInputs& ins,
                                       const Channels& outs,
                                       const float** rows, float* packed) {
  if (!ins.is_list()) {
    for (int64_t o = 0; o < outs.count; ++o)
      rows[o] = (const float*)w.rows_of(outs[o]);
    return {rows, w.row / 2};
  }
  const int64_t step = ceil_div(ins.count + kMaskBits, 2);
  for (int64_t o = 0; o < outs.count; ++o)
    rows[o] = packed + o * w.rows * step;
  const int64_t grain = max(1, kMinElementsPerThread / (w.rows * w.row));
  parallel_for(op, c, outs.count, grain, [&](int64_t b, int64_t e, int64_t) {
    for (int64_t o = b; o < e; ++o)
      for (int64_t r = 0; r < w.rows; ++r)
        compress(w.rows_of(outs[o]) + r * w.row, ins.mask, ins.mask_words,
                 (uint16_t*)(rows[o] + r * step));
  });
  return {rows, step};
}

}  // namespace
}  // namespace fgc
