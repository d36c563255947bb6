// A thread pool with a parallel_for over ranges of items.
#pragma once

#include <memory>
#include <mutex>

#include "program.h"

namespace fgc {

class ThreadPool {
 public:
  ThreadPool();
  ~ThreadPool();
  // Calls f for all items on up to `threads` threads, of which each gets
  // `grain` items or more; the calling thread has index 0. If another thread
  // is using the pool, the calling thread computes all items itself.
  void parallel_for(int64_t threads, int64_t items, int64_t grain, RangeFn f,
                    void* data);

 private:
  struct Workers;
  const std::unique_ptr<Workers> workers_;
  std::mutex mutex_;  // held during a parallel_for
};

}  // namespace fgc
