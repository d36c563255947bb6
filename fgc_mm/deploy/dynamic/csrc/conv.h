// A conv that reads and writes listed channels only.
#pragma once

#include "lists.h"
#include "planes.h"
#include "share.h"

namespace fgc {

// Multiplications below which waking another thread costs more than it
// saves.
constexpr int64_t kWorthAThread = 1 << 21;

inline Scratch& scratch(int which) {
  static thread_local Scratch memory[3];
  return memory[which];
}

inline std::vector<const float*>& scratch_planes() {
  static thread_local std::vector<const float*> memory;
  return memory;
}

inline std::vector<int64_t>& scratch_numbers() {
  static thread_local std::vector<int64_t> memory;
  return memory;
}

// One image of a tensor (N, C, H, W) whose columns lie side by side.
inline Map map_of(const Tensor& x, int64_t n) {
  const float* end = (const float*)x.storage().data() +
                     x.storage().nbytes() / sizeof(float);
  return {x.data_ptr<float>() + n * x.stride(0), x.size(2), x.size(3),
          x.stride(1), x.size(2) == 1 ? x.size(3) : x.stride(2), 0, end};
}

class Conv {
 public:
  // weight: (C_out, C_in / groups, kh, kw); low, high: what the output is
  // clamped to; by_input: input channels will be listed.
  Conv(Tensor weight, Tensor bias, std::vector<int64_t> geometry,
       bool depthwise, double low, double high, bool by_input)
      : all_out(weight.size(0)),
        all_in(depthwise ? weight.size(0) : weight.size(1)),
        depthwise(depthwise),
        weight_(arranged(weight, by_input && !depthwise)),
        bias_(bias.contiguous()),
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
    const Channels ins = channels_of(depthwise ? out : in, all_in);
    const Channels outs = channels_of(out, all_out);
    TORCH_CHECK(images.size(1) == ins.count, images.size(1),
                " channels came, ", ins.count, " are listed");
    const Tensor x = images.stride(3) == 1 || images.size(3) == 1
                         ? images
                         : images.contiguous();
    const int64_t height = g_.out_size(0, x.size(2));
    const int64_t width = g_.out_size(1, x.size(3));
    TORCH_CHECK(height > 0 && width > 0,
                "the image is smaller than the kernel");
    Tensor y = at::empty({x.size(0), outs.count, height, width}, x.options());
    for (int64_t n = 0; n < x.size(0); ++n) {
      const Target to{y.data_ptr<float>() + n * y.stride(0), height * width,
                      width, 0, nullptr, low_, high_};
      const Map from = map_of(x, n);
      compute(from, ins, true, outs, to, layout_of(from));
    }
    return y;
  }

  // The channels of `outs` from those of `ins`; packed: x has no others. To
  // a depthwise conv x is the channels that it writes. at: the map's layout.
  void compute(const Map& x, const Channels& ins, bool packed,
               const Channels& outs, const Target& y, const Layout& at) {
    const bool there = in_place(x);
    if (depthwise)
      thin(x, there, outs, at, y);
    else
      dense(x, ins, packed, there, outs, at, y);
  }

  // What is kept for a size. It stays where it is; but only who holds the
  // interpreter's lock may ask, since a new one is made.
  const Layout& layout_of(const Map& x) {
    return layout(x.height, x.width, in_place(x) ? x.row : 0);
  }

  const int64_t all_out, all_in;
  const bool depthwise;

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

  // Whether maps are padded planes already.
  bool in_place(const Map& x) const {
    const int64_t pad = std::max(g_.padding[0], g_.padding[1]);
    return g_.stride[0] == 1 && g_.stride[1] == 1 && x.pad >= pad &&
           x.row >= x.width + g_.padding[1];
  }

  const Layout& layout(int64_t height, int64_t width, int64_t pitch) {
    for (auto& known : layouts_)
      if (known->height == height && known->width == width &&
          known->asked == pitch)
        return *known;
    layouts_.push_back(
        std::make_unique<Layout>(g_, height, width, pitch));  // few
    return *layouts_.back();
  }

  // Where a plane begins that lies in a map.
  const float* begin_of(const Map& x, int64_t channel) const {
    return x.data + channel * x.channel - g_.padding[0] * x.row -
           g_.padding[1];
  }

