// Tile transforms of Winograd's F(2 x 2, 3 x 3) for 3 x 3 convs with stride
// 1: 16 multiplications for 4 pixels instead of 36 (S. Winograd, 1980; Lavin
// and Gray, 2015).
//
// A tile has 4 x 4 input and 2 x 2 output pixels. Each of the 16 elements of
// the transformed tiles is an independent 1 x 1 conv over planes of tiles, so
// channels are addressed by index here, too.
#pragma once

#include "planes.h"

namespace fgc {
namespace {

// Minimum number of input and of output channels.
constexpr int64_t kMinWinogradChannels = 16;
constexpr int64_t kTileBytes = 2048 * 1024;  // size of all planes of tiles

// Limit of the weight bytes for small maps: transformed weights have 16/9 of
// the original size.
constexpr int64_t kMaxSmallWeights = 4000000;

struct TileLayout {
  Layout layout;  // input tiles as a 4 x 4 conv with stride 2
  bool padded;    // the map has enough padding to read beyond it
  int64_t rows;   // rows of tiles per pass
  int64_t step;   // stride between planes, in floats
  int64_t pitch;  // of the output rows before the epilogue
};

inline bool supports_winograd(const Op& op, const Value& x, const Value& y) {
  const bool is_3x3 = op.kernel[0] == 3 && op.kernel[1] == 3 &&
                      op.stride[0] == 1 && op.stride[1] == 1 &&
                      op.dilation[0] == 1 && op.dilation[1] == 1;
  return is_3x3 && op.groups == 1 && x.channels >= kMinWinogradChannels &&
         y.channels >= kMinWinogradChannels && y.height >= 4 &&
         y.width >= 4 &&
         (y.height * y.width >= 128 ||
          x.channels * y.channels * 64 <= kMaxSmallWeights);
}

// G g G^T of a 3 x 3 kernel g: 16 elements, `step` floats apart.
inline void transform_weights(const float* g, float* to, int64_t step) {
  float half[4][3];
  for (int c = 0; c < 3; ++c) {
    half[0][c] = g[c];
    half[1][c] = (g[c] + g[3 + c] + g[6 + c]) * 0.5f;
    half[2][c] = (g[c] - g[3 + c] + g[6 + c]) * 0.5f;
    half[3][c] = g[6 + c];
  }
  for (int r = 0; r < 4; ++r) {
    const float *h = half[r], even = h[0] + h[2];
    to[(4 * r) * step] = h[0];
    to[(4 * r + 1) * step] = (even + h[1]) * 0.5f;
    to[(4 * r + 2) * step] = (even - h[1]) * 0.5f;
    to[(4 * r + 3) * step] = h[2];
  }
}

// Stride between planes of `rows` rows of tiles, in floats.
inline int64_t plane_step(const TileLayout& w, int64_t rows) {
  return round_up(rows * w.layout.out_width + kLanes, 16) + 16;
}

// `planes`: number of transformed input planes. False if their size exceeds
// any memory.
bool make_tile_layout(const Op& op, const Value& x, const Value& y,
                      int64_t planes, ModelMemory& memory, TileLayout& w) {
  Op tiles = op;
  Value map = y;
  for (int axis = 0; axis < 2; ++axis) {
    tiles.kernel[axis] = 4;
    tiles.stride[axis] = 2;
  }
  map.height = ceil_div(y.height, 2);
  map.width = ceil_div(y.width, 2);
  if (!make_layout(tiles, x, map, memory, w.layout)) return false;
  // with an odd number of output rows, one more input row is read and the
  // results are dropped
  w.padded =
      is_padded_plane(op, x, y) &&
      (y.height % 2 == 0 ||
       2 * round_up(w.layout.pitch, kLanes) + x.row_step - x.width <= kSlack);
  const int64_t row_bytes = (planes + y.channels) * 64 * map.width;
  w.rows = min(map.height, max(1, kTileBytes / row_bytes));
  w.rows = ceil_div(map.height, ceil_div(map.height, w.rows));
  w.step = plane_step(w, w.rows);
  w.pitch = 2 * round_up(map.width, kLanes);
  return true;
}

// Scratch memory per thread: an input plane and a plane of results.
inline int64_t tile_bytes(const TileLayout& w, int64_t rows) {
  return (w.layout.plane_floats + 2 * rows * w.pitch + 256) * 4;
}

// Copies the input rows of `rows` rows of tiles.
inline void fill_tiles(const TileLayout& w, const Map& x, int64_t channel,
                       int64_t first, int64_t rows, float* plane) {
  const float* const from = x.at(channel);
  if (w.padded)
    fill_padded_rows(w.layout, from, x.row, first, rows + 1, plane);
  else
    fill_rows(w.layout, from, x.row, first, rows + 1, plane);
}

// B^T d B of one vector of tiles; calls put(k, value) for each of the 16
// elements.
template <class F>
inline void transform_tile(const Layout& layout, const float* from,
                           const F& put) {
  Vec c[4][4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    const int64_t* taps = layout.taps + 4 * r;
    const Vec d0 = load(from + taps[0]), d1 = load(from + taps[1]);
    const Vec d2 = load(from + taps[2]), d3 = load(from + taps[3]);
    c[r][0] = d0 - d2;
    c[r][1] = d1 + d2;
    c[r][2] = d2 - d1;
    c[r][3] = d1 - d3;
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    put(k, c[0][k] - c[2][k]);
    put(4 + k, c[1][k] + c[2][k]);
    put(8 + k, c[2][k] - c[1][k]);
    put(12 + k, c[1][k] - c[3][k]);
  }
}

// A^T m A plus the bias: two rows of pixels per row of tiles.
inline void transform_output(const TileLayout& w, const float* from,
                             int64_t element_step, int64_t rows, float bias,
                             float* to) {
  const Vec start = broadcast(bias);
  for (int64_t q = 0; q < rows; ++q)
    for (int64_t x = 0; x < w.layout.out_width; x += kLanes) {
      const float* m = from + q * w.layout.out_width + x;
      Vec above[4], below[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const Vec m1 = load(m + (4 + k) * element_step);
        const Vec m2 = load(m + (8 + k) * element_step);
        above[k] = load(m + k * element_step) + (m1 + m2);
        below[k] = (m1 - m2) - load(m + (12 + k) * element_step);
      }
      float* out = to + 2 * q * w.pitch + 2 * x;
      interleave(above[0] + above[1] + above[2] + start,
                 above[1] - above[2] - above[3] + start, out);
      interleave(below[0] + below[1] + below[2] + start,
                 below[1] - below[2] - below[3] + start, out + w.pitch);
    }
}

// Some rows of tiles, for all listed outputs.
struct TilePass {
  const Op& op;
  Context& c;
  const TileLayout& tiles;
  const Target& to;
  const Channels& outs;
  int64_t first, rows;
  int64_t step;  // stride between planes of tiles, in floats

  int64_t tile_count() const { return rows * tiles.layout.out_width; }

  // Transforms the sums of the outputs [begin, end) and writes them.
  void write(const float* sums, int64_t begin, int64_t end,
             int64_t thread) const {
    float* const results =
        (float*)(c.thread_scratch + thread * c.thread_step);
    for (int64_t j = begin; j < end; ++j) {
      const float bias =
          op.bias == kNone ? 0.f : c.weights[op.bias + outs[j]];
      transform_output(tiles, sums + j * step, outs.count * step, rows, bias,
                       results);
      write_rows(results, tiles.pitch, 2 * first,
                 min(2 * (first + rows), to.y.height), to, outs[j]);
    }
  }
};

}  // namespace
}  // namespace fgc
