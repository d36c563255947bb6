// Whether all that the ops of a program read and write exists. After this,
// and the limits on memory, no program can reach foreign memory.
#include "checker.h"

namespace fgc {

namespace {

class OpChecker : public Checker {
 public:
  using Checker::Checker;

  void all() {
    what_ = "the program";
    within("arena", p_.arena, 0, kMostFloats);
    within("number of values", p_.value_count, 1, kMostFloats);
    for (int64_t k = 0; k < p_.set_count; ++k)
      within("set", p_.sets[k], 1, kMostSize);
    for (int64_t k = 0; k < p_.value_count; ++k) {
      what_ = "value " + std::to_string(k);
      value(p_.values[k], k == 0);
    }
    for (int64_t k = 0; k < p_.op_count; ++k) {
      what_ = "op " + std::to_string(k);
      op(p_.ops[k]);
    }
    what_ = "the program";
    for (const int64_t id : l_.outputs) read(id);
    within("records", l_.records, 0, int64_t(l_.outputs.size()));
  }

 private:
  void window(const Op& o, const Value& x, const Value& y) {
    const int64_t in[2] = {x.height, x.width}, out[2] = {y.height, y.width};
    for (int k = 0; k < 2; ++k) {
      within("kernel", o.kernel[k], 1, kMostSize);
      within("stride", o.stride[k], 1, kMostStride);
      within("padding", o.padding[k], 0, kMostTap);
      within("dilation", o.dilation[k], 1, kMostStride);
      const Wide end = Wide(out[k] - 1) * o.stride[k] - o.padding[k] +
                       Wide(o.kernel[k] - 1) * o.dilation[k];
      expect(end < Wide(in[k]) + kMostTap,
             "windows lie far outside of what they are taken from");
    }
  }

  void conv(const Op& o) {
    const Value &x = read(o.x), &y = written(o.y);
    if (o.add != kNone) same_shape(read(o.add), y);
    expect(o.x != o.y, "a conv writes what it reads");
    window(o, x, y);
    for (const int64_t size : o.kernel) within("kernel", size, 1, kMostTap);
    within("taps", o.kernel[0] * o.kernel[1], 1, kMostTaps);
    within("groups", o.groups, 1, x.channels);
    expect(x.channels % o.groups == 0 && y.channels % o.groups == 0,
           "groups do not divide the channels");
    if (o.groups > 1 && o.groups == x.channels) {
      set(o.out_set, y);
      expect(o.in_set == kAll || o.in_set == o.out_set,
             "a depthwise conv reads other channels than it writes");
      if (o.in_set != kAll) set(o.in_set, x);
    } else if (o.groups > 1) {
      expect(o.in_set == kAll && o.out_set == kAll,
             "a grouped conv reads and writes listed channels");
    } else {
      set(o.in_set, x);
      set(o.out_set, y);
    }
    within("weight", o.weight, 0, l_.weight_count);
    within("out_step", o.out_step, 0, kMostFloats);
    within("in_step", o.in_step, 0, kMostFloats);
    const Wide last = Wide(o.weight) + Wide(y.channels - 1) * o.out_step +
                      Wide(x.channels / o.groups - 1) * o.in_step +
                      o.kernel[0] * o.kernel[1];
    expect(last <= l_.weight_count, "weights end before they do");
    weights(o.bias, y.channels);
    act(o.act);
  }

  void unary(const Op& o) {
    const Value& y = written(o.y);
    same_shape(read(o.x), y);
    set(o.set, y);
    act(o.act);
  }

  void binary(const Op& o) {
    const Value& y = written(o.y);
    for (const int64_t id : {o.x, o.x2}) {
      const Value& x = read(id);
      expect((x.channels == y.channels || x.channels == 1) &&
                 (x.height == y.height || x.height == 1) &&
                 (x.width == y.width || x.width == 1),
             "a value cannot be broadcast to the other's shape");
    }
    set(o.set, y);
    within("math", o.math, 0, kMaths - 1);
    act(o.act);
  }

  void affine(const Op& o) {
    unary(o);
    const int64_t channels = read(o.y).channels;
    for (const int64_t at : {o.scale_at, o.shift_at, o.slope_at})
      weights(at, channels);
  }

  void pool(const Op& o) {
    const Value &x = read(o.x), &y = written(o.y);
    expect(o.x != o.y, "pooling writes what it reads");
    expect(x.channels == y.channels, "pooling changes the channels");
    window(o, x, y);
    set(o.set, y);
    act(o.act);
  }

  void mean(const Op& o) {
    const Value &x = read(o.x), &y = written(o.y);
    expect(vector(y) && x.channels == y.channels,
           "a mean is not one number a channel");
    set(o.set, y);
    act(o.act);
  }

  void norm(const Op& o) {
    const Value &x = read(o.x), &y = written(o.y);
    same_shape(x, y);
    within("groups", o.groups, 0, x.channels);
    expect(!o.groups || x.channels % o.groups == 0,
           "groups do not divide the channels");
    weights(o.weight, x.channels);
    weights(o.bias, x.channels);
    act(o.act);
  }

