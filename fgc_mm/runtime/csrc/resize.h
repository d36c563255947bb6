// Resizing, separable: rows, then columns.
#pragma once

#include "elementwise.h"

namespace fgc {
namespace {

struct ResizePlan {  // [0]: rows, [1]: columns
  int64_t* low[2];   // index of the first pixel
  int64_t* high[2];  // index of the second pixel
  float* fraction[2];  // weight of the second pixel
};

inline void resize_axis(const Op& op, int axis, int64_t in, int64_t out,
                        ResizePlan& plan) {
  float step = op.scale[axis] > 0 ? float(op.scale[axis])
                                  : float(in) / float(out);
  if (op.mode && op.corners)
    step = out > 1 ? float(in - 1) / float(out - 1) : 0.f;
  for (int64_t i = 0; i < out; ++i) {
    float at = op.mode && !op.corners ? (float(i) + 0.5f) * step - 0.5f
                                      : float(i) * step;
    at = at > 0 ? at : 0.f;
    at = at < float(in - 1) ? at : float(in - 1);
    const int64_t low = min(int64_t(at), in - 1);
    plan.low[axis][i] = low;
    plan.high[axis][i] = min(low + 1, in - 1);
    plan.fraction[axis][i] = op.mode ? at - float(low) : 0.f;
  }
}

bool prepare_resize(const Program& p, Op& op, ModelMemory& memory) {
  const Value &x = p.values[op.x], &y = p.values[op.y];
  ResizePlan& plan = *(ResizePlan*)allocate(memory, sizeof(ResizePlan));
  const int64_t in[2] = {x.height, x.width}, out[2] = {y.height, y.width};
  for (int axis = 0; axis < 2; ++axis) {
    plan.low[axis] = (int64_t*)allocate(memory, out[axis] * 8);
    plan.high[axis] = (int64_t*)allocate(memory, out[axis] * 8);
    plan.fraction[axis] = (float*)allocate(memory, out[axis] * 4);
    resize_axis(op, axis, in[axis], out[axis], plan);
  }
  op.plan = &plan;
  op.thread_bytes = (x.width + y.width + 64) * 4;
  return true;
}

void run_resize(const Program& p, const Op& op, Context& c) {
  const ResizePlan& plan = *(const ResizePlan*)op.plan;
  const Map x = map_of(p, c, op.x);
  const Act none = {kNoAct, 0, 0};
  const Target to = target_of(p, c, op.y, kNone, none);
  const Channels channels = channels_of(c, op.set, to.y.channels);
  const int64_t grain = max(1, kMinElementsPerThread / 4 / to.y.pixels());
  parallel_for(
      op, c, channels.count, grain,
      [&](int64_t b, int64_t e, int64_t thread) {
        float* in_row = (float*)(c.thread_scratch + thread * c.thread_step);
        float* out_row = in_row + round_up(x.width, 16);
        for (int64_t i = b; i < e; ++i)
          for (int64_t r = 0; r < to.y.height; ++r) {
            const float* one = x.at(channels[i]) + plan.low[0][r] * x.row;
            const float* two = x.at(channels[i]) + plan.high[0][r] * x.row;
            const float fraction = plan.fraction[0][r];
            if (fraction != 0)
              for (int64_t k = 0; k < x.width; ++k)
                in_row[k] = (1 - fraction) * one[k] + fraction * two[k];
            else
              copy(one, in_row, x.width);
            for (int64_t k = 0; k < to.y.width; ++k) {
              const float f = plan.fraction[1][k];
              const float left = in_row[plan.low[1][k]];
              out_row[k] = f != 0
                               ? (1 - f) * left + f * in_row[plan.high[1][k]]
                               : left;
            }
            write_rows(out_row, to.y.width, r, r + 1, to, channels[i]);
          }
      });
}

}  // namespace
}  // namespace fgc
