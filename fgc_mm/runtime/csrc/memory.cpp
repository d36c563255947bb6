// Allocation of buffers for models and runs.
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <new>

#include "model.h"

namespace fgc {

namespace {

// Larger buffers use huge pages: weights that are read with large strides
// would cause many TLB misses otherwise.
constexpr uintptr_t kHugePage = 2 << 20;

char* aligned(void* at, uintptr_t to) {
  return (char*)(((uintptr_t)at + to - 1) / to * to);
}

}  // namespace

AlignedBuffer::AlignedBuffer(int64_t bytes) {
  if (bytes < int64_t(kHugePage)) {
    block_ = calloc(size_t(bytes) + 64, 1);
    if (!block_) throw std::bad_alloc();
    begin_ = aligned(block_, 64);
    return;
  }
  mapped_ = size_t(bytes) + 2 * kHugePage;
  void* block = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) {
    mapped_ = 0;
    throw std::bad_alloc();
  }
  block_ = block;
  begin_ = aligned(block, kHugePage);
#ifdef MADV_HUGEPAGE
  madvise(block_, mapped_, MADV_HUGEPAGE);  // only a hint
#endif
}

AlignedBuffer::~AlignedBuffer() {
  if (mapped_)
    munmap(block_, mapped_);
  else
    free(block_);
}

void* ModelMemory::allocate(int64_t requested) {
  bytes += requested;
  expect_memory(double(bytes));
  blocks_.emplace_back(requested + 64);
  return blocks_.back().begin();
}

void* allocate(ModelMemory& memory, int64_t bytes) {
  return memory.allocate(bytes);
}

void expect_memory(double bytes) {
  const double physical =
      double(sysconf(_SC_PHYS_PAGES)) * double(sysconf(_SC_PAGESIZE));
  if (bytes > physical)
    throw Error{FGC_NO_MEMORY, "the model needs " +
                                   std::to_string(int64_t(bytes / 1e6)) +
                                   " MB, the machine has " +
                                   std::to_string(int64_t(physical / 1e6)) +
                                   " MB: use a smaller one"};
}

}  // namespace fgc
