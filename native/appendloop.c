#include "appendloop.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "crc32.h"

/* Frames: borealis/log/wire.py. Every integer is big-endian. */
#define FRAME_BYTES_MAX (16u << 20)
#define FRAME_HEAD_BYTES 5
#define KIND_APPEND 14
#define KIND_ACK 15
#define KIND_COMMIT 17
#define KIND_DATA 20
#define APPEND_HEAD_BYTES 36
#define COMMIT_BYTES 16
#define DATA_HEAD_BYTES 20

/* Records of log files: borealis/storage/format.py. */
#define RECORD_HEADER_BYTES 48
#define RECORD_KIND_DATA 2

#define EVENTS_MAX 4
#define VECTORS_MAX (2 * APPEND_RECORDS_MAX + 1)
_Static_assert(VECTORS_MAX <= IOV_MAX, "one call takes a batch");

static uint32_t get32(const unsigned char *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}

static uint64_t get64(const unsigned char *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap64(value);
}

static unsigned char *put32(unsigned char *at, uint32_t value) {
    value = __builtin_bswap32(value);
    memcpy(at, &value, sizeof value);
    return at + sizeof value;
}

static unsigned char *put64(unsigned char *at, uint64_t value) {
    value = __builtin_bswap64(value);
    memcpy(at, &value, sizeof value);
    return at + sizeof value;
}
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the byte order of this machine is not known here"
#endif

static unsigned char *put_frame_head(unsigned char *at, uint32_t payload_bytes, unsigned char kind) {
    at = put32(at, 1 + payload_bytes);
    *at++ = kind;
    return at;
}

/* What the messages gathered for one sync come to, beside what is in the state. */
struct batch {
    uint64_t end; /* of the log, with the batch */
    uint64_t vdl;
    uint32_t offset; /* in the file, behind the batch */
    uint32_t answers;
};

static void learn(const struct append_state *state, struct batch *batch, uint64_t vdl) {
    if (vdl > batch->vdl && vdl >= state->leader_start)
        batch->vdl = vdl;
}

static void answer(struct append_state *state, struct batch *batch, uint64_t sent_ns) {
    unsigned char *at = state->answers + batch->answers * APPEND_ANSWER_BYTES;
    at = put_frame_head(at, APPEND_ANSWER_BYTES - FRAME_HEAD_BYTES, KIND_ACK);
    at = put64(at, state->term);
    at = put64(at, batch->end);
    at = put64(at, sent_ns);
    *at = state->has_subscribers != 0;
    batch->answers++;
}

/* Notes where the record lies; false when there is no place for the note. */
static bool note_run(struct append_state *state, const struct append_record *record, uint32_t offset) {
    struct append_run *run = state->runs + state->run_count - 1;
    if (state->run_count == 0 || run->span >= APPEND_RUN_BYTES) {
        if (state->run_count == APPEND_RUNS_MAX)
            return false;
        run = state->runs + state->run_count++;
        *run = (struct append_run){.lsn = record->lsn, .offset = offset};
    }
    run->length += record->length;
    run->span += RECORD_HEADER_BYTES + record->length;
    return true;
}

enum taken { TAKEN, NOT_MINE, NO_ROOM };

/* An APPEND whose payload is at `at` in the buffer. Nothing has changed unless it is TAKEN. */
static enum taken take_append(struct append_state *state, struct batch *batch, uint32_t at, uint32_t payload_bytes) {
    const unsigned char *payload = state->buffer + at;
    struct append_record record = {.at = at + APPEND_HEAD_BYTES};
    if (payload_bytes < APPEND_HEAD_BYTES || get64(payload) != state->term)
        return NOT_MINE;
    record.lsn = get64(payload + 8);
    record.length = payload_bytes - APPEND_HEAD_BYTES;
    record.crc = get32(payload + 32);
    if (crc32_update(0, state->buffer + record.at, record.length) != record.crc)
        return NOT_MINE;
    if (record.length > 0) { /* without data it is a heartbeat, taken wherever the log stands */
        if (record.lsn != batch->end || record.length > state->record_max ||
            batch->offset + RECORD_HEADER_BYTES + record.length > state->limit)
            return NOT_MINE;
        if (!note_run(state, &record, batch->offset))
            return NO_ROOM;
        state->records[state->record_count++] = record;
        batch->end += record.length;
        batch->offset += RECORD_HEADER_BYTES + record.length;
    }
    learn(state, batch, get64(payload + 16));
    answer(state, batch, get64(payload + 24));
    return TAKEN;
}

/*
 * Takes the whole frames of the buffer, as many as one batch holds. Returns
 * the stop that follows when the batch is done, or -1 to go on.
 */
