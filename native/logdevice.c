/*
 * The volume library: loaded into an unmodified engine with LD_PRELOAD, it
 * stands in front of the C library's file calls.
 *
 * Writes to the engine's log files go to the local file as before, and are
 * counted in the device page. A sync of a log file returns when the driver has
 * made those writes durable on a write quorum of storage nodes. Every other
 * sync returns at once: the local directory is a cache of the volume.
 *
 * Configuration, from the environment:
 *   BOREALIS_LOG_DEVICE   path of the device page; unset: the library does nothing
 *   BOREALIS_LOG_KIND     pgwal | binlog:<basename>
 *   BOREALIS_LOG_PROGRAM  name of the engine's program file; without it
 *                         "postgres" for pgwal, "mariadbd" or "mysqld" for binlog.
 *                         In any other program (a shell that starts the engine,
 *                         a command that the engine starts) the library does nothing.
 *
 * It fails closed: whatever would let a log write escape ends the engine.
 * What goes past the C library's calls (io_uring, mmap of a log file) is not
 * seen; the driver checks the engine's settings and a canary commit for that.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "logfiles.h"
#include "real.h"

#define EXPORT __attribute__((visibility("default")))
#define ALIAS(name) __attribute__((visibility("default"), alias(#name)))

extern char **environ;

/* ---- start ---------------------------------------------------------- */

static bool is_engine_program(const char *kind) {
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0)
        return true; /* cannot tell: better to attach, or to fail loudly */
    path[length] = '\0';
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    const char *wanted = getenv("BOREALIS_LOG_PROGRAM");
    if (wanted != NULL)
        return strcmp(name, wanted) == 0;
    if (strcmp(kind, "pgwal") == 0)
        return strcmp(name, "postgres") == 0;
    return strcmp(name, "mariadbd") == 0 || strcmp(name, "mysqld") == 0;
}

/*
 * Programs that the engine starts must not attach to its device. The variable
 * is renamed in place: PostgreSQL needs its environment without gaps, because
 * it shows its state to `ps` there.
 */
static void hide_from_children(void) {
    static const char name[] = "BOREALIS_LOG_DEVICE=", hidden[] = "BOREALIS_LOG_PARENT=";
    _Static_assert(sizeof name == sizeof hidden, "renamed in place");
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++)
        if (strncmp(*entry, name, sizeof name - 1) == 0)
            memcpy(*entry, hidden, sizeof hidden - 1);
}

__attribute__((constructor)) static void start(void) {
    real();
    const char *device = getenv("BOREALIS_LOG_DEVICE");
    if (device == NULL || *device == '\0')
        return;
    const char *kind = getenv("BOREALIS_LOG_KIND");
    if (kind == NULL)
        kind = "";
    if (!is_engine_program(kind))
        return;
    bool known = logfiles_configure(kind);
    device_attach(device);
    if (!known)
        device_refuse("BOREALIS_LOG_KIND must be pgwal or binlog:<basename>, but is", kind);
    hide_from_children();
}

/* ---- open, close, copies of descriptors ----------------------------- */

/* Flags with which the kernel itself would make each write durable: locally only. */
static bool syncs_by_itself(int flags) {
    return (flags & O_DSYNC) != 0; /* O_SYNC contains O_DSYNC */
}

static int opened(int fd, const char *path, int flags) {
    if (fd < 0 || !device_attached())
        return fd;
    int saved_errno = errno;
    struct log_place place;
    fds_opened(fd);
    if (logfiles_match(path, fd, &place)) {
        if (syncs_by_itself(flags))
            device_refuse("log file opened with O_DSYNC or O_SYNC; the engine must sync with fdatasync", path);
        if (!fds_set(fd, place))
            device_refuse("log file opened with a descriptor number beyond the table", path);
    }
    errno = saved_errno;
    return fd;
}

static int open_any(int dir, const char *path, int flags, mode_t mode) {
    return opened(real()->openat(dir, path, flags, mode), path, flags);
}

#define MODE_ARGUMENT(mode, flags)                          \
    mode_t mode = 0;                                        \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list arguments;                                  \
        va_start(arguments, flags);                         \
        mode = va_arg(arguments, mode_t);                   \
        va_end(arguments);                                  \
    }

