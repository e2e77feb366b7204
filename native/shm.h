/*
 * The device page: one page of memory shared by an engine (all of its
 * processes, through the preloaded volume library) and its driver.
 *
 * It holds counters and flags only, never log bytes: those travel through the
 * engine's own log files.  Each field has exactly one side that writes it.
 * borealis/volume/device.py documents the same layout; a change of any offset
 * is a new DEVICE_VERSION.
 */
#ifndef BOREALIS_SHM_H
#define BOREALIS_SHM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_MAGIC 0x31474f4c45524f42ull /* "BORELOG1", little endian */
#define DEVICE_VERSION 1u
#define DEVICE_PAGE_BYTES 4096u

enum device_mode {
    MODE_OFF = 0,    /* reader: the log is a copy of what storage holds; no sync waits */
    MODE_ON = 1,     /* writer: a sync of the log waits for the driver's release */
    MODE_FENCED = 2, /* another writer has the volume: the engine must end at once; final */
};

struct device_page {
    /* Written once by the driver that creates the page. */
    uint64_t magic;
    uint32_t version;
    uint32_t page_bytes;

    _Atomic uint32_t mode;       /* driver: enum device_mode */
    _Atomic uint32_t engine_pid; /* library: pid of the engine's first process; 0 = never attached */
    _Atomic uint32_t attached;   /* library: how many times an engine attached */
    _Atomic uint32_t end_reason; /* library: why it ended the engine, see enum end_reason */
    uint8_t pad0[32];

    /* Offset 64. The log as written so far; by the library. */
    _Atomic uint64_t write_seq;     /* number of finished log writes; raised last */
    _Atomic uint64_t written_lsn;   /* highest end of a log write on `timeline`, raw (whole pages); binlog: see logfiles.h */
    _Atomic uint32_t timeline;      /* timeline of that write; never goes down */
    uint32_t pad1;
    _Atomic uint64_t written_bytes; /* sum of the lengths of all log writes */
    _Atomic uint64_t noticed_bytes; /* written_bytes when the driver was last told */
    uint8_t pad2[24];

    /* Offset 128. Who waits; by the library. */
    _Atomic uint64_t sync_wanted_seq; /* highest write_seq that a sync waits for */
    _Atomic uint32_t waiters;         /* processes in the futex wait (may be too high after a kill) */
    uint32_t pad3;
    uint8_t pad4[48];

    /* Offset 192. What is durable; by the driver. */
    _Atomic uint64_t released_seq; /* all log writes up to this number are durable on a quorum */
    _Atomic uint32_t futex;        /* raised with every release, change of mode and of the lease */
    uint32_t pad5;
    uint8_t pad6[48];

    /* Offset 256. The driver's state. */
    _Atomic uint64_t lease_deadline_ns; /* CLOCK_BOOTTIME; after it no answer leaves; 0 = no lease */
    _Atomic uint64_t heartbeat_ns;      /* CLOCK_BOOTTIME of the driver's last sign of life */
    _Atomic uint32_t driver_awake;      /* 1: the driver looks at the page by itself, notices are needless */
    _Atomic uint32_t driver_pid;
    uint8_t pad7[40];

    /* Offset 320. Counters, for measurement; by the library. */
    _Atomic uint64_t syncs;          /* syncs of log files */
    _Atomic uint64_t syncs_waited;   /* of those: had to wait for a release */
    _Atomic uint64_t syncs_skipped;  /* syncs of other files, answered at once */
    _Atomic uint64_t wait_ns;        /* sum of all waits */
    _Atomic uint64_t notices;        /* datagrams sent to the driver */
    _Atomic uint64_t notices_failed; /* datagrams that did not reach it */
    _Atomic uint64_t lease_waits;    /* answers held back because the lease had run out */
};

enum end_reason {
    END_NONE = 0,
    END_FENCED = 1,   /* MODE_FENCED was seen */
    END_REFUSED = 2,  /* the engine did something to its log that the device cannot make durable */
};

_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "plain atomics");
_Static_assert(offsetof(struct device_page, mode) == 16, "layout");
_Static_assert(offsetof(struct device_page, write_seq) == 64, "layout");
_Static_assert(offsetof(struct device_page, sync_wanted_seq) == 128, "layout");
_Static_assert(offsetof(struct device_page, released_seq) == 192, "layout");
_Static_assert(offsetof(struct device_page, lease_deadline_ns) == 256, "layout");
_Static_assert(offsetof(struct device_page, syncs) == 320, "layout");
_Static_assert(sizeof(struct device_page) <= DEVICE_PAGE_BYTES, "one page");

#endif
