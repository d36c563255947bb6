// Attention: softmax(scale q k^T + bias) v for every head and row.
//
// The scores are stored transposed: one plane of queries per key. The product
// q k^T is then a 1 x 1 conv over the planes of q with k as weights, and the
// product with v a 1 x 1 conv over the planes of scores with v as weights.
#pragma once

#include "tile.h"

namespace fgc {
namespace {

struct AttentionPlan {
  int64_t queries;     // per block
  int64_t score_step;   // stride between the planes of two keys, in floats
  // transposed constant bias (heads or 1, B or 1, M, L), or null
  const float* bias;
};

// Floats of the accumulators of kMaxOut output channels, per thread.
inline int64_t acc_floats(const AttentionPlan& plan) {
  return kMaxOut * plan.score_step;
}

void transpose(const float* from, float* to, int64_t queries, int64_t keys) {
  for (int64_t m = 0; m < keys; ++m)
    for (int64_t l = 0; l < queries; ++l)
      to[m * queries + l] = from[l * keys + m];
}

// Transposes a constant bias when the model is loaded.
const float* transposed_bias(const Program& p, const Value& v,
                             int64_t queries, int64_t keys,
                             ModelMemory& memory) {
  float* to = (float*)allocate(
      memory, (v.channels * v.height * v.width + kSlack) * 4);
  const float* from = p.weights + v.offset;
  for (int64_t h = 0; h < v.channels; ++h)
    for (int64_t r = 0; r < v.height; ++r)
      transpose(from + h * v.channel_step + r * v.row_step,
                to + (h * v.height + r) * v.width, queries, keys);
  return to;
}

bool prepare_attention(const Program& p, Op& op, ModelMemory& memory) {
  const Value &q = p.values[op.x], &k = p.values[op.x2];
  const Value &v = p.values[op.x3];
  AttentionPlan& plan =
      *(AttentionPlan*)allocate(memory, sizeof(AttentionPlan));
  op.plan = &plan;
  // the scores of a block of queries fit into the L2 cache
  plan.queries = max(4 * kLanes, 48 * 1024 / k.width);
  plan.queries = min(round_up(plan.queries, kLanes), q.width);
  plan.score_step = round_up(plan.queries, kLanes) + 16;
  if (plan.score_step * 4 > kMaxBytes / (k.width + kMaxOut)) return false;
  if (op.add != kNone && p.values[op.add].base == kWeights)
    plan.bias =
        transposed_bias(p, p.values[op.add], q.width, k.width, memory);
  const int64_t inputs = max(q.channels, v.channels) / op.heads;
  op.thread_bytes =
      (k.width * plan.score_step + acc_floats(plan) + 3 * plan.score_step) *
          4 +
      (max(inputs, k.width) + kPrefetchInputs) * 16 + 512;
  return true;
}

struct QueryBlock {  // some queries of one row (batch element) of one head
  int64_t head, row, first, count;
};

// Scratch memory of one thread.
struct AttentionScratch {
  float *scores, *acc, *top, *sum;
  const float** planes;
  int64_t* offsets;
};

inline AttentionScratch make_scratch(const AttentionPlan& plan, char* scratch,
                                     int64_t keys, int64_t inputs) {
  AttentionScratch m;
  m.scores = (float*)scratch;
  m.acc = m.scores + keys * plan.score_step;
  m.top = m.acc + acc_floats(plan);
  m.sum = m.top + plan.score_step;
  m.planes = (const float**)round_up(int64_t(m.sum + plan.score_step), 64);
  m.offsets = (int64_t*)(m.planes + max(keys, inputs) + kPrefetchInputs);
  return m;
}

// scores[m][l] = sum over d of k[d, m] q[d, l]
void compute_scores(const Op& op, const AttentionPlan& plan,
                    const AttentionScratch& m, const QueryBlock& block,
                    const Map& q, const Map& k) {
  static const int64_t tap[1] = {0};
  static const float zero[kMaxOut] = {};
  const int64_t d = q.channels / op.heads;
  for (int64_t i = 0; i < d; ++i)
    m.planes[i] = q.at(block.head * d + i) + block.row * q.row + block.first;
  for (int64_t i = 0; i < d + kPrefetchInputs; ++i)
    m.offsets[i] = i * k.channel;
  const float* keys = k.at(block.head * d) + block.row * k.row;
  const int64_t vectors = ceil_div(block.count, kLanes);
  for (int64_t first = 0; first < k.width; first += kMaxOut) {
    const int64_t outs = min(kMaxOut, k.width - first);
    const float* w[kMaxOut];
    for (int64_t o = 0; o < outs; ++o) w[o] = keys + first + o;
    const TileArgs args{m.planes, m.offsets, d, w, tap, 1, 1};
    accumulate_block(args, outs, 0, vectors,
                     m.scores + first * plan.score_step, plan.score_step,
                     zero, d, nullptr);
  }
}

// Replaces the scores by exp(scale s + bias - max over keys); m.sum becomes
// the reciprocals of their sums.
void softmax_scores(const Op& op, const AttentionPlan& plan,
                    const AttentionScratch& m, int64_t count, int64_t keys,
                    const float* bias, int64_t bias_query, int64_t bias_key) {
  const Vec scale = broadcast(float(op.scale[0]));
  const int64_t width = round_up(count, kLanes);
  fill(m.top, width, -__builtin_inff());
  fill(m.sum, width, 0.f);
  for (int64_t k = 0; k < keys; ++k) {
    float* row = m.scores + k * plan.score_step;
    for (int64_t l = 0; l < width; l += kLanes) {
      Vec value = load(row + l) * scale;
      if (bias) {
        const float* from = bias + k * bias_key + l * bias_query;
        if (bias_query == 1)
          value += load(from);
        else
          for (int i = 0; i < kLanes && l + i < count; ++i)
            value[i] += from[i * bias_query];
      }
      store(row + l, value);
      const Vec top = load(m.top + l);
      store(m.top + l, value > top ? value : top);
    }
  }
  for (int64_t k = 0; k < keys; ++k) {
    float* row = m.scores + k * plan.score_step;
    for (int64_t l = 0; l < width; l += kLanes) {
      const Vec value = exp_of(load(row + l) - load(m.top + l));
      store(row + l, value);
      store(m.sum + l, load(m.sum + l) + value);
    }
  }
  for (int64_t l = 0; l < width; l += kLanes)
    store(m.sum + l, 1.f / load(m.sum + l));
}

// y[d, l] = m.sum[l] * sum over m of v[d, m] scores[m][l]
void apply_scores(const Op& op, const AttentionPlan& plan,
                  const AttentionScratch& m, const QueryBlock& block,
                  const Map& v, const Map& y) {
  static const int64_t tap[1] = {0};
  static const float zero[kMaxOut] = {};
  const int64_t d = v.channels / op.heads, keys = v.width;
  for (int64_t i = 0; i < keys; ++i)
    m.planes[i] = m.scores + i * plan.score_step;
  for (int64_t i = 0; i < keys + kPrefetchInputs; ++i) m.offsets[i] = i;
  const int64_t vectors = ceil_div(block.count, kLanes);
  for (int64_t first = 0; first < d; first += kMaxOut) {
    const int64_t outs = min(kMaxOut, d - first);
    const float* w[kMaxOut];
    for (int64_t o = 0; o < outs; ++o)
      w[o] = v.at(block.head * d + first + o) + block.row * v.row;
    const TileArgs args{m.planes, m.offsets, keys, w, tap, 1, 1};
    accumulate_block(args, outs, 0, vectors, m.acc, plan.score_step, zero,
                     512, nullptr);
    for (int64_t o = 0; o < outs; ++o) {
      float* row = m.acc + o * plan.score_step;
      for (int64_t l = 0; l < block.count; l += kLanes)
        store(row + l, load(row + l) * load(m.sum + l));
      copy(row,
           y.at(block.head * d + first + o) + block.row * y.row + block.first,
           block.count);
    }
  }
}

void attend_block(const Program& p, const Op& op, Context& c,
                  const AttentionPlan& plan, const QueryBlock& block,
                  char* scratch) {
  const Map q = map_of(p, c, op.x), k = map_of(p, c, op.x2);
  const Map v = map_of(p, c, op.x3), y = map_of(p, c, op.y);
  const AttentionScratch m = make_scratch(
      plan, scratch, k.width, max(q.channels, v.channels) / op.heads);
  compute_scores(op, plan, m, block, q, k);
  if (op.add == kNone) {
    softmax_scores(op, plan, m, block.count, k.width, nullptr, 0, 0);
  } else {
    const Map b = map_of(p, c, op.add);
    const int64_t head = b.channels == 1 ? 0 : block.head;
    const int64_t row = b.height == 1 ? 0 : block.row;
    if (plan.bias)
      softmax_scores(
          op, plan, m, block.count, k.width,
          plan.bias + (head * b.height + row) * b.width + block.first, 1,
          q.width);
    else
      softmax_scores(op, plan, m, block.count, k.width,
                     b.at(head) + row * b.row + block.first * k.width,
                     k.width, 1);
  }
  apply_scores(op, plan, m, block, v, y);
}

void run_attention(const Program& p, const Op& op, Context& c) {
  const AttentionPlan& plan = *(const AttentionPlan*)op.plan;
  const Map y = map_of(p, c, op.y), k = map_of(p, c, op.x2);
  const int64_t blocks = ceil_div(y.width, plan.queries);
  const int64_t items = op.heads * y.height * blocks;
  const int64_t work = plan.queries * k.width * (y.channels / op.heads) * 2;
  const int64_t grain = max(1, kMinWorkPerThread / 2 / work);
  parallel_for(
      op, c, items, grain, [&](int64_t b, int64_t e, int64_t thread) {
        for (int64_t i = b; i < e; ++i) {
          const int64_t first = i % blocks * plan.queries;
          const QueryBlock block = {i / blocks / y.height,
                                    i / blocks % y.height, first,
                                    min(plan.queries, y.width - first)};
          attend_block(p, op, c, plan, block,
                       c.thread_scratch + thread * c.thread_step);
        }
      });
  zero_padding(y);
}

}  // namespace
}  // namespace fgc
