#include "real.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>

static struct real_calls calls;
static _Atomic int resolved;

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
#define SYMBOL(name) {#name, offsetof(struct real_calls, name)}
    SYMBOL(open),     SYMBOL(openat),   SYMBOL(close),     SYMBOL(close_range),     SYMBOL(closefrom),
    SYMBOL(dup),      SYMBOL(dup2),     SYMBOL(dup3),      SYMBOL(fcntl),           SYMBOL(write),
    SYMBOL(pwrite),   SYMBOL(writev),   SYMBOL(pwritev),   SYMBOL(pwritev2),        SYMBOL(fsync),
    SYMBOL(fdatasync), SYMBOL(syncfs),  SYMBOL(sync),      SYMBOL(sync_file_range), SYMBOL(rename),
    SYMBOL(renameat), SYMBOL(renameat2), SYMBOL(send),     SYMBOL(sendto),          SYMBOL(sendmsg),
    SYMBOL(ftruncate), SYMBOL(truncate),
};

const struct real_calls *real(void) {
    /* Two threads may both come through here the first time; they store the
     * same addresses, so no lock is needed. */
    if (!atomic_load_explicit(&resolved, memory_order_acquire)) {
        for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
            *(void **)((char *)&calls + symbols[i].offset) = dlsym(RTLD_NEXT, symbols[i].name);
        atomic_store_explicit(&resolved, 1, memory_order_release);
    }
    return &calls;
}
