// A whole network, one step after the other, without Python in between.
//
// Values are the maps of one image, at fixed places of one arena; a step
// reads some and writes one. Sites are lists of channels that gates fill. A
// value that belongs to a site holds the listed channels only, packed.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>

#include "gate.h"
#include "pool.h"

namespace fgc {

class Program {
 public:
  // floats: of the arena; sites: channels of each.
  Program(int64_t floats, std::vector<int64_t> sites)
      : floats_(floats), sites_(std::move(sites)) {
    for (const int64_t channels : sites_) {
      first_.push_back(decisions_);
      decisions_ += channels;
    }
  }

  // Value 0 is the image. pad: zeros around every channel; site: whose
  // channels it holds, or -1.
  int64_t value(int64_t offset, int64_t channels, int64_t height,
                int64_t width, int64_t pad, int64_t channel_step,
                int64_t site) {
    values_.push_back({offset, channels, height, width, pad, width + pad,
                       channel_step, site});
    return values_.size() - 1;
  }

  // reads, writes: sites whose channels are read and written, or -1: all;
  // add: a value added to the sum before it is clamped, or -1.
  void conv(std::shared_ptr<Conv> conv, int64_t x, int64_t y, int64_t reads,
            int64_t writes, int64_t add, double low, double high) {
    Context probe(*this);
    const Layout* at = &conv->layout_of(map(probe, x));
    steps_.push_back([=](Context& c) {
      const Map added = map(c, add < 0 ? 0 : add);
      conv->compute(map(c, x), listed(c, reads, conv->all_in),
                    values_[x].site >= 0, listed(c, writes, conv->all_out),
                    target(c, y, add < 0 ? nullptr : &added, low, high), *at);
    });
  }

  // The gate reads x, of a site's channels (reads) the open ones, and fills
  // the list of another.
  void gate(std::shared_ptr<Gate> gate, int64_t x, int64_t reads,
            int64_t site) {
    steps_.push_back([=](Context& c) {
      c.counts[site] = gate->decide(
          map(c, x), listed(c, reads, gate->all_in),
          values_[x].site >= 0, c.logits + first_[site],
          c.mask + first_[site], c.open.data() + first_[site]);
    });
  }

  void max_pool(int64_t x, int64_t y, int64_t kernel, int64_t stride,
                int64_t padding) {
    steps_.push_back([=](Context& c) {
      MaxPool{kernel, stride, padding}.compute(
          map(c, x), channels(c, x),
          target(c, y, nullptr, -INFINITY, INFINITY));
    });
  }

  // x, every so-manieth pixel, perhaps plus another value, clamped; y has
  // channels of zeros before it and, if there is room, behind it.
  void copy(int64_t x, int64_t y, int64_t add, double low, double high,
            int64_t stride, int64_t first) {
    steps_.push_back([=](Context& c) {
      const Map from = map(c, x), added = map(c, add < 0 ? 0 : add);
      const Target to = target(c, y, add < 0 ? nullptr : &added, low, high);
      const Value& v = values_[y];
      const int64_t count = channels(c, x);
      std::vector<float> row(v.width + kLanes);
      for (int64_t k = 0; k < (v.site < 0 ? v.channels : count); ++k) {
        const bool there = k >= first && k < first + count;
        const float* plane = from.data + (k - first) * from.channel;
        if (there && stride == 1) {
          write_rows(plane, from.row, v.height, v.width, 0, v.height, to, k);
          continue;
        }
        for (int64_t r = 0; r < v.height; ++r) {
          for (int64_t p = 0; p < v.width; ++p)
            row[p] = there ? plane[stride * (r * from.row + p)] : 0.f;
          write_rows(row.data(), v.width, v.height, v.width, r, r + 1, to, k);
        }
      }
    });
  }

  // Means over all pixels.
  void mean(int64_t x, int64_t y) {
    steps_.push_back([=](Context& c) {
      const Map from = map(c, x);
      const Target to = target(c, y, nullptr, -INFINITY, INFINITY);
      for (int64_t k = 0; k < channels(c, x); ++k) {
        const float mean = mean_of(from, k);
        write_rows(&mean, 1, 1, 1, 0, 1, to, k);  // and zeros around it
      }
    });
  }

  // weight: (C_in, C_out); x and y are vectors.
  void linear(Tensor weight, std::optional<Tensor> bias, int64_t x,
              int64_t y) {
    const int64_t ins = weight.size(0), outs = weight.size(1);
    const Tensor start = bias ? bias->contiguous() : at::zeros({outs});
    steps_.push_back([=](Context& c) {
      const Map from = map(c, x);
      float* to = target(c, y, nullptr, 0, 0).data;
      const float* w = weight.data_ptr<float>();
      const float* first = start.data_ptr<float>();
      const int64_t grain = std::max<int64_t>(64, 262144 / (ins + 1));
      share_out(0, outs, grain, [&](int64_t begin, int64_t end) {
        std::copy(first + begin, first + end, to + begin);
        for (int64_t i = 0; i < ins; ++i)
          add_row(to + begin, w + i * outs + begin,
                  from.data[i * from.channel], end - begin);
      });
    });
  }

  void output(int64_t x) { outputs_.push_back(x); }

  // Which steps are not shared out to the threads; none at first.
  void keep_alone(std::vector<bool> steps) {
    TORCH_CHECK(steps.size() == steps_.size(), "one entry per step");
    alone_ = std::move(steps);
  }

