/*
 * The storage node's append path in steady state, for one segment: take the
 * writer's frames, write, sync, acknowledge, feed the subscribers.
 *
 * It takes only what needs no decision: APPENDs (and heartbeats and COMMITs)
 * of the one term that the segment has promised and whose log it holds, which
 * continue that log exactly and fit into the open log file. Whatever else
 * happens ends the loop: Python (borealis/storage/appendloop.py, the caller)
 * takes over what was done and handles the rest by the same rules, of which
 * borealis/log/segment.py and borealis/storage/ are the reference.
 *
 * An acknowledgement is sent only after the write is durable. After a write or
 * a sync has failed nothing is sent any more.
 *
 * Where the file system allows it, a batch is one write that goes past the page
 * cache and is durable when it returns (O_DIRECT, O_DSYNC): when several nodes
 * share a disk that takes half of the time of a write and an fdatasync, and
 * less of the processor. Such writes are of whole blocks: the block in which
 * the log ends is kept in memory, and written again with what is added to it.
 */
#ifndef BOREALIS_APPENDLOOP_H
#define BOREALIS_APPENDLOOP_H

#include <stdint.h>

#define APPEND_RECORDS_MAX 256
#define APPEND_RUNS_MAX 64
#define APPEND_SUBSCRIBERS_MAX 16
#define APPEND_RUN_BYTES (128u << 10)
#define APPEND_ANSWER_BYTES 30
#define APPEND_BLOCK_BYTES 4096u /* direct writes begin and end at a multiple of it */

#define APPEND_NOT_STAGED UINT32_MAX

/* Why the loop ended. */
enum append_stop {
    APPEND_EVENT = 0,      /* another connection, the mailbox, or the writer has gone: look at the epoll */
    APPEND_FOREIGN = 1,    /* the message at `first` is not one for here */
    APPEND_LIMIT = 2,      /* enough was done: let the caller take it over */
    APPEND_SUBSCRIBER = 3, /* one did not take all: see its `sent` */
    APPEND_ANSWERS = 4,    /* the writer did not take all: answers from `answers_sent` on are left */
    APPEND_FAILED = 5,     /* a write or a sync failed (`error`); nothing of the last batch is acknowledged */
};

/* One APPEND of the last batch: where its log bytes are in `buffer`. */
struct append_record {
    uint64_t lsn;
    uint32_t at;
    uint32_t length;
    uint32_t crc; /* of the log bytes */
    uint32_t pad;
};

/* Consecutive records in the file: log bytes [lsn, lsn + length) in `span` bytes from `offset`. */
struct append_run {
    uint64_t lsn;
    uint32_t length;
    uint32_t offset;
    uint32_t span;
    uint32_t pad;
};

/* A subscriber that has all the log so far. */
struct append_subscriber {
    uint64_t sent; /* APPEND_SUBSCRIBER: bytes of the last batch's frames that it took */
    uint32_t left; /* 1: it did not take all of them */
    int32_t fd;
};

/* All of the loop; the caller provides the memory. borealis/storage/appendloop.py has its twin. */
struct append_state {
    /* The log. */
    uint64_t term;         /* promised, and the newest of the history */
    uint64_t leader_start; /* a commit point of this term is never below */
    uint64_t end;          /* in and out: of the log; all below is synced */
    uint64_t vdl;          /* in and out: highest commit point of this term heard */

    /* What has come from the writer and is not used: bytes [first, last) of the buffer, in and out. */
    unsigned char *buffer;
    uint32_t buffer_bytes;
    uint32_t first;
    uint32_t last;

    /* The open log file. */
    uint32_t file_seq;
    uint32_t header_seed; /* crc32 of the volume's name and of the first 8 bytes of each header */
    uint32_t meta_no;
    uint32_t offset;     /* in and out: where the next record goes; all below is synced */
    uint32_t limit;      /* no record ends above */
    uint32_t upkeep_at;  /* the caller has work to do when `offset` has come here */
    uint32_t record_max; /* longer APPENDs are cut into pieces by the caller, bytes */
    int32_t file_fd;
    int32_t direct_fd;   /* in and out: the same file for direct writes; -1 = there is no such thing here */

    /* Blocks to be written: an aligned buffer that begins with the block at `staged_at` of the file. */
    unsigned char *staging;
    uint32_t staging_bytes;
    uint32_t staged_at; /* APPEND_NOT_STAGED: the buffer holds nothing */

    int32_t epoll_fd;
    int32_t writer_fd;
    uint32_t has_subscribers; /* any at all, also such as are not listed here */
    uint32_t subscriber_count;

    /* Results. */
    int32_t error; /* errno of what failed */
    uint32_t sync_failed; /* it was the sync */
    uint32_t run_count;
    uint32_t record_count;  /* of the last batch */
    uint32_t batch_commits; /* the last batch ended with a COMMIT to the subscribers */
    uint32_t answers_bytes;
    uint32_t answers_sent;
    uint64_t appends; /* acknowledged since the state was made */
    uint64_t syncs;
    uint64_t direct; /* of those: by a direct write */

    struct append_subscriber subscribers[APPEND_SUBSCRIBERS_MAX];
    struct append_run runs[APPEND_RUNS_MAX];
    struct append_record records[APPEND_RECORDS_MAX];
    unsigned char answers[APPEND_RECORDS_MAX * APPEND_ANSWER_BYTES];
};

/* Blocks; returns an enum append_stop. */
int append_loop(struct append_state *state);

#endif
