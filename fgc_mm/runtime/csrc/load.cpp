// Parses a .fgc file; check.cpp validates the program.
#include <string.h>

#include "crc.h"
#include "model.h"

namespace fgc {

namespace {

constexpr uint64_t kHeader = 64, kAlign = 64, kVersion = 1;
constexpr uint64_t kMaxItems = uint64_t(1) << 48;

[[noreturn]] void fail_damaged(const std::string& what) {
  throw Error{FGC_BAD_FILE,
              what + "; the file is damaged: copy or export it again"};
}

// Reads the words of the program or of one op in sequence.
class WordReader {
 public:
  WordReader(const char* from, uint64_t count) : from_(from), left_(count) {}

  int64_t next() {
    if (!left_) fail_damaged("the program ends too early");
    int64_t word;
    memcpy(&word, from_, 8);
    from_ += 8;
    --left_;
    return word;
  }
  double next_real() {
    const int64_t word = next();
    double value;
    memcpy(&value, &word, 8);
    return value;
  }
  void next(int64_t* to, int64_t count) {
    for (int64_t k = 0; k < count; ++k) to[k] = next();
  }
  // The length of a list whose items have at least one word each.
  int64_t count() {
    const int64_t items = next();
    if (items < 0 || uint64_t(items) > left_)
      fail_damaged("a list has " + std::to_string(items) +
                   " items, but only " + std::to_string(left_) +
                   " words are left");
    return items;
  }
  WordReader split(int64_t words) {
    const WordReader found(from_, uint64_t(words));
    from_ += words * 8;
    left_ -= uint64_t(words);
    return found;
  }
  uint64_t left() const { return left_; }

