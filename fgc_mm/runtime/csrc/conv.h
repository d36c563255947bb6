// A conv that reads and writes listed channels only.
#pragma once

#include "depthwise.h"
#include "winograd.h"

namespace fgc {
namespace {

enum ConvWay { kDense, kDepthwise, kMatvec };

struct ConvPlan {
  Layout at;
  ConvWay way;
  int64_t acc_floats;  // of every thread
  Winograd* winograd;  // or null
  float* blocks;       // weights in the order in which they are read, or null
  int64_t block;       // of so many floats for each group of outputs
};

// Where all outputs are computed, convs with more bytes of weights than this
// read a copy: of a group of outputs, the weights of an input's tap side by
// side, so that memory is read in order and closed inputs are skipped whole.
constexpr int64_t kWorthBlocks = 256 * 1024;

inline void copy_blocks(const Program& p, const Op& op, int64_t inputs,
                        int64_t outputs, Keep& keep, ConvPlan& plan) {
  const int64_t taps = plan.at.tap_count;
  if (op.groups != 1 || op.out_set != kAll ||
      inputs * outputs * taps * 4 < kWorthBlocks)
    return;
  plan.block = inputs * taps * kMaxOut;
  const int64_t floats = ceil_div(outputs, kMaxOut) * plan.block;
  plan.blocks = (float*)take(keep, (floats + kSlack) * 4);
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t i = 0; i < inputs; ++i) {
      const float* from =
          p.weights + op.weight + o * op.out_step + i * op.in_step;
      float* to = plan.blocks + o / kMaxOut * plan.block +
                  i * taps * kMaxOut + o % kMaxOut;
      for (int64_t t = 0; t < taps; ++t) to[t * kMaxOut] = from[t];
    }
}

inline int64_t least_chunks(const Layout& at) {
  return smaller(larger(at.positions() / 4096, 1), at.out_height);
}

bool prepare_conv(const Program& p, Op& op, Keep& keep) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  ConvPlan& plan = *(ConvPlan*)take(keep, sizeof(ConvPlan));
  op.plan = &plan;
  if (is_matvec(op, x, y)) {
    plan.way = kMatvec;
    return prepare_matvec(op, x, y);
  }
  plan.way = op.groups > 1 && op.groups == x.channels ? kDepthwise : kDense;
  if (!lay_out(op, x, y, keep, plan.at)) return false;
  const Layout& at = plan.at;
  const int64_t rows =
      plan.way == kDense ? ceil_div(at.out_height, least_chunks(at))
                         : at.out_height;
  plan.acc_floats = round_up(rows * at.pitch + kLanes, 16) + 16;
  const int64_t inputs = x.channels / op.groups;
  const int64_t planes = at.in_place ? 0 : at.plane_floats;
  if (plan.way == kDepthwise) {
    op.own_bytes = (planes + plan.acc_floats + 64) * 4;
    return true;
  }
  if (planes > kMost / (inputs * 4)) return false;
  op.shared_bytes = inputs * (planes * 4 + 16) + 8 * kAhead + 256;
  op.own_bytes = kBlockOuts * plan.acc_floats * 4 + 64;
  if (suits_winograd(op, x, y))
    return prepare_winograd(p, op, keep, at.in_place, plan.winograd);
  copy_blocks(p, op, inputs, y.channels, keep, plan);
  return true;
}

constexpr int64_t kCache2 = 128 * 1024;  // bytes of the second cache to use

