#include "binlogscan.h"

#include <string.h>

#define MAGIC_BYTES 4u
#define HEADER_BYTES 19u
#define CHECKSUM_BYTES 4u
#define FILE_START_BYTES (MAGIC_BYTES + HEADER_BYTES)
#define LOOK_BYTES 2048u /* an event that ends a group by its text, or whose content matters, is not longer */
#define GTID_FLAGS_AT (HEADER_BYTES + 12u)
#define GTID_STANDALONE 1u
#define QUERY_HEAD_BYTES 13u
#define QUERY_DATABASE_AT (HEADER_BYTES + 8u)
#define QUERY_STATUS_AT (HEADER_BYTES + 11u)

enum event_type {
    EVENT_QUERY = 2,
    EVENT_STOP = 3,
    EVENT_ROTATE = 4,
    EVENT_INTVAR = 5,
    EVENT_RAND = 13,
    EVENT_USER_VAR = 14,
    EVENT_FORMAT_DESCRIPTION = 15,
    EVENT_XID = 16,
    EVENT_BEGIN_LOAD_QUERY = 17,
    EVENT_XA_PREPARE = 38,
    EVENT_ANNOTATE_ROWS = 160,
    EVENT_BINLOG_CHECKPOINT = 161,
    EVENT_GTID = 162,
    EVENT_GTID_LIST = 163,
    EVENT_START_ENCRYPTION = 164,
};

static const unsigned char magic[MAGIC_BYTES] = {0xfe, 'b', 'i', 'n'};

