// 3 x 3 float32 convs with Winograd's algorithm.
#pragma once

#include "winograd_tiles.h"

namespace fgc {
namespace {

constexpr int64_t kWinogradInputs = 128;  // inputs per pass, at most
// Prefetch distance of packed weights, in floats.
constexpr int64_t kPrefetchFloats = 768;

// With several threads, convs with at most this number of floats of
// transformed weights are computed in passes of one thread each: threads that
// share a pass read most of its tiles from each other's caches.
constexpr int64_t kMaxSingleWeights = 256 * 1024;
constexpr int64_t kSinglePassFloats = 256 * 1024;  // of its tiles

// Scratch memory of one pass, whose tiles have this number of floats.
inline int64_t pass_bytes(int64_t tile_floats, int64_t inputs) {
  return tile_floats * 4 + (inputs + kPrefetchInputs) * 16 + 128;
}

struct WinogradPlan : TileLayout {
  float* weights;  // transformed
  int64_t element_step;  // stride between the 16 tile elements, in floats
  int64_t inputs, outputs, inputs_per_pass;
  int64_t single_pass_at;  // offset of its tiles in the scratch of a thread
  bool packed;  // weights are in packed order
};

// Layout of the transformed weights. Packed: by pass of inputs, group of
// outputs, input, output. With listed outputs, a cache line of that order
// would contain closed ones: there, by output, then input.
inline int64_t output_offset(const WinogradPlan& w, int64_t o) {
  return w.packed ? o / kMaxOut * kMaxOut * w.inputs_per_pass + o % kMaxOut
                  : o * w.inputs;
}

inline int64_t input_offset(const WinogradPlan& w, int64_t i) {
  if (!w.packed) return i;
  const int64_t rest = i % w.inputs_per_pass;
  return (i - rest) * w.outputs + rest * kMaxOut;
}

bool prepare_winograd(const Program& p, Op& op, ModelMemory& memory,
                      WinogradPlan*& plan) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  plan = (WinogradPlan*)allocate(memory, sizeof(WinogradPlan));
  WinogradPlan& w = *plan;
  if (!make_tile_layout(op, x, y, x.channels, memory, w)) return false;
  w.packed = op.out_set == kAll;
  w.inputs = x.channels;
  w.outputs = round_up(y.channels, kMaxOut);
  w.inputs_per_pass = min(kWinogradInputs, x.channels);
  w.element_step = round_up(x.channels, w.inputs_per_pass) * w.outputs;
  w.weights = (float*)allocate(memory, (w.element_step * 16 + kSlack) * 4);
  for (int64_t o = 0; o < y.channels; ++o)
    for (int64_t i = 0; i < x.channels; ++i)
      transform_weights(
          p.weights + op.weight + o * op.out_step + i * op.in_step,
          w.weights + output_offset(w, o) + input_offset(w, i),
          w.element_step);
  const int64_t planes = 16 * (x.channels + y.channels);
  op.shared_bytes =
      max(op.shared_bytes, pass_bytes(planes * w.step, x.channels));
  const int64_t height = w.layout.out_height;
  const int64_t floats =
      min(planes * plane_step(w, height), kSinglePassFloats);
  const int64_t most_rows =  // of a single pass, with the fewest channels
      kSinglePassFloats / (32 * kMinWinogradChannels) / w.layout.out_width;
  w.single_pass_at =
      round_up(tile_bytes(w, max(w.rows, min(height, most_rows))), 64);
  op.thread_bytes = max(op.thread_bytes,
                        w.single_pass_at + pass_bytes(floats, x.channels));
  return true;
}

inline void transform_input(const WinogradPlan& w, const float* plane,
                            int64_t rows, int64_t element_step, float* to) {
  for (int64_t q = 0; q < rows; ++q)
    for (int64_t x = 0; x < w.layout.out_width; x += kLanes) {
      float* const out = to + q * w.layout.out_width + x;
      transform_tile(
          w.layout, plane + q * w.layout.pitch + x,
          [&](int k, Vec value) { store(out + k * element_step, value); });
    }
}

struct WinogradPass : TilePass {
  const WinogradPlan& w;
  const Map& x;
  const Channels& ins;
  float *inputs, *outputs;  // transformed tiles
  const float** planes;
  int64_t* offsets;

  void use_scratch(char* scratch) {
    inputs = (float*)scratch;
    outputs = inputs + 16 * ins.count * step;
    planes = (const float**)(outputs + 16 * outs.count * step);
    offsets = (int64_t*)(planes + ins.count);
    for (int64_t i = 0; i < ins.count; ++i) planes[i] = inputs + i * step;
    for (int64_t i = 0; i < ins.count + kPrefetchInputs; ++i)
      offsets[i] = input_offset(w, ins[min(i, ins.count - 1)]);
  }

  // Transforms the inputs [begin, end).
  void transform(int64_t begin, int64_t end, int64_t thread) const {
    float* plane = (float*)(c.thread_scratch + thread * c.thread_step);
    for (int64_t i = begin; i < end; ++i) {
      fill_tiles(w, x, ins[i], first, rows, plane);
      transform_input(w, plane, rows, ins.count * step, inputs + i * step);
    }
  }

