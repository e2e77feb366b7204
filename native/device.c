#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "real.h"

#define RETRY_NS 50000000l          /* a waiting sync looks around and repeats its notice this often */
#define LEASE_POLL_NS 1000000l      /* a held-back answer looks at the lease this often */
#define EAGER_NOTICE_BYTES (128 << 10) /* written since the last notice: tell the driver before any sync */
#define EXIT_ENDED 3                /* status of a process that the library ended */

static struct device_page *page; /* NULL: not attached */
static struct sockaddr_un driver_address;

/* Of this process; a fork()ed child finds its parent's values and makes its own. */
static struct {
    _Atomic pid_t pid;
    _Atomic pid_t parent;
    _Atomic int notice_socket; /* descriptor, or -1 */
} self = {.notice_socket = -1};

bool device_attached(void) {
    return page != NULL;
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void add(_Atomic uint64_t *counter, uint64_t amount) {
    atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

/* Raises *target to `value`, unless it is there already. */
static void raise_to(_Atomic uint64_t *target, uint64_t value) {
    uint64_t seen = atomic_load(target);
    while (seen < value && !atomic_compare_exchange_weak(target, &seen, value)) {
    }
}

static void say(const char *what, const char *detail) {
    char line[512];
    int length = snprintf(line, sizeof line, "borealis volume library: %s%s%s\n", what, *detail ? ": " : "", detail);
    if (length > (int)sizeof line - 1)
        length = sizeof line - 1;
    /* Nothing more can be done when even this fails. */
    if (real()->write(STDERR_FILENO, line, (size_t)length) < 0)
        return;
}

static void know_self(void) {
    pid_t pid = getpid();
    if (atomic_load(&self.pid) == pid)
        return;
    atomic_store(&self.parent, getppid());
    /* The socket belongs to the parent: a notice must not be lost because the
     * parent closed it. Our copy of the descriptor is closed, not the parent's. */
    int inherited = atomic_exchange(&self.notice_socket, -1);
    if (inherited >= 0)
        real()->close(inherited);
    atomic_store(&self.pid, pid);
}

/*
 * Ends this process and, when it is this process or its parent, the engine's
 * first process. Any other pid may belong to somebody else by now; the driver
 * kills the engine too.
 */
static _Noreturn void end_engine(enum end_reason reason, const char *what, const char *detail) {
    uint32_t none = END_NONE;
    if (atomic_compare_exchange_strong(&page->end_reason, &none, (uint32_t)reason) || reason == END_REFUSED)
        say(what, detail);
    pid_t engine = (pid_t)atomic_load(&page->engine_pid);
    if (engine > 1 && (engine == getpid() || engine == getppid()))
        kill(engine, SIGKILL);
    _exit(EXIT_ENDED);
}

void device_refuse(const char *what, const char *detail) {
    end_engine(END_REFUSED, what, detail);
}

/* Ends this process when it must not go on: fenced, or the engine's first process is gone. */
static void check_alive(void) {
    if (atomic_load(&page->mode) == MODE_FENCED)
        end_engine(END_FENCED, "another writer has taken over the volume; this engine ends", "");
    know_self();
    pid_t engine = (pid_t)atomic_load(&page->engine_pid);
    if (engine == atomic_load(&self.pid))
        return;
    bool parent_changed = getppid() != atomic_load(&self.parent);
    bool engine_gone = engine > 1 && kill(engine, 0) != 0 && errno == ESRCH;
    if (parent_changed || engine_gone)
        _exit(EXIT_ENDED);
}

/* Tells the driver to look at the page. It may be away: the caller repeats. */
static void notify(uint64_t seq) {
    know_self();
    int fd = atomic_load(&self.notice_socket);
    if (fd < 0) {
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int none = -1;
        if (fd >= 0 && !atomic_compare_exchange_strong(&self.notice_socket, &none, fd)) {
            real()->close(fd); /* another thread was faster */
            fd = none;
        }
    }
    atomic_store(&page->noticed_bytes, atomic_load(&page->written_bytes));
    ssize_t sent = real()->sendto(fd, &seq, sizeof seq, MSG_DONTWAIT | MSG_NOSIGNAL,
                                  (const struct sockaddr *)&driver_address, sizeof driver_address);
    /* A full queue is as good: the driver has notices to read, and will look. */
    bool reached = sent == (ssize_t)sizeof seq || errno == EAGAIN;
    add(reached ? &page->notices : &page->notices_failed, 1);
}

void device_log_written(uint32_t timeline, uint64_t end, uint64_t length) {
    int saved_errno = errno;
    uint32_t mode = atomic_load(&page->mode);
    if (mode == MODE_FENCED)
        check_alive();
    /*
     * On a new timeline the positions start again, lower perhaps. written_lsn
     * changes before `timeline` does, so that whoever reads the two between
     * sees a position that is too low, never one that is too high.
     */
    uint32_t known = atomic_load(&page->timeline);
    if (timeline > known) {
        atomic_store(&page->written_lsn, end);
        atomic_store(&page->timeline, timeline);
    } else if (timeline == known) {
        raise_to(&page->written_lsn, end);
    }
    uint64_t total = atomic_fetch_add(&page->written_bytes, length) + length;
    /* Last: who sees the new number finds the bytes in the file. */
    uint64_t seq = atomic_fetch_add(&page->write_seq, 1) + 1;
    if (mode == MODE_ON && !atomic_load(&page->driver_awake) &&
        total - atomic_load(&page->noticed_bytes) >= EAGER_NOTICE_BYTES)
        notify(seq);
    errno = saved_errno;
}

void device_log_grows(uint64_t start) {
    uint64_t before = atomic_load(&page->written_lsn);
    if (start >= before)
        return;
    if (atomic_load(&page->mode) != MODE_OFF)
        device_refuse("the log was begun anew or written over (RESET MASTER?): what was written before is in the volume", "");
    atomic_compare_exchange_strong(&page->written_lsn, &before, start);
}

void device_log_cut(const char *path) {
    if (atomic_load(&page->mode) != MODE_OFF)
        device_refuse("log file made shorter: what was written before is in the volume", path);
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    const struct timespec timeout = {.tv_nsec = RETRY_NS};
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &timeout, NULL, 0);
}

/*
 * PostgreSQL writes the same last page again and again, so a byte position
 * cannot say which version of it is durable. Writes are numbered instead: the
 * sync waits for the number of the last write that came before it.
 */
static void wait_released(uint64_t seq) {
    uint64_t began = clock_ns(CLOCK_MONOTONIC);
    add(&page->syncs_waited, 1);
    raise_to(&page->sync_wanted_seq, seq);
    /* After sync_wanted_seq: a driver that goes to sleep clears the flag, then looks at the number. */
    if (!atomic_load(&page->driver_awake))
        notify(seq);
    atomic_fetch_add(&page->waiters, 1);
    uint64_t next_retry = began + RETRY_NS;
    for (;;) {
        uint32_t word = atomic_load(&page->futex);
        if (atomic_load(&page->released_seq) >= seq)
            break; /* only a release ends the wait, whatever the mode has become */
        if (atomic_load(&page->mode) == MODE_FENCED)
            check_alive();
        futex_wait(&page->futex, word);
        if (clock_ns(CLOCK_MONOTONIC) < next_retry)
            continue;
        next_retry += RETRY_NS;
        check_alive();
        notify(seq);
    }
    atomic_fetch_sub(&page->waiters, 1);
    add(&page->wait_ns, clock_ns(CLOCK_MONOTONIC) - began);
}

void device_log_sync(void) {
    int saved_errno = errno;
    add(&page->syncs, 1);
    uint64_t seq = atomic_load(&page->write_seq);
    uint32_t mode = atomic_load(&page->mode);
    if (mode == MODE_FENCED)
        check_alive();
    if (mode == MODE_ON && atomic_load(&page->released_seq) < seq)
        wait_released(seq);
    errno = saved_errno;
}

void device_log_file_sync(struct log_place place) {
    /*
     * A segment that PostgreSQL has just prepared or recycled is synced before
     * anything was written to it under its name. That matters at a promotion:
     * the new timeline's first segment is synced before the history file is
     * written, and the driver needs that file before it can release anything.
     */
    uint32_t timeline = atomic_load(&page->timeline);
    bool untouched = place.timeline > timeline ||
                     (place.timeline == timeline && place.start >= atomic_load(&page->written_lsn));
    if (untouched && atomic_load(&page->mode) != MODE_FENCED) {
        device_count_skipped_sync();
        return;
    }
    device_log_sync();
}

void device_count_skipped_sync(void) {
    add(&page->syncs_skipped, 1);
}

static bool is_stream(int fd) {
    int type = 0;
    socklen_t length = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM;
}

static bool lease_valid(void) {
    uint64_t deadline = atomic_load(&page->lease_deadline_ns);
    return deadline == 0 || clock_ns(CLOCK_BOOTTIME) <= deadline || atomic_load(&page->mode) == MODE_OFF;
}

void device_lease_gate(int fd) {
    uint32_t mode = atomic_load_explicit(&page->mode, memory_order_acquire);
    if (mode == MODE_OFF || (mode == MODE_ON && lease_valid()))
        return;
    int saved_errno = errno;
    if (!is_stream(fd)) {
        errno = saved_errno;
        return;
    }
    add(&page->lease_waits, 1);
    const struct timespec pause = {.tv_nsec = LEASE_POLL_NS};
    do {
        check_alive();
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    } while (!lease_valid());
    errno = saved_errno;
}

void device_fd_gone(int fd) {
    if (fd >= 0)
        atomic_compare_exchange_strong(&self.notice_socket, &(int){fd}, -1);
}

void device_fd_range_gone(unsigned first, unsigned last) {
    int fd = atomic_load(&self.notice_socket);
    if (fd >= 0 && (unsigned)fd >= first && (unsigned)fd <= last)
        device_fd_gone(fd);
}

static _Noreturn void attach_failed(const char *what, const char *detail) {
    say(what, detail);
    _exit(EXIT_ENDED);
}

void device_attach(const char *path) {
    driver_address.sun_family = AF_UNIX;
    int length = snprintf(driver_address.sun_path, sizeof driver_address.sun_path, "%s.sock", path);
    if (length < 0 || length >= (int)sizeof driver_address.sun_path)
        attach_failed("the path of the log device is too long for a Unix socket", path);
    int fd = real()->open(path, O_RDWR | O_CLOEXEC);
    struct stat file;
    if (fd < 0 || fstat(fd, &file) != 0)
        attach_failed("cannot open the log device", path);
    if (file.st_size != DEVICE_PAGE_BYTES)
        attach_failed("the log device has not the expected size of one page", path);
    struct device_page *mapped = mmap(NULL, DEVICE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        attach_failed("cannot map the log device", path);
    real()->close(fd);
    if (mapped->magic != DEVICE_MAGIC || mapped->version != DEVICE_VERSION || mapped->page_bytes != DEVICE_PAGE_BYTES)
        attach_failed("the log device is not of this library's version", path);
    page = mapped;
    know_self();
    atomic_store(&page->engine_pid, (uint32_t)getpid());
    atomic_fetch_add(&page->attached, 1);
}
