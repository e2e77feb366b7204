/*
 * The writer's way of a commit in steady state: take what the engine has
 * written to its log file, send it to the storage nodes, count their
 * acknowledgements, let the engine's syncs go on.
 *
 * It takes only what needs no decision: one term, nodes that have all of its
 * log up to here on a connection that takes what it is sent, acknowledgements
 * of that term. Whatever else happens ends the loop: Python
 * (borealis/volume/shiploop.py, the caller) takes over what was done and
 * handles the rest by the same rules, of which borealis/volume/writer.py and
 * borealis/log/shipping.py are the reference.
 *
 * The rule that everything hangs on: write_seq is read first, then the log
 * file; what is sent ends where the scanner says that the log may be cut; the
 * number is released when a write quorum has that end on disk.
 */
#ifndef BOREALIS_SHIPLOOP_H
#define BOREALIS_SHIPLOOP_H

#include <stdint.h>

#include "binlogscan.h"
#include "shm.h"
#include "walscan.h"

#define SHIP_NODES_MAX 16
#define SHIP_INFLIGHT_MAX 1024
#define SHIP_INPUT_BYTES 4096
#define SHIP_APPEND_HEAD_BYTES 41
#define SHIP_COMMIT_BYTES 21
#define SHIP_COMMIT_GAP_NS 1000000u /* a VDL that follows another one faster waits for the next frame, or so long */

/* What kind of log it is: which scanner follows it. */
enum ship_kind {
    SHIP_WAL = 0,    /* struct walscan; files of one size, the device gives log positions */
    SHIP_BINLOG = 1, /* struct binlogscan; the file grows until the engine begins another one */
};

/* Why the loop ended. */
enum ship_stop {
    SHIP_WOKEN = 0,   /* the caller asked for it */
    SHIP_FILE = 1,    /* the log goes on in the next file, or must be taken across the end of the ring */
    SHIP_SEND = 2,    /* a node did not take all, or its connection broke: see the nodes' `unsent` */
    SHIP_FOREIGN = 3, /* a node sent something that is not for here: see the nodes' `input` */
    SHIP_LOG = 4,     /* the log cannot be followed */
    SHIP_LIMIT = 5,   /* too many batches are under way */
    SHIP_FAILED = 6,  /* a call failed that cannot (`error`) */
};

/* What a node did not take of the last message to it. */
enum ship_unsent { SHIP_ALL_SENT = 0, SHIP_OF_APPEND = 1, SHIP_OF_COMMIT = 2, SHIP_BROKEN = 3 };

struct ship_node {
    uint64_t acked;    /* in and out: on its disk below here, also for nodes that are not served here */
    uint64_t acked_ns; /* in and out: when the newest message that it acknowledged was sent */
    uint64_t told;     /* in and out: the newest VDL that it was sent */
    int32_t fd;        /* -1: not served here */
    uint32_t has_subscribers; /* in and out */
    uint32_t unsent;      /* out: enum ship_unsent */
    uint32_t unsent_from; /* out: how many bytes of that message it took */
    uint32_t input_bytes; /* out: what it sent and was not understood here */
    uint32_t pad;
    unsigned char input[SHIP_INPUT_BYTES];
};

/* A frame that is not on a write quorum yet. */
struct ship_batch {
    uint64_t end;
    uint64_t seq; /* to be released with it; 0 = none */
};

/* All of the loop; the caller provides the memory. borealis/volume/shiploop.py has its twin. */
struct ship_state {
    struct device_page *page;
    union {
        struct walscan *wal;
        struct binlogscan *binlog;
    } scan;               /* its position is where the shipped log ends */
    unsigned char *ring;  /* the newest log: the byte at LSN p lies at p % ring_bytes */
    uint64_t ring_bytes;  /* a multiple of the page size */
    uint64_t ring_start;  /* in and out: bytes below were overwritten */
    uint64_t term;
    uint64_t vdl;         /* in and out */
    uint64_t unacknowledged_max; /* nothing is taken this far above the VDL, bytes */
    uint64_t file_start;  /* LSN of the log file's first byte, and behind its last one */
    uint64_t file_end;
    uint64_t device_offset; /* added to a position of the device, modulo 2^64, to get an LSN in this file */
    uint64_t frame_start; /* out: the last frame that was sent */
    uint64_t frame_end;
    uint64_t batches;     /* sent since the state was made */
    uint64_t told_ns;     /* CLOCK_BOOTTIME when subscribers were last sent a newer VDL */
    uint32_t kind;        /* enum ship_kind */
    uint32_t timeline;    /* as the device gives it */
    uint32_t piece_max;   /* longest piece of log in one frame, bytes */
    uint32_t node_count;
    uint32_t write_quorum;
    int32_t file_fd;
    int32_t epoll_fd;
    int32_t notice_fd;
    int32_t wake_fd;
    int32_t error;
    uint32_t inflight_first; /* in and out: of the circle `inflight` */
    uint32_t inflight_count;
    unsigned char append_head[SHIP_APPEND_HEAD_BYTES]; /* out: of the last frame */
    unsigned char commit[SHIP_COMMIT_BYTES];           /* out: the last COMMIT */
    unsigned char pad[6];
    struct ship_batch inflight[SHIP_INFLIGHT_MAX];
    struct ship_node nodes[SHIP_NODES_MAX];
};

/* Blocks; returns an enum ship_stop. */
int borealis_ship_loop(struct ship_state *state);
uint64_t borealis_ship_state_size(void);

#endif
