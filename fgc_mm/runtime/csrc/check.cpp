// Validates a program: every index, offset and shape of its ops. A program
// that passes accesses no memory outside of its buffers.
#include <algorithm>
#include <utility>
#include <vector>

#include "checker.h"

namespace fgc {

namespace {

class OpChecker : public Checker {
 public:
  using Checker::Checker;

  void check_all() {
    subject_ = "the program";
    expect_within("arena", p_.arena, 0, kMaxFloats);
    expect_within("number of values", p_.value_count, 1, kMaxFloats);
    for (int64_t k = 0; k < p_.set_count; ++k)
      expect_within("set", p_.sets[k], 1, kMaxExtent);
    for (int64_t k = 0; k < p_.value_count; ++k) {
      subject_ = "value " + std::to_string(k);
      check_value(p_.values[k], k == 0);
    }
    for (int64_t k = 0; k < p_.op_count; ++k) {
      subject_ = "op " + std::to_string(k);
      check_op(p_.ops[k]);
    }
    subject_ = "the program";
    for (const int64_t id : l_.outputs) input(id);
    expect_within("records", l_.records, 0, int64_t(l_.outputs.size()));
  }

 private:
  void check_window(const Op& o, const Value& x, const Value& y) {
    const int64_t in[2] = {x.height, x.width}, out[2] = {y.height, y.width};
    for (int k = 0; k < 2; ++k) {
      expect_within("kernel", o.kernel[k], 1, kMaxExtent);
      expect_within("stride", o.stride[k], 1, kMaxStride);
      expect_within("padding", o.padding[k], 0, kMaxReach);
      expect_within("dilation", o.dilation[k], 1, kMaxStride);
      const Int128 end = Int128(out[k] - 1) * o.stride[k] - o.padding[k] +
                         Int128(o.kernel[k] - 1) * o.dilation[k];
      expect(end < Int128(in[k]) + kMaxReach,
             "windows extend far outside of the input");
    }
  }

  void conv(const Op& o) {
    const Value &x = input(o.x), &y = output(o.y);
    if (o.add != kNone) expect_same_shape(input(o.add), y);
    expect(o.x != o.y, "input and output of a conv are the same value");
    check_window(o, x, y);
    for (const int64_t size : o.kernel)
      expect_within("kernel", size, 1, kMaxReach);
    expect_within("taps", o.kernel[0] * o.kernel[1], 1, kMaxTaps);
    expect_within("groups", o.groups, 1, x.channels);
    expect(x.channels % o.groups == 0 && y.channels % o.groups == 0,
           "groups do not divide the channels");
    if (o.groups > 1 && o.groups == x.channels) {
      check_set(o.out_set, y);
      expect(
          o.in_set == kAll || o.in_set == o.out_set,
          "in_set of a depthwise conv is neither all channels nor out_set");
      if (o.in_set != kAll) check_set(o.in_set, x);
    } else if (o.groups > 1) {
      expect(o.in_set == kAll && o.out_set == kAll,
             "a grouped conv has a set of channels");
    } else {
      check_set(o.in_set, x);
      check_set(o.out_set, y);
    }
    expect_within("weight", o.weight, 0, l_.weight_count);
    expect_within("out_step", o.out_step, 0, kMaxFloats);
    expect_within("in_step", o.in_step, 0, kMaxFloats);
    const Int128 last = Int128(o.weight) +
                        Int128(y.channels - 1) * o.out_step +
                        Int128(x.channels / o.groups - 1) * o.in_step +
                        o.kernel[0] * o.kernel[1];
    expect(last <= l_.weight_count,
           "an array of weights exceeds the weights of the file");
    // steps of 0 repeat weights, so the bound above does not bound the copy
    // of them that is laid out for the kernel
    const Int128 copied = Int128(y.channels) * (x.channels / o.groups) *
                          o.kernel[0] * o.kernel[1];
    expect(copied <= kMaxFloats, "the weights are larger than any memory");
    check_weights(o.bias, y.channels);
    check_act(o.act);
  }