 private:
  const char* from_;
  uint64_t left_;
};

int64_t* read_array(WordReader& words, int64_t count, ModelMemory& memory) {
  int64_t* to = (int64_t*)memory.allocate(count * 8 + 8);
  words.next(to, count);
  return to;
}

void read_act(WordReader& w, Act& act) {
  act.kind = w.next();
  act.a = float(w.next_real());
  act.b = float(w.next_real());
}

void read_window(WordReader& w, Op& op) {
  for (int64_t* pair : {op.kernel, op.stride, op.padding, op.dilation})
    w.next(pair, 2);
}

void read_steps(WordReader& w, int64_t (&steps)[8][3], int64_t dims) {
  if (w.next() != dims) fail_damaged("a move has lists of several lengths");
  for (int64_t k = 0; k < dims; ++k) w.next(steps[k], 3);
}

void read_move(WordReader& w, Op& op) {
  for (int64_t* field : {&op.x, &op.y, &op.set, &op.zero}) *field = w.next();
  w.next(op.start, 3);
  w.next(op.to, 3);
  op.dims = w.count();
  if (op.dims > 8) fail_damaged("a move has more than 8 dimensions");
  w.next(op.sizes, op.dims);
  read_steps(w, op.from_steps, op.dims);
  read_steps(w, op.to_steps, op.dims);
}

void read_join(WordReader& w, Op& op, ModelMemory& memory) {
  op.set = w.next();
  op.segment_count = w.count();
  Segment* to = (Segment*)memory.allocate((op.segment_count + 1) *
                                          int64_t(sizeof(Segment)));
  op.segments = to;
  for (int64_t k = 0; k < op.segment_count; ++k) {
    to[k].source = w.next();
    to[k].repeat = w.next();
    to[k].count = w.count();
    to[k].numbers = read_array(w, to[k].count, memory);
  }
}

// Reads the fields of an op's class in format.py, in their order.
void read_fields(WordReader& w, Op& op, ModelMemory& memory) {
  const auto fields = [&](std::initializer_list<int64_t*> all) {
    for (int64_t* field : all) *field = w.next();
  };
  switch (op.kind) {
    case kConv:
      fields({&op.x, &op.y, &op.add, &op.in_set, &op.out_set, &op.groups});
      read_window(w, op);
      fields({&op.weight, &op.out_step, &op.in_step, &op.bias});
      return read_act(w, op.act);
    case kUnary:
      fields({&op.x, &op.y, &op.set});
      return read_act(w, op.act);
    case kBinary:
      fields({&op.x, &op.x2, &op.y, &op.set, &op.math});
      return read_act(w, op.act);
    case kAffine:
      fields({&op.x, &op.y, &op.set, &op.scale_at, &op.shift_at,
              &op.slope_at});
      return read_act(w, op.act);
    case kPool:
      fields({&op.x, &op.y, &op.set, &op.average});
      read_window(w, op);
      fields({&op.count_outside});
      return read_act(w, op.act);
    case kMean:
      fields({&op.x, &op.y, &op.set});
      return read_act(w, op.act);
    case kNorm:
      fields({&op.x, &op.y, &op.groups});
      op.eps = w.next_real();
      fields({&op.weight, &op.bias});
      return read_act(w, op.act);
    case kMove: return read_move(w, op);
    case kResize:
      fields({&op.x, &op.y, &op.set, &op.mode, &op.corners});
      op.scale[0] = w.next_real();
      op.scale[1] = w.next_real();
      return;
    case kAttention:
      fields({&op.x, &op.x2, &op.x3, &op.add, &op.y, &op.heads});
      op.scale[0] = w.next_real();
      return;
    case kList: return fields({&op.x, &op.set});
    case kJoin: return read_join(w, op, memory);
    case kSoftmax: return fields({&op.x, &op.y});
    case kMatMul: return fields({&op.x, &op.x2, &op.y});
    case kTopK: return fields({&op.x, &op.y, &op.k, &op.ones});
    case kCall:
      fields({&op.function});
      op.x_count = w.count();
      op.xs = read_array(w, op.x_count, memory);
      op.y_count = w.count();
      op.ys = read_array(w, op.y_count, memory);
      return;
    default:
      fail_damaged("the op kind " + std::to_string(op.kind) + " is unknown");
  }
}

Op read_op(WordReader& words, ModelMemory& memory) {
  Op op = {};
  op.kind = words.next();
  WordReader op_words = words.split(words.count());
  op.records_only = op_words.next();
  read_fields(op_words, op, memory);
  if (op_words.left()) fail_damaged("an op has more words than its kind");
  return op;
}

// Checks a number of items that have at least one word each.
int64_t expect_items(int64_t items, const WordReader& words) {
  if (items < 0 || uint64_t(items) > words.left())
    fail_damaged("the program has " + std::to_string(items) +
                 " items, but only " + std::to_string(words.left()) +
                 " words");
  return items;
}

void read_program(WordReader w, LoadedProgram& to) {
  int64_t counts[4];
  to.program.arena = w.next();
  to.records = w.next();
  w.next(counts, 4);
  for (int64_t& count : counts) expect_items(count, w);
  to.values.resize(size_t(counts[0]));
  for (Value& v : to.values)
    for (int64_t* field : {&v.channels, &v.height, &v.width, &v.base,
                           &v.offset, &v.channel_step, &v.row_step, &v.pad})
      *field = w.next();
  to.sets.resize(size_t(counts[1]));
  w.next(to.sets.data(), counts[1]);
  for (int64_t k = 0; k < counts[2]; ++k)
    to.ops.push_back(read_op(w, to.memory));
  to.outputs.resize(size_t(counts[3]));
  w.next(to.outputs.data(), counts[3]);
  if (w.left()) fail_damaged("words follow the program");
}

uint64_t aligned(uint64_t bytes) {
  return (bytes + kAlign - 1) / kAlign * kAlign;
}

}  // namespace

void load(const char* bytes, uint64_t size, LoadedProgram& to) {
  if (size < kHeader || memcmp(bytes, "fgcmodel", 8))
    throw Error{FGC_BAD_FILE,
                "the bytes do not begin with 'fgcmodel': give a .fgc file"};
  uint64_t head[7];
  memcpy(head, bytes + 8, sizeof(head));
  if (head[0] != kVersion)
    throw Error{FGC_BAD_FILE, "the file has version " +
                                  std::to_string(head[0]) +
                                  ", the library reads version 1: export the "
                                  "model again"};
  const uint64_t words = head[1], weights = head[2], meta = head[3];
  if (words > kMaxItems || weights > kMaxItems || meta > kMaxItems ||
      head[5] > 1 || head[6])
    fail_damaged("the header is not one of a model");
  const uint64_t weights_at = kHeader + aligned(words * 8);
  const uint64_t meta_at = weights_at + aligned(weights * 4);
  if (size != meta_at + meta)
    fail_damaged("the file has " + std::to_string(size) +
                 " bytes, its header says " + std::to_string(meta_at + meta));
  static const Crc crc;
  if (crc.of(bytes + kHeader, size - kHeader) != head[4])
    fail_damaged("the checksum is wrong");
  read_program(WordReader(bytes + kHeader, words), to);
  to.weight_count = int64_t(weights);
  to.weights = AlignedBuffer(int64_t(weights + 2 * kSlack) * 4);
  if (weights)
    memcpy(to.weights.begin() + kSlack * 4, bytes + weights_at, weights * 4);
  to.meta.assign(bytes + meta_at, meta);
  Program& p = to.program;
  p.values = to.values.data();
  p.value_count = int64_t(to.values.size());
  p.sets = to.sets.data();
  p.set_count = int64_t(to.sets.size());
  p.ops = to.ops.data();
  p.op_count = int64_t(to.ops.size());
  p.weights = (const float*)to.weights.begin() + kSlack;
  p.bfloat16 = head[5] == 1;
}

}  // namespace fgc
