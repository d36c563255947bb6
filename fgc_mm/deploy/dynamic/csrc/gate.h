// A gate in one call: pool, squeeze, norm (folded), ReLU, expand, threshold.
#pragma once

#include <cmath>
#include <tuple>

#include "conv.h"

namespace fgc {

inline void add_row(float* to, const float* from, float factor,
                    int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += factor * from[i];
}

inline float sum_of(const float* x, int64_t count) {
  Vec sums[4] = {};
  int64_t p = 0;
  for (; p + 4 * kLanes <= count; p += 4 * kLanes)
    for (int k = 0; k < 4; ++k) sums[k] += load(x + p + k * kLanes);
  const Vec all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  float total = 0;
  for (; p < count; ++p) total += x[p];
  for (int k = 0; k < kLanes; ++k) total += all[k];
  return total;
}

// Zeros around a map do no harm.
inline float mean_of(const Map& x, int64_t channel) {
  const float* from = x.data + channel * x.channel;
  const bool whole = x.row == x.width || x.pad > 0;
  const int64_t length = whole ? x.height * x.row : x.width;
  float total = 0;
  for (int64_t r = 0; r < (whole ? 1 : x.height); ++r, from += x.row)
    total += sum_of(from, length);
  return total / float(x.height * x.width);
}

class Gate {
 public:
  // squeeze: (C_in, hidden), the norm folded in; shift: (hidden);
  // expand: (C, hidden); bias: (C). A channel is open above `least`.
  Gate(Tensor squeeze, Tensor shift, Tensor expand, Tensor bias, double least)
      : all_in(squeeze.size(0)),
        all_out(expand.size(0)),
        squeeze_(squeeze.contiguous()),
        shift_(shift.contiguous()),
        expand_(expand.t().contiguous()),
        bias_(bias.contiguous()),
        least_(least) {}

  // Logits, mask (N, C); the open channels of one image.
  std::tuple<Tensor, Tensor, Tensor> run(const Tensor& images,
                                         const List& in) {
    TORCH_CHECK(images.dim() == 4 && images.scalar_type() == at::kFloat,
                "images are (N, C, H, W), float32");
    const Channels ins = channels_of(in, all_in);
    TORCH_CHECK(images.size(1) == ins.count, images.size(1),
                " channels came, ", ins.count, " are listed");
    const Tensor x = images.contiguous();
    const int64_t n = x.size(0);
    Tensor logits = at::empty({n, all_out}, x.options());
    Tensor mask = at::empty({n, all_out}, x.options());
    Tensor open = at::empty({all_out}, x.options().dtype(at::kLong));
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i)
      count = decide(map_of(x, i), ins, true,
                     logits.data_ptr<float>() + i * all_out,
                     mask.data_ptr<float>() + i * all_out,
                     open.data_ptr<int64_t>());
    return {logits, mask, open.narrow(0, 0, n == 1 ? count : 0)};
  }

  // Writes logits, mask and the list of the open (all_out each); how many
  // are open. packed: x has the channels of `ins` only.
  int64_t decide(const Map& x, const Channels& ins, bool packed,
                 float* logits, float* mask, int64_t* open) const {
    const int64_t width = squeeze_.size(1);
    static thread_local std::vector<float> means, hidden;
    means.resize(ins.count);
    const int64_t pixels = x.height * x.width;
    const int64_t grain = std::max<int64_t>(1, 262144 / (pixels + 1));
    float* to = means.data();
    share_out(0, ins.count, grain, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) to[i] = mean_of(x, packed ? i : ins[i]);
    });
    const float* shift = shift_.data_ptr<float>();
    hidden.assign(shift, shift + width);
    for (int64_t i = 0; i < ins.count; ++i)
      add_row(hidden.data(), squeeze_.data_ptr<float>() + ins[i] * width,
          means[i], width);
    const float* bias = bias_.data_ptr<float>();
    std::copy(bias, bias + all_out, logits);
    for (int64_t h = 0; h < width; ++h)  // nan stays nan
      add_row(logits, expand_.data_ptr<float>() + h * all_out,
          hidden[h] < 0 ? 0 : hidden[h], all_out);
    int64_t count = 0;
    for (int64_t c = 0; c < all_out; ++c) {
      const bool opens = logits[c] > least_;
      mask[c] = opens;
      open[count] = c;
      count += opens;
    }
    return count;
  }

  const int64_t all_in, all_out;

 private:
  Tensor squeeze_, shift_, expand_, bias_;
  float least_;
};

}  // namespace fgc
