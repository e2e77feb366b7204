/*
 * Where do event groups end in a binary log (binlog) that grows?
 *
 * A binlog only ever grows: what has been written is final. The scanner walks
 * from event to event, checks that each stands where it says that it stands,
 * and says how far the log may be given to others: to the end of a unit (a
 * group, a file's magic bytes, or an event outside of any group), or, in a
 * group that is longer than the bytes at hand, to a place inside it.
 * borealis/engines/mariadb/binlogscan.py is its twin in Python.
 */
#ifndef BOREALIS_BINLOGSCAN_H
#define BOREALIS_BINLOGSCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Why a scan stopped where it did. */
enum binlogscan_stop {
    BINLOGSCAN_NEED_MORE = 0, /* at the end of the bytes */
    BINLOGSCAN_BAD_EVENT = 1, /* what follows is no event that can stand there */
    BINLOGSCAN_MISPLACED = 4, /* the buffer does not contain the scanner's position */
};

/* Where in a group an event stands. */
enum binlogscan_state {
    BINLOGSCAN_NONE = 0,        /* between groups */
    BINLOGSCAN_STANDALONE = 1,  /* in a group that ends with its first statement */
    BINLOGSCAN_TRANSACTION = 2, /* in a group that ends with a commit, rollback or prepare */
};

/* All of the scanner; the caller provides the memory and may copy it. borealis/volume/nativelib.py has its twin. */
struct binlogscan {
    uint64_t position;   /* bytes below are settled and not needed again */
    uint64_t record_end; /* end of the last unit; 0 = none yet */
    uint64_t boundary;   /* last place inside a group at which the log was cut; 0 = none yet */
    uint64_t units;      /* so far */
    uint32_t state;      /* enum binlogscan_state: at `position`, or behind the event that it lies in */
    uint32_t left;       /* bytes of that event from `position` on; 0 = it lies between events */
    uint32_t file_start; /* LSN of the file's first byte, modulo 2^32 like what events say of their place */
    uint32_t file_known; /* `file_start` is known */
    uint32_t stop;       /* enum binlogscan_stop, of the last scan */
    uint32_t pad;
};

/* `position`: the end of a unit. */
void binlogscan_init(struct binlogscan *scan, uint64_t position);

/*
 * `bytes` holds the log from LSN `lsn` on; lsn <= scan->position. Nothing at or
 * above `limit` is looked at: the log was written up to there before the bytes
 * were read. When the bytes end below it and no unit ends in them, the scanner
 * goes on to a place inside a group; 4 KiB are always enough for that.
 * Returns scan->position; the caller may give away the log up to there.
 */
uint64_t binlogscan_scan(struct binlogscan *scan, const unsigned char *bytes, size_t length, uint64_t lsn,
                         uint64_t limit);

/* `position` is the end of a unit, not a place inside a group. */
bool binlogscan_between_groups(const struct binlogscan *scan);

#endif