static uint32_t get16(const unsigned char *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static uint32_t get32(const unsigned char *at) {
    return get16(at) | get16(at + 2) << 16;
}

static uint32_t event_type(const unsigned char *event) {
    return event[4];
}

static uint32_t event_length(const unsigned char *event) {
    return get32(event + 9);
}

static uint32_t event_end(const unsigned char *event) {
    return get32(event + 13);
}

/* A file begins here, of which FILE_START_BYTES are there. An event's time can have the value of the magic bytes. */
static bool begins_file(const unsigned char *at) {
    const unsigned char *event = at + MAGIC_BYTES;
    return memcmp(at, magic, MAGIC_BYTES) == 0 && event_type(event) == EVENT_FORMAT_DESCRIPTION &&
           event_end(event) == MAGIC_BYTES + event_length(event);
}

/* How many of an event's bytes must be there before it can be told what it does to its group. */
static uint32_t look_bytes(const unsigned char *event) {
    switch (event_type(event)) {
    case EVENT_GTID:
    case EVENT_FORMAT_DESCRIPTION:
        return event_length(event);
    case EVENT_QUERY:
        return event_length(event) <= LOOK_BYTES ? event_length(event) : HEADER_BYTES;
    default:
        return HEADER_BYTES;
    }
}

static bool never_in_group(uint32_t type) {
    return type == EVENT_GTID || type == EVENT_FORMAT_DESCRIPTION || type == EVENT_GTID_LIST ||
           type == EVENT_BINLOG_CHECKPOINT || type == EVENT_ROTATE || type == EVENT_STOP ||
           type == EVENT_START_ENCRYPTION;
}

/* What stands before the one statement of a stand-alone group. */
static bool is_prelude(uint32_t type) {
    return type == EVENT_INTVAR || type == EVENT_RAND || type == EVENT_USER_VAR || type == EVENT_BEGIN_LOAD_QUERY ||
           type == EVENT_ANNOTATE_ROWS;
}

static bool text_is(const unsigned char *text, size_t length, const char *wanted) {
    return length == strlen(wanted) && memcmp(text, wanted, length) == 0;
}

static bool text_begins(const unsigned char *text, size_t length, const char *wanted) {
    return length >= strlen(wanted) && memcmp(text, wanted, strlen(wanted)) == 0;
}

/* False in *valid: the event is malformed. */
static bool ends_transaction(const unsigned char *event, bool *valid) {
    uint32_t type = event_type(event), length = event_length(event);
    if (type == EVENT_XID || type == EVENT_XA_PREPARE)
        return true;
    if (type != EVENT_QUERY || length > LOOK_BYTES)
        return false;
    if (length < HEADER_BYTES + QUERY_HEAD_BYTES + CHECKSUM_BYTES) {
        *valid = false;
        return false;
    }
    uint32_t start = HEADER_BYTES + QUERY_HEAD_BYTES + get16(event + QUERY_STATUS_AT) + event[QUERY_DATABASE_AT] + 1;
    if (start > length - CHECKSUM_BYTES)
        return false;
    const unsigned char *text = event + start;
    size_t size = length - CHECKSUM_BYTES - start;
    return text_is(text, size, "COMMIT") || text_is(text, size, "ROLLBACK") || text_begins(text, size, "XA COMMIT") ||
           text_begins(text, size, "XA ROLLBACK");
}

/* The state behind an event, of which look_bytes() are there; false when it cannot stand there. */
static bool after_event(uint32_t *state, const unsigned char *event) {
    uint32_t type = event_type(event);
    bool valid = true;
    if (never_in_group(type) && *state != BINLOGSCAN_NONE)
        return false;
    if (type == EVENT_GTID) {
        if (event_length(event) <= GTID_FLAGS_AT)
            return false;
        *state = event[GTID_FLAGS_AT] & GTID_STANDALONE ? BINLOGSCAN_STANDALONE : BINLOGSCAN_TRANSACTION;
    } else if (*state == BINLOGSCAN_STANDALONE) {
        *state = is_prelude(type) ? BINLOGSCAN_STANDALONE : BINLOGSCAN_NONE;
    } else if (*state == BINLOGSCAN_TRANSACTION) {
        *state = ends_transaction(event, &valid) ? BINLOGSCAN_NONE : BINLOGSCAN_TRANSACTION;
    }
    return valid;
}

/* Goes over one event, or as much of it as there is; false: not enough is there, or it is none. */
static bool step(struct binlogscan *now, const unsigned char *at, uint64_t room) {
    if (room == 0)
        return false;
    if (now->left > 0) {
        uint32_t taken = now->left < room ? now->left : (uint32_t)room;
        now->position += taken;
        now->left -= taken;
        return true;
    }
    if (now->state == BINLOGSCAN_NONE && at[0] == magic[0]) {
        if (room < FILE_START_BYTES)
            return false;
        if (begins_file(at)) {
            now->file_start = (uint32_t)now->position;
            now->file_known = 1;
            now->position += MAGIC_BYTES;
            return true;
        }
    }
    if (room < HEADER_BYTES)
        return false;
    uint32_t length = event_length(at);
    uint32_t file_start = (uint32_t)now->position + length - event_end(at);
    if (length < HEADER_BYTES || (now->file_known && file_start != now->file_start)) {
        now->stop = BINLOGSCAN_BAD_EVENT;
        return false;
    }
    now->file_start = file_start;
    now->file_known = 1;
    uint32_t look = look_bytes(at);
    if (room < look && look <= LOOK_BYTES)
        return false;
    if (look > LOOK_BYTES || !after_event(&now->state, at)) {
        now->stop = BINLOGSCAN_BAD_EVENT;
        return false;
    }
    uint32_t taken = length < room ? length : (uint32_t)room;
    now->position += taken;
    now->left = length - taken;
    return true;
}

void binlogscan_init(struct binlogscan *scan, uint64_t position) {
    *scan = (struct binlogscan){.position = position};
}

bool binlogscan_between_groups(const struct binlogscan *scan) {
    return scan->state == BINLOGSCAN_NONE && scan->left == 0;
}

uint64_t binlogscan_scan(struct binlogscan *scan, const unsigned char *bytes, size_t length, uint64_t lsn,
                         uint64_t limit) {
    uint64_t end = limit < lsn + length ? limit : lsn + length;
    uint64_t began = scan->position;
    if (began < lsn || began > lsn + length) {
        scan->stop = BINLOGSCAN_MISPLACED;
        return began;
    }
    scan->stop = BINLOGSCAN_NEED_MORE;
    struct binlogscan now = *scan, inside = *scan;
    while (now.position < end && step(&now, bytes + (now.position - lsn), end - now.position)) {
        if (binlogscan_between_groups(&now)) {
            now.record_end = now.position;
            now.units++;
            *scan = now;
        } else {
            inside = now;
        }
    }
    if (scan->position == began && end < limit && inside.position > began) {
        inside.boundary = inside.position;
        *scan = inside;
    }
    scan->stop = now.stop;
    return scan->position;
}