EXPORT int open(const char *path, int flags, ...) {
    MODE_ARGUMENT(mode, flags)
    return opened(real()->open(path, flags, mode), path, flags);
}

EXPORT int openat(int dir, const char *path, int flags, ...) {
    MODE_ARGUMENT(mode, flags)
    return open_any(dir, path, flags, mode);
}

EXPORT int creat(const char *path, mode_t mode) {
    return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

/* What programs built with _FORTIFY_SOURCE call when there is no mode argument. */
int __open_2(const char *, int);
int __openat_2(int, const char *, int);

EXPORT int __open_2(const char *path, int flags) {
    return open_any(AT_FDCWD, path, flags, 0);
}

EXPORT int __openat_2(int dir, const char *path, int flags) {
    return open_any(dir, path, flags, 0);
}

static void closing(int fd) {
    /* Before the descriptor's number can be given to another thread. */
    if (device_attached()) {
        fds_clear(fd);
        device_fd_gone(fd);
    }
}

EXPORT int close(int fd) {
    closing(fd);
    return real()->close(fd);
}

EXPORT int close_range(unsigned first, unsigned last, int flags) {
    int log_files = 0;
    if (device_attached() && (flags & CLOSE_RANGE_CLOEXEC) == 0) {
        log_files = fds_clear_range(first, last);
        device_fd_range_gone(first, last);
    }
    int result = real()->close_range(first, last, flags);
    if (result != 0 && log_files > 0)
        device_refuse("close_range failed on open log files", strerror(errno));
    return result;
}

EXPORT void closefrom(int first) {
    if (device_attached()) {
        unsigned lowest = first < 0 ? 0 : (unsigned)first;
        fds_clear_range(lowest, UINT_MAX);
        device_fd_range_gone(lowest, UINT_MAX);
    }
    real()->closefrom(first);
}

static int copied(int from, int to) {
    if (to >= 0 && device_attached() && !fds_copy(from, to))
        device_refuse("log file copied to a descriptor number beyond the table", "");
    return to;
}

/* After dup2: on failure `to` still leads where it led. */
static int copied_over(int from, int to, int result) {
    if (result >= 0 && from != to && device_attached())
        device_fd_gone(to);
    return from == to ? result : copied(from, result);
}

EXPORT int dup(int fd) {
    return copied(fd, real()->dup(fd));
}

EXPORT int dup2(int fd, int to) {
    return copied_over(fd, to, real()->dup2(fd, to));
}

EXPORT int dup3(int fd, int to, int flags) {
    return copied_over(fd, to, real()->dup3(fd, to, flags));
}

EXPORT int fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    int result = real()->fcntl(fd, command, argument);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
        return copied(fd, result);
    return result;
}

/* ---- answers to clients ---------------------------------------------- */

static void before_answer(int fd) {
    if (device_attached())
        device_lease_gate(fd);
}

/*
 * MariaDB's encrypted connections are written by OpenSSL, with write(); other
 * answers of both engines leave with the calls at the end of this file.
 */
static void before_write(int fd) {
    struct log_place place;
    if (logfiles_only_grow() && device_attached() && !fds_get(fd, &place))
        device_lease_gate(fd);
}

/* ---- write ----------------------------------------------------------- */

/* The one byte of a binlog that is written again, when its file is closed: a flag that says that it is in use. */
#define BINLOG_IN_USE_AT 21

/* `start`: offset in the file where the write began; -1: at the descriptor's own position. */
static ssize_t written(int fd, ssize_t done, off_t start) {
    struct log_place place;
    if (done <= 0 || !device_attached() || !fds_get(fd, &place))
        return done;
    off_t end = start >= 0 ? start + done : lseek(fd, 0, SEEK_CUR);
    if (end < 0)
        device_refuse("cannot tell where a write to the log ended", strerror(errno));
    bool in_use_flag = end == BINLOG_IN_USE_AT + 1 && done == 1;
    if (logfiles_only_grow() && !in_use_flag)
        device_log_grows(place.start + (uint64_t)(end - done));
    device_log_written(place.timeline, place.start + (uint64_t)end, (uint64_t)done);
    return done;
}

