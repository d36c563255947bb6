// Sums of a conv over planes, block by block, written into rows of a map.
#pragma once

#include "planes.h"

namespace fgc {
namespace {

inline int64_t least_chunks(const Layout& at) {
  return smaller(larger(at.positions() / 4096, 1), at.out_height);
}

constexpr int64_t kCache2 = 128 * 1024;  // bytes of the second cache to use

struct Group {  // of a dense conv: what all its threads share
  const Op& op;
  Context& c;
  const Layout& at;
  Target to;
  Channels outs;
  int64_t first_out;           // of the group
  const float* const* weights;  // of every output that is computed
};

// Whether sums lie as their map does, and a clamp is all that is done to
// them. Pads between rows are written too: they are zeroed later.
inline bool writes_tiles(const Layout& at, const Target& to) {
  return to.clamps && !to.gaps && at.pitch == to.y.row &&
         (!to.adds || to.add.row == to.y.row);
}

// Where rows from r0 on are written, of outputs o0 to o1.
inline void target_rows(const Group& g, int64_t o0, int64_t o1, int64_t r0,
                        int64_t used, RowsOut& rows) {
  const Target& to = g.to;
  for (int64_t o = o0; o < o1; ++o) {
    const int64_t channel = g.first_out + g.outs[o];
    rows.y[o - o0] = to.y.at(channel) + r0 * to.y.row;
    if (to.adds) rows.add[o - o0] = to.add.at(channel) + r0 * to.add.row;
  }
  rows.adds = to.adds;
  rows.low = to.low;
  rows.high = to.high;
  rows.count = used;
}

void sum_rows(const Group& g, Sum sum, int64_t o0, int64_t o1, int64_t r0,
              int64_t r1, int64_t thread) {
  const Layout& at = g.at;
  float start[kBlockOuts];
  for (int64_t o = o0; o < o1; ++o)
    start[o - o0] =
        g.op.bias == kNone
            ? 0.f
            : g.c.weights[g.op.bias + g.first_out + g.outs[o]];
  sum.w = g.weights + o0;
  const int64_t used = (r1 - r0) * at.pitch - (at.pitch - at.out_width);
  const int64_t vectors = ceil_div(used, kLanes);
  const int64_t stride = round_up(vectors * kLanes, 16) + 16;
  float* acc = (float*)(g.c.own + thread * g.c.own_step);
  const int64_t at_once = sum.tap_count == 1
                              ? kInputsOfOneTap
                              : larger(16, 288 / sum.tap_count);
  RowsOut rows;
  const bool direct = writes_tiles(at, g.to);
  if (direct) target_rows(g, o0, o1, r0, used, rows);
  sum_block(sum, o1 - o0, r0 * at.pitch, vectors, acc, stride, start, at_once,
            direct ? &rows : nullptr);
  for (int64_t o = o0; o < o1; ++o) {
    const int64_t channel = g.first_out + g.outs[o];
    if (direct)
      write_pads(g.to.y, g.to.y.at(channel), r0, r1);
    else
      write_rows(acc + (o - o0) * stride, at.pitch, r0, r1, g.to, channel);
  }
}

// Rows of the output at a time: what they read and what a block of outputs
// sums stay in the second cache, and there is work for every thread.
inline int64_t chunk_count(const Layout& at, int64_t inputs, int64_t groups,
                           int64_t threads) {
  const int64_t read = inputs * at.stride[0] * at.stride[1];
  const int64_t summed = smaller(groups, kGroups) * kMaxOut;
  int64_t chunks = larger(larger(read, summed) * at.positions() * 4 / kCache2,
                          at.positions() / 4096);
  chunks = smaller(chunks, at.positions() / 256);  // many tiles a chunk
  chunks = larger(chunks, 1);
  if (threads > 1) chunks = larger(chunks, ceil_div(4 * threads, groups));
  return smaller(chunks, at.out_height);
}

// Sums of all outputs that are computed, written to their map. `sum` has no
// weights yet; it reads `planes` planes.
void sum_outputs(const Group& g, const Sum& sum, int64_t planes) {
  const Layout& at = g.at;
  const int64_t count = g.outs.count;
  const int64_t groups = ceil_div(count, kMaxOut);
  if (!groups) return;
  const int64_t work = sum.inputs * count * at.positions() * sum.tap_count;
  const bool shared = work >= kWorthAThread;
  const int64_t threads = shared ? threads_of(g.op, g.c) : 1;
  const int64_t chunks = chunk_count(at, planes, groups, threads);
  const int64_t share_of = groups * chunks / (4 * threads);
  const int64_t at_once = threads == 1 ? kGroups
                                       : larger(1, smaller(kGroups, share_of));
  const int64_t blocks = ceil_div(groups, at_once);
  const int64_t items = blocks * chunks;
  share(g.op, g.c, items, shared ? 1 : items,
        [&](int64_t begin, int64_t end, int64_t thread) {
          for (int64_t item = begin; item < end; ++item) {
            const int64_t chunk = item / blocks, k = item % blocks;
            sum_rows(g, sum, k * count / blocks, (k + 1) * count / blocks,
                     chunk * at.out_height / chunks,
                     (chunk + 1) * at.out_height / chunks, thread);
          }
        });
}

}  // namespace
}  // namespace fgc
