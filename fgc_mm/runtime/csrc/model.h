// A loaded model. For the baseline's files alone: what is inline here must
// not be compiled for other instruction sets.
#pragma once

#include <stdint.h>
#include <stdlib.h>

#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "fgc.h"
#include "program.h"
#include "team.h"

namespace fgc {

// An error code, and one sentence.
struct Error {
  int code;
  std::string text;
};

// Zeros, aligned to 64 bytes; pages that are never touched cost nothing.
class Memory {
 public:
  Memory() = default;
  explicit Memory(int64_t bytes);
  Memory(Memory&& other) { swap(other); }
  Memory& operator=(Memory&& other) {
    swap(other);
    return *this;
  }
  ~Memory();
  char* begin() const { return begin_; }

 private:
  void swap(Memory& other) {
    std::swap(block_, other.block_);
    std::swap(begin_, other.begin_);
    std::swap(mapped_, other.mapped_);
  }
  void* block_ = nullptr;
  char* begin_ = nullptr;
  size_t mapped_ = 0;  // bytes of a mapping, or 0
};

class Keep {
 public:
  void* take(int64_t bytes);
  int64_t bytes = 0;  // of all that was taken

 private:
  std::vector<Memory> blocks_;
};

// The program of a file, and what its pointers point to.
struct Loaded {
  Program program = {};
  std::vector<Value> values;
  std::vector<int64_t> sets;
  std::vector<Op> ops;
  std::vector<int64_t> outputs;
  int64_t records = 0;
  Memory weights;
  int64_t weight_count = 0;
  std::string meta;
  Keep keep;
};

// A context and its memory.
struct Lease {
  Context context = {};
  int64_t threads = 0;
  Memory arena, image, lists, shared, own;
  std::vector<int64_t*> starts;
  std::vector<int64_t> counts;
};

// Memory of so many bytes that a machine may have, or an Error.
void expect_memory(double bytes);

// Reads a file's bytes; throws Error.
void load(const char* bytes, uint64_t size, Loaded& to);

// Throws an Error unless all that the ops read and write exists.
void check(const Loaded& loaded);

// A kernel under its name.
struct Build {
  const char* name;
  const Kernel* kernel;
};

// The builds that this CPU can run, best first.
const std::vector<Build>& runnable_builds();
// The one of that name, or null; the best if the name is null.
const Build* build_of(const char* name);
// The convs of bfloat16; null: this CPU does not multiply it.
const Build* bfloat16_build();

}  // namespace fgc

struct fgc_model {
  fgc::Loaded loaded;
  const fgc::Build* build = nullptr;
  int64_t shared_bytes = 0, own_bytes = 0;
  mutable fgc::Team team;
  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<fgc::Lease>> idle;
};
