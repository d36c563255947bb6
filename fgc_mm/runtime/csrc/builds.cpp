// Selects the builds that this CPU can run, and orders them by speed.
#include <string.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>

#include "model.h"

namespace fgc {

// FGC_ONE_BUILD: the library contains a single kernel table besides bfloat16,
// for the instruction sets of the compiler options.
#if defined(__x86_64__) && !defined(FGC_ONE_BUILD)
#define FGC_X86 1
#endif

extern const Kernel kernel_baseline;
#ifdef FGC_X86
extern const Kernel kernel_avx, kernel_avx2, kernel_avx512,
    kernel_avx512_256;
#endif
#if defined(FGC_X86) || defined(FGC_ONE_BUILD)
#define FGC_BFLOAT16 1
extern const Kernel kernel_bfloat16, kernel_amx;
#endif

namespace {

struct Candidate {
  Build build;
  int level;    // rank of its instruction sets
  double peak;  // measured rate; decides between builds of the same level
};

#ifdef FGC_X86
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

// Whether the CPU has AMX for bfloat16, and Linux lets this process use it.
bool has_amx() {
#ifdef SYS_arch_prctl
  constexpr unsigned kBfloat16 = 1 << 22, kTiles = 1 << 24;
  constexpr long kRequest = 0x1023, kTileData = 18;  // of arch_prctl
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & kBfloat16 &&
         d & kTiles && !syscall(SYS_arch_prctl, kRequest, kTileData);
#else
  return false;  // other systems are not asked yet
#endif
}
#endif

// Minimum speedup of 512-bit over 256-bit vectors: CPUs that execute 512-bit
// instructions as two halves gain nothing from 16 lanes, and small maps leave
// more lanes unused.
constexpr double kMinWideGain = 1.3;

// Minimum speedup of bfloat16 over float32 products: its pixels and weights
// are packed for every image, and some CPUs multiply it at half the rate.
constexpr double kMinBfloat16Gain = 1.3;

// Measures builds of the same level alternately, since the load by other
// processes varies; a few milliseconds in total.
void measure(std::vector<Candidate>& all) {
  for (int trial = 0; trial < 3; ++trial)
    for (Candidate& one : all)
      for (const Candidate& other : all)
        if (&one != &other && one.level == other.level)
          one.peak = std::max(one.peak, one.build.kernel->peak(7e-4));
  for (Candidate& one : all)
    if (!strcmp(one.build.name, "avx512")) one.peak /= kMinWideGain;
}

std::vector<Build> find_builds() {
  std::vector<Candidate> all = {{{"baseline", &kernel_baseline}, 0, 0}};
#ifdef FGC_X86
  __builtin_cpu_init();
  const bool fma =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (__builtin_cpu_supports("avx"))
    all.push_back({{"avx", &kernel_avx}, 1, 0});
  if (fma) all.push_back({{"avx2", &kernel_avx2}, 2, 0});
  if (fma && has_avx512()) {
    all.push_back({{"avx512", &kernel_avx512}, 3, 0});
    all.push_back({{"avx512-256", &kernel_avx512_256}, 3, 0});
  }
#endif
  measure(all);
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) {
                     return a.level != b.level ? a.level > b.level
                                               : a.peak > b.peak;
                   });
  std::vector<Build> found;
  for (const Candidate& one : all) found.push_back(one.build);
  return found;
}

}  // namespace

const std::vector<Build>& runnable_builds() {
  static const std::vector<Build> builds = find_builds();
  return builds;
}

const std::vector<Build>& bfloat16_builds() {
  static const std::vector<Build> builds = [] {
    std::vector<Build> found;
#if defined(FGC_X86)
    __builtin_cpu_init();
    if (has_avx512() && __builtin_cpu_supports("avx512bf16") &&
        __builtin_cpu_supports("avx512vbmi2")) {
      if (has_amx()) found.push_back({"bfloat16-amx", &kernel_amx});
      found.push_back({"bfloat16-avx512", &kernel_bfloat16});
    }
#elif defined(FGC_BFLOAT16)
    found = {{"bfloat16-avx512", &kernel_bfloat16},
             {"bfloat16-amx", &kernel_amx}};
#endif
    return found;
  }();
  return builds;
}

const Build* find_bfloat16_build(const char* name) {
  // AMX is requested only if bfloat16 is
  if (strncmp(name, "bfloat16", 8)) return nullptr;
  for (const Build& build : bfloat16_builds())
    if (!strcmp(name, "bfloat16") || !strcmp(name, build.name)) return &build;
  return nullptr;
}

bool bfloat16_pays() {
  static const bool pays = [] {
    const Build* const half = find_bfloat16_build("bfloat16");
    const Build* const whole = find_build(nullptr);
    double rates[2] = {0, 0};
    for (int trial = 0; half && trial < 3; ++trial) {
      rates[0] = std::max(rates[0], whole->kernel->peak(7e-4));
      rates[1] = std::max(rates[1], half->kernel->peak(7e-4));
    }
    return half && rates[1] >= kMinBfloat16Gain * rates[0];
  }();
  return pays;
}

const Build* find_build(const char* name) {
  for (const Build& build : runnable_builds())
    if (!name || !strcmp(name, build.name)) return &build;
  return nullptr;
}

}  // namespace fgc