  // Outputs (N, C, H, W), and logits and mask (N, channels of all sites).
  // Images are shared out to the threads where there are several.
  std::tuple<std::vector<Tensor>, Tensor, Tensor> run(const Tensor& images) {
    const Tensor x = checked(images);
    const int64_t n = x.size(0);
    Tensor logits = at::empty({n, decisions_}, x.options());
    Tensor mask = at::empty({n, decisions_}, x.options());
    std::vector<Tensor> outputs;
    for (const int64_t id : outputs_) {
      const Value& v = values_[id];
      outputs.push_back(
          at::empty({n, v.channels, v.height, v.width}, x.options()));
    }
    const auto one = [&](Context& c, int64_t i) {
      enter(c, x, logits, mask, i);
      for (size_t s = 0; s < steps_.size(); ++s) take_step(s, c);
      for (size_t k = 0; k < outputs_.size(); ++k)
        take(c, outputs_[k], outputs[k], i);
    };
    if (n == 1) {
      Lease lease(*this);
      one(*lease, 0);
    } else {
      share_out(0, n, 1, [&](int64_t begin, int64_t end) {
        Lease lease(*this);
        for (int64_t i = begin; i < end; ++i) one(*lease, i);
      });
    }
    return {outputs, logits, mask};
  }

  // Seconds of every step for one image: the least of the repeats.
  std::vector<double> profile(const Tensor& image, int64_t repeats) {
    const Tensor x = checked(image);
    TORCH_CHECK(x.size(0) == 1, "a profile is of one image");
    Tensor logits = at::empty({1, decisions_}, x.options());
    Tensor mask = at::empty({1, decisions_}, x.options());
    std::vector<double> least(steps_.size(), INFINITY);
    Lease lease(*this);
    enter(*lease, x, logits, mask, 0);
    for (int64_t r = 0; r < repeats; ++r)
      for (size_t s = 0; s < steps_.size(); ++s) {
        const auto start = std::chrono::steady_clock::now();
        take_step(s, *lease);
        const std::chrono::duration<double> taken =
            std::chrono::steady_clock::now() - start;
        least[s] = std::min(least[s], taken.count());
      }
    return least;
  }

 private:
  struct Value {
    int64_t offset, channels, height, width, pad, row, channel, site;
  };

  // What one image needs; memory that is used again.
  struct Context {
    explicit Context(const Program& p)
        : arena(p.floats_), open(p.decisions_), counts(p.sites_.size()) {}
    std::vector<float> arena;
    std::vector<int64_t> open, counts;
    const float* image = nullptr;
    const float* image_end = nullptr;
    float *logits = nullptr, *mask = nullptr;
  };

  // A context that nobody else uses meanwhile.
  class Lease {
   public:
    explicit Lease(Program& p) : program_(p) {
      const std::lock_guard<std::mutex> lock(p.mutex_);
      if (p.idle_.empty()) {
        mine_ = std::make_unique<Context>(p);
        return;
      }
      mine_ = std::move(p.idle_.back());
      p.idle_.pop_back();
    }
    ~Lease() {
      const std::lock_guard<std::mutex> lock(program_.mutex_);
      program_.idle_.push_back(std::move(mine_));
    }
    Context& operator*() { return *mine_; }

   private:
    Program& program_;
    std::unique_ptr<Context> mine_;
  };

  Tensor checked(const Tensor& images) const {
    TORCH_CHECK(images.dim() == 4 && images.scalar_type() == at::kFloat &&
                    images.size(1) == values_[0].channels &&
                    images.size(2) == values_[0].height &&
                    images.size(3) == values_[0].width,
                "the program was made for other images");
    return images.contiguous();
  }

  void enter(Context& c, const Tensor& x, const Tensor& logits,
             const Tensor& mask, int64_t i) const {
    c.image = x.data_ptr<float>() + i * x.stride(0);
    c.image_end = x.data_ptr<float>() + x.numel();
    c.logits = logits.data_ptr<float>() + i * decisions_;
    c.mask = mask.data_ptr<float>() + i * decisions_;
  }

  void take_step(size_t number, Context& c) const {
    alone() = number < alone_.size() && alone_[number];
    steps_[number](c);
    alone() = false;
  }

  void take(Context& c, int64_t id, Tensor& to, int64_t i) const {
    const Value& v = values_[id];
    const Map from = map(c, id);
    const int64_t size = v.height * v.width;
    const Target y{to.data_ptr<float>() + i * v.channels * size, size,
                   v.width, 0, nullptr, -INFINITY, INFINITY};
    for (int64_t k = 0; k < v.channels; ++k)
      write_rows(from.data + k * from.channel, from.row, v.height, v.width, 0,
                 v.height, y, k);
  }

  Map map(const Context& c, int64_t id) const {
    const Value& v = values_[id];
    if (id == 0)
      return {c.image, v.height, v.width, v.height * v.width, v.width, 0,
              c.image_end};
    return {c.arena.data() + v.offset + v.pad * (v.row + 1), v.height,
            v.width, v.channel, v.row, v.pad, c.arena.data() + floats_};
  }

  Target target(Context& c, int64_t id, const Map* add, double low,
                double high) const {
    const Value& v = values_[id];
    return {c.arena.data() + v.offset + v.pad * (v.row + 1), v.channel, v.row,
            v.pad, add, float(low), float(high)};
  }

  Channels listed(const Context& c, int64_t site, int64_t all) const {
    if (site < 0) return {nullptr, all};
    return {c.open.data() + first_[site], c.counts[site]};
  }

  int64_t channels(const Context& c, int64_t id) const {
    const Value& v = values_[id];
    return v.site < 0 ? v.channels : c.counts[v.site];
  }

  int64_t floats_, decisions_ = 0;
  std::vector<int64_t> sites_, first_, outputs_;
  std::vector<Value> values_;
  std::vector<std::function<void(Context&)>> steps_;
  std::vector<bool> alone_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Context>> idle_;
};

}  // namespace fgc
