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
#include "thread_pool.h"

namespace fgc {

// An error code, and one sentence.
struct Error {
  int code;
  std::string text;
};

// Zeros, aligned to 64 bytes; pages that are never touched cost nothing.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(int64_t bytes);
  AlignedBuffer(AlignedBuffer&& other) { swap(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) {
    swap(other);
    return *this;
  }
  ~AlignedBuffer();
  char* begin() const { return begin_; }

 private:
  void swap(AlignedBuffer& other) {
    std::swap(block_, other.block_);
    std::swap(begin_, other.begin_);
    std::swap(mapped_, other.mapped_);
  }
  void* block_ = nullptr;
  char* begin_ = nullptr;
  size_t mapped_ = 0;  // bytes of a mapping, or 0
};

class ModelMemory {
 public:
  void* allocate(int64_t bytes);
  int64_t bytes = 0;  // of all that was taken

 private:
  std::vector<AlignedBuffer> blocks_;
};

// The program of a file, and what its pointers point to.
struct LoadedProgram {
  Program program = {};
  std::vector<Value> values;
  std::vector<int64_t> sets;
  std::vector<Op> ops;
  std::vector<int64_t> outputs;
  int64_t records = 0;
  AlignedBuffer weights;
  int64_t weight_count = 0;
  std::string meta;
  ModelMemory memory;
};

// A context and its memory.
struct RunContext {
  Context context = {};
  int64_t threads = 0;
  AlignedBuffer arena, image, lists, shared_scratch, thread_scratch;
  std::vector<int64_t*> list_pointers;
  std::vector<int64_t> counts;
};

// Memory of so many bytes that a machine may have, or an Error.
void expect_memory(double bytes);

// Reads a file's bytes; throws Error.
void load(const char* bytes, uint64_t size, LoadedProgram& to);

// Throws an Error unless all that the ops read and write exists.
void check(const LoadedProgram& loaded);

// A kernel under its name.
struct Build {
  const char* name;
  const Kernel* kernel;
};

// The builds that this CPU can run, best first.
const std::vector<Build>& runnable_builds();
// The one of that name, or null; the best if the name is null.
const Build* find_build(const char* name);
// The convs of bfloat16; null: this CPU does not multiply it.
const Build* bfloat16_build();

}  // namespace fgc

struct fgc_model {
  fgc::LoadedProgram loaded;
  const fgc::Build* build = nullptr;
  int64_t shared_bytes = 0, thread_bytes = 0;
  mutable fgc::ThreadPool thread_pool;
  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<fgc::RunContext>> idle_contexts;
};
