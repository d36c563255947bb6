// Sharing out the items of a loop to threads.
#pragma once

#include <ATen/Parallel.h>

namespace fgc {

// Whether the calling thread keeps its work for itself: waking another one,
// and fetching what it wrote, may cost more than it saves.
inline bool& alone() {
  static thread_local bool is = false;
  return is;
}

inline int64_t threads_at_hand() {
  return alone() || at::in_parallel_region() ? 1 : at::get_num_threads();
}

// f(begin, end) over parts of at least `grain` items.
template <class F>
void share_out(int64_t begin, int64_t end, int64_t grain, const F& f) {
  if (alone()) {
    if (begin < end) f(begin, end);
    return;
  }
  at::parallel_for(begin, end, grain, f);
}

}  // namespace fgc
