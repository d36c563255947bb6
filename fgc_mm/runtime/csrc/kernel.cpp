// The kernel table of one build, with all kinds of ops; compiled once per
// instruction set with -DFGC_BUILD=NAME.
#include "attention.h"
#include "conv.h"
#include "lists.h"
#include "matmul.h"
#include "move.h"
#include "norm.h"
#include "resize.h"
#include "softmax.h"

#define FGC_TABLE(build) FGC_JOIN(kernel_, build)

namespace fgc {
namespace {

bool prepare(const Program& p, Op& op, ModelMemory& memory) {
  switch (op.kind) {
    case kConv: return prepare_conv(p, op, memory);
    case kPool: return prepare_pool(p, op, memory);
    case kMean: return prepare_mean(p, op, memory);
    case kMove: return prepare_move(p, op, memory);
    case kResize: return prepare_resize(p, op, memory);
    case kAttention: return prepare_attention(p, op, memory);
    case kTopK: return prepare_topk(p, op, memory);
    case kCall: {
      int64_t floats = 0;
      for (int64_t i = 0; i < op.x_count + op.y_count; ++i) {
        const int64_t id = i < op.x_count ? op.xs[i] : op.ys[i - op.x_count];
        const Value& v = p.values[id];
        floats += round_up(v.channels * v.height * v.width, 16);
        if (floats > kMaxBytes) return false;
      }
      op.shared_bytes = floats * 4 + 8 * (op.x_count + op.y_count) + 128;
      return true;
    }
    default: return true;
  }
}

// Copies a value to a contiguous array.
void read_value(const Program& p, int64_t value, Context& c, float* to) {
  const Map x = map_of(p, c, value);
  for (int64_t k = 0; k < x.channels; ++k)
    for (int64_t r = 0; r < x.height; ++r, to += x.width)
      copy(x.at(k) + r * x.row, to, x.width);
}

void write_value(const Program& p, int64_t value, Context& c,
                 const float* from) {
  const Map y = map_of(p, c, value);
  for (int64_t k = 0; k < y.channels; ++k)
    for (int64_t r = 0; r < y.height; ++r, from += y.width)
      copy(from, y.at(k) + r * y.row, y.width);
  zero_padding(y);
}

void run_call(const Program& p, const Op& op, Context& c) {
  float** pointers = (float**)c.shared_scratch;
  const int64_t count = op.x_count + op.y_count;
  float* memory = (float*)round_up(int64_t(pointers + count), 64);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t id = i < op.x_count ? op.xs[i] : op.ys[i - op.x_count];
    const Value& v = p.values[id];
    pointers[i] = memory;
    memory += round_up(v.channels * v.height * v.width, 16);
    if (i < op.x_count) read_value(p, id, c, pointers[i]);
  }
  call_user_function(c, op.function, pointers, pointers + op.x_count);
  for (int64_t i = 0; i < op.y_count; ++i)
    write_value(p, op.ys[i], c, pointers[op.x_count + i]);
}

void run(const Program& p, const Op& op, Context& c) {
  switch (op.kind) {
    case kConv: return run_conv(p, op, c);
    case kUnary: return run_unary(p, op, c);
    case kBinary: return run_binary(p, op, c);
    case kAffine: return run_affine(p, op, c);
    case kPool: return run_pool(p, op, c);
    case kMean: return run_mean(p, op, c);
    case kNorm: return run_norm(p, op, c);
    case kMove: return run_move(p, op, c);
    case kResize: return run_resize(p, op, c);
    case kAttention: return run_attention(p, op, c);
    case kList: return run_list(p, op, c);
    case kJoin: return run_join(op, c);
    case kTopK: return run_topk(p, op, c);
    case kSoftmax: return run_softmax(p, op, c);
    case kMatMul: return run_matmul(p, op, c);
    default: return run_call(p, op, c);
  }
}

}  // namespace
}  // namespace fgc

#include "peak.h"

namespace fgc {
extern const Kernel FGC_TABLE(FGC_BUILD);
const Kernel FGC_TABLE(FGC_BUILD) = {nullptr, prepare, run, read_value, peak};
}  // namespace fgc
