// Max pooling of maps: rows first, then columns.
#pragma once

#include "conv.h"

namespace fgc {

// nan wins, as in torch
inline float larger(float a, float b) { return a > b || a != a ? a : b; }

inline Tensor max_pool(const Tensor& images, int64_t kernel, int64_t stride,
                       int64_t padding) {
  TORCH_CHECK(images.dim() == 4 && images.scalar_type() == at::kFloat,
              "images are (N, C, H, W), float32");
  TORCH_CHECK(2 * padding <= kernel, "padding is at most half the kernel");
  const Tensor x = images.contiguous();
  const int64_t h = x.size(2), w = x.size(3);
  const int64_t out_h = (h + 2 * padding - kernel) / stride + 1;
  const int64_t out_w = (w + 2 * padding - kernel) / stride + 1;
  TORCH_CHECK(h + 2 * padding >= kernel && w + 2 * padding >= kernel,
              "the image is smaller than the kernel");
  Tensor y = at::empty({x.size(0), x.size(1), out_h, out_w}, x.options());
  const int64_t maps = x.size(0) * x.size(1);
  const int64_t grain = std::max<int64_t>(1, 32768 / (h * w + 1));
  at::parallel_for(0, maps, grain, [&](int64_t begin, int64_t end) {
    const float least = -std::numeric_limits<float>::infinity();
    std::vector<float> line(w + 2 * padding, least);
    float* mid = line.data() + padding;
    for (int64_t m = begin; m < end; ++m) {
      const float* from = x.data_ptr<float>() + m * h * w;
      float* to = y.data_ptr<float>() + m * out_h * out_w;
      for (int64_t r = 0; r < out_h; ++r, to += out_w) {
        const int64_t y0 = std::max<int64_t>(0, r * stride - padding);
        const int64_t y1 = std::min(h, r * stride - padding + kernel);
        std::copy(from + y0 * w, from + (y0 + 1) * w, mid);
        for (int64_t row = y0 + 1; row < y1; ++row)
          for (int64_t c = 0; c < w; ++c)
            mid[c] = larger(from[row * w + c], mid[c]);
        for (int64_t c = 0; c < out_w; ++c) to[c] = line[c * stride];
        for (int64_t k = 1; k < kernel; ++k)
          for (int64_t c = 0; c < out_w; ++c)
            to[c] = larger(line[c * stride + k], to[c]);
      }
    }
  });
  return y;
}

}  // namespace fgc
