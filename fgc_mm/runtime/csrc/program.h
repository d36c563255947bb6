// The program in memory, shared by all builds. Only plain structs and no
// inline functions: the linker could replace the function of one build by
// that of another, which uses other instruction sets. The ops are defined in
// fgc_mm/runtime/format.py.
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
constexpr int64_t kSlack = 256; // floats that may be read beyond a buffer

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

// Union of the fields of all kinds; format.py defines which a kind uses.
struct Op {
  int64_t kind, records_only;
  int64_t x, y;              // attention: q and y
  int64_t x2, x3, add;       // second input, k; v; addend, attention bias
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
  // Set by the prepare function of `computed_by`.
  const void* plan;
  int64_t shared_bytes;  // scratch memory shared by all threads
  int64_t thread_bytes;  // scratch memory per thread
  bool single_threaded;
};

struct Program {
  int64_t arena;
  const Value* values;
  const int64_t* sets;
  Op* ops;
  int64_t value_count, set_count, op_count;
  const float* weights;
  bool bfloat16;  // use bfloat16 where it is faster
};

class ThreadPool;

// State of the computation of one image.
struct Context {
  float* arena;
  const float* image;
  const float* weights;
  int64_t* const* lists;  // indices of the channels in every set
  int64_t* counts;        // length of every list
  char* shared_scratch;
  char* thread_scratch;  // thread t: from t * thread_step on
  int64_t thread_step;
  ThreadPool* thread_pool;
  int64_t threads;
  void (*call)(void*, int64_t, const float* const*, float* const*);
  void* call_context;
  bool call_failed;
};

// Zeroed memory, aligned to 64 bytes, that is freed with the model.
class ModelMemory;
void* allocate(ModelMemory& memory, int64_t bytes);  // throws std::bad_alloc

// f(data, begin, end, thread) computes the items [begin, end).
using RangeFn = void (*)(void* data, int64_t begin, int64_t end,
                         int64_t thread);
void parallel_for(ThreadPool* thread_pool, int64_t threads, int64_t items,
                  int64_t grain, RangeFn f, void* data);

// Calls a function of the user; catches its exceptions.
void call_user_function(Context& c, int64_t function, const float* const* xs,
                        float* const* ys);

// Function table of one build, or of the bfloat16 convs.
struct Kernel {
  // Whether it implements an op; null: all ops.
  bool (*supports)(const Program&, const Op&);
  // Sets plan, shared_bytes and thread_bytes; false if sizes exceed any
  // memory.
  bool (*prepare)(const Program&, Op&, ModelMemory&);
  void (*run)(const Program&, const Op&, Context&);
  void (*read)(const Program&, int64_t value, Context&, float* to);
  double (*peak)(double seconds);
};

}  // namespace fgc