  void unary(const Op& o) {
    const Value& y = output(o.y);
    expect_same_shape(input(o.x), y);
    check_set(o.set, y);
    check_act(o.act);
  }

  void binary(const Op& o) {
    const Value& y = output(o.y);
    for (const int64_t id : {o.x, o.x2}) {
      const Value& x = input(id);
      expect((x.channels == y.channels || x.channels == 1) &&
                 (x.height == y.height || x.height == 1) &&
                 (x.width == y.width || x.width == 1),
             "an input cannot be broadcast to the shape of the output");
    }
    check_set(o.set, y);
    expect_within("math", o.math, 0, kMaths - 1);
    check_act(o.act);
  }

  void affine(const Op& o) {
    unary(o);
    const int64_t channels = input(o.y).channels;
    for (const int64_t at : {o.scale_at, o.shift_at, o.slope_at})
      check_weights(at, channels);
  }

  void pool(const Op& o) {
    const Value &x = input(o.x), &y = output(o.y);
    expect(o.x != o.y, "input and output of a pooling are the same value");
    expect(x.channels == y.channels, "pooling changes the channels");
    check_window(o, x, y);
    check_set(o.set, y);
    check_act(o.act);
  }

  void mean(const Op& o) {
    const Value &x = input(o.x), &y = output(o.y);
    expect(is_vector(y) && x.channels == y.channels,
           "the output of a mean is not (C, 1, 1)");
    check_set(o.set, y);
    check_act(o.act);
  }

  void norm(const Op& o) {
    const Value &x = input(o.x), &y = output(o.y);
    expect_same_shape(x, y);
    expect_within("groups", o.groups, 0, x.channels);
    expect(!o.groups || x.channels % o.groups == 0,
           "groups do not divide the channels");
    check_weights(o.weight, x.channels);
    check_weights(o.bias, x.channels);
    check_act(o.act);
  }

  // Checks one axis of a strided box of coordinates.
  void check_box(const Op& o, const int64_t (&steps)[8][3], int axis,
                 int64_t start, int64_t size) {
    Int128 low = start, high = start;
    for (int64_t k = 0; k < o.dims; ++k) {
      expect_within("step", steps[k][axis], -kMaxExtent, kMaxExtent);
      const Int128 reach = Int128(o.sizes[k] - 1) * steps[k][axis];
      (reach < 0 ? low : high) += reach;
    }
    expect(low >= 0 && high < size, "a move exceeds the shape of its value");
  }

  void move(const Op& o) {
    const Value &x = input(o.x), &y = output(o.y);
    expect(o.x != o.y, "input and output of a move are the same value");
    check_set(o.set, y);
    Int128 elements = 1;
    for (int64_t k = 0; k < o.dims; ++k) {
      expect_within("size", o.sizes[k], 1, kMaxExtent);
      elements *= o.sizes[k];
      expect(elements <= Int128(y.channels) * y.height * y.width,
             "a move has more elements than its output");
      for (const int64_t step : o.to_steps[k])
        expect_within("to_steps", step, 0, kMaxExtent);
    }
    const int64_t xs[3] = {x.channels, x.height, x.width};
    const int64_t ys[3] = {y.channels, y.height, y.width};
    for (int axis = 0; axis < 3; ++axis) {
      check_box(o, o.from_steps, axis, o.start[axis], xs[axis]);
      check_box(o, o.to_steps, axis, o.to[axis], ys[axis]);
    }
  }

  void resize(const Op& o) {
    const Value &x = input(o.x), &y = output(o.y);
    expect(o.x != o.y, "input and output of a resizing are the same value");
    expect(x.channels == y.channels, "resizing changes the channels");
    check_set(o.set, y);
    expect_within("mode", o.mode, 0, 1);
    for (const double scale : o.scale)
      expect(scale >= 0 && scale < 1e9, "a scale is out of range");
  }

