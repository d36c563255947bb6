// The kernel table of the bfloat16 convs with AMX.
#define FGC_PAIRS 1
#include "conv_tiles.h"
#include "peak.h"

namespace fgc {
namespace {

double tiles_peak(double seconds) {
  constexpr int64_t kSteps = 8, kRuns = 100;
  TileConvPlan plan = {};
  plan.gathers = true;
  plan.layout.tap_count = kSteps * kTileRows;
  const TileSteps steps(plan, 2);
  static uint16_t weights[kBlockTiles * kSteps * kTileBytes / 2];
  static float pixels[kBlockTiles * kSteps * kTileBytes / 4];
  float start[kBlockTiles * kTileBytes / 4] = {}, sums[4 * kTileBytes / 4];
  const OpenInputs ins = {2, nullptr, nullptr, 0};
  const TileConv conv{plan, steps, ins, nullptr};
  const TileRegisters registers;
  return best_rate(double(kRuns * kSteps * 4 * 16 * 16 * 32), seconds, [&] {
    for (int64_t r = 0; r < kRuns; ++r) {
      multiply_block<2, 2>(conv, weights, 0, pixels, start, sums,
                           kBlockTiles * kTileFloats);
      __asm__ volatile("" : : "r"(sums) : "memory");
    }
  });
}

}  // namespace

extern const Kernel kernel_amx;
const Kernel kernel_amx = {supports_tiles, prepare_tiles, run_tiles, nullptr,
                           tiles_peak};
}  // namespace fgc
