/*
 * What both CRCs (crc32.c, crc32c.c) take eight bytes at a time with. Each
 * file that includes this has a table of its own, filled for its polynomial.
 */
#ifndef BOREALIS_CRCTABLE_H
#define BOREALIS_CRCTABLE_H

#include <stdint.h>
#include <string.h>

/* Slicing by 8: table[k][b] is the CRC of byte b followed by k zero bytes. `polynomial`: bits reversed. */
static inline void crc_fill_table(uint32_t table[8][256], uint32_t polynomial) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ polynomial : crc >> 1;
        table[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++)
            table[k][byte] = table[k - 1][byte] >> 8 ^ table[0][table[k - 1][byte] & 0xFF];
}

static inline uint64_t crc_load_little_endian(const unsigned char *bytes) {
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

#endif
