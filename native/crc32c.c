#include "crc32c.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "crctable.h"

#define POLYNOMIAL 0x82F63B78u /* Castagnoli, bits reversed */

static uint32_t table[8][256];

__attribute__((constructor)) static void fill_table(void) {
    crc_fill_table(table, POLYNOMIAL);
}

uint32_t crc32c_update_table(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    for (; length >= 8; length -= 8, at += 8) {
        uint64_t word = crc_load_little_endian(at) ^ crc;
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
        wide = __builtin_ia32_crc32di(wide, crc_load_little_endian(at));
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
