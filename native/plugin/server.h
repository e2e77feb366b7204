/*
 * What the plugin asks of the server that has loaded it: its version, its
 * exported symbols, its log, and memory that may or may not be there.
 * Everything is looked up at run time, so that a server that lacks something
 * still loads the plugin and only does without that feature.
 */
#ifndef BOREALIS_PLUGIN_SERVER_H
#define BOREALIS_PLUGIN_SERVER_H

#include <stdbool.h>
#include <stddef.h>

/* Version number << 8 as plugins of the running server declare it; 0 when it
 * is not MariaDB 10.11: the server refuses such a plugin and goes on. */
int server_interface(void);

/* An exported symbol of the server, NULL when there is none. */
void *server_symbol(const char *name);

/* The value of an object's first word when it is of this C++ class (mangled
 * name of the class as in `_ZTV<name>`); NULL when the server has no such class. */
const void *server_class(const char *name);

/* Copies memory that may not exist; false then. */
bool memory_read(const void *from, void *to, size_t length);
/* Whether memory can be written; it is left as it is. */
bool memory_writable(void *address, size_t length);
/* Whether a text is at `from` (with its final 0). */
bool memory_is_text(const char *from, const char *expected);

/* Lines in the server's error log. */
void log_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
