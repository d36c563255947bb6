// Lists of channels.
#pragma once

#include <torch/extension.h>

#include <optional>

namespace fgc {

using at::Tensor;
using List = std::optional<Tensor>;

// Numbers of channels, or the first `count`.
struct Channels {
  const int64_t* numbers;
  int64_t count;

  int64_t operator[](int64_t i) const { return numbers ? numbers[i] : i; }
};

// What Python lists among so many.
inline Channels channels_of(const List& list, int64_t all) {
  if (!list) return {nullptr, all};
  TORCH_CHECK(list->scalar_type() == at::kLong && list->is_contiguous(),
              "a list of channels is int64 and contiguous");
  const Channels found{list->data_ptr<int64_t>(), list->numel()};
  for (int64_t i = 0; i < found.count; ++i)
    TORCH_CHECK(found[i] >= 0 && found[i] < all, "no channel ", found[i],
                " among ", all);
  return found;
}

}  // namespace fgc
