#include "crc32c.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#define POLYNOMIAL 0x82F63B78u /* Castagnoli, bits reversed */

/* Slicing by 8: table[k][b] is the CRC of byte b followed by k zero bytes. */
static uint32_t table[8][256];

__attribute__((constructor)) static void fill_table(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        table[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++)
            table[k][byte] = table[k - 1][byte] >> 8 ^ table[0][table[k - 1][byte] & 0xFF];
}

static uint64_t load_little_endian(const unsigned char *bytes) {
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

uint32_t crc32c_update_table(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    for (; length >= 8; length -= 8, at += 8) {
        uint64_t word = load_little_endian(at) ^ crc;
        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= table[7 - k][word >> (8 * k) & 0xFF];
    }
    for (; length > 0; length--, at++)
        crc = crc >> 8 ^ table[0][(crc ^ *at) & 0xFF];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t update_sse42(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    uint64_t wide = crc;
    for (; length >= 8; length -= 8, at += 8)
        wide = __builtin_ia32_crc32di(wide, load_little_endian(at));
    crc = (uint32_t)wide;
    for (; length > 0; length--, at++)
        crc = __builtin_ia32_crc32qi(crc, *at);
    return crc;
}

static bool has_sse42(void) {
    return __builtin_cpu_supports("sse4.2");
}
#else
static uint32_t update_sse42(uint32_t crc, const void *bytes, size_t length) {
    return crc32c_update_table(crc, bytes, length);
}

static bool has_sse42(void) {
    return false;
}
#endif

uint32_t crc32c_update(uint32_t crc, const void *bytes, size_t length) {
    return has_sse42() ? update_sse42(crc, bytes, length) : crc32c_update_table(crc, bytes, length);
}
