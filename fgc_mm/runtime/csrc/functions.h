// Vectorised exp, tanh and other activation functions. Relative errors are
// below 1e-6 unless a comment gives another bound; the coefficients are
// minimax approximations of these functions.
#pragma once

#include "simd.h"

namespace fgc {
namespace {

inline Vec floats_of(Ints bits) { return (Vec)bits; }
inline Ints bits_of(Vec x) { return (Ints)x; }

inline Vec sqrt_of(Vec x) {
  for (int k = 0; k < kLanes; ++k) x[k] = __builtin_sqrtf(x[k]);
  return x;
}

inline Vec log_of(Vec x) {
  for (int k = 0; k < kLanes; ++k) x[k] = __builtin_logf(x[k]);
  return x;
}

inline Vec abs_of(Vec x) {
  return floats_of(bits_of(x) & (Ints{} + 0x7fffffff));
}

inline Vec clamp(Vec x, Vec low, Vec high) {  // nan is kept
  x = x < low ? low : x;
  return x > high ? high : x;
}

// 2^n p for |n| < 254, in two factors: n may exceed the exponent range.
inline Vec scaled(Vec p, Ints n) {
  const Ints half = n >> 1;
  const Vec a = floats_of((half + 127) << 23);
  const Vec b = floats_of((n - half + 127) << 23);
  return p * a * b;
}

// exp(x) with x = n log 2 + r. nan is kept.
inline Vec exp_of(Vec x) {
  const Vec high = broadcast(89.f), low = broadcast(-105.f);
  x = x > high ? high : x;
  x = x < low ? low : x;
  const Vec magic = broadcast(12582912.f);  // adding it rounds to an integer
  const Vec shifted = x * 1.44269504f + magic;
  const Vec n = shifted - magic;
  const Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vec p = broadcast(0.0013835787609f);
  p = p * r + 0.0083756427306f;
  p = p * r + 0.0416682888599f;
  p = p * r + 0.1666641027816f;
  p = p * r + 0.4999999159444f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  return scaled(p, bits_of(shifted) - bits_of(magic));
}

// exp(x) - 1 for x < 0.
inline Vec expm1_of(Vec x) {
  Vec p = x * (1.f / 7) + 1.f;
  p = p * x * (1.f / 6) + 1.f;
  p = p * x * (1.f / 5) + 1.f;
  p = p * x * (1.f / 4) + 1.f;
  p = p * x * (1.f / 3) + 1.f;
  p = p * x * (1.f / 2) + 1.f;
  return x > broadcast(-0.5f) ? p * x : exp_of(x) - 1.f;
}

inline Vec sigmoid_of(Vec x) { return 1.f / (1.f + exp_of(-x)); }

inline Vec tanh_of(Vec x) {
  const Vec z = x * x;
  Vec p = broadcast(-0.0050881191685f);
  p = p * z + 0.0200242173845f;
  p = p * z - 0.0535259157208f;
  p = p * z + 0.1332841325897f;
  p = p * z - 0.3333313032392f;
  const Vec near = x + x * z * p;
  const Vec size = abs_of(x);
  Vec far = 1.f - 2.f / (exp_of(size + size) + 1.f);
  far = x < Vec{} ? -far : far;
  return size < broadcast(0.65f) ? near : far;
}

// x (1 + erf(x / sqrt 2)) / 2. erf(z) is z times a rational function of z^2
// within 2e-8, and 1 or -1 for |z| > 3.92; errors are below 3e-7 |x|.
inline Vec gelu_of(Vec x) {
  const Vec z = x * 0.70710678f, t = z * z;
  Vec p = broadcast(2.0346858e-6f), q = broadcast(3.8070018e-5f);
  p = p * t + 2.8747733e-4f;
  p = p * t + 3.8683708e-3f;
  p = p * t + 5.3060610e-2f;
  p = p * t + 1.9276550e-1f;
  p = p * t + 1.1283790f;
  q = q * t + 1.1881199e-3f;
  q = q * t + 1.5172387e-2f;
  q = q * t + 1.1508516e-1f;
  q = q * t + 5.0416565e-1f;
  q = q * t + 1.f;
  const Vec half = x * 0.5f, whole = half + half * (z * p / q);
  const Vec beyond = x > Vec{} ? x : Vec{};
  return t > broadcast(3.92f * 3.92f) ? beyond : whole;
}

// x tanh(log(1 + exp x)) = x (n^2 + 2 n) / (n^2 + 2 n + 2), n = exp x
inline Vec mish_of(Vec x) {
  const Vec n = exp_of(x > broadcast(20.f) ? broadcast(20.f) : x);
  const Vec m = n * (n + 2.f);
  return x * (m / (m + 2.f));
}

template <int KIND>
inline Vec act_of(Vec x, Vec a, Vec b) {
  const Vec zero = {};
  switch (KIND) {
    case kRelu: return x < zero ? zero : x;
    case kClamp: return clamp(x, a, b);
    case kLeakyRelu: return x > zero ? x : a * x;
    case kHardswish:
      return x * clamp(x + 3.f, zero, broadcast(6.f)) * (1.f / 6);
    case kHardsigmoid:
      return clamp(x * (1.f / 6) + 0.5f, zero, broadcast(1.f));
    case kSilu: return x * sigmoid_of(a * x);
    case kGelu: return gelu_of(x);
    case kGeluTanh:
      return x * sigmoid_of(x * (x * x * 0.0713548163f + 1.59576912f));
    case kSigmoid: return sigmoid_of(x);
    case kTanh: return tanh_of(x);
    case kElu: return x > zero ? x : a * expm1_of(x);
    case kMish: return mish_of(x);
    case kLinear: return a * x + b;
    case kGreater: return x > a ? broadcast(1.f) : zero;
    case kAbs: return abs_of(x);
    case kSquare: return x * x;
    case kSqrt: return sqrt_of(x);
    case kExp: return exp_of(x);
    case kLog: return log_of(x);
    case kReciprocal: return 1.f / x;
    default: return x;
  }
}

template <int KIND>
void act_row(float a, float b, const float* from, float* to, int64_t count) {
  const Vec as = broadcast(a), bs = broadcast(b);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    store(to + i, act_of<KIND>(load(from + i), as, bs));
  if (i == count) return;
  float rest[kLanes] = {};
  copy(from + i, rest, count - i);
  store(rest, act_of<KIND>(load(rest), as, bs));
  copy(rest, to + i, count - i);
}

using ActFn = void (*)(float, float, const float*, float*, int64_t);

constexpr ActFn kActRows[] = {
    act_row<0>,  act_row<1>,  act_row<2>,  act_row<3>,  act_row<4>,
    act_row<5>,  act_row<6>,  act_row<7>,  act_row<8>,  act_row<9>,
    act_row<10>, act_row<11>, act_row<12>, act_row<13>, act_row<14>,
    act_row<15>, act_row<16>, act_row<17>, act_row<18>, act_row<19>,
    act_row<20>};
static_assert(sizeof(kActRows) == kActs * sizeof(ActFn),
              "one entry per activation");

// Applies an activation to `count` elements; in place if from == to.
inline void apply(const Act& act, const float* from, float* to,
                  int64_t count) {
  if (act.kind == kNoAct && from == to) return;
  kActRows[act.kind](act.a, act.b, from, to, count);
}

}  // namespace
}  // namespace fgc
