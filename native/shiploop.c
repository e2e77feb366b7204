#include "shiploop.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "crc32.h"

#define EXPORT __attribute__((visibility("default")))

/* Frames: borealis/log/wire.py. Every integer is big-endian. */
#define KIND_APPEND 14
#define KIND_ACK 15
#define KIND_COMMIT 17
#define ACK_FRAME_BYTES 30
#define ACK_FLAG_SUBSCRIBERS 1

#define EVENTS_MAX (SHIP_NODES_MAX + 2)
#define GO_ON (-1)

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the byte order of this machine is not known here"
#endif

/* native.c: the driver's side of the device page. */
struct device_view {
    uint64_t write_seq;
    uint64_t written_lsn;
    uint64_t sync_wanted_seq;
    uint64_t written_bytes;
    uint32_t timeline;
    uint32_t mode;
};
void borealis_device_view(struct device_page *page, struct device_view *view);
long borealis_device_release(struct device_page *page, uint64_t seq);

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

static uint64_t boottime_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* ---- to the nodes ---------------------------------------------------- */

/* Sends one message; false when the node did not take all of it. */
static bool send_to(struct ship_node *node, struct iovec *parts, size_t count, size_t total, enum ship_unsent kind) {
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t sent = sendmsg(node->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == (ssize_t)total)
        return true;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        node->unsent = SHIP_BROKEN;
        return false;
    }
    node->unsent = kind;
    node->unsent_from = sent > 0 ? (uint32_t)sent : 0;
    return false;
}

/* One APPEND to all nodes, straight out of the ring. */
static int send_append(struct ship_state *state, uint64_t start, uint64_t end) {
    unsigned char *data = state->ring + start % state->ring_bytes;
    size_t length = end - start;
    uint64_t now = boottime_ns();
    unsigned char *at = put32(state->append_head, (uint32_t)(SHIP_APPEND_HEAD_BYTES - 4 + length));
    *at++ = KIND_APPEND;
    at = put64(at, state->term);
    at = put64(at, start);
    at = put64(at, state->vdl);
    at = put64(at, now);
    put32(at, crc32_update(0, data, length));
    state->frame_start = start;
    state->frame_end = end;
    state->batches++;

    bool all = true;
    for (uint32_t i = 0; i < state->node_count; i++) {
        struct ship_node *node = state->nodes + i;
        if (node->fd < 0)
            continue;
        struct iovec parts[2] = {{state->append_head, SHIP_APPEND_HEAD_BYTES}, {data, length}};
        if (node->has_subscribers && node->told < state->vdl)
            state->told_ns = now;
        node->told = state->vdl;
        all &= send_to(node, parts, 2, SHIP_APPEND_HEAD_BYTES + length, SHIP_OF_APPEND);
    }
    return all ? GO_ON : SHIP_SEND;
}

/* One that has not taken its last message whole is left to the caller. */
static bool wants_vdl(const struct ship_state *state, const struct ship_node *node) {
    return node->fd >= 0 && !node->unsent && node->has_subscribers && node->told < state->vdl;
}

/* The VDL to the nodes that have somebody to tell it. */
static int send_commits(struct ship_state *state) {
    unsigned char *at = put32(state->commit, SHIP_COMMIT_BYTES - 4);
    *at++ = KIND_COMMIT;
    put64(put64(at, state->term), state->vdl);
    bool all = true;
    for (uint32_t i = 0; i < state->node_count; i++) {
        struct ship_node *node = state->nodes + i;
        if (!wants_vdl(state, node))
            continue;
        struct iovec part = {state->commit, SHIP_COMMIT_BYTES};
        node->told = state->vdl;
        state->told_ns = boottime_ns();
        all &= send_to(node, &part, 1, SHIP_COMMIT_BYTES, SHIP_OF_COMMIT);
    }
    return all ? GO_ON : SHIP_SEND;
}

/*
 * A message for each VDL would wake two processes and an engine per reader.
 * One that follows another fast waits for the next APPEND, which carries it.
 * Returns for how long, in nanoseconds; -1: nobody waits for one.
 */
static int64_t commits_wait(const struct ship_state *state) {
    bool wanted = false;
    for (uint32_t i = 0; i < state->node_count; i++)
        wanted |= wants_vdl(state, state->nodes + i);
    if (!wanted)
        return -1;
    uint64_t due = state->told_ns + SHIP_COMMIT_GAP_NS, now = boottime_ns();
    return due > now ? (int64_t)(due - now) : 0;
}

/* ---- from the engine ------------------------------------------------- */

