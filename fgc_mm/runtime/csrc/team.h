// Threads that wait for parts of an op.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "program.h"

namespace fgc {

class Team {
 public:
  Team() = default;
  ~Team();
  // f over all items, on so many threads; the calling one is number 0. Alone
  // if another thread has the team just now.
  void share(int64_t threads, int64_t items, int64_t grain, PartFn f,
             void* data);

 private:
  struct Crew;
  Crew* crew_ = nullptr;
  std::mutex mutex_;  // who has the crew
};

}  // namespace fgc
