// A conv that reads and writes listed channels only.
#pragma once

#include <ATen/Parallel.h>
#include <torch/extension.h>

#include <optional>

#include "planes.h"

namespace fgc {

using at::Tensor;
using List = std::optional<Tensor>;

// Numbers of the channels in a list, or all.
struct Channels {
  const int64_t* numbers;
  int64_t count;

  Channels(const List& list, int64_t all)
      : numbers(nullptr), count(all) {
    if (!list) return;
    TORCH_CHECK(list->scalar_type() == at::kLong && list->is_contiguous(),
                "a list of channels is int64 and contiguous");
    numbers = list->data_ptr<int64_t>();
    count = list->numel();
    for (int64_t i = 0; i < count; ++i)
      TORCH_CHECK(numbers[i] >= 0 && numbers[i] < all, "no channel ",
                  numbers[i], " among ", all);
  }
  int64_t operator[](int64_t i) const { return numbers ? numbers[i] : i; }
};

inline Scratch& scratch(int which) {
  static thread_local Scratch memory[3];
  return memory[which];
}

class Conv {
 public:
  // weight: (C_out, C_in / groups, kh, kw); low, high: what the output is
  // clamped to; by_input: input channels will be listed.
  Conv(Tensor weight, Tensor bias, std::vector<int64_t> geometry,
       bool depthwise, double low, double high, bool by_input)
      : all_out_(weight.size(0)),
        all_in_(depthwise ? weight.size(0) : weight.size(1)),
        weight_(arranged(weight, by_input && !depthwise)),
        bias_(bias.contiguous()),
        depthwise_(depthwise),
        low_(low),
        high_(high) {
    for (int axis = 0; axis < 2; ++axis) {
      g_.kernel[axis] = weight.size(2 + axis);
      g_.stride[axis] = geometry[axis];
      g_.padding[axis] = geometry[2 + axis];
      g_.dilation[axis] = geometry[4 + axis];
    }
    TORCH_CHECK(weight.scalar_type() == at::kFloat &&
                    bias_.scalar_type() == at::kFloat,
                "weights are float32");
  }

  Tensor run(const Tensor& images, const List& in, const List& out) {
    TORCH_CHECK(images.dim() == 4 && images.scalar_type() == at::kFloat,
                "images are (N, C, H, W), float32");
    const Channels ins(depthwise_ ? out : in, all_in_);
    const Channels outs(out, all_out_);
    TORCH_CHECK(images.size(1) == ins.count, images.size(1),
                " channels came, ", ins.count, " are listed");
    const Tensor x = images.stride(3) == 1 || images.size(3) == 1
                         ? images
                         : images.contiguous();
    const Layout& at = layout(x.size(2), x.size(3));
    Tensor y = at::empty({x.size(0), outs.count, at.out_height, at.out_width},
                         x.options());
    for (int64_t n = 0; n < x.size(0); ++n) {
      const float* from = x.data_ptr<float>() + n * x.stride(0);
      float* to = y.data_ptr<float>() + n * y.stride(0);
      if (depthwise_)
        depthwise(x, from, outs, at, to);
      else
        dense(x, from, ins, outs, at, to);
    }
    return y;
  }

 private:
  // Where inputs are listed, the weights of one input lie side by side: a
  // group of outputs then reads whole cache lines. (Groups one behind the
  // other would be read with small gaps, and what lies in the gaps would be
  // fetched in vain.)
  static Tensor arranged(const Tensor& weight, bool by_input) {
    if (!by_input) return weight.contiguous();
    return weight.transpose(0, 1).contiguous().transpose(0, 1);
  }

  const float* weights_of(int64_t out) const {
    return weight_.data_ptr<float>() + out * weight_.stride(0);
  }

  const Layout& layout(int64_t height, int64_t width) {
    for (auto& known : layouts_)
      if (known->height == height && known->width == width) return *known;
    TORCH_CHECK(g_.out_size(0, height) > 0 && g_.out_size(1, width) > 0,
                "the image is smaller than the kernel");
    layouts_.push_back(std::make_unique<Layout>(g_, height, width));  // few
    return *layouts_.back();
  }

  void dense(const Tensor& x, const float* from, const Channels& ins,
             const Channels& outs, const Layout& at, float* to) {
    std::vector<const float*> planes(ins.count);
    std::vector<int64_t> w_of_in(ins.count + kAhead);
    for (int64_t i = 0; i < ins.count + kAhead && ins.count; ++i)
      w_of_in[i] = ins[std::min(i, ins.count - 1)] * weight_.stride(1);
    lay_out(x, from, at, planes);
    const int64_t taps = at.taps.size();
    const int64_t group_count = (outs.count + kMaxOut - 1) / kMaxOut;
    const int64_t chunks = chunk_count(at, ins.count, group_count);
    at::parallel_for(
        0, group_count * chunks, 1, [&](int64_t begin, int64_t end) {
          for (int64_t item = begin; item < end; ++item) {
            const int64_t chunk = item / group_count;
            const int64_t group = item % group_count;
            const int64_t o0 = group * outs.count / group_count;
            const int64_t o1 = (group + 1) * outs.count / group_count;
            const Sum sum{planes.data(), w_of_in.data(), ins.count, nullptr,
                          at.taps.data(), taps, false};
            sum_rows(sum, outs, o0, o1, at, chunk * at.out_height / chunks,
                     (chunk + 1) * at.out_height / chunks, to);
          }
        });
  }