static int gather(struct append_state *state, struct batch *batch) {
    while (state->record_count < APPEND_RECORDS_MAX && batch->answers < APPEND_RECORDS_MAX &&
           state->last - state->first >= FRAME_HEAD_BYTES) {
        const unsigned char *frame = state->buffer + state->first;
        uint32_t length = get32(frame), payload_bytes = length - 1, at = state->first + FRAME_HEAD_BYTES;
        if (length < 1 || length > FRAME_BYTES_MAX || length + 4 > state->buffer_bytes)
            return APPEND_FOREIGN;
        if (state->last - state->first < length + 4)
            break;
        if (frame[4] == KIND_APPEND) {
            enum taken taken = take_append(state, batch, at, payload_bytes);
            if (taken != TAKEN)
                return taken == NO_ROOM ? APPEND_LIMIT : APPEND_FOREIGN;
        } else if (frame[4] == KIND_COMMIT && payload_bytes == COMMIT_BYTES && get64(frame + 5) == state->term) {
            learn(state, batch, get64(frame + 13));
        } else {
            return APPEND_FOREIGN;
        }
        state->first += 4 + length;
    }
    return -1;
}

/* Sends the batch to the subscribers, before it is synced: they show nothing before a COMMIT says so. */
static bool feed(struct append_state *state, bool commits) {
    static const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    unsigned char heads[APPEND_RECORDS_MAX][FRAME_HEAD_BYTES + DATA_HEAD_BYTES], commit[FRAME_HEAD_BYTES + COMMIT_BYTES];
    struct iovec vectors[VECTORS_MAX];
    size_t count = 0, total = 0;
    bool left = false;

    for (uint32_t i = 0; i < state->record_count; i++) {
        const struct append_record *record = state->records + i;
        unsigned char *at = put_frame_head(heads[i], DATA_HEAD_BYTES + record->length, KIND_DATA);
        put32(put64(put64(at, record->lsn), state->term), record->crc);
        vectors[count++] = (struct iovec){heads[i], sizeof heads[i]};
        vectors[count++] = (struct iovec){state->buffer + record->at, record->length};
        total += sizeof heads[i] + record->length;
    }
    if (commits) {
        put64(put64(put_frame_head(commit, COMMIT_BYTES, KIND_COMMIT), state->term), state->vdl);
        vectors[count++] = (struct iovec){commit, sizeof commit};
        total += sizeof commit;
    }
    for (uint32_t i = 0; total > 0 && i < state->subscriber_count; i++) {
        struct append_subscriber *subscriber = state->subscribers + i;
        struct msghdr message = {.msg_iov = vectors, .msg_iovlen = count};
        ssize_t sent = sendmsg(subscriber->fd, &message, flags);
        subscriber->sent = sent > 0 ? (uint64_t)sent : 0;
        subscriber->left = subscriber->sent < total;
        left |= subscriber->left;
    }
    return left;
}