EXPORT ssize_t write(int fd, const void *bytes, size_t length) {
    before_write(fd);
    return written(fd, real()->write(fd, bytes, length), -1);
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return written(fd, real()->pwrite(fd, bytes, length, offset), offset);
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
    before_write(fd);
    return written(fd, real()->writev(fd, parts, count), -1);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return written(fd, real()->pwritev(fd, parts, count, offset), offset);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    struct log_place place;
    if ((flags & (RWF_DSYNC | RWF_SYNC)) != 0 && device_attached() && fds_get(fd, &place))
        device_refuse("log written with RWF_DSYNC or RWF_SYNC; the engine must sync with fdatasync", "");
    return written(fd, real()->pwritev2(fd, parts, count, offset, flags), offset);
}

EXPORT int ftruncate(int fd, off_t length) {
    struct log_place place;
    if (logfiles_only_grow() && device_attached() && fds_get(fd, &place))
        device_log_cut("ftruncate");
    return real()->ftruncate(fd, length);
}

EXPORT int truncate(const char *path, off_t length) {
    if (logfiles_only_grow() && device_attached() && logfiles_name_like(path))
        device_log_cut(path);
    return real()->truncate(path, length);
}

/* ---- sync ------------------------------------------------------------ */

/* True when the sync has been dealt with here. */
static bool synced(int fd) {
    struct log_place place;
    if (!device_attached())
        return false;
    if (fds_get(fd, &place))
        device_log_file_sync(place);
    else
        device_count_skipped_sync();
    return true;
}

EXPORT int fsync(int fd) {
    return synced(fd) ? 0 : real()->fsync(fd);
}

EXPORT int fdatasync(int fd) {
    return synced(fd) ? 0 : real()->fdatasync(fd);
}

EXPORT int sync_file_range(int fd, off_t offset, off_t length, unsigned flags) {
    /* Promises nothing about durability, only starts local writing. */
    return device_attached() ? 0 : real()->sync_file_range(fd, offset, length, flags);
}

EXPORT int syncfs(int fd) {
    if (!device_attached())
        return real()->syncfs(fd);
    device_log_sync();
    return 0;
}

EXPORT void sync(void) {
    if (device_attached())
        device_log_sync();
    else
        real()->sync();
}

/* ---- rename ---------------------------------------------------------- */

static int renamed(int result, const char *from, const char *to) {
    if (result != 0 || !device_attached() || (!logfiles_name_like(from) && !logfiles_name_like(to)))
        return result;
    int saved_errno = errno;
    if (!fds_renamed(to))
        device_refuse("log file renamed while open with a descriptor number beyond the table", to);
    errno = saved_errno;
    return result;
}

EXPORT int rename(const char *from, const char *to) {
    return renamed(real()->rename(from, to), from, to);
}

EXPORT int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return renamed(real()->renameat(from_dir, from, to_dir, to), from, to);
}

EXPORT int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return renamed(real()->renameat2(from_dir, from, to_dir, to, flags), from, to);
}

/* ---- send ------------------------------------------------------------ */

EXPORT ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    before_answer(fd);
    return real()->send(fd, bytes, length, flags);
}

EXPORT ssize_t sendto(int fd, const void *bytes, size_t length, int flags, const struct sockaddr *to,
                      socklen_t to_length) {
    before_answer(fd);
    return real()->sendto(fd, bytes, length, flags, to, to_length);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    before_answer(fd);
    return real()->sendmsg(fd, message, flags);
}

/*
 * The names for large files. On 64-bit Linux off_t and off64_t are the same,
 * and the C library has one function under both names.
 */
_Static_assert(sizeof(off_t) == 8, "64-bit file offsets");

ALIAS(open) int open64(const char *, int, ...);
ALIAS(openat) int openat64(int, const char *, int, ...);
ALIAS(creat) int creat64(const char *, mode_t);
ALIAS(__open_2) int __open64_2(const char *, int);
ALIAS(__openat_2) int __openat64_2(int, const char *, int);
ALIAS(fcntl) int fcntl64(int, int, ...);
ALIAS(ftruncate) int ftruncate64(int, off64_t);
ALIAS(truncate) int truncate64(const char *, off64_t);
ALIAS(pwrite) ssize_t pwrite64(int, const void *, size_t, off64_t);
ALIAS(pwritev) ssize_t pwritev64(int, const struct iovec *, int, off64_t);
ALIAS(pwritev2) ssize_t pwritev64v2(int, const struct iovec *, int, off64_t, int);
