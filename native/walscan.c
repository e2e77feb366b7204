#include "walscan.h"

#include <stdbool.h>
#include <string.h>

#include "crc32c.h"

#define PAGE WALSCAN_PAGE_BYTES
#define RECORD_HEADER WALSCAN_RECORD_HEADER_BYTES
#define CRC_OFFSET 20u /* of xl_crc in the record header: its last field */
#define SHORT_PAGE_HEADER 24u
#define LONG_PAGE_HEADER 40u /* on the first page of each segment */
#define RECORD_BYTES_MAX (1u << 30)

/* Page header: u16 magic, u16 info, u32 timeline, u64 page address, u32 remaining length, 4 bytes of padding. */
#define INFO_CONTINUES 0x0001u      /* begins with the rest of a record */
#define INFO_LONG_HEADER 0x0002u
#define INFO_OVERWRITES 0x0008u     /* the record that was to continue here was given up */
#define INFO_ALL 0x000Fu

/* Record header: u32 length, u32 xid, u64 previous record, u8 info, u8 resource manager, 2 bytes of padding, u32 CRC. */
#define RMGR_XLOG 0u
#define XLOG_SWITCH 0x40u

/*
 * One scan. It works on `now`, a copy of the scanner, and knows only later
 * whether what it read was final. At each boundary that is certain, the copy
 * becomes the caller's scanner; whatever came after the last one is forgotten.
 */
struct walk {
    struct walscan now;
    struct walscan *settled;
    const unsigned char *bytes;
    uint64_t start, end; /* LSNs of the bytes */
};

static uint16_t get16(const unsigned char *at) {
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const unsigned char *at) {
    return (uint32_t)get16(at) | (uint32_t)get16(at + 2) << 16;
}

static uint64_t get64(const unsigned char *at) {
    return (uint64_t)get32(at) | (uint64_t)get32(at + 4) << 32;
}

static uint64_t align8(uint64_t value) {
    return (value + 7) & ~7ull;
}

static uint64_t segment_end(uint64_t lsn) {
    return (lsn / WALSCAN_SEGMENT_BYTES + 1) * WALSCAN_SEGMENT_BYTES;
}

static uint32_t page_header_bytes(uint64_t page) {
    return page % WALSCAN_SEGMENT_BYTES == 0 ? LONG_PAGE_HEADER : SHORT_PAGE_HEADER;
}

void walscan_init(struct walscan *scan, uint64_t position, uint32_t timeline) {
    memset(scan, 0, sizeof *scan);
    scan->position = position;
    scan->timeline = timeline;
    scan->phase = position % PAGE == 0 ? WALSCAN_IN_TAIL : WALSCAN_BETWEEN;
}

static const unsigned char *at_lsn(const struct walk *walk, uint64_t lsn) {
    return walk->bytes + (lsn - walk->start);
}

/* Stops the walk. */
static bool stop(struct walk *walk, enum walscan_stop why) {
    walk->settled->stop = (uint32_t)why;
    return false;
}

/* All below `boundary` is final, because the page that begins there has been written. */
static void settle_page(struct walk *walk, uint64_t boundary, enum walscan_phase phase) {
    walk->now.position = walk->now.page_boundary = boundary;
    walk->now.phase = (uint32_t)phase;
    *walk->settled = walk->now;
}

/* A record ends at `end`, already aligned. */
static void settle_record(struct walk *walk, uint64_t end, enum walscan_phase phase) {
    walk->now.position = walk->now.record_end = end;
    walk->now.phase = (uint32_t)phase;
    *walk->settled = walk->now;
}

/* What a page's header says about the record that crosses its start. */
struct page_start {
    uint32_t rest;   /* bytes of that record on this page and later ones; 0 = none */
    bool overwrites; /* the record was given up, another one begins */
};

static bool enter_page(struct walk *walk, uint64_t page, struct page_start *start) {
    if (page + page_header_bytes(page) > walk->end)
        return stop(walk, WALSCAN_NEED_MORE);
    const unsigned char *at = at_lsn(walk, page);
    uint32_t info = get16(at + 2), timeline = get32(at + 4);
    bool is_long = (info & INFO_LONG_HEADER) != 0, continues = (info & INFO_CONTINUES) != 0;
    start->rest = get32(at + 16);
    start->overwrites = (info & INFO_OVERWRITES) != 0;
    if (get16(at) == 0 || (info & ~INFO_ALL) != 0 || get64(at + 8) != page)
        return stop(walk, WALSCAN_BAD_PAGE);
    if (timeline > walk->now.timeline || timeline < walk->now.page_timeline)
        return stop(walk, WALSCAN_BAD_PAGE);
    if (is_long != (page % WALSCAN_SEGMENT_BYTES == 0) || continues != (start->rest != 0))
        return stop(walk, WALSCAN_BAD_PAGE);
    walk->now.page_timeline = timeline;
    return true;
}

/* Takes `length` bytes of the record in progress into its header copy and its CRC. */
static void take(struct walscan *now, const unsigned char *bytes, uint32_t length) {
    now->left -= length;
    if (now->taken < RECORD_HEADER) {
        uint32_t missing = RECORD_HEADER - now->taken;
        uint32_t part = missing < length ? missing : length;
        memcpy(now->header + now->taken, bytes, part);
        now->taken += part;
        bytes += part;
        length -= part;
    }
    now->crc = crc32c_update(now->crc, bytes, length);
    now->taken += length;
}

