#include "team.h"

#include <unistd.h>

#include <algorithm>
#include <memory>

namespace fgc {

namespace {

// Turns of an idle thread before it sleeps: some 20 microseconds.
constexpr int kSpins = 2000;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

struct Team::Crew {
  // Neighbouring items, which one thread begins with and others finish: so in
  // the next op a thread finds the channels that it wrote in its own cache.
  struct alignas(64) Part {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  pid_t process = getpid();
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<int64_t> jobs{0};  // that were given out; -1: go home
  int64_t sleeping = 0;
  // The present job; guarded by the mutex.
  bool open = false;
  int64_t wanted = 0;
  // Read by those who entered.
  PartFn f = nullptr;
  void* data = nullptr;
  int64_t grain = 1;
  std::unique_ptr<Part[]> parts;  // one of each thread, `room` in all
  int64_t room = 0;
  std::atomic<int64_t> inside{0};

  // For so many threads with the calling one; there are fewer where the
  // system grants no more.
  void grow(int64_t count) {
    if (count > room) {
      parts.reset(new Part[size_t(count)]);
      room = count;
    }
    try {
      while (int64_t(threads.size()) < count - 1) {
        const int64_t number = int64_t(threads.size()) + 1;
        threads.emplace_back([this, number] { live(number); });
      }
    } catch (...) {
    }
  }

  void live(int64_t number) {
    int64_t seen = 0;
    for (;;) {
      seen = wait(seen);
      if (seen < 0) return;
      {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!open || number > wanted) continue;
        inside.fetch_add(1);
      }
      work(number);
      inside.fetch_sub(1);
    }
  }

  // The number of the job that came after `seen`.
  int64_t wait(int64_t seen) {
    for (int k = 0; k < kSpins; ++k) {
      const int64_t at = jobs.load();
      if (at != seen) return at;
      pause();
    }
    std::unique_lock<std::mutex> lock(mutex);
    ++sleeping;
    wake.wait(lock, [&] { return jobs.load() != seen; });
    --sleeping;
    return jobs.load();
  }

  void work(int64_t number) {
    const int64_t count = wanted + 1;
    for (int64_t k = 0; k < count; ++k) {
      Part& part = parts[(number + k) % count];
      for (;;) {
        const int64_t begin = part.next.fetch_add(grain);
        if (begin >= part.end) break;
        f(data, begin, std::min(begin + grain, part.end), number);
      }
    }
  }

  void divide(int64_t items, int64_t count) {
    const int64_t blocks = (items + grain - 1) / grain;
    for (int64_t k = 0; k < count; ++k) {
      parts[k].next.store(blocks * k / count * grain);
      parts[k].end = std::min(blocks * (k + 1) / count * grain, items);
    }
  }

  void give_out(int64_t job) {
    bool anyone;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      open = job >= 0;
      jobs.store(job);
      anyone = sleeping > 0;
    }
    if (anyone) wake.notify_all();
  }

  void run(int64_t count) {
    wanted = count - 1;
    give_out(jobs.load() + 1);
    work(0);
    {
      const std::lock_guard<std::mutex> lock(mutex);
      open = false;
    }
    for (int k = 0; inside.load(); ++k)
      if (k < kSpins)
        pause();
      else
        std::this_thread::yield();
  }
};

void Team::share(int64_t threads, int64_t items, int64_t grain, PartFn f,
                 void* data) {
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || threads <= 1) {
    f(data, 0, items, 0);
    return;
  }
  // after a fork the threads are the parent's: these are left behind
  if (!crew_ || crew_->process != getpid()) crew_ = new Crew;
  crew_->grow(threads);
  crew_->f = f;
  crew_->data = data;
  crew_->grain = grain;
  crew_->divide(items, threads);
  crew_->run(threads);
}

Team::~Team() {
  if (!crew_ || crew_->process != getpid()) return;
  crew_->give_out(-1);
  for (std::thread& thread : crew_->threads) thread.join();
  delete crew_;
}

void share_out(Team* team, int64_t threads, int64_t items, int64_t grain,
               PartFn f, void* data) {
  if (team)
    team->share(threads, items, grain, f, data);
  else
    f(data, 0, items, 0);
}

}  // namespace fgc
