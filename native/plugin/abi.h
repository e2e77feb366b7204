/*
 * The plugin interface of MariaDB 10.11, as far as this plugin uses it.
 *
 * Declared here because Debian ships the public part of it only in a package
 * of 600 MB and the private part not at all. The public part is a stable,
 * numbered interface. Of the private part this file holds the places that
 * 10.11 has; nothing uses one of them before it has been compared with what
 * the running server shows (see server.h).
 */
#ifndef BOREALIS_PLUGIN_ABI_H
#define BOREALIS_PLUGIN_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

/* ---- public, interface 0x010f ---- */

enum { PLUGIN_INTERFACE = 0x010f };
enum plugin_type { TYPE_DAEMON = 3, TYPE_TABLE = 4, TYPE_FUNCTION = 11 };
enum { LICENSE_GPL = 1, MATURITY_STABLE = 5 };

struct sysvar; /* one of the structures below, seen by its head */

struct plugin {
    int type;
    void *descriptor; /* begins with an int: the interface version of the type */
    const char *name, *author, *description;
    int license;
    int (*init)(void *);
    int (*deinit)(void *);
    unsigned version;
    void *status_variables;
    struct sysvar **variables;
    const char *version_text;
    unsigned maturity;
};

enum sysvar_flag {
    VAR_BOOL = 0x1,
    VAR_TEXT = 0x5,
    VAR_READONLY = 0x200,
    VAR_HIDDEN = 0x400,    /* an option only, not a variable */
    VAR_NO_OPTION = 0x800, /* a variable only, not an option */
    VAR_OPTIONAL_ARGUMENT = 0x2000,
};

struct sysvar_head {
    int flags;
    const char *name, *comment;
    int (*check)(void *, struct sysvar *, void *, void *);
    void (*update)(void *, struct sysvar *, void *, const void *);
};

struct sysvar_text {
    struct sysvar_head head;
    char **value;
    char *fallback;
};

struct sysvar_bool {
    struct sysvar_head head;
    char *value;
    char fallback;
};

struct server_time {
    unsigned year, month, day, hour, minute, second;
    unsigned long microsecond;
    char negative;
    int kind;
};

/* ---- private: 10.11 ---- */

struct text {
    const char *data;
    size_t length;
};

struct column {
    const void *type;   /* one of the server's type handlers */
    unsigned length;    /* characters; of a time: decimals of the second */
    unsigned is_unsigned;
    const void *values;
    struct text name; /* data == NULL: after the last column */
    int nullable;
    struct text old_name;
    int open_method;
};

struct schema_table {
    const char *name;
    const struct column *columns;
    int (*reset)(void);
    int (*fill)(void *thread, void *table_list, void *condition);
    void *old_format, *process_table;
    int index_1, index_2; /* -1 before init */
    bool hidden;
    unsigned requested_object;
};

struct function_descriptor {
    int interface_version;
    const void *builder; /* an object whose first word is its vtable */
};

_Static_assert(sizeof(struct plugin) == 104, "size of a plugin's declaration");
_Static_assert(sizeof(struct sysvar_head) == 40, "size of a variable's head");
_Static_assert(sizeof(struct column) == 72, "size of a column's declaration");
_Static_assert(sizeof(struct schema_table) == 64, "size of a table's declaration");

/* Places in the server's objects, in bytes. */
enum place {
    LIST_TABLE = 264,        /* of a query's table reference: the open table */
    LIST_SCHEMA_TABLE = 376, /* the struct schema_table that it refers to */
    TABLE_THREAD = 64,       /* of an open table: the thread that uses it */
    TABLE_FIELDS = 168,      /* array of its fields, NULL after the last */
    FIELD_NAME = 48,         /* of a field: struct text */
    VTABLE_FIRST = 16,       /* of a vtable symbol: the first function */
};

#endif
