// The worker threads of the pool: they spin briefly, then sleep, until a job
// is published, and take chunks of its items with atomic counters.
#include "thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <thread>
#include <vector>

namespace fgc {

namespace {

// Polls of an idle worker before it sleeps: about 20 microseconds.
constexpr int kSpins = 2000;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

struct ThreadPool::Workers {
  // Contiguous items that are assigned to one thread first and may be taken
  // by the others at the end: from op to op a thread mostly computes the same
  // channels, which its own cache then holds.
  struct alignas(64) ItemRange {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<int64_t> job{0};  // number of the last published one; -1: exit
  int64_t sleeping = 0;
  // State of the current job, guarded by the mutex.
  bool accepting = false;  // workers may still join
  int64_t helpers = 0;     // highest index of a worker that may join
  // Read by the threads that have joined the job.
  RangeFn f = nullptr;
  void* data = nullptr;
  int64_t grain = 1;
  std::unique_ptr<ItemRange[]> ranges;  // one per thread
  int64_t capacity = 0;                 // number of ranges
  std::atomic<int64_t> active{0};       // workers that have joined

  // Starts workers until there are `count` threads, including the calling
  // one; there are fewer if the system refuses to start more.
  void grow(int64_t count) {
    if (count > capacity) {
      ranges.reset(new ItemRange[size_t(count)]);
      capacity = count;
    }
    try {
      while (int64_t(threads.size()) < count - 1) {
        const int64_t index = int64_t(threads.size()) + 1;
        threads.emplace_back([this, index] { worker_loop(index); });
      }
    } catch (...) {
    }
  }

  void worker_loop(int64_t index) {
    int64_t seen = 0;
    for (;;) {
      seen = wait_for_job(seen);
      if (seen < 0) return;
      {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!accepting || index > helpers) continue;
        active.fetch_add(1);
      }
      process_items(index);
      active.fetch_sub(1);
    }
  }

  // Waits until a job other than `seen` is published; returns its number.
  int64_t wait_for_job(int64_t seen) {
    for (int k = 0; k < kSpins; ++k) {
      const int64_t current = job.load();
      if (current != seen) return current;
      pause();
    }
    std::unique_lock<std::mutex> lock(mutex);
    ++sleeping;
    wake.wait(lock, [&] { return job.load() != seen; });
    --sleeping;
    return job.load();
  }

  // Items of the thread's own range, then those left in the other ranges.
  void process_items(int64_t index) {
    const int64_t count = helpers + 1;
    for (int64_t k = 0; k < count; ++k) {
      ItemRange& range = ranges[(index + k) % count];
      for (;;) {
        const int64_t begin = range.next.fetch_add(grain);
        if (begin >= range.end) break;
        f(data, begin, std::min(begin + grain, range.end), index);
      }
    }
  }

  void partition(int64_t items, int64_t count) {
    const int64_t blocks = (items + grain - 1) / grain;
    for (int64_t k = 0; k < count; ++k) {
      ranges[k].next.store(blocks * k / count * grain);
      ranges[k].end = std::min(blocks * (k + 1) / count * grain, items);
    }
  }

  // Publishes a job, or -1: the workers exit.
  void publish(int64_t number) {
    bool notify;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      accepting = number >= 0;
      job.store(number);
      notify = sleeping > 0;
    }
    if (notify) wake.notify_all();
  }

  // Runs a job on `count` threads and waits until all of them have finished.
  void run(int64_t count) {
    helpers = count - 1;
    publish(job.load() + 1);
    process_items(0);
    {
      const std::lock_guard<std::mutex> lock(mutex);
      accepting = false;
    }
    for (int k = 0; active.load(); ++k)
      if (k < kSpins)
        pause();
      else
        std::this_thread::yield();
  }
};

ThreadPool::ThreadPool() : workers_(new Workers) {}

void ThreadPool::parallel_for(int64_t threads, int64_t items, int64_t grain,
                              RangeFn f, void* data) {
  threads = std::min(threads, (items + grain - 1) / grain);
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || threads <= 1) {
    f(data, 0, items, 0);
    return;
  }
  workers_->grow(threads);
  workers_->f = f;
  workers_->data = data;
  workers_->grain = grain;
  workers_->partition(items, threads);
  workers_->run(threads);
}

ThreadPool::~ThreadPool() {
  workers_->publish(-1);
  for (std::thread& thread : workers_->threads) thread.join();
}

void parallel_for(ThreadPool* pool, int64_t threads, int64_t items,
                  int64_t grain, RangeFn f, void* data) {
  if (pool)
    pool->parallel_for(threads, items, grain, f, data);
  else
    f(data, 0, items, 0);
}

}  // namespace fgc
