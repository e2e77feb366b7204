/*
 * Preloaded into a storage node: makes calls fail as the lines of the file FAILING_DISK say, "CALL ERRNO".
 * Direct writes (of which the write is the sync) fail with "direct". With "short 0" each write stores a few
 * bytes only (a direct one: one block).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int told(const char *call) {
    char text[128] = "", name[32];
    int number, used, fd = open(getenv("FAILING_DISK"), O_RDONLY);
    if (fd < 0)
        return 0;
    if (read(fd, text, sizeof text - 1) < 0)
        abort();
    close(fd);
    for (const char *line = text; sscanf(line, "%31s %d%n", name, &number, &used) == 2; line += used)
        if (strcmp(name, call) == 0)
            return number + 1;
    return 0;
}

int fdatasync(int fd) {
    int number = told("fdatasync");
    if (number > 0) {
        errno = number - 1;
        return -1;
    }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

ssize_t pwritev64(int fd, const struct iovec *vectors, int count, off64_t offset) {
    int number = told("pwritev");
    if (number > 0) {
        errno = number - 1;
        return -1;
    }
    if (told("short") > 0)
        return pwrite(fd, vectors[0].iov_base, vectors[0].iov_len < 7 ? vectors[0].iov_len : 7, offset);
    return ((ssize_t(*)(int, const struct iovec *, int, off64_t))dlsym(RTLD_NEXT, "pwritev64"))(fd, vectors, count, offset);
}

ssize_t pwritev64v2(int fd, const struct iovec *vectors, int count, off64_t offset, int flags) {
    (void)flags; /* Python passes none */
    return pwritev64(fd, vectors, count, offset);
}

ssize_t pwritev(int fd, const struct iovec *vectors, int count, off_t offset) {
    return pwritev64(fd, vectors, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    int flags = fcntl(fd, F_GETFL), number = flags >= 0 && flags & O_DIRECT ? told("direct") : 0;
    if (number > 0) {
        errno = number - 1;
        return -1;
    }
    if (flags >= 0 && flags & O_DIRECT && told("short") > 0)
        length = 4096;
    return ((ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, bytes, length, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return pwrite64(fd, bytes, length, offset);
}