/* All bytes of the record have been taken: its CRC decides. `end`: behind its last byte. */
static bool finish_record(struct walk *walk, uint64_t end) {
    const unsigned char *header = walk->now.header;
    if (align8(end) > walk->end)
        return stop(walk, WALSCAN_NEED_MORE);
    uint32_t crc = ~crc32c_update(walk->now.crc, header, CRC_OFFSET);
    if (crc != get32(header + CRC_OFFSET))
        return stop(walk, WALSCAN_BAD_CRC);
    walk->now.records++;
    bool is_switch = header[17] == RMGR_XLOG && (header[16] & 0xF0) == XLOG_SWITCH;
    bool leaves_void = is_switch && align8(end) % WALSCAN_SEGMENT_BYTES != 0;
    settle_record(walk, align8(end), leaves_void ? WALSCAN_IN_VOID : WALSCAN_BETWEEN);
    return true;
}

/* Goes on with the record in progress, whose next bytes lie at `at`. */
static bool follow_record(struct walk *walk, uint64_t at) {
    for (;;) {
        uint32_t room = PAGE - (uint32_t)(at % PAGE);
        uint32_t part = walk->now.left < room ? walk->now.left : room;
        if (at + part > walk->end)
            return stop(walk, WALSCAN_NEED_MORE);
        take(&walk->now, at_lsn(walk, at), part);
        at += part;
        if (walk->now.left == 0)
            return finish_record(walk, at);
        struct page_start start;
        if (!enter_page(walk, at, &start))
            return false;
        if (start.overwrites && start.rest == 0) {
            settle_page(walk, at, WALSCAN_BETWEEN);
            return true;
        }
        if (start.rest != walk->now.left)
            return stop(walk, WALSCAN_BAD_PAGE);
        settle_page(walk, at, WALSCAN_IN_RECORD);
        at += page_header_bytes(at);
    }
}

/* At a record boundary: the next record, if one begins here. */
static bool begin_record(struct walk *walk) {
    uint64_t at = walk->now.position;
    if (at % PAGE == 0) {
        struct page_start start;
        if (!enter_page(walk, at, &start))
            return false;
        if (start.rest != 0)
            return stop(walk, WALSCAN_BAD_PAGE);
        settle_page(walk, at, WALSCAN_BETWEEN);
        at += page_header_bytes(at);
    }
    if (at + 4 > walk->end)
        return stop(walk, WALSCAN_NEED_MORE);
    uint32_t length = get32(at_lsn(walk, at));
    if (length == 0)
        return stop(walk, WALSCAN_NEED_MORE);
    if (length < RECORD_HEADER || length > RECORD_BYTES_MAX)
        return stop(walk, WALSCAN_BAD_LENGTH);
    walk->now.record_start = at;
    walk->now.left = length;
    walk->now.taken = 0;
    walk->now.crc = CRC32C_INIT;
    return follow_record(walk, at);
}

static bool resume_record(struct walk *walk) {
    struct page_start start;
    uint64_t page = walk->now.position;
    return enter_page(walk, page, &start) && follow_record(walk, page + page_header_bytes(page));
}

/* At a page boundary, perhaps in a record whose beginning is unknown: over its rest. */
static bool skip_tail(struct walk *walk) {
    uint64_t page = walk->now.position;
    struct page_start start, next;
    if (!enter_page(walk, page, &start))
        return false;
    if (start.rest == 0) {
        settle_page(walk, page, WALSCAN_BETWEEN);
        return true;
    }
    uint32_t room = PAGE - page_header_bytes(page);
    if (start.rest <= room) {
        uint64_t end = align8(page + page_header_bytes(page) + start.rest);
        if (end > walk->end)
            return stop(walk, WALSCAN_NEED_MORE);
        settle_record(walk, end, WALSCAN_BETWEEN);
        return true;
    }
    /* Only the next page's header shows that this page is final. */
    if (!enter_page(walk, page + PAGE, &next))
        return false;
    if (next.rest != start.rest - room && !next.overwrites)
        return stop(walk, WALSCAN_BAD_PAGE);
    settle_page(walk, page + PAGE, WALSCAN_IN_TAIL);
    return true;
}

/* Behind an XLOG_SWITCH: whatever has been written of the segment's rest is final. */
static bool cross_void(struct walk *walk) {
    uint64_t end = segment_end(walk->now.position - 1);
    uint64_t written = walk->end < end ? walk->end : end;
    if (written - written % PAGE > walk->now.position)
        settle_page(walk, written - written % PAGE, WALSCAN_IN_VOID);
    if (walk->now.position < end)
        return stop(walk, WALSCAN_NEED_MORE);
    settle_record(walk, end, WALSCAN_BETWEEN);
    return true;
}

static bool step(struct walk *walk) {
    switch (walk->now.phase) {
    case WALSCAN_BETWEEN:
        return begin_record(walk);
    case WALSCAN_IN_RECORD:
        return resume_record(walk);
    case WALSCAN_IN_TAIL:
        return skip_tail(walk);
    default:
        return cross_void(walk);
    }
}

uint64_t walscan_scan(struct walscan *scan, const unsigned char *bytes, size_t length, uint64_t lsn, uint64_t limit) {
    uint64_t end = limit < lsn + length ? limit : lsn + length;
    scan->stop = WALSCAN_NEED_MORE;
    if (scan->position < lsn || scan->position > lsn + length) {
        scan->stop = WALSCAN_MISPLACED;
        return scan->position;
    }
    struct walk walk = {.now = *scan, .settled = scan, .bytes = bytes, .start = lsn, .end = end};
    while (step(&walk)) {
    }
    return scan->position;
}
