// The kernel table of the bfloat16 convs.
#define FGC_PAIRS 1
#include "conv_pairs.h"
#include "peak.h"

namespace fgc {
namespace {

double pairs_peak(double seconds) { return 2 * peak(seconds); }

}  // namespace

extern const Kernel kernel_bfloat16;
const Kernel kernel_bfloat16 = {supports_pairs, prepare_pairs, run_pairs,
                                nullptr, pairs_peak};
}  // namespace fgc