  // A box of coordinates, one axis of it.
  void box(const Op& o, const int64_t (&steps)[8][3], int axis, int64_t start,
           int64_t size) {
    Wide low = start, high = start;
    for (int64_t k = 0; k < o.dims; ++k) {
      within("step", steps[k][axis], -kMostSize, kMostSize);
      const Wide reach = Wide(o.sizes[k] - 1) * steps[k][axis];
      (reach < 0 ? low : high) += reach;
    }
    expect(low >= 0 && high < size, "a move leaves the value");
  }

  void move(const Op& o) {
    const Value &x = read(o.x), &y = written(o.y);
    expect(o.x != o.y, "a move writes what it reads");
    set(o.set, y);
    Wide numbers = 1;
    for (int64_t k = 0; k < o.dims; ++k) {
      within("size", o.sizes[k], 1, kMostSize);
      numbers *= o.sizes[k];
      expect(numbers <= Wide(y.channels) * y.height * y.width,
             "a move writes more numbers than there are");
      for (const int64_t step : o.to_steps[k])
        within("to_steps", step, 0, kMostSize);
    }
    const int64_t xs[3] = {x.channels, x.height, x.width};
    const int64_t ys[3] = {y.channels, y.height, y.width};
    for (int axis = 0; axis < 3; ++axis) {
      box(o, o.from_steps, axis, o.start[axis], xs[axis]);
      box(o, o.to_steps, axis, o.to[axis], ys[axis]);
    }
  }

  void resize(const Op& o) {
    const Value &x = read(o.x), &y = written(o.y);
    expect(o.x != o.y, "resizing writes what it reads");
    expect(x.channels == y.channels, "resizing changes the channels");
    set(o.set, y);
    within("mode", o.mode, 0, 1);
    for (const double scale : o.scale)
      expect(scale >= 0 && scale < 1e9, "a scale is out of range");
  }

  void attention(const Op& o) {
    const Value &q = read(o.x), &k = read(o.x2), &v = read(o.x3);
    const Value& y = written(o.y);
    expect(o.y != o.x && o.y != o.x2 && o.y != o.x3,
           "attention writes what it reads");
    within("heads", o.heads, 1, q.channels);
    expect(q.channels % o.heads == 0 && v.channels % o.heads == 0 &&
               q.channels == k.channels && v.channels == y.channels,
           "heads do not divide the channels, or these differ");
    expect(q.height == k.height && q.height == v.height &&
               q.height == y.height && q.width == y.width &&
               k.width == v.width,
           "queries, keys and values do not match");
    if (o.add == kNone) return;
    const Value& b = read(o.add);
    expect((b.channels == 1 || b.channels == o.heads) &&
               (b.height == 1 || b.height == q.height) &&
               Wide(b.width) == Wide(q.width) * k.width,
           "a bias is not one of these scores");
  }

  void list(const Op& o) {
    const Value& x = read(o.x);
    expect(vector(x), "a list is made of more than a number a channel");
    within("number of a set", o.set, 0, p_.set_count - 1);
    set(o.set, x);
  }

  // No channel twice: so a list never has more than there are.
  void join(const Op& o) {
    within("number of a set", o.set, 0, p_.set_count - 1);
    const int64_t all = p_.sets[o.set];
    Wide total = 0;
    for (int64_t s = 0; s < o.segment_count; ++s) {
      const Segment& part = o.segments[s];
      within("repeat", part.repeat, 1, kMostSize);
      if (part.source != kAll) {
        within("source", part.source, 0, p_.set_count - 1);
        expect(part.source != o.set && p_.sets[part.source] == part.count,
               "a source of a list has other channels");
      }
      for (int64_t k = 0; k < part.count; ++k)
        if (part.numbers[k] >= 0) {
          expect(Wide(part.numbers[k]) + part.repeat <= all,
                 "a list has channels that do not exist");
          total += part.repeat;
        }
    }
    expect(total <= all, "a list has a channel twice");
    std::vector<bool> there(size_t(all), false);
    for (int64_t s = 0; s < o.segment_count; ++s)
      for (int64_t k = 0; k < o.segments[s].count; ++k)
        for (int64_t r = 0;
             o.segments[s].numbers[k] >= 0 && r < o.segments[s].repeat; ++r) {
          auto&& at = there[size_t(o.segments[s].numbers[k] + r)];
          expect(!at, "a list has a channel twice");
          at = true;
        }
  }

  void top_k(const Op& o) {
    const Value &x = read(o.x), &y = written(o.y);
    same_shape(x, y);
    expect(vector(x), "the largest are sought among more than channels");
    within("k", o.k, 0, x.channels);
  }

  void softmax(const Op& o) {
    expect(o.x != o.y, "a softmax writes what it reads");
    same_shape(read(o.x), written(o.y));
  }

  void matmul(const Op& o) {
    const Value &x = read(o.x), &w = read(o.x2), &y = written(o.y);
    expect(o.y != o.x && o.y != o.x2, "a product writes what it reads");
    expect(x.channels == w.channels && x.channels == y.channels &&
               x.width == w.height && x.height == y.height &&
               w.width == y.width,
           "matrices of a product do not match");
  }

  void call(const Op& o) {
    for (int64_t k = 0; k < o.x_count; ++k) read(o.xs[k]);
    for (int64_t k = 0; k < o.y_count; ++k) written(o.ys[k]);
  }

  void op(const Op& o) {
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

void check(const Loaded& loaded) { OpChecker(loaded).all(); }

}  // namespace fgc
