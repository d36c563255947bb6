// Where the pixels that a conv reads lie: flat, padded, one plane a channel.
//
// A kernel element is then one constant offset, and neither rows nor borders
// need care: what is summed at the pad columns is never written. With a
// stride, each plane is split into its phases, so that every element reads
// neighbouring pixels. A map that was written with zeros around it is such a
// plane already.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "tile.h"

namespace fgc {

struct Geometry {
  int64_t kernel[2], stride[2], padding[2], dilation[2];

  int64_t out_size(int axis, int64_t size) const {
    const int64_t reach = dilation[axis] * (kernel[axis] - 1) + 1;
    const int64_t room = size + 2 * padding[axis] - reach;
    return room < 0 ? 0 : room / stride[axis] + 1;
  }
  bool pointwise() const {
    return kernel[0] == 1 && kernel[1] == 1 && stride[0] == 1 &&
           stride[1] == 1 && padding[0] == 0 && padding[1] == 0;
  }
};

// Maps of one image, to be read. Steps are in floats.
struct Map {
  const float* data;     // first pixel of the first channel
  int64_t height, width;
  int64_t channel, row;  // steps
  int64_t pad;           // zeros around every channel, part of its rows
  const float* end;      // of the memory
};

// Maps of one image, to be written, with zeros around them if pad > 0; what
// is added to them; what they are clamped to.
struct Target {
  float* data;
  int64_t channel, row, pad;
  const Map* add;
  float low, high;
};

// Memory that is kept from call to call.
class Scratch {
 public:
  float* take(int64_t floats) {
    if (floats > size_) {
      size_ = floats + floats / 4;
      memory_.reset(new (std::align_val_t(64)) float[size_]());
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const {
      ::operator delete[](p, std::align_val_t(64));
    }
  };
  std::unique_ptr<float[], Free> memory_;
  int64_t size_ = 0;
};

struct Layout {
  Geometry g;
  int64_t height, width, asked, out_height, out_width;
  int64_t pitch, rows, phase_floats, plane_floats;
  std::vector<int64_t> taps;            // offset of every kernel element
  std::vector<std::pair<int, int>> phases;  // those that some element reads

  // in_place: the pitch of padded maps that are read where they lie, or 0.
  Layout(const Geometry& geometry, int64_t h, int64_t w, int64_t in_place)
      : g(geometry), height(h), width(w), asked(in_place) {
    out_height = g.out_size(0, h);
    out_width = g.out_size(1, w);
    const int64_t below = g.dilation[0] * (g.kernel[0] - 1) / g.stride[0];
    const int64_t beside = g.dilation[1] * (g.kernel[1] - 1) / g.stride[1];
    rows = out_height + below;
    // without a stride the right border is the next row's left one
    pitch = g.stride[1] == 1 ? w + g.padding[1] : out_width + beside;
    if (in_place) pitch = in_place;
    phase_floats = rows * pitch + beside + kLanes * (kMaxVec + 1);
    phase_floats = (phase_floats + 15) / 16 * 16;
    for (int64_t y = 0; y < g.kernel[0]; ++y)
      for (int64_t x = 0; x < g.kernel[1]; ++x) taps.push_back(tap(y, x));
    plane_floats = phase_floats * int64_t(phases.size());
    if (plane_floats % 1024 == 0) plane_floats += 16;  // not one cache set
  }

  int64_t positions() const { return out_height * pitch; }

  // Floats from a plane's begin that may be read.
  int64_t reach() const { return positions() + taps.back() + kLanes; }

  // One channel's plane, written into `to` (plane_floats).
  void fill(const float* from, int64_t row_stride, float* to) const {
    for (size_t k = 0; k < phases.size(); ++k)
      fill_phase(from, row_stride, phases[k], to + k * phase_floats);
  }