  void attention(const Op& o) {
    const Value &q = input(o.x), &k = input(o.x2), &v = input(o.x3);
    const Value& y = output(o.y);
    expect(o.y != o.x && o.y != o.x2 && o.y != o.x3,
           "an input and the output of an attention are the same value");
    expect_within("heads", o.heads, 1, q.channels);
    expect(
        q.channels % o.heads == 0 && v.channels % o.heads == 0 &&
            q.channels == k.channels && v.channels == y.channels,
        "channels of queries, keys, values and output do not match, or are "
        "not a multiple of heads");
    expect(q.height == k.height && q.height == v.height &&
               q.height == y.height && q.width == y.width &&
               k.width == v.width,
           "queries, keys and values do not match");
    if (o.add == kNone) return;
    const Value& b = input(o.add);
    expect((b.channels == 1 || b.channels == o.heads) &&
               (b.height == 1 || b.height == q.height) &&
               Int128(b.width) == Int128(q.width) * k.width,
           "the shape of a bias does not match the scores");
  }

  void list(const Op& o) {
    const Value& x = input(o.x);
    expect(is_vector(x), "the input of a list is not (C, 1, 1)");
    expect_within("index of a set", o.set, 0, p_.set_count - 1);
    check_set(o.set, x);
  }

  // A channel occurs at most once, so a list is never longer than its set.
  void join(const Op& o) {
    expect_within("index of a set", o.set, 0, p_.set_count - 1);
    const int64_t all = p_.sets[o.set];
    std::vector<std::pair<int64_t, int64_t>> ranges;  // first, last + 1
    for (int64_t s = 0; s < o.segment_count; ++s) {
      const Segment& segment = o.segments[s];
      expect_within("repeat", segment.repeat, 1, kMaxExtent);
      if (segment.source != kAll) {
        expect_within("source", segment.source, 0, p_.set_count - 1);
        expect(segment.source != o.set &&
                   p_.sets[segment.source] == segment.count,
               "a source set and its segment differ in channels");
      }
      for (int64_t k = 0; k < segment.count; ++k) {
        const int64_t first = segment.numbers[k];
        if (first < 0) continue;
        expect(Int128(first) + segment.repeat <= all,
               "a list has channels that do not exist");
        ranges.emplace_back(first, first + segment.repeat);
      }
    }
    std::sort(ranges.begin(), ranges.end());
    for (size_t k = 1; k < ranges.size(); ++k)
      expect(ranges[k - 1].second <= ranges[k].first,
             "a list has a channel twice");
  }

  void top_k(const Op& o) {
    const Value &x = input(o.x), &y = output(o.y);
    expect_same_shape(x, y);
    expect(is_vector(x), "the input of a top-k is not (C, 1, 1)");
    expect_within("k", o.k, 0, x.channels);
  }

  void softmax(const Op& o) {
    expect(o.x != o.y, "input and output of a softmax are the same value");
    expect_same_shape(input(o.x), output(o.y));
  }

  void matmul(const Op& o) {
    const Value &x = input(o.x), &w = input(o.x2), &y = output(o.y);
    expect(o.y != o.x && o.y != o.x2,
           "an input and the output of a product are the same value");
    expect(x.channels == w.channels && x.channels == y.channels &&
               x.width == w.height && x.height == y.height &&
               w.width == y.width,
           "the shapes of a matrix product do not match");
  }

  void call(const Op& o) {
    expect_within("function", o.function, 0, kMaxExtent);
    for (int64_t k = 0; k < o.x_count; ++k) input(o.xs[k]);
    for (int64_t k = 0; k < o.y_count; ++k) output(o.ys[k]);
  }

  void check_op(const Op& o) {
    switch (o.kind) {
      case kConv: return conv(o);
      case kUnary: return unary(o);
      case kBinary: return binary(o);
      case kAffine: return affine(o);
      case kPool: return pool(o);
      case kMean: return mean(o);
      case kNorm: return norm(o);
      case kMove: return move(o);
      case kResize: return resize(o);
      case kAttention: return attention(o);
      case kList: return list(o);
      case kJoin: return join(o);
      case kTopK: return top_k(o);
      case kSoftmax: return softmax(o);
      case kMatMul: return matmul(o);
      default: return call(o);
    }
  }
};

}  // namespace

void check(const LoadedProgram& loaded) { OpChecker(loaded).check_all(); }

}  // namespace fgc
