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

// Polls of an idle worker before it sleeps: about 0.3 milliseconds, more than
// the time between two images of a stream.
constexpr int kSpins = 10000;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

// The state of the current job in one word, so that a worker joins with one
// atomic operation: a mutex would put a thread to sleep whenever two threads
// meet at it. From the lowest bit: the number of workers that have joined,
// whether more may join, the highest index of a worker that may, and the
// number of the job.
using State = uint64_t;
constexpr State kActive = 0x7fff, kOpen = 0x8000;
constexpr int kHelpersShift = 16, kNumberShift = 32;
constexpr State kExit = ~State{0};  // the workers return

inline State number_of(State state) { return state >> kNumberShift; }

inline bool may_join(State state, int64_t index) {
  return (state & kOpen) && index <= int64_t(state >> kHelpersShift & 0xffff);
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
  alignas(64) std::atomic<State> state{0};
  // Read by the threads that have joined the job.
  int64_t count = 1;  // threads, with the calling one
  RangeFn f = nullptr;
  void* data = nullptr;
  int64_t grain = 1;
  std::unique_ptr<ItemRange[]> ranges;  // one per thread
  int64_t capacity = 0;                 // number of ranges
  std::mutex mutex;                     // of sleeping workers
  std::condition_variable wake;
  std::atomic<int64_t> sleeping{0};

  // Starts workers until there are `wanted` threads, including the calling
  // one; there are fewer if the system refuses to start more.
  void grow(int64_t wanted) {
    if (wanted > capacity) {
      ranges.reset(new ItemRange[size_t(wanted)]);
      capacity = wanted;
    }
    try {
      while (int64_t(threads.size()) < wanted - 1) {
        const int64_t index = int64_t(threads.size()) + 1;
        threads.emplace_back([this, index] { worker_loop(index); });
      }
    } catch (...) {
    }
  }

  void worker_loop(int64_t index) {
    State current = 0;
    for (;;) {
      current = wait_for_job(number_of(current));
      if (current == kExit) return;
      if (!join(current, index)) continue;
      process_items(index);
      state.fetch_sub(1, std::memory_order_release);
    }
  }

  // Waits until a job other than `seen` is published; returns the state.
  State wait_for_job(State seen) {
    State current;
    const auto published = [&] {
      current = state.load();
      return number_of(current) != seen;
    };
    for (int k = 0; k < kSpins; ++k) {
      if (published()) return current;
      pause();
    }
    std::unique_lock<std::mutex> lock(mutex);
    ++sleeping;
    wake.wait(lock, published);
    --sleeping;
    return current;
  }

  // Joins the job of `current`, unless it is closed or has enough threads.
  bool join(State current, int64_t index) {
    const State number = number_of(current);
    while (number_of(current) == number && may_join(current, index))
      if (state.compare_exchange_weak(current, current + 1,
                                      std::memory_order_acquire))
        return true;
    return false;
  }

  // Items of the thread's own range, then those left in the other ranges.
  void process_items(int64_t index) {
    for (int64_t k = 0; k < count; ++k) {
      ItemRange& range = ranges[(index + k) % count];
      for (;;) {
        const int64_t begin = range.next.fetch_add(grain);
        if (begin >= range.end) break;
        f(data, begin, std::min(begin + grain, range.end), index);
      }
    }
  }

  void partition(int64_t items) {
    const int64_t blocks = (items + grain - 1) / grain;
    for (int64_t k = 0; k < count; ++k) {
      ranges[k].next.store(blocks * k / count * grain);
      ranges[k].end = std::min(blocks * (k + 1) / count * grain, items);
    }
  }

  void publish(State next) {
    state.store(next);  // before `sleeping` is read: a worker does the reverse
    if (!sleeping.load()) return;
    { const std::lock_guard<std::mutex> lock(mutex); }
    wake.notify_all();
  }

  // Runs a job and waits until all threads that have joined it have finished.
  void run() {
    // always below the number of kExit
    const State number = (number_of(state.load()) + 1) & 0x7fffffff;
    publish(number << kNumberShift | State(count - 1) << kHelpersShift |
            kOpen);
    process_items(0);
    state.fetch_and(~kOpen);
    for (int64_t k = 0; state.load(std::memory_order_acquire) & kActive; ++k)
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
  workers_->count = threads;
  workers_->f = f;
  workers_->data = data;
  workers_->grain = grain;
  workers_->partition(items);
  workers_->run();
}

ThreadPool::~ThreadPool() {
  workers_->publish(kExit);
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