static struct ship_batch *batch_at(struct ship_state *state, uint32_t index) {
    return state->inflight + (state->inflight_first + index) % SHIP_INFLIGHT_MAX;
}

/* The shipped log ends here. */
static uint64_t position(const struct ship_state *state) {
    return state->kind == SHIP_BINLOG ? state->scan.binlog->position : state->scan.wal->position;
}

/* Lets the scanner go on through `bytes`, which begin at its position; false: they cannot be followed. */
static bool scan_piece(struct ship_state *state, const unsigned char *bytes, size_t length, uint64_t written) {
    uint64_t start = position(state);
    if (state->kind == SHIP_BINLOG) {
        binlogscan_scan(state->scan.binlog, bytes, length, start, written);
        return state->scan.binlog->stop == BINLOGSCAN_NEED_MORE;
    }
    walscan_scan(state->scan.wal, bytes, length, start, written);
    return state->scan.wal->stop != WALSCAN_MISPLACED;
}

/* Takes and sends the next piece of the log below `written`. *more: another one may follow. */
static int take_piece(struct ship_state *state, uint64_t written, bool *more) {
    uint64_t start = position(state), in_ring = start % state->ring_bytes;
    uint64_t limit = written;
    *more = false;
    if (limit <= start)
        return GO_ON;
    if (start >= state->file_end)
        return SHIP_FILE;
    if (state->inflight_count == SHIP_INFLIGHT_MAX)
        return SHIP_LIMIT;
    if (limit > start + state->piece_max)
        limit = start + state->piece_max;
    if (limit > state->file_end)
        limit = state->file_end;
    if (limit > start - in_ring + state->ring_bytes) /* up to where the ring begins again */
        limit = start - in_ring + state->ring_bytes;

    ssize_t got = pread(state->file_fd, state->ring + in_ring, limit - start, (off_t)(start - state->file_start));
    if (limit > state->ring_bytes && limit - state->ring_bytes > state->ring_start)
        state->ring_start = limit - state->ring_bytes;
    if (got != (ssize_t)(limit - start))
        return SHIP_LOG;
    if (!scan_piece(state, state->ring + in_ring, (size_t)got, written))
        return SHIP_LOG;
    uint64_t end = position(state);
    /* Too little was left of the ring to get anywhere: outside of here a piece may lie across its end. */
    if (end == start)
        return state->kind == SHIP_BINLOG && limit < written ? SHIP_FILE : GO_ON;
    *batch_at(state, state->inflight_count++) = (struct ship_batch){.end = end};
    *more = limit < written;
    return send_append(state, start, end);
}

/* Everything that the engine has written so far, and what its durability releases. */
static int pump(struct ship_state *state) {
    struct device_view view;
    borealis_device_view(state->page, &view);
    if (view.timeline != state->timeline)
        return SHIP_LOG;
    uint64_t written = view.written_lsn + state->device_offset;
    if (state->kind == SHIP_BINLOG && (written < state->file_start || written >= state->file_end))
        return written < state->file_start ? SHIP_LOG : SHIP_FILE;
    bool more = true;
    while (more) {
        if (position(state) - state->vdl >= state->unacknowledged_max)
            return GO_ON; /* the rest, and the number, when acknowledgements have come */
        int stop = take_piece(state, written, &more);
        if (stop != GO_ON)
            return stop;
    }
    uint64_t end = position(state);
    if (state->kind == SHIP_BINLOG) {
        /* Part of a group is missing: nobody can wait for it yet, and its number must not be released. */
        if (end < written)
            return GO_ON;
    } else if (end < (written - 1) / WALSCAN_PAGE_BYTES * WALSCAN_PAGE_BYTES) {
        return SHIP_LOG;
    }
    if (end <= state->vdl)
        borealis_device_release(state->page, view.write_seq);
    else
        batch_at(state, state->inflight_count - 1)->seq = view.write_seq;
    return GO_ON;
}

/* ---- from the nodes -------------------------------------------------- */

/* The highest position that a write quorum of nodes has on disk. */
static uint64_t durable_point(const struct ship_state *state) {
    uint64_t reached[SHIP_NODES_MAX];
    for (uint32_t i = 0; i < state->node_count; i++) {
        uint32_t place = i;
        for (; place > 0 && reached[place - 1] < state->nodes[i].acked; place--)
            reached[place] = reached[place - 1];
        reached[place] = state->nodes[i].acked;
    }
    return reached[state->write_quorum - 1];
}

