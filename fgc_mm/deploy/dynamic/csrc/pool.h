// Max pooling of maps: rows first, then columns.
#pragma once

#include "conv.h"

namespace fgc {

// nan wins, as in torch
inline float larger(float a, float b) { return a > b || a != a ? a : b; }

struct MaxPool {
  int64_t kernel, stride, padding;

  int64_t out_size(int64_t size) const {
    const int64_t room = size + 2 * padding - kernel;
    return room < 0 ? 0 : room / stride + 1;
  }

  void compute(const Map& x, int64_t channels, const Target& y) const {
    const int64_t h = x.height, w = x.width;
    const int64_t out_h = out_size(h), out_w = out_size(w);
    const int64_t grain = std::max<int64_t>(1, 131072 / (h * w + 1));
    share_out(0, channels, grain, [&](int64_t begin, int64_t end) {
      const float least = -std::numeric_limits<float>::infinity();
      std::vector<float> line(w + 2 * padding, least);
      std::vector<float> found(out_w + kLanes);
      float* mid = line.data() + padding;
      for (int64_t m = begin; m < end; ++m) {
        const float* from = x.data + m * x.channel;
        for (int64_t r = 0; r < out_h; ++r) {
          const int64_t y0 = std::max<int64_t>(0, r * stride - padding);
          const int64_t y1 = std::min(h, r * stride - padding + kernel);
          std::copy(from + y0 * x.row, from + y0 * x.row + w, mid);
          for (int64_t row = y0 + 1; row < y1; ++row)
            for (int64_t c = 0; c < w; ++c)
              mid[c] = larger(from[row * x.row + c], mid[c]);
          for (int64_t c = 0; c < out_w; ++c) found[c] = line[c * stride];
          for (int64_t k = 1; k < kernel; ++k)
            for (int64_t c = 0; c < out_w; ++c)
              found[c] = larger(line[c * stride + k], found[c]);
          write_rows(found.data(), out_w, out_h, out_w, r, r + 1, y, m);
        }
      }
    });
  }

  Tensor run(const Tensor& images) const {
    TORCH_CHECK(images.dim() == 4 && images.scalar_type() == at::kFloat,
                "images are (N, C, H, W), float32");
    TORCH_CHECK(2 * padding <= kernel, "padding is at most half the kernel");
    const Tensor x = images.contiguous();
    const int64_t height = out_size(x.size(2)), width = out_size(x.size(3));
    TORCH_CHECK(height > 0 && width > 0,
                "the image is smaller than the kernel");
    Tensor y = at::empty({x.size(0), x.size(1), height, width}, x.options());
    for (int64_t n = 0; n < x.size(0); ++n)
      compute(map_of(x, n), x.size(1),
              {y.data_ptr<float>() + n * y.stride(0), height * width, width,
               0, nullptr, -INFINITY, INFINITY});
    return y;
  }
};

}  // namespace fgc
