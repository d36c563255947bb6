// Channel lists: from gates, from other lists, and the k largest.
#pragma once

#include "matvec.h"

namespace fgc {
namespace {

void run_list(const Program& p, const Op& op, Context& c) {
  const Map x = map_of(p, c, op.x);
  int64_t* list = c.lists[op.set];
  int64_t count = 0;
  for (int64_t k = 0; k < x.channels; ++k) {
    const float value = *x.at(k);
    list[count] = k;  // the buffer has one more entry
    count += value < 0 || value > 0;
  }
  c.counts[op.set] = count;
}

void run_join(const Op& op, Context& c) {
  int64_t* list = c.lists[op.set];
  int64_t count = 0;
  for (int64_t s = 0; s < op.segment_count; ++s) {
    const Segment& segment = op.segments[s];
    const Channels from = channels_of(c, segment.source, segment.count);
    for (int64_t i = 0; i < from.count; ++i) {
      const int64_t first = segment.numbers[from[i]];
      if (first < 0) continue;
      for (int64_t r = 0; r < segment.repeat; ++r) list[count++] = first + r;
    }
  }
  c.counts[op.set] = count;
}

bool prepare_topk(const Program& p, Op& op, ModelMemory&) {
  op.shared_bytes = p.values[op.x].channels * 8 + 64;
  return true;
}

// Maps floats to unsigned integers of the same order; nan is the largest.
inline uint32_t sort_key(float x) {
  if (x != x) return 0xffffffffu;
  x += 0.f;  // -0 becomes 0
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Radix selection of the k-th largest key; `ties` is the number of selected
// elements with this key. 1 <= k <= count.
inline uint32_t kth_largest(const uint32_t* keys, int64_t count, int64_t k,
                            int64_t* ties) {
  uint32_t found = 0, mask = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    int64_t bins[256] = {};
    for (int64_t i = 0; i < count; ++i)
      if ((keys[i] & mask) == found) ++bins[(keys[i] >> shift) & 255];
    int bin = 255;
    while (k > bins[bin]) k -= bins[bin--];
    found |= uint32_t(bin) << shift;
    mask |= 255u << shift;
  }
  *ties = k;
  return found;
}

void run_topk(const Program& p, const Op& op, Context& c) {
  const Map x = map_of(p, c, op.x);
  const Target to = target_of(p, c, op.y, kNone, op.act);
  float* values = (float*)c.shared_scratch;
  uint32_t* keys = (uint32_t*)(values + x.channels);
  for (int64_t i = 0; i < x.channels; ++i) keys[i] = sort_key(*x.at(i));
  int64_t ties = 0;
  const uint32_t threshold =
      op.k ? kth_largest(keys, x.channels, op.k, &ties) : 0;
  for (int64_t i = 0; i < x.channels; ++i) {
    const bool selected =
        op.k && (keys[i] > threshold || (keys[i] == threshold && ties-- > 0));
    values[i] = selected ? (op.ones ? 1.f : *x.at(i)) : 0.f;
  }
  write_vector(values, {nullptr, x.channels}, to);
}

}  // namespace
}  // namespace fgc