struct Group {  // of a dense conv: what all its threads share
  const Op& op;
  Context& c;
  const ConvPlan& plan;
  Target to;
  Channels outs;
  int64_t first_out;  // of the group
  const float* weight;  // of the group's first output and input
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
  const Layout& at = g.plan.at;
  const float* w[kBlockOuts];
  float start[kBlockOuts];
  for (int64_t o = o0; o < o1; ++o) {
    w[o - o0] = g.plan.blocks
                    ? g.plan.blocks + o / kMaxOut * g.plan.block + o % kMaxOut
                    : g.weight + g.outs[o] * g.op.out_step;
    start[o - o0] =
        g.op.bias == kNone
            ? 0.f
            : g.c.weights[g.op.bias + g.first_out + g.outs[o]];
  }
  sum.w = w;
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

void dense(const Group& g, const Map& x, const Channels& ins) {
  const Layout& at = g.plan.at;
  Context& c = g.c;
  const int64_t inputs = g.op.in_set == kAll ? x.channels / g.op.groups
                                             : x.channels;
  const float** planes = (const float**)c.shared;
  int64_t* w_of_in = (int64_t*)(planes + inputs);
  char* behind = (char*)(w_of_in + inputs + kAhead);
  float* memory = (float*)round_up(int64_t(behind), 64);
  const bool ordered = g.plan.blocks;
  for (int64_t i = 0; i < ins.count + kAhead && ins.count; ++i)
    w_of_in[i] = ins[smaller(i, ins.count - 1)] *
                 (ordered ? at.tap_count * kMaxOut : g.op.in_step);
  if (at.in_place) {
    for (int64_t i = 0; i < ins.count; ++i)
      planes[i] = begin_of(at, x, ins[i]);
  } else {
    const int64_t grain = larger(1, 262144 / at.plane_floats);
    share(g.op, c, ins.count, grain, [&](int64_t b, int64_t e, int64_t) {
      for (int64_t i = b; i < e; ++i) {
        float* plane = memory + i * at.plane_floats;
        fill_plane(at, x.at(ins[i]), x.row, plane);
        planes[i] = plane;
      }
    });
  }
  const int64_t count = g.outs.count;
  const int64_t groups = ceil_div(count, kMaxOut);
  if (!groups) return;
  const int64_t work = ins.count * count * at.positions() * at.tap_count;
  const bool shared = work >= kWorthAThread;
  const int64_t threads = shared ? threads_of(g.op, c) : 1;
  const int64_t chunks = chunk_count(at, ins.count, groups, threads);
  const int64_t share_of = groups * chunks / (4 * threads);
  const int64_t at_once = threads == 1 ? kGroups
                                       : larger(1, smaller(kGroups, share_of));
  const int64_t blocks = ceil_div(groups, at_once);
  const int64_t items = blocks * chunks;
  const Sum sum{planes,       w_of_in, ins.count,
                nullptr,      at.taps, at.tap_count,
                ordered ? kMaxOut : 1, false,
                ordered ? 15 : 0};
  share(g.op, c, items, shared ? 1 : items,
        [&](int64_t begin, int64_t end, int64_t thread) {
          for (int64_t item = begin; item < end; ++item) {
            const int64_t chunk = item / blocks, k = item % blocks;
            sum_rows(g, sum, k * count / blocks, (k + 1) * count / blocks,
                     chunk * at.out_height / chunks,
                     (chunk + 1) * at.out_height / chunks, thread);
          }
        });
}

void run_conv(const Program& p, const Op& op, Context& c) {
  const ConvPlan& plan = *(const ConvPlan*)op.plan;
  const Map x = map_of(p, c, op.x);
  const Target to = target_of(p, c, op.y, op.add, op.act);
  if (plan.way == kMatvec) return run_matvec(p, op, c, x, to);
  if (plan.way == kDepthwise)
    return depthwise(op, c, plan.at, plan.acc_floats, x, to);
  const Channels read = channels_of(c, op.in_set, x.channels);
  const Channels written = channels_of(c, op.out_set, to.y.channels);
  if (plan.winograd && read.count >= kWorthTiles &&
      written.count >= kWorthTiles)
    return run_winograd(op, c, *plan.winograd, x, to, read, written);
  const int64_t ins = x.channels / op.groups, outs = to.y.channels / op.groups;
  for (int64_t k = 0; k < op.groups; ++k) {
    Map part = x;
    part.data += k * ins * x.channel;
    const Group g{op,
                  c,
                  plan,
                  to,
                  op.groups == 1 ? channels_of(c, op.out_set, outs)
                                 : Channels{nullptr, outs},
                  k * outs,
                  c.weights + op.weight + k * outs * op.out_step};
    dense(g, part,
          op.groups == 1 ? channels_of(c, op.in_set, ins)
                         : Channels{nullptr, ins});
  }
}

}  // namespace
}  // namespace fgc
