/*
 * The engine's side of the device page: what happens at a log write, at a log
 * sync, before an answer to a client, and when the engine has to end.
 */
#ifndef BOREALIS_DEVICE_H
#define BOREALIS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "logfiles.h"
#include "shm.h"

/* Maps the page at `path` and registers this process as the engine. Ends the
 * process with a message when the page is not there or not of our version. */
void device_attach(const char *path);

/* False: no device; every call below is then forbidden. */
bool device_attached(void);

/* After a finished write of `length` bytes that ends at `end` (LSN). */
void device_log_written(uint32_t timeline, uint64_t end, uint64_t length);

/* Before device_log_written, for a log that only grows: ends the engine when a
 * write of a writer began below what was written before. A reader may begin its
 * log anew at `start`. */
void device_log_grows(uint64_t start);
/* The engine is about to shorten a log file: a writer must not. */
void device_log_cut(const char *path);

/* Returns when everything written to the log before the call is durable. Not
 * to be interrupted: signal handlers run, then the wait goes on. */
void device_log_sync(void);
/* The same for one file: returns at once when nothing was ever written to it. */
void device_log_file_sync(struct log_place place);

void device_count_skipped_sync(void);

/* Before an answer leaves on socket `fd`: returns when the lease is valid. */
void device_lease_gate(int fd);

/* A descriptor is gone: if it was the notice socket, open another when needed. */
void device_fd_gone(int fd);
void device_fd_range_gone(unsigned first, unsigned last);

/* The engine asked for what the device cannot make durable. Does not return. */
_Noreturn void device_refuse(const char *what, const char *detail);

#endif