 private:
  int64_t tap(int64_t y, int64_t x) {
    const int64_t dy = y * g.dilation[0], dx = x * g.dilation[1];
    const std::pair<int, int> phase(dy % g.stride[0], dx % g.stride[1]);
    auto at = std::find(phases.begin(), phases.end(), phase);
    const int64_t number = at - phases.begin();
    if (at == phases.end()) phases.push_back(phase);
    return number * phase_floats + dy / g.stride[0] * pitch +
           dx / g.stride[1];
  }

  void fill_phase(const float* from, int64_t row_stride,
                  std::pair<int, int> phase, float* to) const {
    const int64_t sx = g.stride[1], shift = phase.second - g.padding[1];
    // columns whose pixel exists: 0 <= c * sx + shift < width
    const int64_t first =
        std::min(pitch, shift >= 0 ? 0 : (-shift + sx - 1) / sx);
    const int64_t last = std::max(
        first, std::min(pitch, (width - shift + sx - 1) / sx));
    for (int64_t r = 0; r < rows; ++r, to += pitch) {
      const int64_t y = r * g.stride[0] + phase.first - g.padding[0];
      if (y < 0 || y >= height) {
        std::memset(to, 0, pitch * sizeof(float));
        continue;
      }
      const float* row = from + y * row_stride + shift;
      std::fill(to, to + first, 0.f);
      if (sx == 1)
        std::memcpy(to + first, row + first, (last - first) * sizeof(float));
      else if (sx == 2)
        for (int64_t c = first; c < last; ++c) to[c] = row[2 * c];
      else
        for (int64_t c = first; c < last; ++c) to[c] = row[sx * c];
      std::fill(to + last, to + pitch, 0.f);
    }
    std::fill(to, to + g.padding[1] + 1, 0.f);  // the last row's right border
  }
};

// One row: sums (and what is added) clamped; nan stays nan. Unless `exact`,
// up to a vector more is written behind it.
inline void write_row(const float* sums, const float* add, float* to,
                      int64_t width, float low, float high, bool exact) {
  const Vec lows = broadcast(low), highs = broadcast(high);
  const int64_t whole = exact ? width / kLanes * kLanes : width;
  int64_t c = 0;
  for (; c < whole; c += kLanes) {
    Vec value = load(sums + c);
    if (add) value += load(add + c);
    value = value < lows ? lows : value;
    store(to + c, value > highs ? highs : value);
  }
  for (; c < width; ++c) {
    float value = sums[c] + (add ? add[c] : 0.f);
    value = value < low ? low : value;
    to[c] = value > high ? high : value;
  }
}

// Rows r0 to r1 of one channel, and the zeros around them. Behind a row
// comes the next one's border or begin, which is written after it; so only
// the last one has to end where it ends (each, where rows are very short).
inline void write_rows(const float* sums, int64_t pitch, int64_t height,
                       int64_t width, int64_t r0, int64_t r1,
                       const Target& y, int64_t channel) {
  float* to = y.data + channel * y.channel;
  const float* add =
      y.add ? y.add->data + channel * y.add->channel : nullptr;
  const int64_t add_row = y.add ? y.add->row : width;
  if (y.pad && r0 == 0)
    std::fill(to - y.pad * (y.row + 1), to - y.pad, 0.f);
  if (y.row == width && pitch == width && add_row == width) {
    const int64_t from = r0 * width;  // one long row
    write_row(sums, add ? add + from : nullptr, to + from, (r1 - r0) * width,
              y.low, y.high, true);
    return;
  }
  // a vector that begins in a row ends in the next one, read or written
  const int64_t whole = (width + kLanes - 1) / kLanes * kLanes;
  const bool narrow =
      y.row < kLanes || whole > width + std::min(pitch, add_row);
  for (int64_t r = r0; r < r1; ++r, sums += pitch) {
    float* row = to + r * y.row;
    std::fill(row - y.pad, row, 0.f);
    write_row(sums, add ? add + r * add_row : nullptr, row, width, y.low,
              y.high, r == r1 - 1 || narrow);
  }
  if (y.pad && r1 == height) {
    float* below = to + height * y.row - y.pad;
    std::fill(below, below + y.pad * (y.row + 2), 0.f);
  }
}

}  // namespace fgc
