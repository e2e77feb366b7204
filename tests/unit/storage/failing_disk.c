/*
 * Preloaded into a storage node: makes calls fail as the file FAILING_DISK says, "CALL ERRNO". With "short 0"
 * each write stores a few bytes only.
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
    char text[64] = "", name[32] = "";
    int number = 0, fd = open(getenv("FAILING_DISK"), O_RDONLY);
    if (fd >= 0) {
        if (read(fd, text, sizeof text - 1) < 0)
            abort();
        close(fd);
    }
    return sscanf(text, "%31s %d", name, &number) == 2 && strcmp(name, call) == 0 ? number + 1 : 0;
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
