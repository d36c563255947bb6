// A program in memory, as all builds see it: plain structs, nothing inline,
// since code that one build shares with another must not be compiled for
// the CPU of either. fgc_mm/runtime/format.py defines every op.
#pragma once

#include <stdint.h>

namespace fgc {

enum Base { kArena, kImage, kWeights };

enum ActKind {
  kNoAct, kRelu, kClamp, kLeakyRelu, kHardswish, kHardsigmoid, kSilu, kGelu,
  kGeluTanh, kSigmoid, kTanh, kElu, kMish, kLinear, kGreater, kAbs, kSquare,
  kSqrt, kExp, kLog, kReciprocal, kActs
};

enum OpKind {
  kConv, kUnary, kBinary, kAffine, kPool, kMean, kNorm, kMove, kResize,
  kAttention, kList, kJoin, kTopK, kCall, kSoftmax, kMatMul,
  kOps
};

enum MathKind { kAdd, kSub, kMul, kDiv, kMax, kMin, kMaths };

constexpr int64_t kAll = -1;    // the set of all channels
constexpr int64_t kNone = -1;   // no value, no weights
constexpr int64_t kSlack = 256; // floats behind memory that may be read

struct Act {
  int64_t kind;
  float a, b;
};

struct Value {
  int64_t channels, height, width;
  int64_t base, offset, channel_step, row_step, pad;
};

struct Segment {
  int64_t source, repeat, count;
  const int64_t* numbers;
};

struct Kernel;

// All fields of all kinds; each kind uses those of its class in format.py.
struct Op {
  int64_t kind, records_only;
  int64_t x, y;              // of attention: q and y
  int64_t x2, x3, add;       // second of binary, k; v; added, or bias
  int64_t set, in_set, out_set;
  int64_t groups, kernel[2], stride[2], padding[2], dilation[2];
  int64_t weight, out_step, in_step, bias;
  int64_t scale_at, shift_at, slope_at;
  int64_t average, count_outside, math, zero, mode, corners, heads;
  int64_t k, ones, function;
  int64_t start[3], to[3];
  int64_t dims, sizes[8], from_steps[8][3], to_steps[8][3];
  double eps, scale[2];
  Act act;
  const Segment* segments;
  int64_t segment_count;
  const int64_t *xs, *ys;
  int64_t x_count, y_count;
  const Kernel* computed_by;
  // Of that build, or of the convs of bfloat16.
  const void* plan;
  int64_t shared_bytes;  // scratch memory of all threads together
  int64_t thread_bytes;  // and of each
  bool single_threaded;
};

struct Program {
  int64_t arena;
  const Value* values;
  const int64_t* sets;
  Op* ops;
  int64_t value_count, set_count, op_count;
  const float* weights;
  bool bfloat16;  // where the CPU multiplies it
};

class ThreadPool;

// What one image needs while it is computed.
struct Context {
  float* arena;
  const float* image;
  const float* weights;
  int64_t* const* lists;  // of every set, its channels
  int64_t* counts;        // and how many they are
  char* shared_scratch;
  char* thread_scratch;  // of thread t from own + t * own_step on
  int64_t thread_step;
  ThreadPool* thread_pool;
  int64_t threads;
  void (*call)(void*, int64_t, const float* const*, float* const*);
  void* call_context;
  bool call_failed;
};

// Memory that lives as long as the model; zeros, aligned to 64 bytes.
class ModelMemory;
void* allocate(ModelMemory& memory, int64_t bytes);  // throws std::bad_alloc

// f(data, begin, end, thread) over all items, at least `grain` at once.
using RangeFn = void (*)(void* data, int64_t begin, int64_t end,
                         int64_t thread);
void parallel_for(ThreadPool* thread_pool, int64_t threads, int64_t items,
                  int64_t grain, RangeFn f, void* data);

// Calls the function of the caller, which may throw.
void call_user_function(Context& c, int64_t function, const float* const* xs,
                        float* const* ys);

// One build, or the convs of bfloat16.
struct Kernel {
  // Whether it computes an op; null: it computes all.
  bool (*supports)(const Program&, const Op&);
  // Fills plan, shared_bytes and own_bytes; false: more than any machine has.
  bool (*prepare)(const Program&, Op&, ModelMemory&);
  void (*run)(const Program&, const Op&, Context&);
  void (*read)(const Program&, int64_t value, Context&, float* to);
  double (*peak)(double seconds);
};

}  // namespace fgc
