/*
 * What the driver calls through ctypes: its side of the device page, where a
 * plain Python store would not be atomic or not ordered. The scanners, the CRC
 * and the storage node's append loop are exported here too, so that one file
 * shows all names.
 */
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "appendloop.h"
#include "binlogscan.h"
#include "crc32.h"
#include "crc32c.h"
#include "shm.h"
#include "walscan.h"

#define EXPORT __attribute__((visibility("default")))

/* What the driver needs to know before it reads the log files. */
struct device_view {
    uint64_t write_seq;
    uint64_t written_lsn;
    uint64_t sync_wanted_seq;
    uint64_t written_bytes;
    uint32_t timeline;
    uint32_t mode;
};

int borealis_abi(void);
long borealis_futex_wake(_Atomic uint32_t *word);
void borealis_device_view(struct device_page *page, struct device_view *view);
long borealis_device_release(struct device_page *page, uint64_t seq);
long borealis_device_set_mode(struct device_page *page, uint32_t mode);
int borealis_device_set_awake(struct device_page *page, uint32_t awake);
void borealis_device_set_lease(struct device_page *page, uint64_t deadline_ns);
void borealis_walscan_init(struct walscan *scan, uint64_t position, uint32_t timeline);
uint64_t borealis_walscan_scan(struct walscan *scan, const unsigned char *bytes, size_t length, uint64_t lsn,
                               uint64_t limit);
size_t borealis_walscan_size(void);
void borealis_binlogscan_init(struct binlogscan *scan, uint64_t position);
uint64_t borealis_binlogscan_scan(struct binlogscan *scan, const unsigned char *bytes, size_t length, uint64_t lsn,
                                  uint64_t limit);
size_t borealis_binlogscan_size(void);
uint32_t borealis_crc32c(uint32_t crc, const void *bytes, size_t length, int without_instruction);
uint32_t borealis_crc32(uint32_t crc, const void *bytes, size_t length);
int borealis_append_loop(struct append_state *state);
size_t borealis_append_state_size(void);

/* Raised when a function's arguments or a structure changes; nativelib.py checks it. */
EXPORT int borealis_abi(void) {
    return 1;
}

EXPORT long borealis_futex_wake(_Atomic uint32_t *word) {
    return syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

EXPORT void borealis_device_view(struct device_page *page, struct device_view *view) {
    /* write_seq first: every write that it counts is then in written_lsn and in the file. */
    view->write_seq = atomic_load(&page->write_seq);
    view->sync_wanted_seq = atomic_load(&page->sync_wanted_seq);
    view->written_bytes = atomic_load(&page->written_bytes);
    /* Then timeline before written_lsn: see device_log_written. */
    view->timeline = atomic_load(&page->timeline);
    view->written_lsn = atomic_load(&page->written_lsn);
    view->mode = atomic_load(&page->mode);
}

/* Wakes whoever waits in a sync, to look at the page again. Returns how many. */
static long wake(struct device_page *page) {
    atomic_fetch_add(&page->futex, 1);
    if (atomic_load(&page->waiters) == 0)
        return 0;
    return borealis_futex_wake(&page->futex);
}

/* All log writes up to number `seq` are durable. A lower number than before changes nothing. */
EXPORT long borealis_device_release(struct device_page *page, uint64_t seq) {
    uint64_t seen = atomic_load(&page->released_seq);
    while (seen < seq)
        if (atomic_compare_exchange_weak(&page->released_seq, &seen, seq))
            return wake(page);
    return 0;
}

/* Returns -1 when the device is fenced: that is final. */
EXPORT long borealis_device_set_mode(struct device_page *page, uint32_t mode) {
    uint32_t seen = atomic_load(&page->mode);
    do {
        if (seen == MODE_FENCED && mode != MODE_FENCED)
            return -1;
    } while (!atomic_compare_exchange_weak(&page->mode, &seen, mode));
    return wake(page);
}

/*
 * Awake: the driver will look at the page without being told. Before it goes
 * to sleep it clears the flag; a result of 1 then means that a sync waits
 * already and will send no notice, so that the driver must look again first.
 */
EXPORT int borealis_device_set_awake(struct device_page *page, uint32_t awake) {
    atomic_store(&page->driver_awake, awake);
    return atomic_load(&page->sync_wanted_seq) > atomic_load(&page->released_seq);
}

EXPORT void borealis_device_set_lease(struct device_page *page, uint64_t deadline_ns) {
    atomic_store(&page->lease_deadline_ns, deadline_ns);
}

EXPORT void borealis_walscan_init(struct walscan *scan, uint64_t position, uint32_t timeline) {
    walscan_init(scan, position, timeline);
}

EXPORT uint64_t borealis_walscan_scan(struct walscan *scan, const unsigned char *bytes, size_t length, uint64_t lsn,
                                      uint64_t limit) {
    return walscan_scan(scan, bytes, length, lsn, limit);
}

EXPORT size_t borealis_walscan_size(void) {
    return sizeof(struct walscan);
}

EXPORT void borealis_binlogscan_init(struct binlogscan *scan, uint64_t position) {
    binlogscan_init(scan, position);
}

EXPORT uint64_t borealis_binlogscan_scan(struct binlogscan *scan, const unsigned char *bytes, size_t length,
                                         uint64_t lsn, uint64_t limit) {
    return binlogscan_scan(scan, bytes, length, lsn, limit);
}

EXPORT size_t borealis_binlogscan_size(void) {
    return sizeof(struct binlogscan);
}

EXPORT uint32_t borealis_crc32c(uint32_t crc, const void *bytes, size_t length, int without_instruction) {
    if (without_instruction)
        return crc32c_update_table(crc, bytes, length);
    return crc32c_update(crc, bytes, length);
}

EXPORT uint32_t borealis_crc32(uint32_t crc, const void *bytes, size_t length) {
    return crc32_update(crc, bytes, length);
}

EXPORT int borealis_append_loop(struct append_state *state) {
    return append_loop(state);
}

EXPORT size_t borealis_append_state_size(void) {
    return sizeof(struct append_state);
}
