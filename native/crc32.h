/* CRC-32 as in zlib: the checksum of frames and of log records. */
#ifndef BOREALIS_CRC32_H
#define BOREALIS_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* As zlib's crc32(): start with 0, go on with the last result. */
uint32_t crc32_update(uint32_t crc, const void *bytes, size_t length);

#endif
