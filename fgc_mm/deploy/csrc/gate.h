// A gate in one call: pool, squeeze, norm (folded), ReLU, expand, threshold.
#pragma once

#include <cmath>
#include <tuple>

#include "conv.h"

namespace fgc {

class Gate {
 public:
  // squeeze: (C_in, hidden), the norm folded in; shift: (hidden);
  // expand: (C, hidden); bias: (C). A channel is open above `least`.
  Gate(Tensor squeeze, Tensor shift, Tensor expand, Tensor bias, double least)
      : squeeze_(squeeze.contiguous()),
        shift_(shift.contiguous()),
        expand_(expand.contiguous()),
        bias_(bias.contiguous()),
        least_(least) {}

  // Logits, probabilities, mask (N, C); the open channels of one image.
  std::tuple<Tensor, Tensor, Tensor, Tensor> run(const Tensor& images,
                                                 const List& in) {
    TORCH_CHECK(images.dim() == 4 && images.scalar_type() == at::kFloat,
                "images are (N, C, H, W), float32");
    const Channels ins(in, squeeze_.size(0));
    TORCH_CHECK(images.size(1) == ins.count, images.size(1),
                " channels came, ", ins.count, " are listed");
    const Tensor x = images.contiguous();
    const int64_t n = x.size(0), wide = expand_.size(0);
    Tensor logits = at::empty({n, wide}, x.options());
    Tensor probs = at::empty({n, wide}, x.options());
    Tensor mask = at::empty({n, wide}, x.options());
    Tensor open = at::empty({n == 1 ? wide : 0}, x.options().dtype(at::kLong));
    const int64_t pixels = x.size(2) * x.size(3);
    means_.resize(n * ins.count);
    const float* from = x.data_ptr<float>();
    const int64_t grain = std::max<int64_t>(1, 65536 / (pixels + 1));
    float* means = means_.data();
    at::parallel_for(0, n * ins.count, grain, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) means[i] = mean(from + i * pixels, pixels);
    });
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i)
      count = decide(means + i * ins.count, ins,
                     logits.data_ptr<float>() + i * wide,
                     probs.data_ptr<float>() + i * wide,
                     mask.data_ptr<float>() + i * wide,
                     n == 1 ? open.data_ptr<int64_t>() : nullptr);
    return {logits, probs, mask, open.narrow(0, 0, n == 1 ? count : 0)};
  }

 private:
  static float mean(const float* x, int64_t pixels) {
    Vec sums[4] = {};
    int64_t p = 0;
    for (; p + 4 * kLanes <= pixels; p += 4 * kLanes)
      for (int k = 0; k < 4; ++k) sums[k] += load(x + p + k * kLanes);
    const Vec sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float total = 0;
    for (; p < pixels; ++p) total += x[p];
    for (int k = 0; k < kLanes; ++k) total += sum[k];
    return total / float(pixels);
  }

  int64_t decide(const float* means, const Channels& ins, float* logits,
                 float* probs, float* mask, int64_t* open) {
    const int64_t width = squeeze_.size(1), wide = expand_.size(0);
    hidden_.assign(shift_.data_ptr<float>(), shift_.data_ptr<float>() + width);
    for (int64_t i = 0; i < ins.count; ++i) {
      const float* row = squeeze_.data_ptr<float>() + ins[i] * width;
      for (int64_t h = 0; h < width; ++h) hidden_[h] += means[i] * row[h];
    }
    for (float& h : hidden_) h = h < 0 ? 0 : h;  // nan stays nan
    int64_t count = 0;
    for (int64_t c = 0; c < wide; ++c) {
      const float* row = expand_.data_ptr<float>() + c * width;
      float logit = bias_.data_ptr<float>()[c];
      for (int64_t h = 0; h < width; ++h) logit += row[h] * hidden_[h];
      logits[c] = logit;
      probs[c] = 1 / (1 + std::exp(-logit));
      const bool opens = logit > least_;
      mask[c] = opens;
      if (open && opens) open[count++] = c;
    }
    return count;
  }

  Tensor squeeze_, shift_, expand_, bias_;
  float least_;
  std::vector<float> means_, hidden_;
};

}  // namespace fgc
