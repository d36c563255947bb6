// Rules that any number, value or set of a program keeps.
#pragma once

#include "model.h"

namespace fgc {

typedef __int128 Wide;
constexpr int64_t kMostSize = int64_t(1) << 31;   // of a map, along an axis
constexpr int64_t kMostFloats = int64_t(1) << 40;  // anywhere
constexpr int64_t kMostTap = 4096, kMostTaps = 16384, kMostStride = 65536;

class Checker {
 public:
  explicit Checker(const Loaded& loaded) : l_(loaded), p_(loaded.program) {}

  [[noreturn]] void bad(const std::string& rule) {
    throw Error{FGC_BAD_FILE,
                what_ + ": " + rule +
                    "; the file is damaged, or of another version: export "
                    "the model again"};
  }

  void expect(bool right, const char* rule) {
    if (!right) bad(rule);
  }

  void within(const char* name, int64_t number, int64_t low, int64_t high) {
    if (number < low || number > high)
      bad(std::string(name) + " is " + std::to_string(number) +
          ", must be from " + std::to_string(low) + " to " +
          std::to_string(high));
  }

  void value(const Value& v, bool image) {
    within("channels", v.channels, 1, kMostSize);
    within("height", v.height, 1, kMostSize);
    within("width", v.width, 1, kMostSize);
    within("base", v.base, kArena, kWeights);
    within("offset", v.offset, 0, kMostFloats);
    within("channel_step", v.channel_step, 0, kMostFloats);
    within("row_step", v.row_step, 0, kMostFloats);
    within("pad", v.pad, 0, kMostTap);
    const Wide size = Wide(v.channels) * v.height * v.width;
    expect(size <= kMostFloats, "the map is larger than any memory");
    expect((v.height == 1 && !v.pad) || v.row_step >= v.width + v.pad,
           "row_step is less than width and pad");
    const Wide channel = Wide(v.height - 1) * v.row_step + v.width;
    expect(v.channels == 1 || v.channel_step >= channel ||
               (v.channel_step >= v.width &&
                v.row_step >=
                    Wide(v.channels - 1) * v.channel_step + v.width),
           "channels overlap");
    expect(image == (v.base == kImage),
           "value 0, and no other, is the image");
    if (image) {
      expect(!v.offset && !v.pad, "the image has an offset or a pad");
      expect(v.channels == 1 || v.channel_step == v.height * v.width,
             "the image has gaps between channels");
      expect(v.height == 1 || v.row_step == v.width,
             "the image has gaps between rows");
      return;
    }
    const Wide begin = Wide(v.offset) - Wide(v.pad) * v.row_step - v.pad;
    const Wide end = Wide(v.offset) + Wide(v.channels - 1) * v.channel_step +
                     Wide(v.height - 1 + v.pad) * v.row_step + v.width +
                     v.pad;
    const int64_t room = v.base == kArena ? p_.arena : l_.weight_count;
    expect(begin >= 0 && end <= room, "it lies outside of its memory");
  }

  const Value& read(int64_t id) {
    within("number of a value", id, 0, p_.value_count - 1);
    return p_.values[id];
  }

  const Value& written(int64_t id) {
    const Value& v = read(id);
    expect(v.base == kArena, "what is written is no value of the arena");
    return v;
  }

  // A set (or all) of a value's channels.
  void set(int64_t id, const Value& v) {
    if (id == kAll) return;
    within("number of a set", id, 0, p_.set_count - 1);
    expect(p_.sets[id] == v.channels,
           "a set and the value that it is used for differ in channels");
  }

  void act(const Act& a) { within("activation", a.kind, 0, kActs - 1); }

  // An array of so many weights, or none.
  void weights(int64_t at, int64_t count) {
    if (at == kNone) return;
    within("offset of weights", at, 0, l_.weight_count);
    expect(count <= l_.weight_count - at, "weights end before they do");
  }

  static bool same(const Value& a, const Value& b) {
    return a.channels == b.channels && a.height == b.height &&
           a.width == b.width;
  }

  static bool vector(const Value& v) { return v.height == 1 && v.width == 1; }

  void same_shape(const Value& a, const Value& b) {
    expect(same(a, b), "values that must be of one shape are not");
  }

  const Loaded& l_;
  const Program& p_;
  std::string what_;
};

}  // namespace fgc
