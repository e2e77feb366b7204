#include "logfiles.h"

#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum log_kind kind = LOG_NONE;
static char binlog_basename[256];

bool logfiles_configure(const char *text) {
    if (strcmp(text, "pgwal") == 0) {
        kind = LOG_PGWAL;
        return true;
    }
    if (strncmp(text, "binlog:", 7) != 0)
        return false;
    const char *base = strrchr(text + 7, '/');
    base = base ? base + 1 : text + 7;
    if (*base == '\0' || strlen(base) >= sizeof binlog_basename)
        return false;
    strcpy(binlog_basename, base);
    kind = LOG_BINLOG;
    return true;
}

bool logfiles_only_grow(void) {
    return kind == LOG_BINLOG;
}

static const char *last_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* `count` upper-case hexadecimal digits at `text`. */
static bool hex(const char *text, int count, uint32_t *value) {
    uint32_t result = 0;
    for (int i = 0; i < count; i++) {
        char c = text[i];
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if (c >= 'A' && c <= 'F')
            digit = (uint32_t)(c - 'A' + 10);
        else
            return false;
        result = result << 4 | digit;
    }
    *value = result;
    return true;
}

static bool parse_pgwal(const char *name, struct log_place *place) {
    uint32_t timeline, log, segment;
    if (!hex(name, 8, &timeline) || !hex(name + 8, 8, &log) || !hex(name + 16, 8, &segment) || name[24] != '\0')
        return false;
    place->timeline = timeline;
    place->start = ((uint64_t)log << 32) + segment * PG_SEGMENT_BYTES;
    return true;
}

static bool parse_binlog(const char *name, struct log_place *place) {
    size_t length = strlen(binlog_basename);
    if (strncmp(name, binlog_basename, length) != 0 || name[length] != '.')
        return false;
    const char *digit = name + length + 1;
    uint64_t number = 0;
    int digits = 0;
    for (; *digit >= '0' && *digit <= '9' && digits < 10; digit++, digits++)
        number = number * 10 + (uint64_t)(*digit - '0');
    if (*digit != '\0' || digits < 6)
        return false;
    place->timeline = 0;
    place->start = number << BINLOG_OFFSET_BITS;
    return true;
}

static bool parse(const char *name, struct log_place *place) {
    switch (kind) {
    case LOG_PGWAL:
        return parse_pgwal(name, place);
    case LOG_BINLOG:
        return parse_binlog(name, place);
    default:
        return false;
    }
}

bool logfiles_name_like(const char *path) {
    struct log_place ignored;
    return path != NULL && parse(last_part(path), &ignored);
}

/* True when the directory part of `path` ends in "pg_wal". */
static bool in_pg_wal(const char *path) {
    const char *name = last_part(path);
    static const char dir[] = "pg_wal/";
    size_t length = sizeof dir - 1;
    if ((size_t)(name - path) < length || memcmp(name - length, dir, length) != 0)
        return false;
    return (size_t)(name - path) == length || name[-(ptrdiff_t)length - 1] == '/';
}

bool logfiles_match(const char *path, int fd, struct log_place *place) {
    if (path == NULL || !parse(last_part(path), place))
        return false;
    if (kind != LOG_PGWAL || in_pg_wal(path))
        return true;
    /* A bare name: opened relative to some directory. Ask the kernel which. */
    char link[64], target[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length <= 0)
        return false;
    target[length] = '\0';
    return in_pg_wal(target);
}

/*
 * The table: one entry per descriptor number, up to the kernel's usual limit
 * (fs.nr_open). It lies in zeroed memory that costs nothing until it is touched.
 */
#define FDS_MAX (1 << 20)

struct fd_entry {
    _Atomic uint64_t start_tagged; /* start of the file | 1; 0 = not a log file */
    _Atomic uint32_t timeline;
};

static struct fd_entry fds[FDS_MAX];
static _Atomic int highest_log_fd = -1; /* highest number that ever led to a log file */
static _Atomic int highest_fd = -1;     /* highest number of any file opened */

static void raise_to(_Atomic int *highest, int fd) {
    int seen = atomic_load_explicit(highest, memory_order_relaxed);
    while (fd > seen && !atomic_compare_exchange_weak(highest, &seen, fd)) {
    }
}

void fds_opened(int fd) {
    raise_to(&highest_fd, fd);
    fds_clear(fd);
}

bool fds_set(int fd, struct log_place place) {
    if (fd < 0 || fd >= FDS_MAX)
        return false;
    raise_to(&highest_fd, fd);
    raise_to(&highest_log_fd, fd);
    atomic_store(&fds[fd].timeline, place.timeline);
    atomic_store(&fds[fd].start_tagged, place.start | 1);
    return true;
}

bool fds_get(int fd, struct log_place *place) {
    if (fd < 0 || fd > atomic_load_explicit(&highest_log_fd, memory_order_acquire))
        return false;
    uint64_t tagged = atomic_load_explicit(&fds[fd].start_tagged, memory_order_acquire);
    if (tagged == 0)
        return false;
    place->start = tagged & ~1ull;
    place->timeline = atomic_load_explicit(&fds[fd].timeline, memory_order_relaxed);
    return true;
}

void fds_clear(int fd) {
    if (fd >= 0 && fd <= atomic_load(&highest_log_fd))
        atomic_store(&fds[fd].start_tagged, 0);
}

int fds_clear_range(unsigned first, unsigned last) {
    int highest = atomic_load(&highest_log_fd), cleared = 0;
    for (int64_t fd = first; fd <= (int64_t)last && fd <= highest; fd++)
        cleared += atomic_exchange(&fds[fd].start_tagged, 0) != 0;
    return cleared;
}

bool fds_copy(int from, int to) {
    struct log_place place;
    if (fds_get(from, &place))
        return fds_set(to, place);
    fds_opened(to);
    return true;
}

bool fds_renamed(const char *path) {
    struct stat renamed, open_file;
    if (stat(path, &renamed) != 0)
        return true;
    struct log_place place;
    int highest = atomic_load(&highest_fd);
    for (int fd = 0; fd <= highest; fd++) {
        if (fstat(fd, &open_file) != 0 || open_file.st_ino != renamed.st_ino || open_file.st_dev != renamed.st_dev)
            continue;
        if (!logfiles_match(path, fd, &place))
            fds_clear(fd);
        else if (!fds_set(fd, place))
            return false;
    }
    return true;
}
