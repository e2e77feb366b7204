/*
 * Which files are the engine's log, and which open file descriptors of this
 * process lead to one.
 */
#ifndef BOREALIS_LOGFILES_H
#define BOREALIS_LOGFILES_H

#include <stdbool.h>
#include <stdint.h>

enum log_kind {
    LOG_NONE = 0,
    LOG_PGWAL,  /* pg_wal/<timeline><log><segment>, 24 hexadecimal digits, 16 MiB each */
    LOG_BINLOG, /* <basename>.<number> */
};

/* Where a log file lies in the log. */
struct log_place {
    uint64_t start;    /* LSN of the file's first byte. PostgreSQL: the WAL position.
                        * Binlog: file number << BINLOG_OFFSET_BITS. */
    uint32_t timeline; /* PostgreSQL: of the file's name. Binlog: 0. */
};

#define PG_SEGMENT_BYTES (16ull << 20)
#define BINLOG_OFFSET_BITS 40

/* Reads "pgwal" or "binlog:<basename>"; false when it is neither. Copies the text. */
bool logfiles_configure(const char *kind);

/* The log's files only ever grow (binlog); those of the other kind are written over again and again. */
bool logfiles_only_grow(void);

/* True when this path names a log file. `fd` is open on it and decides when
 * the path alone does not show the directory. */
bool logfiles_match(const char *path, int fd, struct log_place *place);

/* Cheap: true when the last part of the path looks like a log file's name. */
bool logfiles_name_like(const char *path);

/* The table of descriptors. All calls are safe from any thread. */
void fds_opened(int fd);                     /* a new descriptor, not (yet) known as a log file */
bool fds_set(int fd, struct log_place place); /* false: the number is beyond the table */
void fds_clear(int fd);
int fds_clear_range(unsigned first, unsigned last); /* how many led to a log file */
bool fds_copy(int from, int to); /* `to` now leads where `from` leads; false as fds_set */
bool fds_get(int fd, struct log_place *place);
/* A file was renamed to `path`: descriptors of this process that are open on
 * it now lead to the place of the new name. */
bool fds_renamed(const char *path);

#endif
