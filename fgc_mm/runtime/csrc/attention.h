// softmax(scale q k^T + bias) v, head by head and row by row.
//
// The scores are transposed, one row of queries for each key: such a row is
// a 1 x 1 conv over the planes of q whose weights are k, and what is read
// off v is one over the planes of scores whose weights are v.
#pragma once

#include "move.h"

namespace fgc {
namespace {

struct AttentionPlan {
  int64_t queries;      // at a time
  int64_t score_step;   // floats from key to key
  const float* biases;  // transposed, (heads or 1, B or 1, M, L), or null
};

// Floats of one thread: scores, products of a few channels, then numbers.
inline int64_t acc_floats(const AttentionPlan& plan) {
  return kMaxOut * plan.score_step;
}

void transpose(const float* from, float* to, int64_t queries, int64_t keys) {
  for (int64_t m = 0; m < keys; ++m)
    for (int64_t l = 0; l < queries; ++l)
      to[m * queries + l] = from[l * keys + m];
}

// A bias that never changes is transposed once.
const float* fixed_biases(const Program& p, const Value& v, int64_t queries,
                          int64_t keys, Keep& keep) {
  float* to = (float*)take(
      keep, (v.channels * v.height * v.width + kSlack) * 4);
  const float* from = p.weights + v.offset;
  for (int64_t h = 0; h < v.channels; ++h)
    for (int64_t r = 0; r < v.height; ++r)
      transpose(from + h * v.channel_step + r * v.row_step,
                to + (h * v.height + r) * v.width, queries, keys);
  return to;
}

bool prepare_attention(const Program& p, Op& op, Keep& keep) {
  const Value &q = p.values[op.x], &k = p.values[op.x2];
  const Value &v = p.values[op.x3];
  AttentionPlan& plan = *(AttentionPlan*)take(keep, sizeof(AttentionPlan));
  op.plan = &plan;
  // scores of so many queries stay in the second cache
  plan.queries = larger(4 * kLanes, 48 * 1024 / k.width);
  plan.queries = smaller(round_up(plan.queries, kLanes), q.width);
  plan.score_step = round_up(plan.queries, kLanes) + 16;
  if (plan.score_step * 4 > kMost / (k.width + kMaxOut)) return false;
  if (op.add != kNone && p.values[op.add].base == kWeights)
    plan.biases = fixed_biases(p, p.values[op.add], q.width, k.width, keep);
  const int64_t inputs = larger(q.channels, v.channels) / op.heads;
  op.own_bytes = (k.width * plan.score_step + acc_floats(plan) +
                  3 * plan.score_step) *
                     4 +
                 (larger(inputs, k.width) + kAhead) * 16 + 512;
  return true;
}

struct Part {  // some queries of one row of one head
  int64_t head, row, first, count;
};

// Scratch of one thread.
struct AttentionMemory {
  float *scores, *acc, *top, *sum;
  const float** planes;
  int64_t* steps;
};

inline AttentionMemory memory_of(const AttentionPlan& plan, char* own,
                                 int64_t keys, int64_t inputs) {
  AttentionMemory m;
  m.scores = (float*)own;
  m.acc = m.scores + keys * plan.score_step;
  m.top = m.acc + acc_floats(plan);
  m.sum = m.top + plan.score_step;
  m.planes = (const float**)round_up(int64_t(m.sum + plan.score_step), 64);
  m.steps = (int64_t*)(m.planes + larger(keys, inputs) + kAhead);
  return m;
}

// scores[m][l] = sum over d of k[d, m] q[d, l]
void score(const Op& op, const AttentionPlan& plan, const AttentionMemory& m,
           const Part& part, const Map& q, const Map& k) {
  static const int64_t tap[1] = {0};
  static const float zero[kMaxOut] = {};
  const int64_t d = q.channels / op.heads;
  for (int64_t i = 0; i < d; ++i)
    m.planes[i] = q.at(part.head * d + i) + part.row * q.row + part.first;
  for (int64_t i = 0; i < d + kAhead; ++i) m.steps[i] = i * k.channel;
  const float* keys = k.at(part.head * d) + part.row * k.row;
  const int64_t vectors = ceil_div(part.count, kLanes);
  for (int64_t first = 0; first < k.width; first += kMaxOut) {
    const int64_t outs = smaller(kMaxOut, k.width - first);
    const float* w[kMaxOut];
    for (int64_t o = 0; o < outs; ++o) w[o] = keys + first + o;
    const Sum sum{m.planes, m.steps, d, w, tap, 1, 1};
    sum_group(sum, int(outs), 0, vectors, m.scores + first * plan.score_step,
              plan.score_step, zero, d);
  }
}

// scores become exp(scale s + bias - top); sum becomes 1 / their sum.
void soften(const Op& op, const AttentionPlan& plan, const AttentionMemory& m,
            int64_t count, int64_t keys, const float* bias,
            int64_t bias_query, int64_t bias_key) {
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

// y[d, l] = sum over m of v[d, m] scores[m][l], divided by the sums.
void gather(const Op& op, const AttentionPlan& plan, const AttentionMemory& m,
            const Part& part, const Map& v, const Map& y) {
  static const int64_t tap[1] = {0};
  static const float zero[kMaxOut] = {};
  const int64_t d = v.channels / op.heads, keys = v.width;
  for (int64_t i = 0; i < keys; ++i)
    m.planes[i] = m.scores + i * plan.score_step;
  for (int64_t i = 0; i < keys + kAhead; ++i) m.steps[i] = i;
  const int64_t vectors = ceil_div(part.count, kLanes);
  for (int64_t first = 0; first < d; first += kMaxOut) {
    const int64_t outs = smaller(kMaxOut, d - first);
    const float* w[kMaxOut];
    for (int64_t o = 0; o < outs; ++o)
      w[o] = v.at(part.head * d + first + o) + part.row * v.row;
    const Sum sum{m.planes, m.steps, keys, w, tap, 1, 1};
    sum_group(sum, int(outs), 0, vectors, m.acc, plan.score_step, zero, 512);
    for (int64_t o = 0; o < outs; ++o) {
      float* row = m.acc + o * plan.score_step;
      for (int64_t l = 0; l < part.count; l += kLanes)
        store(row + l, load(row + l) * load(m.sum + l));
      copy(row, y.at(part.head * d + first + o) + part.row * y.row +
                    part.first,
           part.count);
    }
  }
}

void attend(const Program& p, const Op& op, Context& c,
            const AttentionPlan& plan, const Part& part, char* own) {
  const Map q = map_of(p, c, op.x), k = map_of(p, c, op.x2);
  const Map v = map_of(p, c, op.x3), y = map_of(p, c, op.y);
  const AttentionMemory m =
      memory_of(plan, own, k.width,
                larger(q.channels, v.channels) / op.heads);
  score(op, plan, m, part, q, k);
  if (op.add == kNone) {
    soften(op, plan, m, part.count, k.width, nullptr, 0, 0);
  } else {
    const Map b = map_of(p, c, op.add);
    const int64_t head = b.channels == 1 ? 0 : part.head;
    const int64_t row = b.height == 1 ? 0 : part.row;
    if (plan.biases)
      soften(op, plan, m, part.count, k.width,
             plan.biases + (head * b.height + row) * b.width + part.first, 1,
             q.width);
    else
      soften(op, plan, m, part.count, k.width,
             b.at(head) + row * b.row + part.first * k.width, k.width, 1);
  }
  gather(op, plan, m, part, v, y);
}

void run_attention(const Program& p, const Op& op, Context& c) {
  const AttentionPlan& plan = *(const AttentionPlan*)op.plan;
  const Map y = map_of(p, c, op.y), k = map_of(p, c, op.x2);
  const int64_t parts = ceil_div(y.width, plan.queries);
  const int64_t items = op.heads * y.height * parts;
  const int64_t each = plan.queries * k.width * (y.channels / op.heads) * 2;
  const int64_t grain = larger(1, kWorthAThread / 2 / each);
  share(op, c, items, grain, [&](int64_t b, int64_t e, int64_t thread) {
    for (int64_t i = b; i < e; ++i) {
      const int64_t first = i % parts * plan.queries;
      const Part part = {i / parts / y.height, i / parts % y.height, first,
                         smaller(plan.queries, y.width - first)};
      attend(p, op, c, plan, part, c.own + thread * c.own_step);
    }
  });
  for (int64_t h = 0; h < y.channels; ++h) zero_around(y, h);
}

}  // namespace
}  // namespace fgc
