// CRC-32 as in zlib, eight bytes per step.
#pragma once

#include <stdint.h>
#include <string.h>

namespace fgc {

struct Crc {
  uint32_t table[8][256];
  Crc() {
    for (uint32_t k = 0; k < 256; ++k) {
      uint32_t value = k;
      for (int bit = 0; bit < 8; ++bit)
        value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
      table[0][k] = value;
    }
    for (int t = 1; t < 8; ++t)
      for (uint32_t k = 0; k < 256; ++k)
        table[t][k] =
            table[t - 1][k] >> 8 ^ table[0][table[t - 1][k] & 255];
  }
  uint32_t of(const char* from, uint64_t size) const {
    const unsigned char* p = (const unsigned char*)from;
    uint32_t crc = ~0u;
    for (; size >= 8; size -= 8, p += 8) {
      uint32_t a, b;
      memcpy(&a, p, 4);
      memcpy(&b, p + 4, 4);
      a ^= crc;
      crc = table[7][a & 255] ^ table[6][a >> 8 & 255] ^
            table[5][a >> 16 & 255] ^ table[4][a >> 24] ^
            table[3][b & 255] ^ table[2][b >> 8 & 255] ^
            table[1][b >> 16 & 255] ^ table[0][b >> 24];
    }
    for (; size; --size, ++p) crc = crc >> 8 ^ table[0][(crc ^ *p) & 255];
    return ~crc;
  }
};

}  // namespace fgc
