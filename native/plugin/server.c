#include "server.h"

#include "abi.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void *server_symbol(const char *name) {
    return dlsym(RTLD_DEFAULT, name);
}

const void *server_class(const char *name) {
    char symbol[128];
    if (snprintf(symbol, sizeof symbol, "_ZTV%s", name) >= (int)sizeof symbol)
        return NULL;
    const char *vtable = server_symbol(symbol);
    return vtable ? vtable + VTABLE_FIRST : NULL;
}

int server_interface(void) {
    const char *text = server_symbol("server_version");
    int minor, end = 0;
    if (text == NULL || sscanf(text, "10.11.%2d%n", &minor, &end) != 1)
        return 0;
    if (strncmp(text + end, "-MariaDB", 8) != 0)
        return 0;
    return (101100 + minor) << 8;
}

static void log_line(const char *symbol, const char *format, va_list arguments) {
    char line[512];
    vsnprintf(line, sizeof line, format, arguments);
    void (*print)(const char *, ...) = (void (*)(const char *, ...))server_symbol(symbol);
    if (print != NULL)
        print("aurora: %s", line);
    else
        fprintf(stderr, "aurora: %s\n", line);
}

void log_note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    log_line("_Z21sql_print_informationPKcz", format, arguments);
    va_end(arguments);
}

void log_warning(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    log_line("_Z17sql_print_warningPKcz", format, arguments);
    va_end(arguments);
}

/*
 * The kernel copies to and from a pipe and answers EFAULT where a plain access
 * would end the server. Lengths stay below what a pipe always takes at once.
 */
enum { PIPE_TAKES = 512 };

static ssize_t again(ssize_t (*call)(int, void *, size_t), int fd, void *data, size_t length) {
    ssize_t done;
    do {
        done = call(fd, data, length);
    } while (done < 0 && errno == EINTR);
    return done;
}

static ssize_t write_from(int fd, void *data, size_t length) {
    return write(fd, data, length);
}

static bool through_pipe(void *from, void *to, size_t length) {
    int ends[2];
    if (length > PIPE_TAKES || pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return false;
    bool done = again(write_from, ends[1], from, length) == (ssize_t)length &&
                again(read, ends[0], to, length) == (ssize_t)length;
    close(ends[0]);
    close(ends[1]);
    return done;
}

bool memory_read(const void *from, void *to, size_t length) {
    return through_pipe((void *)(uintptr_t)from, to, length);
}

bool memory_writable(void *address, size_t length) {
    return through_pipe(address, address, length);
}

bool memory_is_text(const char *from, const char *expected) {
    char found[64];
    size_t length = strlen(expected) + 1;
    return length <= sizeof found && memory_read(from, found, length) && memcmp(found, expected, length) == 0;
}
