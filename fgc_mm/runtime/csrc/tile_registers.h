// The matrix registers of AMX: eight tiles of 16 rows of 64 bytes. Without
// AMX they are emulated, so that any machine can test what uses them.
#pragma once

#include "pairs.h"

#if defined(__AMX_BF16__) && defined(FGC_BFLOAT16_SET) && \
    !defined(FGC_ONE_BUILD)
#define FGC_AMX 1
#endif

namespace fgc {
namespace {

constexpr int64_t kTileRows = 16;   // rows of a tile: outputs, or pairs
constexpr int64_t kTileFloats = 16;  // floats, or pairs, in a row
constexpr int64_t kTileInputs = 32;  // bfloat16 numbers in a row
constexpr int64_t kTileBytes = 1024;

#ifdef FGC_AMX

// Configures the tiles of the thread; the destructor releases them.
struct TileRegisters {
  TileRegisters() {
    struct __attribute__((packed, aligned(64))) {
      uint8_t palette, start_row, reserved[14];
      uint16_t row_bytes[16];
      uint8_t rows[16];
    } config = {};
    config.palette = 1;
    for (int k = 0; k < 8; ++k) {
      config.row_bytes[k] = 64;
      config.rows[k] = kTileRows;
    }
    __asm__ volatile("" : : "r"(&config) : "memory");  // writes all of it
    _tile_loadconfig(&config);
  }
  ~TileRegisters() { _tile_release(); }
};

// Macros, since the number of a tile is part of an instruction.
#define FGC_LOAD_TILE(tile, from, step) _tile_loadd(tile, from, (step) * 4)
#define FGC_STORE_TILE(tile, to, step) _tile_stored(tile, to, (step) * 4)
#define FGC_MULTIPLY_TILES(sums, weights, pixels) \
  _tile_dpbf16ps(sums, weights, pixels)

#else

struct TileRegisters {
  TileRegisters() {}
};

inline float (*emulated_tile(int tile))[kTileFloats] {
  static thread_local float tiles[8][kTileRows][kTileFloats];
  return tiles[tile];
}

inline void load_tile(int tile, const void* from, int64_t step) {
  for (int64_t r = 0; r < kTileRows; ++r)
    memcpy(emulated_tile(tile)[r], (const float*)from + r * step, 64);
}

inline void store_tile_rows(int tile, float* to, int64_t step) {
  for (int64_t r = 0; r < kTileRows; ++r)
    memcpy(to + r * step, emulated_tile(tile)[r], 64);
}

// sums[r][x] += weights[r][k] * pixels[k][x], for both numbers of each pair.
inline void multiply_tiles(int sums, int weights, int pixels) {
  for (int64_t r = 0; r < kTileRows; ++r)
    for (int64_t k = 0; k < kTileRows; ++k)
      for (int64_t x = 0; x < kTileFloats; x += kLanes) {
        float* const sum = emulated_tile(sums)[r] + x;
        store(sum, multiply_add(
                       load(sum),
                       broadcast_weight(emulated_tile(weights)[r] + k),
                       load(emulated_tile(pixels)[k] + x)));
      }
}

#define FGC_LOAD_TILE load_tile
#define FGC_STORE_TILE store_tile_rows
#define FGC_MULTIPLY_TILES multiply_tiles

#endif

}  // namespace
}  // namespace fgc