  // Accumulates one of the 16 tile elements for outputs o0 to o1.
  void accumulate(int64_t element, int64_t o0, int64_t o1) const {
    static const int64_t tap[1] = {0};
    static const float zero[kBlockOuts] = {};
    const float* weights[kBlockOuts];
    for (int64_t o = o0; o < o1; ++o)
      weights[o - o0] =
          w.weights + element * w.element_step + output_offset(w, outs[o]);
    const TileArgs args{planes, offsets, ins.count, weights, tap, 1, 1,
                        false, 0, w.packed ? kPrefetchFloats : 0};
    accumulate_block(args, o1 - o0, element * ins.count * step,
                     ceil_div(tile_count(), kLanes),
                     outputs + (element * outs.count + o0) * step, step,
                     zero, w.inputs_per_pass, nullptr);
  }

  // On all threads, which share the inputs, then the 16 elements of the tiles,
  // then the outputs.
  void run_shared() const {
    const int64_t blocks = ceil_div(outs.count, kBlockOuts);
    const int64_t block_outputs =
        round_up(ceil_div(outs.count, blocks), kMaxOut);
    const int64_t grain = max(1, kMinElementsPerThread / 16 / tile_count());
    parallel_for(op, c, ins.count, grain,
                 [&](int64_t b, int64_t e, int64_t t) { transform(b, e, t); });
    const int64_t work = ins.count * block_outputs * tile_count();
    parallel_for(op, c, 16 * blocks, max(1, kMinWorkPerThread / 8 / work),
                 [&](int64_t b, int64_t e, int64_t) {
                   for (int64_t k = b; k < e; ++k) {
                     const int64_t o0 = k % blocks * block_outputs;
                     accumulate(k / blocks, o0,
                                min(o0 + block_outputs, outs.count));
                   }
                 });
    parallel_for(op, c, outs.count, grain,
                 [&](int64_t b, int64_t e, int64_t t) {
                   write(outputs, b, e, t);
                 });
  }

  // The outputs [begin, end), on one thread.
  void run_single(int64_t begin, int64_t end, int64_t thread) const {
    transform(0, ins.count, thread);
    for (int64_t o0 = begin; o0 < end; o0 += kBlockOuts)
      for (int64_t element = 0; element < 16; ++element)
        accumulate(element, o0, min(o0 + kBlockOuts, end));
    write(outputs, begin, end, thread);
  }
};

// Maximum number of rows of tiles in a pass of one thread; 0 if its weights
// or tiles would be too large.
inline int64_t single_pass_rows(const WinogradPlan& w, const Channels& ins,
                                const Channels& outs) {
  if (16 * ins.count * outs.count > kMaxSingleWeights) return 0;
  const int64_t step = kSinglePassFloats / (16 * (ins.count + outs.count));
  // plane_step adds up to kLanes + 31 floats
  return min(w.layout.out_height,
             max(0, step - kLanes - 31) / w.layout.out_width);
}

// Passes of one thread each, with at most `max_rows` rows of tiles.
void run_single_passes(WinogradPass pass, int64_t threads, int64_t max_rows) {
  const WinogradPlan& w = pass.w;
  const int64_t height = w.layout.out_height, outs = pass.outs.count;
  // If the threads divide the rows of a small map, they write to the same
  // cache lines; if they divide the outputs, each transforms all inputs.
  const bool by_outputs = max_rows == height && outs >= 2 * pass.ins.count;
  const int64_t least = ceil_div(height, max_rows);
  const int64_t vectors = height * w.layout.out_width / kLanes;
  const int64_t passes =
      by_outputs ? min(threads, ceil_div(outs, kMaxOut))
                 : max(least, min(min(height, vectors),
                                  round_up(least, threads)));
  pass.step = plane_step(w, by_outputs ? height : ceil_div(height, passes));
  Context& c = pass.c;
  parallel_for(
      pass.op, c, passes, 1, [&](int64_t b, int64_t e, int64_t thread) {
        WinogradPass own = pass;
        own.use_scratch(c.thread_scratch + thread * c.thread_step +
                        w.single_pass_at);
        for (int64_t k = b; k < e; ++k) {
          const int64_t next = k + 1;
          own.first = by_outputs ? 0 : k * height / passes;
          own.rows = (by_outputs ? height : next * height / passes) -
                     own.first;
          own.run_single(by_outputs ? k * outs / passes : 0,
                         by_outputs ? next * outs / passes : outs, thread);
        }
      });
}

void run_winograd(const Op& op, Context& c, const WinogradPlan& w,
                  const Map& x, const Target& to, const Channels& ins,
                  const Channels& outs) {
  WinogradPass pass{{op, c, w, to, outs, 0, 0, w.step}, w, x, ins};
  const int64_t threads = thread_count(op, c);
  const int64_t max_rows = single_pass_rows(w, ins, outs);
  if (threads > 1 && max_rows)
    return run_single_passes(pass, threads, max_rows);
  pass.use_scratch(c.shared_scratch);
  for (; pass.first < w.layout.out_height; pass.first += w.rows) {
    pass.rows = min(w.rows, w.layout.out_height - pass.first);
    pass.run_shared();
  }
}

}  // namespace
}  // namespace fgc
