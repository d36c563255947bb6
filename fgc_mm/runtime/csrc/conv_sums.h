// Blocked loops of a dense conv over planes, and the output of its tiles.
#pragma once

#include "planes.h"

namespace fgc {
namespace {

inline int64_t min_chunks(const Layout& layout) {
  return min(max(layout.positions() / 4096, 1), layout.out_height);
}

// Maximum number of output rows of a chunk.
inline int64_t max_rows(const Layout& layout) {
  return ceil_div(layout.out_height, min_chunks(layout));
}

// Accumulators of one output channel.
inline int64_t acc_floats_of(const Layout& layout, int64_t rows) {
  return round_up(rows * layout.pitch + kLanes, 16) + 16;
}

constexpr int64_t kL2Bytes = 128 * 1024;  // part of the L2 cache to be used

// How a conv is divided into blocks.
struct Blocking {
  int64_t inputs;     // products per sum
  int64_t planes;     // input planes that are read
  int64_t alignment;  // of the first output of a block
  int64_t cache_bytes;
};

struct ConvGroup {  // one group of a dense conv, the same for all threads
  const Op& op;
  Context& c;
  const Layout& layout;
  Target to;
  Channels outs;
  int64_t first_out;           // of the group
  const float* const* weights;  // of every computed output
};

// Sums that an accumulate function computes: outputs o0 to o1, at most
// kBlockOuts of them, of vectors of pixels from `begin` on. It stores them to
// `rows` or, if null, to acc, whose rows have space for another 16 floats.
struct Block {
  int64_t o0, o1, begin, vectors;
  float* acc;
  int64_t acc_stride;
  const float* start;  // initial sums, per output
  const OutputRows* rows;
  int64_t thread;
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

// Computes rows r0 to r1 of outputs o0 to o1 with an accumulate function as
// in compute_outputs.
template <class F>
void compute_rows(const ConvGroup& g, int64_t o0, int64_t o1, int64_t r0,
                  int64_t r1, int64_t thread, const F& accumulate) {
  const Layout& layout = g.layout;
  float start[kBlockOuts];
  for (int64_t o = o0; o < o1; ++o)
    start[o - o0] =
        g.op.bias == kNone
            ? 0.f
            : g.c.weights[g.op.bias + g.first_out + g.outs[o]];
  const int64_t used =
      (r1 - r0) * layout.pitch - (layout.pitch - layout.out_width);
  const int64_t vectors = ceil_div(used, kLanes);
  float* acc = (float*)(g.c.thread_scratch + thread * g.c.thread_step);
  const int64_t stride = round_up(vectors * kLanes, 16) + 16;
  OutputRows rows;
  const bool direct = stores_tiles(layout, g.to);
  if (direct) output_rows(g, o0, o1, r0, used, rows);
  accumulate(Block{o0, o1, r0 * layout.pitch, vectors, acc, stride, start,
                   direct ? &rows : nullptr, thread});
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
inline int64_t chunk_count(const Layout& layout, const Blocking& blocking,
                           int64_t groups, int64_t wanted) {
  const int64_t read = blocking.planes * layout.stride[0] * layout.stride[1];
  const int64_t accumulated = min(groups, kGroupsPerBlock) * kMaxOut;
  int64_t chunks =
      max(max(read, accumulated) * layout.positions() * 4 /
              blocking.cache_bytes,
          layout.positions() / 4096);
  // not too few tiles per chunk
  chunks = min(chunks, layout.positions() / 256);
  return min(max(chunks, wanted), layout.out_height);
}

constexpr int64_t kSmallConv = 1 << 23;  // multiply-adds
constexpr int64_t kFewPositions = 512;   // more chunks waste vectors

// Computes all listed outputs and writes them to the map; accumulate(Block)
// computes sums.
template <class F>
void compute_outputs(const ConvGroup& g, const Blocking& blocking,
                     const F& accumulate) {
  const Layout& layout = g.layout;
  const int64_t count = g.outs.count;
  const int64_t groups = ceil_div(count, kMaxOut);
  if (!groups) return;
  const int64_t work = blocking.inputs * count * layout.positions();
  const bool parallel = work >= kMinWorkPerThread;
  const int64_t threads = parallel ? thread_count(g.op, g.c) : 1;
  // small convs are divided by rows alone, so that the tasks take equally long
  const bool by_rows = threads == 1 || (work < kSmallConv &&
                                        layout.out_height >= threads);
  const bool few = threads == 1 || layout.positions() < kFewPositions;
  const int64_t tasks_wanted = (by_rows ? (few ? 1 : 2) : 4) * threads;
  const int64_t chunks =
      chunk_count(layout, blocking, groups,
                  by_rows ? tasks_wanted : ceil_div(tasks_wanted, groups));
  const int64_t groups_per_block =
      by_rows ? kGroupsPerBlock
              : max(1, min(kGroupsPerBlock, groups * chunks / tasks_wanted));
  const int64_t blocks = ceil_div(groups, groups_per_block);
  const int64_t tasks = blocks * chunks;
  const auto first_output = [&](int64_t k) {
    return min(round_up(k * count / blocks, blocking.alignment), count);
  };
  parallel_for(g.op, g.c, tasks, parallel ? 1 : tasks,
               [&](int64_t begin, int64_t end, int64_t thread) {
                 for (int64_t task = begin; task < end; ++task) {
                   const int64_t chunk = task / blocks, k = task % blocks;
                   compute_rows(
                       g, first_output(k), first_output(k + 1),
                       chunk * layout.out_height / chunks,
                       (chunk + 1) * layout.out_height / chunks, thread,
                       accumulate);
                 }
               });
}

// The sums of a conv whose weights are addressed per output; `args` has no
// weights yet.
inline void accumulate_sums(const ConvGroup& g, TileArgs args,
                            const Block& b) {
  const int64_t inputs_per_pass =
      args.tap_count == 1 ? kInputsPerPass : max(16, 288 / args.tap_count);
  args.w = g.weights + b.o0;
  accumulate_block(args, b.o1 - b.o0, b.begin, b.vectors, b.acc, b.acc_stride,
                   b.start, inputs_per_pass, b.rows);
}

inline void compute_sums(const ConvGroup& g, const TileArgs& args,
                         int64_t planes) {
  compute_outputs(g, {args.inputs * args.tap_count, planes, 1, kL2Bytes},
                  [&](const Block& b) { accumulate_sums(g, args, b); });
}

}  // namespace
}  // namespace fgc
