// Copies of strided boxes: slices, concatenation, transposition, ...
#pragma once

#include "elementwise.h"

namespace fgc {
namespace {

struct MovePlan {
  int64_t dims;  // loops over channels of y come first
  int64_t outer;  // number of the loops over channels of y
  int64_t sizes[8], from[8], to[8], channel[8];
  int64_t first_channel, last_channel;
};

// Appends a loop; the last one is the innermost.
inline void append_loop(MovePlan& plan, const Op& op, int64_t k,
                        const Value& x, const Value& y) {
  const int64_t n = plan.dims++;
  plan.sizes[n] = op.sizes[k];
  plan.channel[n] = op.to_steps[k][0];
  plan.from[n] = op.from_steps[k][0] * x.channel_step +
                 op.from_steps[k][1] * x.row_step + op.from_steps[k][2];
  plan.to[n] = op.to_steps[k][0] * y.channel_step +
               op.to_steps[k][1] * y.row_step + op.to_steps[k][2];
}

// Merges pairs of nested loops that are equivalent to a single loop.
inline void merge_loops(MovePlan& plan) {
  for (int64_t n = plan.dims - 2; n >= plan.outer; --n) {
    if (plan.from[n] != plan.from[n + 1] * plan.sizes[n + 1] ||
        plan.to[n] != plan.to[n + 1] * plan.sizes[n + 1])
      continue;
    plan.sizes[n] *= plan.sizes[n + 1];
    plan.from[n] = plan.from[n + 1];
    plan.to[n] = plan.to[n + 1];
    for (int64_t k = n + 1; k + 1 < plan.dims; ++k) {
      plan.sizes[k] = plan.sizes[k + 1];
      plan.from[k] = plan.from[k + 1];
      plan.to[k] = plan.to[k + 1];
    }
    --plan.dims;
  }
}

bool prepare_move(const Program& p, Op& op, ModelMemory& memory) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  MovePlan& plan = *(MovePlan*)allocate(memory, sizeof(MovePlan));
  for (int64_t k = 0; k < op.dims; ++k)
    if (op.to_steps[k][0] && op.sizes[k] > 1) append_loop(plan, op, k, x, y);
  plan.outer = plan.dims;
  // the loop along the rows of y is the innermost
  int64_t inner = -1;
  for (int64_t k = 0; k < op.dims; ++k)
    if (!op.to_steps[k][0] && op.to_steps[k][2] == 1 && op.sizes[k] > 1)
      inner = k;
  for (int64_t k = 0; k < op.dims; ++k)
    if (!op.to_steps[k][0] && k != inner && op.sizes[k] > 1)
      append_loop(plan, op, k, x, y);
  if (inner >= 0) append_loop(plan, op, inner, x, y);
  merge_loops(plan);
  plan.first_channel = plan.last_channel = op.to[0];
  for (int64_t k = 0; k < op.dims; ++k)
    plan.last_channel += (op.sizes[k] - 1) * op.to_steps[k][0];
  op.plan = &plan;
  op.shared_bytes = round_up(y.channels, 64);
  return true;
}

// Runs the loops from n on.
void move_inner(const MovePlan& plan, int64_t n, const float* from,
                float* to) {
  if (n == plan.dims) {
    *to = *from;
    return;
  }
  const int64_t count = plan.sizes[n], a = plan.from[n], b = plan.to[n];
  if (n + 1 < plan.dims) {
    for (int64_t i = 0; i < count; ++i)
      move_inner(plan, n + 1, from + i * a, to + i * b);
  } else if (a == 1 && b == 1) {
    memmove(to, from, size_t(count) * sizeof(float));
  } else {
    for (int64_t i = 0; i < count; ++i) to[i * b] = from[i * a];
  }
}

// Runs the loops over channels of y, skipping closed channels.
void move_outer(const MovePlan& plan, int64_t n, const float* from, float* to,
                int64_t channel, const char* open) {
  if (n == plan.outer) {
    if (!open || open[channel]) move_inner(plan, n, from, to);
    return;
  }
  for (int64_t i = 0; i < plan.sizes[n]; ++i)
    move_outer(plan, n + 1, from + i * plan.from[n], to + i * plan.to[n],
               channel + i * plan.channel[n], open);
}

inline void zero_channel(const Map& y, int64_t k) {
  for (int64_t r = 0; r < y.height; ++r)
    fill(y.at(k) + r * y.row, y.width, 0.f);
}

void run_move(const Program& p, const Op& op, Context& c) {
  const MovePlan& plan = *(const MovePlan*)op.plan;
  const Map x = map_of(p, c, op.x), y = map_of(p, c, op.y);
  char* open = op.set == kAll ? nullptr : c.shared_scratch;
  if (open) {
    const Channels channels = channels_of(c, op.set, y.channels);
    memset(open, 0, size_t(y.channels));
    for (int64_t i = 0; i < channels.count; ++i) open[channels[i]] = 1;
  }
  const int64_t first = op.zero ? 0 : plan.first_channel;
  const int64_t last = op.zero ? y.channels - 1 : plan.last_channel;
  for (int64_t k = first; k <= last; ++k) {
    if (op.zero) zero_channel(y, k);
    if (op.zero || !open || open[k]) zero_padding(y, y.at(k), 0, y.height);
  }
  const float* from = x.at(op.start[0]) + op.start[1] * x.row + op.start[2];
  float* to = y.at(op.to[0]) + op.to[1] * y.row + op.to[2];
  if (plan.outer == 0) {
    move_outer(plan, 0, from, to, op.to[0], open);
    return;
  }
  int64_t elements = 1;
  for (int64_t n = 1; n < plan.dims; ++n) elements *= plan.sizes[n];
  const int64_t grain = max(1, kMinElementsPerThread / elements);
  parallel_for(
      op, c, plan.sizes[0], grain, [&](int64_t b, int64_t e, int64_t) {
        for (int64_t i = b; i < e; ++i)
          move_outer(plan, 1, from + i * plan.from[0], to + i * plan.to[0],
                     op.to[0] + i * plan.channel[0], open);
      });
}

}  // namespace
}  // namespace fgc
