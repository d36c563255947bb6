// The loaded model and its memory. Included only by files that are compiled
// for the baseline: the linker may merge inline functions, which must not use
// other instruction sets.
#pragma once

#include <stdint.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "fgc.h"
#include "program.h"
#include "thread_pool.h"

namespace fgc {

// An error code of fgc.h, and the message.
struct Error {
  int code;
  std::string text;
};

// A zeroed buffer, aligned to 64 bytes. Pages that are never accessed use no
// physical memory.
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
  size_t mapped_ = 0;  // size of the mmap, or 0
};

// Memory that is freed with the model, for plans and repacked weights.
class ModelMemory {
 public:
  void* allocate(int64_t bytes);
  int64_t bytes = 0;  // total of all allocations

 private:
  std::vector<AlignedBuffer> blocks_;
};

// The program of a file, and the arrays that it points to.
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

inline int64_t element_count(const Value& v) {
  return v.channels * v.height * v.width;
}

// The context of a run, and the buffers that it points to.
struct RunContext {
  Context context = {};
  int64_t threads = 0;
  AlignedBuffer arena, image, lists, shared_scratch, thread_scratch;
  std::vector<int64_t*> list_pointers;
  std::vector<int64_t> counts;
};

// The threads and the unused contexts of a model in one process.
struct RunState {
  const pid_t process = getpid();
  ThreadPool thread_pool;
  std::mutex mutex;
  std::vector<std::unique_ptr<RunContext>> idle_contexts;
};

// Throws an Error if `bytes` exceeds the physical memory.
void expect_memory(double bytes);

// Parses the bytes of a file; throws an Error.
void load(const char* bytes, uint64_t size, LoadedProgram& to);

// Validates all indices, offsets and shapes; throws an Error.
void check(const LoadedProgram& loaded);

// A kernel table and its name.
struct Build {
  const char* name;
  const Kernel* kernel;
};

// Builds that this CPU can run, fastest first.
const std::vector<Build>& runnable_builds();
// The build of this name, or null; the fastest if the name is null.
const Build* find_build(const char* name);
// Builds of the bfloat16 convs that this CPU can run, fastest first.
const std::vector<Build>& bfloat16_builds();
// The one of this name, or null; the fastest if the name is "bfloat16".
const Build* find_bfloat16_build(const char* name);
// Whether there is one that is enough faster than the convs of float32.
bool bfloat16_pays();

}  // namespace fgc

struct fgc_model {
  fgc::LoadedProgram loaded;
  const fgc::Build* build = nullptr;
  int64_t shared_bytes = 0, thread_bytes = 0;

  fgc_model() = default;
  ~fgc_model();
  // That of the calling process. A forked child leaves the parent's alone:
  // its threads exist only there, and one may have held a mutex.
  fgc::RunState& run_state() const;

 private:
  mutable std::atomic<fgc::RunState*> run_state_{new fgc::RunState};
};