/* Writes `count` vectors at `offset`. Returns 0, or an errno. */
static int write_all(int fd, struct iovec *vectors, size_t count, off_t offset) {
    while (count > 0) {
        ssize_t done = pwritev(fd, vectors, (int)count, offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : EIO;
        offset += done;
        while (count > 0 && (size_t)done >= vectors->iov_len) {
            done -= (ssize_t)vectors->iov_len;
            vectors++;
            count--;
        }
        if (done > 0) { /* rare: a disk that is nearly full */
            vectors->iov_base = (char *)vectors->iov_base + done;
            vectors->iov_len -= (size_t)done;
        }
    }
    return 0;
}

/* Writes the header of a record whose bytes follow it. */
static void put_header(const struct append_state *state, const struct append_record *record, unsigned char *header) {
    unsigned char *at = header + 12;
    memcpy(header, "BLG1", 4);
    put32(header + 4, state->file_seq);
    at = put32(at, RECORD_KIND_DATA << 24); /* kind, flags, reserved */
    at = put32(at, state->meta_no);
    at = put32(at, state->offset); /* the batch: all below is synced */
    at = put32(at, record->length);
    at = put32(at, record->crc);
    at = put64(at, state->term);
    put64(at, record->lsn);
    put32(header + 8, crc32_update(state->header_seed, header + 12, RECORD_HEADER_BYTES - 12));
}

static bool failed(struct append_state *state, int error, bool syncing) {
    state->error = error;
    state->sync_failed = syncing;
    return false;
}

/* Through the page cache, with a sync of its own. */
static bool store_synced(struct append_state *state) {
    unsigned char headers[APPEND_RECORDS_MAX][RECORD_HEADER_BYTES];
    struct iovec vectors[VECTORS_MAX];
    size_t count = 0;

    for (uint32_t i = 0; i < state->record_count; i++) {
        const struct append_record *record = state->records + i;
        put_header(state, record, headers[i]);
        vectors[count++] = (struct iovec){headers[i], RECORD_HEADER_BYTES};
        vectors[count++] = (struct iovec){state->buffer + record->at, record->length};
    }
    int error = write_all(state->file_fd, vectors, count, state->offset);
    if (error != 0)
        return failed(state, error, false);
    int result;
    do
        result = fdatasync(state->file_fd);
    while (result < 0 && errno == EINTR);
    return result == 0 || failed(state, errno, true);
}

/* The block in which the log ends, into the staging buffer; false: it cannot be had. */
static bool stage_tail(struct append_state *state, uint32_t block) {
    if (state->staged_at == block)
        return true;
    if (state->offset > block &&
        pread(state->file_fd, state->staging, APPEND_BLOCK_BYTES, block) != (ssize_t)APPEND_BLOCK_BYTES)
        return false;
    state->staged_at = block;
    return true;
}

enum stored { STORED, NOT_STORED, STORE_FAILED };

/* One direct write. NOT_STORED: nothing was done, and the other way is open. */
static enum stored store_direct(struct append_state *state, uint32_t end) {
    uint32_t block = state->offset & ~(APPEND_BLOCK_BYTES - 1);
    uint32_t padded = (end - block + APPEND_BLOCK_BYTES - 1) & ~(APPEND_BLOCK_BYTES - 1);
    if (state->direct_fd < 0 || padded > state->staging_bytes || !stage_tail(state, block))
        return NOT_STORED;
    unsigned char *at = state->staging + (state->offset - block);
    for (uint32_t i = 0; i < state->record_count; i++) {
        const struct append_record *record = state->records + i;
        put_header(state, record, at);
        memcpy(at + RECORD_HEADER_BYTES, state->buffer + record->at, record->length);
        at += RECORD_HEADER_BYTES + record->length;
    }
    memset(at, 0, padded - (end - block));
    for (uint32_t done = 0; done < padded;) {
        ssize_t now = pwrite(state->direct_fd, state->staging + done, padded - done, (off_t)block + done);
        if (now < 0 && errno == EINTR)
            continue;
        if (now < 0 && errno == EINVAL && done == 0) { /* this file system wants it otherwise */
            state->direct_fd = -1;
            return NOT_STORED;
        }
        if (now <= 0) {
            failed(state, now < 0 ? errno : EIO, now < 0 && errno == EIO);
            return STORE_FAILED;
        }
        done += (uint32_t)now;
    }
    uint32_t kept = end & ~(APPEND_BLOCK_BYTES - 1);
    if (kept > block && end > kept)
        memcpy(state->staging, state->staging + (kept - block), APPEND_BLOCK_BYTES);
    state->staged_at = kept;
    state->direct++;
    return STORED;
}

/* Makes the records of the batch durable; false: it is not known what is on the disk. */
static bool store(struct append_state *state, const struct batch *batch) {
    enum stored stored = store_direct(state, batch->offset);
    if (stored == NOT_STORED) {
        state->staged_at = APPEND_NOT_STAGED;
        stored = store_synced(state) ? STORED : STORE_FAILED;
    }
    state->syncs += stored == STORED;
    return stored == STORED;
}

/* Feeds, writes, syncs, then answers. Returns the stop that follows, or -1. */
static int finish(struct append_state *state, const struct batch *batch) {
    int stop = -1;
    state->batch_commits = batch->vdl != state->vdl;
    state->vdl = batch->vdl;
    if (state->subscriber_count > 0 && feed(state, state->batch_commits != 0))
        stop = APPEND_SUBSCRIBER;
    if (state->record_count > 0) {
        if (!store(state, batch))
            return APPEND_FAILED;
        state->offset = batch->offset;
        state->end = batch->end;
    }
    state->answers_bytes = batch->answers * APPEND_ANSWER_BYTES;
    state->answers_sent = 0;
    state->appends += batch->answers;
    if (batch->answers > 0) {
        ssize_t sent = send(state->writer_fd, state->answers, state->answers_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        state->answers_sent = sent > 0 ? (uint32_t)sent : 0;
        if (state->answers_sent < state->answers_bytes && stop < 0)
            stop = APPEND_ANSWERS;
    }
    return stop;
}

/* Waits for the writer's bytes alone; false when there is anything else to do. */
static bool receive(struct append_state *state) {
    struct epoll_event events[EVENTS_MAX];
    int count;

    if (state->first > 0) {
        memmove(state->buffer, state->buffer + state->first, state->last - state->first);
        state->last -= state->first;
        state->first = 0;
    }
    do
        count = epoll_wait(state->epoll_fd, events, EVENTS_MAX, -1);
    while (count < 0 && errno == EINTR);
    if (count != 1 || events[0].data.fd != state->writer_fd || events[0].events != EPOLLIN)
        return false;
    ssize_t got = recv(state->writer_fd, state->buffer + state->last, state->buffer_bytes - state->last, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    state->last += (uint32_t)got;
    return true;
}

int append_loop(struct append_state *state) {
    state->run_count = 0;
    state->staged_at = APPEND_NOT_STAGED;
    state->error = state->sync_failed = 0;
    state->record_count = state->answers_bytes = state->answers_sent = 0;
    for (;;) {
        struct batch batch = {.end = state->end, .vdl = state->vdl, .offset = state->offset};
        uint32_t before = state->first;
        state->record_count = 0;
        int next = gather(state, &batch);
        bool progress = state->first != before;
        if (progress) {
            int stop = finish(state, &batch);
            if (stop >= 0)
                return stop;
        }
        if (next >= 0)
            return next;
        if (state->offset >= state->upkeep_at)
            return APPEND_LIMIT;
        /* After a full batch there may be more in the buffer. */
        if (!progress && !receive(state))
            return APPEND_EVENT;
    }
}