/* Raises the VDL to the last frame end that is durable; first of all the engine's syncs go on. */
static int advance(struct ship_state *state) {
    uint64_t point = durable_point(state), seq = 0;
    bool risen = false;
    while (state->inflight_count > 0 && batch_at(state, 0)->end <= point) {
        struct ship_batch *batch = batch_at(state, 0);
        state->vdl = batch->end;
        if (batch->seq != 0)
            seq = batch->seq;
        state->inflight_first = (state->inflight_first + 1) % SHIP_INFLIGHT_MAX;
        state->inflight_count--;
        risen = true;
    }
    if (seq != 0)
        borealis_device_release(state->page, seq);
    return risen && commits_wait(state) == 0 ? send_commits(state) : GO_ON;
}

static bool is_ack(const struct ship_state *state, const unsigned char *frame) {
    static const unsigned char head[5] = {0, 0, 0, ACK_FRAME_BYTES - 4, KIND_ACK};
    return memcmp(frame, head, sizeof head) == 0 && get64(frame + 5) == state->term;
}

/* What a node sent: acknowledgements, or something for the caller. */
static int receive(struct ship_state *state, struct ship_node *node) {
    ssize_t got = recv(node->fd, node->input + node->input_bytes, SHIP_INPUT_BYTES - node->input_bytes, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return GO_ON;
    if (got <= 0) {
        node->unsent = SHIP_BROKEN;
        return SHIP_SEND;
    }
    uint32_t have = node->input_bytes + (uint32_t)got, taken = 0;
    bool foreign = false;
    while (have - taken >= ACK_FRAME_BYTES && !foreign) {
        const unsigned char *frame = node->input + taken;
        foreign = !is_ack(state, frame);
        if (foreign)
            break;
        uint64_t end = get64(frame + 13), sent_ns = get64(frame + 21);
        if (end > node->acked)
            node->acked = end;
        if (sent_ns > node->acked_ns)
            node->acked_ns = sent_ns;
        node->has_subscribers = frame[29] & ACK_FLAG_SUBSCRIBERS;
        taken += ACK_FRAME_BYTES;
    }
    node->input_bytes = have - taken;
    memmove(node->input, node->input + taken, node->input_bytes);
    /* A frame that is shorter than an acknowledgement must not wait here for more bytes. */
    if (!foreign && node->input_bytes > 0)
        foreign = true;
    int stop = taken > 0 ? advance(state) : GO_ON;
    return stop == GO_ON && foreign ? SHIP_FOREIGN : stop;
}

/* ---- the loop -------------------------------------------------------- */

static int handle(struct ship_state *state, const struct epoll_event *event) {
    if (event->data.fd == state->wake_fd)
        return SHIP_WOKEN;
    if (event->data.fd == state->notice_fd) {
        unsigned char notice[64];
        /* Says only "look"; a result does not matter. */
        return recv(state->notice_fd, notice, sizeof notice, MSG_DONTWAIT) < 0 && errno == EBADF ? SHIP_FAILED : GO_ON;
    }
    for (uint32_t i = 0; i < state->node_count; i++)
        if (state->nodes[i].fd == event->data.fd)
            return receive(state, state->nodes + i);
    state->error = EBADF;
    return SHIP_FAILED;
}

/* Waits at most `wait_ns`, below a second; -1: for ever. */
static int wait_events(const struct ship_state *state, struct epoll_event *events, int64_t wait_ns) {
    struct timespec timeout = {.tv_nsec = wait_ns};
    if (wait_ns < 0)
        return epoll_wait(state->epoll_fd, events, EVENTS_MAX, -1);
    int count = epoll_pwait2(state->epoll_fd, events, EVENTS_MAX, &timeout, NULL);
    if (count < 0 && errno == ENOSYS) /* a kernel before 5.11 */
        count = epoll_wait(state->epoll_fd, events, EVENTS_MAX, (int)((wait_ns + 999999) / 1000000));
    return count;
}

EXPORT int borealis_ship_loop(struct ship_state *state) {
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int stop = pump(state);
        if (stop != GO_ON)
            return stop;
        int count = wait_events(state, events, commits_wait(state));
        if (count == 0)
            stop = send_commits(state);
        if (count < 0 && errno != EINTR) {
            state->error = errno;
            return SHIP_FAILED;
        }
        for (int i = 0; i < count; i++) {
            int result = handle(state, events + i);
            /* The others are heard too; what they leave is found in the state. */
            if (result != GO_ON && stop == GO_ON)
                stop = result;
        }
        if (stop != GO_ON)
            return stop;
    }
}

EXPORT uint64_t borealis_ship_state_size(void) {
    return sizeof(struct ship_state);
}
