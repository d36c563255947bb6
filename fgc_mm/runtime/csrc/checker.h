// Checks of numbers, values and sets that all kinds of ops share.
#pragma once

#include "model.h"

namespace fgc {

typedef __int128 Int128;
constexpr int64_t kMaxExtent = int64_t(1) << 31;  // of a map along one axis
constexpr int64_t kMaxFloats = int64_t(1) << 40;  // of any buffer
constexpr int64_t kMaxReach = 4096, kMaxTaps = 16384, kMaxStride = 65536;

class Checker {
 public:
  explicit Checker(const LoadedProgram& loaded)
      : l_(loaded), p_(loaded.program) {}

  [[noreturn]] void fail(const std::string& rule) {
    throw Error{FGC_BAD_FILE,
                subject_ + ": " + rule +
                    "; the file is damaged, or of another version: export "
                    "the model again"};
  }

  void expect(bool condition, const char* rule) {
    if (!condition) fail(rule);
  }

  void expect_within(const char* name, int64_t number, int64_t low,
                     int64_t high) {
    if (number < low || number > high)
      fail(std::string(name) + " is " + std::to_string(number) +
           ", must be from " + std::to_string(low) + " to " +
           std::to_string(high));
  }

  void check_value(const Value& v, bool image) {
    expect_within("channels", v.channels, 1, kMaxExtent);
    expect_within("height", v.height, 1, kMaxExtent);
    expect_within("width", v.width, 1, kMaxExtent);
    expect_within("base", v.base, kArena, kWeights);
    expect_within("offset", v.offset, 0, kMaxFloats);
    expect_within("channel_step", v.channel_step, 0, kMaxFloats);
    expect_within("row_step", v.row_step, 0, kMaxFloats);
    expect_within("pad", v.pad, 0, kMaxReach);
    const Int128 size = Int128(v.channels) * v.height * v.width;
    expect(size <= kMaxFloats, "the map is larger than any memory");
    expect((v.height == 1 && !v.pad) || v.row_step >= v.width + v.pad,
           "row_step is less than width and pad");
    const Int128 channel = Int128(v.height - 1) * v.row_step + v.width;
    expect(
        v.channels == 1 || v.channel_step >= channel ||
            (v.channel_step >= v.width &&
             v.row_step >= Int128(v.channels - 1) * v.channel_step + v.width),
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
    const Int128 begin =
        Int128(v.offset) - Int128(v.pad) * v.row_step - v.pad;
    const Int128 end =
        Int128(v.offset) + Int128(v.channels - 1) * v.channel_step +
        Int128(v.height - 1 + v.pad) * v.row_step + v.width + v.pad;
    const int64_t limit = v.base == kArena ? p_.arena : l_.weight_count;
    expect(begin >= 0 && end <= limit, "the value exceeds its buffer");
  }

  const Value& input(int64_t id) {
    expect_within("index of a value", id, 0, p_.value_count - 1);
    return p_.values[id];
  }

  const Value& output(int64_t id) {
    const Value& v = input(id);
    expect(v.base == kArena, "an output is not in the arena");
    return v;
  }

  // An index of a set of this value's channels, or kAll.
  void check_set(int64_t id, const Value& v) {
    if (id == kAll) return;
    expect_within("index of a set", id, 0, p_.set_count - 1);
    expect(p_.sets[id] == v.channels,
           "a set and its value differ in channels");
  }

  void check_act(const Act& a) {
    expect_within("activation", a.kind, 0, kActs - 1);
  }

  // An array of `count` weights at an offset, or kNone.
  void check_weights(int64_t at, int64_t count) {
    if (at == kNone) return;
    expect_within("offset of weights", at, 0, l_.weight_count);
    expect(count <= l_.weight_count - at,
           "an array of weights exceeds the weights of the file");
  }

  static bool equal_shapes(const Value& a, const Value& b) {
    return a.channels == b.channels && a.height == b.height &&
           a.width == b.width;
  }

  static bool is_vector(const Value& v) {
    return v.height == 1 && v.width == 1;
  }

  void expect_same_shape(const Value& a, const Value& b) {
    expect(equal_shapes(a, b), "values that must have the same shape differ");
  }

  const LoadedProgram& l_;
  const Program& p_;
  std::string subject_;
};

}  // namespace fgc