  // Pointers to flat planes: the image itself, or a padded copy.
  void lay_out(const Tensor& x, const float* from, const Layout& at,
               std::vector<const float*>& planes) {
    const int64_t count = planes.size(), step = x.stride(1);
    const bool direct =
        g_.pointwise() && (x.stride(2) == x.size(3) || x.size(2) == 1);
    // a vector may reach behind a plane, but not behind the memory
    const float* end = (const float*)x.storage().data() +
                       x.storage().nbytes() / sizeof(float);
    const int64_t reach = at.positions() + kLanes;
    int64_t in_place = 0;
    if (direct)
      while (in_place < count && from + in_place * step + reach <= end) {
        planes[in_place] = from + in_place * step;
        ++in_place;
      }
    float* memory =
        scratch(0).take((count - in_place) * at.plane_floats);
    const int64_t grain = std::max<int64_t>(1, 32768 / at.plane_floats);
    at::parallel_for(in_place, count, grain, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        float* plane = memory + (i - in_place) * at.plane_floats;
        at.fill(from + i * step, x.stride(2), plane);
        planes[i] = plane;
      }
    });
  }

  // Rows of the output at a time: what they read stays in the second cache,
  // and there is work for every thread.
  int64_t chunk_count(const Layout& at, int64_t inputs, int64_t groups) {
    const int64_t read = at.positions() * g_.stride[0] * g_.stride[1];
    int64_t chunks = std::max(inputs * read * 4 / (256 * 1024),
                              at.positions() / 4096);
    // but many tiles a chunk
    chunks = std::min(chunks, at.positions() / 256);
    chunks = std::max<int64_t>(chunks, 1);
    const int64_t threads = at::get_num_threads();
    if (threads > 1)
      chunks = std::max(chunks, (4 * threads + groups - 1) / groups);
    return std::min(chunks, at.out_height);
  }

  void sum_rows(Sum sum, const Channels& outs, int64_t o0, int64_t o1,
                const Layout& at, int64_t r0, int64_t r1, float* to) {
    const float* w[kMaxOut];
    float start[kMaxOut];
    for (int64_t o = o0; o < o1; ++o) {
      w[o - o0] = weights_of(outs[o]);
      start[o - o0] = bias_.data_ptr<float>()[outs[o]];
    }
    sum.w = w;
    const int64_t used = (r1 - r0) * at.pitch - (at.pitch - at.out_width);
    const int64_t vectors = (used + kLanes - 1) / kLanes;
    const int64_t stride = (vectors * kLanes + 15) / 16 * 16 + 16;
    float* acc = scratch(1).take(kMaxOut * stride);
    const int64_t at_once = std::max<int64_t>(16, 288 / sum.tap_count);
    sum_group(sum, o1 - o0, r0 * at.pitch, vectors, acc, stride, start,
              at_once);
    const int64_t map = at.out_height * at.out_width;
    for (int64_t o = o0; o < o1; ++o)
      write(acc + (o - o0) * stride, at, r0, r1, to + o * map);
  }

  void depthwise(const Tensor& x, const float* from, const Channels& outs,
                 const Layout& at, float* to) {
    const int64_t step = x.stride(1), map = at.out_height * at.out_width;
    const int64_t taps = at.taps.size(), zero[1 + kAhead] = {};
    const int64_t used = at.positions() - (at.pitch - at.out_width);
    const int64_t vectors = (used + kLanes - 1) / kLanes;
    const int64_t grain = std::max<int64_t>(1, 8192 / at.plane_floats);
    at::parallel_for(0, outs.count, grain, [&](int64_t b, int64_t e) {
      float* plane = scratch(0).take(at.plane_floats);
      float* acc = scratch(1).take(vectors * kLanes);
      const float* planes[1] = {plane};
      for (int64_t i = b; i < e; ++i) {
        at.fill(from + i * step, x.stride(2), plane);
        const float* w[1] = {weights_of(outs[i])};
        const float start[1] = {bias_.data_ptr<float>()[outs[i]]};
        const Sum sum{planes, zero, 1, w, at.taps.data(), taps, false};
        sum_group(sum, 1, 0, vectors, acc, 0, start, 1);
        write(acc, at, 0, at.out_height, to + i * map);
      }
    });
  }

  // Rows without their borders, clamped; nan stays nan.
  void write(const float* acc, const Layout& at, int64_t r0, int64_t r1,
             float* map) {
    const float low = low_, high = high_;
    const bool whole = at.pitch == at.out_width;
    const int64_t rows = whole ? 1 : r1 - r0;
    const int64_t width = whole ? (r1 - r0) * at.out_width : at.out_width;
    float* to = map + r0 * at.out_width;
    for (int64_t r = 0; r < rows; ++r, to += width, acc += at.pitch)
      for (int64_t c = 0; c < width; ++c) {
        float value = acc[c] < low ? low : acc[c];
        to[c] = value > high ? high : value;
      }
  }

  int64_t all_out_, all_in_;
  Tensor weight_, bias_;
  Geometry g_;
  bool depthwise_;
  float low_, high_;
  std::vector<std::unique_ptr<Layout>> layouts_;
};

}  // namespace fgc
