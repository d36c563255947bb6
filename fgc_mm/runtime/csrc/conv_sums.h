// Blocked loops of a dense conv over planes, and the output of its tiles.
#pragma once

#include "planes.h"

namespace fgc {
namespace {

inline int64_t min_chunks(const Layout& layout) {
  return min(max(layout.positions() / 4096, 1), layout.out_height);
}

constexpr int64_t kL2Bytes = 128 * 1024;  // part of the L2 cache to be used

struct ConvGroup {  // one group of a dense conv, the same for all threads
  const Op& op;
  Context& c;
  const Layout& layout;
  Target to;
  Channels outs;
  int64_t first_out;           // of the group
  const float* const* weights;  // of every computed output
};

// Whether tiles can be stored directly into the output map: it has the pitch
// of the accumulators, and the activation is a clamp. The padding between
// rows is overwritten and zeroed afterwards.
inline bool stores_tiles(const Layout& layout, const Target& to) {
  return to.is_clamp && !to.has_gaps && layout.pitch == to.y.row &&
         (!to.has_add || to.add.row == to.y.row);
}

// Output pointers of outputs o0 to o1 for rows from r0 on.
inline void output_rows(const ConvGroup& g, int64_t o0, int64_t o1,
                        int64_t r0, int64_t used, OutputRows& rows) {
  const Target& to = g.to;
  for (int64_t o = o0; o < o1; ++o) {
    const int64_t channel = g.first_out + g.outs[o];
    rows.y[o - o0] = to.y.at(channel) + r0 * to.y.row;
    if (to.has_add) rows.add[o - o0] = to.add.at(channel) + r0 * to.add.row;
  }
  rows.has_add = to.has_add;
  rows.low = to.low;
  rows.high = to.high;
  rows.count = used;
}

void compute_rows(const ConvGroup& g, TileArgs args, int64_t o0, int64_t o1,
                  int64_t r0, int64_t r1, int64_t thread) {
  const Layout& layout = g.layout;
  float start[kBlockOuts];
  for (int64_t o = o0; o < o1; ++o)
    start[o - o0] =
        g.op.bias == kNone
            ? 0.f
            : g.c.weights[g.op.bias + g.first_out + g.outs[o]];
  args.w = g.weights + o0;
  const int64_t used =
      (r1 - r0) * layout.pitch - (layout.pitch - layout.out_width);
  const int64_t vectors = ceil_div(used, kLanes);
  const int64_t stride = round_up(vectors * kLanes, 16) + 16;
  float* acc = (float*)(g.c.thread_scratch + thread * g.c.thread_step);
  const int64_t inputs_per_pass =
      args.tap_count == 1 ? kInputsPerPass : max(16, 288 / args.tap_count);
  OutputRows rows;
  const bool direct = stores_tiles(layout, g.to);
  if (direct) output_rows(g, o0, o1, r0, used, rows);
  accumulate_block(args, o1 - o0, r0 * layout.pitch, vectors, acc, stride,
                   start, inputs_per_pass, direct ? &rows : nullptr);
  for (int64_t o = o0; o < o1; ++o) {
    const int64_t channel = g.first_out + g.outs[o];
    if (direct)
      zero_padding(g.to.y, g.to.y.at(channel), r0, r1);
    else
      write_rows(acc + (o - o0) * stride, layout.pitch, r0, r1, g.to,
                 channel);
  }
}

// Number of row chunks: the input rows and the accumulators of a chunk fit
// into the L2 cache, and there are at least `wanted`, if there are as many
// rows.
inline int64_t chunk_count(const Layout& layout, int64_t inputs,
                           int64_t groups, int64_t wanted) {
  const int64_t read = inputs * layout.stride[0] * layout.stride[1];
  const int64_t accumulated = min(groups, kGroupsPerBlock) * kMaxOut;
  int64_t chunks =
      max(max(read, accumulated) * layout.positions() * 4 / kL2Bytes,
          layout.positions() / 4096);
  // not too few tiles per chunk
  chunks = min(chunks, layout.positions() / 256);
  return min(max(chunks, wanted), layout.out_height);
}

constexpr int64_t kSmallConv = 1 << 23;  // multiply-adds
constexpr int64_t kFewPositions = 512;   // more chunks waste vectors

// Computes all listed outputs and writes them to the map. `args` has no
// weights yet; the conv reads `planes` input planes.
void compute_outputs(const ConvGroup& g, const TileArgs& args,
                     int64_t planes) {
  const Layout& layout = g.layout;
  const int64_t count = g.outs.count;
  const int64_t groups = ceil_div(count, kMaxOut);
  if (!groups) return;
  const int64_t work =
      args.inputs * count * layout.positions() * args.tap_count;
  const bool parallel = work >= kMinWorkPerThread;
  const int64_t threads = parallel ? thread_count(g.op, g.c) : 1;
  // small convs are divided by rows alone, so that the tasks take equally long
  const bool by_rows = threads == 1 || (work < kSmallConv &&
                                        layout.out_height >= threads);
  const bool few = threads == 1 || layout.positions() < kFewPositions;
  const int64_t tasks_wanted = (by_rows ? (few ? 1 : 2) : 4) * threads;
  const int64_t chunks =
      chunk_count(layout, planes, groups,
                  by_rows ? tasks_wanted : ceil_div(tasks_wanted, groups));
  const int64_t groups_per_block =
      by_rows ? kGroupsPerBlock
              : max(1, min(kGroupsPerBlock, groups * chunks / tasks_wanted));
  const int64_t blocks = ceil_div(groups, groups_per_block);
  const int64_t tasks = blocks * chunks;
  parallel_for(g.op, g.c, tasks, parallel ? 1 : tasks,
               [&](int64_t begin, int64_t end, int64_t thread) {
                 for (int64_t task = begin; task < end; ++task) {
                   const int64_t chunk = task / blocks, k = task % blocks;
                   compute_rows(
                       g, args, k * count / blocks, (k + 1) * count / blocks,
                       chunk * layout.out_height / chunks,
                       (chunk + 1) * layout.out_height / chunks, thread);
                 }
               });
}

}  // namespace
}  // namespace fgc
