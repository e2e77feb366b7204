/* CRC-32C (Castagnoli), as PostgreSQL computes it for its log records. */
#ifndef BOREALIS_CRC32C_H
#define BOREALIS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#define CRC32C_INIT 0xFFFFFFFFu

/* Raw form: start with CRC32C_INIT, feed pieces, invert the last value. */
uint32_t crc32c_update(uint32_t crc, const void *bytes, size_t length);

/* The same without the processor's instruction; for tests. */
uint32_t crc32c_update_table(uint32_t crc, const void *bytes, size_t length);

#endif
