/*
 * Where do records end in PostgreSQL's log (WAL)?
 *
 * The engine writes whole 8 KiB pages; behind the last finished record a page
 * may hold zeros, records that are still being copied, or (in a recycled
 * segment) the log of long ago. The scanner follows the chain of records from
 * a known boundary, verifies each one's CRC, and says how far the log may be
 * given to others: to the end of a record, or to a page boundary below which
 * nothing changes any more.
 */
#ifndef BOREALIS_WALSCAN_H
#define BOREALIS_WALSCAN_H

#include <stddef.h>
#include <stdint.h>

#define WALSCAN_PAGE_BYTES 8192u
#define WALSCAN_SEGMENT_BYTES (16u << 20)
#define WALSCAN_RECORD_HEADER_BYTES 24u

/* Why a scan stopped where it did. */
enum walscan_stop {
    WALSCAN_NEED_MORE = 0,  /* at the end of the bytes, or of the log: zeros follow */
    WALSCAN_BAD_PAGE = 1,   /* the next page's header is not one of this log: not written yet, or damaged */
    WALSCAN_BAD_LENGTH = 2, /* no record has this length: not written yet, or damaged */
    WALSCAN_BAD_CRC = 3,    /* the record's bytes are not (yet) all there */
    WALSCAN_MISPLACED = 4,  /* the buffer does not contain the scanner's position */
};

enum walscan_phase {
    WALSCAN_BETWEEN = 0,  /* position is a record boundary */
    WALSCAN_IN_RECORD = 1, /* position is a page boundary inside a record that the scanner saw begin */
    WALSCAN_IN_TAIL = 2,  /* position is a page boundary, perhaps inside a record that began before the scan */
    WALSCAN_IN_VOID = 3,  /* behind an XLOG_SWITCH: the rest of the segment means nothing */
};

/* All of the scanner; the caller provides the memory and may copy it. borealis/volume/nativelib.py has its twin. */
struct walscan {
    /* Bytes below are settled and not needed again. A record end or a page boundary. */
    uint64_t position;
    uint64_t record_end;    /* end (aligned) of the last verified record; 0 = none yet */
    uint64_t page_boundary; /* last page boundary below which all is final; 0 = none yet */
    uint64_t record_start;  /* of the record that `position` lies in (WALSCAN_IN_RECORD), else of the last one; 0 = none */
    uint64_t records;       /* verified so far */
    uint32_t timeline;      /* pages may carry this timeline or, before its switch point, an older one */
    uint32_t page_timeline; /* of the last page header: timelines never go down */
    uint32_t phase;         /* enum walscan_phase */
    uint32_t left;          /* bytes of the record still to come (WALSCAN_IN_RECORD) */
    uint32_t taken;         /* bytes of the record seen (WALSCAN_IN_RECORD) */
    uint32_t crc;           /* of the record's data so far, without its header */
    uint32_t stop;          /* enum walscan_stop, of the last scan */
    unsigned char header[WALSCAN_RECORD_HEADER_BYTES]; /* of the record in progress */
};

/*
 * `position` is a page boundary or a known record boundary. At a page boundary
 * in the middle of a record, the record's tail is taken as it is: PostgreSQL
 * writes a page only after all records that begin on earlier pages are complete.
 */
void walscan_init(struct walscan *scan, uint64_t position, uint32_t timeline);

/*
 * `bytes` holds the log from LSN `lsn` on; lsn <= scan->position. Nothing at or
 * above `limit` is looked at: the end of the last page that was written before
 * the bytes were read (all pages below it have been written at least once).
 * Returns scan->position; the caller may give away the log up to there.
 */
uint64_t walscan_scan(struct walscan *scan, const unsigned char *bytes, size_t length, uint64_t lsn, uint64_t limit);

#endif
