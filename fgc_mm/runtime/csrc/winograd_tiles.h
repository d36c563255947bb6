// 3 x 3 convs with stride 1 by Winograd's F(2 x 2, 3 x 3): 16 multiplications
// for 4 pixels instead of 36 (S. Winograd, 1980; Lavin and Gray, 2015).
//
// A tile is 4 x 4 pixels of the input and 2 x 2 of the output. Each of the 16
// numbers of the transformed tiles is a 1 x 1 conv of its own, over planes of
// tiles; so here, too, channels are reached by their numbers.
#pragma once

#include "planes.h"

namespace fgc {
namespace {

constexpr int64_t kWorthTiles = 16;  // channels, on either side, at least
constexpr int64_t kTileBytes = 2048 * 1024;  // of all planes of tiles

// Bytes of weights that few tiles are worth: they are 16/9 of the conv's.
constexpr int64_t kWorthWeights = 4000000;

struct Tiles {
  Layout at;      // the input's tiles as a 4 x 4 conv with stride 2
  bool padded;    // the input has zeros around it, and what lies behind may
                  // be read
  int64_t rows;   // of tiles, at a time
  int64_t step;   // floats of a plane
  int64_t pitch;  // of the output's rows before they are written
};

inline bool suits_winograd(const Op& op, const Value& x, const Value& y) {
  const bool here = op.kernel[0] == 3 && op.kernel[1] == 3 &&
                    op.stride[0] == 1 && op.stride[1] == 1 &&
                    op.dilation[0] == 1 && op.dilation[1] == 1;
  return here && op.groups == 1 && x.channels >= kWorthTiles &&
         y.channels >= kWorthTiles && y.height >= 4 && y.width >= 4 &&
         (y.height * y.width >= 128 ||
          x.channels * y.channels * 64 <= kWorthWeights);
}

// g, 3 x 3, to G g G^T, 4 x 4; the numbers lie `step` floats apart.
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

// `planes`: of the transformed input. False: more than any memory.
bool lay_out_tiles(const Op& op, const Value& x, const Value& y,
                   int64_t planes, Keep& keep, Tiles& w) {
  Op tiles = op;
  Value map = y;
  for (int axis = 0; axis < 2; ++axis) {
    tiles.kernel[axis] = 4;
    tiles.stride[axis] = 2;
  }
  map.height = ceil_div(y.height, 2);
  map.width = ceil_div(y.width, 2);
  if (!lay_out(tiles, x, map, keep, w.at)) return false;
  // of an odd number of rows, one more is read, whose sums are not written
  w.padded = lies_padded(op, x, y) &&
             (y.height % 2 == 0 ||
              2 * round_up(w.at.pitch, kLanes) <= kSlack);
  const int64_t each = (planes + y.channels) * 64 * map.width;
  w.rows = smaller(map.height, larger(1, kTileBytes / each));
  w.rows = ceil_div(map.height, ceil_div(map.height, w.rows));
  w.step = round_up(w.rows * map.width + kLanes, 16) + 16;
  w.pitch = 2 * round_up(map.width, kLanes);
  return true;
}

// Of every thread: a plane of the input, and one of sums.
inline int64_t tile_bytes(const Tiles& w) {
  return (w.at.plane_floats + 2 * w.rows * w.pitch + 256) * 4;
}

// The rows of a channel that some rows of tiles read.
inline void fill_tiles(const Tiles& w, const Map& x, int64_t channel,
                       int64_t first, int64_t rows, float* plane) {
  const float* const from = x.at(channel);
  if (w.padded)
    fill_padded_rows(w.at, from, x.row, first, rows + 1, plane);
  else
    fill_rows(w.at, from, x.row, first, rows + 1, plane);
}

// B^T d B of a vector of tiles; d by the layout's taps. put(k, value) gets
// each of the 16 numbers.
template <class F>
inline void transform_tile(const Layout& at, const float* from,
                           const F& put) {
  Vec c[4][4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    const int64_t* taps = at.taps + 4 * r;
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

// A^T m A plus the bias: two rows of pixels for each row of tiles.
inline void transform_output(const Tiles& w, const float* from,
                             int64_t number_step, int64_t rows, float bias,
                             float* to) {
  const Vec start = broadcast(bias);
  for (int64_t q = 0; q < rows; ++q)
    for (int64_t x = 0; x < w.at.out_width; x += kLanes) {
      const float* m = from + q * w.at.out_width + x;
      Vec above[4], below[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const Vec m1 = load(m + (4 + k) * number_step);
        const Vec m2 = load(m + (8 + k) * number_step);
        above[k] = load(m + k * number_step) + (m1 + m2);
        below[k] = (m1 - m2) - load(m + (12 + k) * number_step);
      }
      float* out = to + 2 * q * w.pitch + 2 * x;
      interleave(above[0] + above[1] + above[2] + start,
                 above[1] - above[2] - above[3] + start, out);
      interleave(below[0] + below[1] + below[2] + start,
                 below[1] - below[2] - below[3] + start, out + w.pitch);
    }
}

// Rows of tiles from `first` on of all outputs, from planes of their sums.
void write_tiles(const Op& op, Context& c, const Tiles& w,
                 const Channels& outs, const float* sums, int64_t first,
                 int64_t rows, int64_t grain, const Target& to) {
  share(op, c, outs.count, grain, [&](int64_t b, int64_t e, int64_t thread) {
    float* const own = (float*)(c.own + thread * c.own_step);
    for (int64_t j = b; j < e; ++j) {
      const float bias = op.bias == kNone ? 0.f : c.weights[op.bias + outs[j]];
      transform_output(w, sums + j * w.step, outs.count * w.step, rows, bias,
                       own);
      write_rows(own, w.pitch, 2 * first,
                 smaller(2 * (first + rows), to.y.height), to, outs[j]);
    }
  });
}

}  // namespace
}  // namespace fgc