  void dense(const Map& x, const Channels& ins, bool packed, bool there,
             const Channels& outs, const Layout& at, const Target& y) {
    auto& planes = scratch_planes();
    auto& w_of_in = scratch_numbers();
    planes.resize(ins.count);
    w_of_in.resize(ins.count + kAhead);
    for (int64_t i = 0; i < ins.count + kAhead && ins.count; ++i)
      w_of_in[i] = ins[std::min(i, ins.count - 1)] * weight_.stride(1);
    lay_out(x, packed ? Channels{nullptr, ins.count} : ins, there, at,
            planes.data());
    const int64_t group_count = (outs.count + kMaxOut - 1) / kMaxOut;
    const int64_t work =
        ins.count * outs.count * at.positions() * int64_t(at.taps.size());
    const bool shared = work >= kWorthAThread;
    const int64_t threads = shared ? threads_at_hand() : 1;
    const int64_t chunks = chunk_count(at, ins.count, group_count, threads);
    const int64_t items = group_count * chunks;
    const Sum sum{planes.data(), w_of_in.data(), ins.count, nullptr,
                  at.taps.data(), int64_t(at.taps.size()), false};
    share_out(
        0, items, shared ? 1 : items + 1, [&](int64_t begin, int64_t end) {
          for (int64_t item = begin; item < end; ++item) {
            const int64_t chunk = item / group_count;
            const int64_t group = item % group_count;
            const int64_t o0 = group * outs.count / group_count;
            const int64_t o1 = (group + 1) * outs.count / group_count;
            sum_rows(sum, outs, o0, o1, at, chunk * at.out_height / chunks,
                     (chunk + 1) * at.out_height / chunks, y);
          }
        });
  }

  // Pointers to flat planes: the map itself, or a padded copy.
  void lay_out(const Map& x, const Channels& where, bool there,
               const Layout& at, const float** planes) {
    int64_t in_place = 0;
    // a vector may reach behind a plane, but not behind the memory
    if (there)
      while (in_place < where.count &&
             begin_of(x, where[in_place]) + at.reach() <= x.end) {
        planes[in_place] = begin_of(x, where[in_place]);
        ++in_place;
      }
    float* memory =
        scratch(0).take((where.count - in_place) * at.plane_floats);
    const int64_t grain = std::max<int64_t>(1, 262144 / at.plane_floats);
    share_out(in_place, where.count, grain, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        float* plane = memory + (i - in_place) * at.plane_floats;
        at.fill(x.data + where[i] * x.channel, x.row, plane);
        planes[i] = plane;
      }
    });
  }

  // Rows of the output at a time: what they read stays in the second cache,
  // and there is work for every thread.
  int64_t chunk_count(const Layout& at, int64_t inputs, int64_t groups,
                      int64_t threads) {
    const int64_t read = at.positions() * g_.stride[0] * g_.stride[1];
    int64_t chunks = std::max(inputs * read * 4 / (256 * 1024),
                              at.positions() / 4096);
    // but many tiles a chunk
    chunks = std::min(chunks, at.positions() / 256);
    chunks = std::max<int64_t>(chunks, 1);
    if (threads > 1)
      chunks = std::max(chunks, (4 * threads + groups - 1) / groups);
    return std::min(chunks, at.out_height);
  }

  void sum_rows(Sum sum, const Channels& outs, int64_t o0, int64_t o1,
                const Layout& at, int64_t r0, int64_t r1, const Target& y) {
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
    for (int64_t o = o0; o < o1; ++o)
      write_rows(acc + (o - o0) * stride, at.pitch, at.out_height,
                 at.out_width, r0, r1, y, o);
  }

  // One channel after the other.
  void thin(const Map& x, bool there, const Channels& outs, const Layout& at,
            const Target& y) {
    const int64_t zero[1 + kAhead] = {};
    const int64_t used = at.positions() - (at.pitch - at.out_width);
    const int64_t vectors = (used + kLanes - 1) / kLanes;
    const int64_t each = at.positions() * int64_t(at.taps.size());
    const int64_t grain = std::max<int64_t>(1, kWorthAThread / 2 / each);
    share_out(0, outs.count, grain, [&](int64_t b, int64_t e) {
      float* copy = scratch(0).take(at.plane_floats);
      float* acc = scratch(1).take(vectors * kLanes + 16);
      for (int64_t i = b; i < e; ++i) {
        const float* planes[1] = {begin_of(x, i)};
        if (!there || planes[0] + at.reach() > x.end) {
          at.fill(x.data + i * x.channel, x.row, copy);
          planes[0] = copy;
        }
        const float* w[1] = {weights_of(outs[i])};
        const float start[1] = {bias_.data_ptr<float>()[outs[i]]};
        const Sum sum{planes, zero, 1, w, at.taps.data(),
                      int64_t(at.taps.size()), false};
        sum_group(sum, 1, 0, vectors, acc, 0, start, 1);
        write_rows(acc, at.pitch, at.out_height, at.out_width, 0,
                   at.out_height, y, i);
      }
    });
  }

  Tensor weight_, bias_;
  Geometry g_;
  float low_, high_;
  std::vector<std::unique_ptr<Layout>> layouts_;
};

}  // namespace fgc
