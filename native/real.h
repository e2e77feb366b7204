/* The C library's own functions, behind the ones this library puts in front of them. */
#ifndef BOREALIS_REAL_H
#define BOREALIS_REAL_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

struct real_calls {
    int (*open)(const char *, int, ...);
    int (*openat)(int, const char *, int, ...);
    int (*close)(int);
    int (*close_range)(unsigned, unsigned, int);
    void (*closefrom)(int);
    int (*dup)(int);
    int (*dup2)(int, int);
    int (*dup3)(int, int, int);
    int (*fcntl)(int, int, ...);
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*pwrite)(int, const void *, size_t, off_t);
    ssize_t (*writev)(int, const struct iovec *, int);
    ssize_t (*pwritev)(int, const struct iovec *, int, off_t);
    ssize_t (*pwritev2)(int, const struct iovec *, int, off_t, int);
    int (*fsync)(int);
    int (*fdatasync)(int);
    int (*ftruncate)(int, off_t);
    int (*truncate)(const char *, off_t);
    int (*sync_file_range)(int, off_t, off_t, unsigned);
    int (*syncfs)(int);
    void (*sync)(void);
    int (*rename)(const char *, const char *);
    int (*renameat)(int, const char *, int, const char *);
    int (*renameat2)(int, const char *, int, const char *, unsigned);
    ssize_t (*send)(int, const void *, size_t, int);
    ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    ssize_t (*sendmsg)(int, const struct msghdr *, int);
};

/* Never NULL. Safe before any constructor has run: another library's
 * constructor may open files before ours. */
const struct real_calls *real(void);

#endif
