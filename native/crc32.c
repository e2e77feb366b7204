#include "crc32.h"

#include "crctable.h"

#define POLYNOMIAL 0xEDB88320u /* zlib's, bits reversed */

static uint32_t table[8][256];

__attribute__((constructor)) static void fill_table(void) {
    crc_fill_table(table, POLYNOMIAL);
}

uint32_t crc32_update(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    crc = ~crc;
    for (; length >= 8; length -= 8, at += 8) {
        uint64_t word = crc_load_little_endian(at) ^ crc;
        crc = table[7][word & 0xFF] ^ table[6][word >> 8 & 0xFF] ^ table[5][word >> 16 & 0xFF] ^
              table[4][word >> 24 & 0xFF] ^ table[3][word >> 32 & 0xFF] ^ table[2][word >> 40 & 0xFF] ^
              table[1][word >> 48 & 0xFF] ^ table[0][word >> 56];
    }
    for (; length > 0; length--, at++)
        crc = crc >> 8 ^ table[0][(crc ^ *at) & 0xFF];
    return ~crc;
}
