/*
 * information_schema.replica_host_status: one row for each member of the
 * cluster. Who the members are comes from the file of topology.h; this
 * instance knows its own role best, so the file of before a failover never
 * makes it show two writers.
 *
 * A table of the information schema is a list of columns and a function that
 * stores rows. The columns are declared in the server's own structures, and a
 * row is stored through the functions that the server exports for the classes
 * of its fields, after the class of each field was seen to be the expected one.
 */
#include "abi.h"
#include "plugin.h"
#include "server.h"
#include "topology.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum column_number {
    SERVER_ID,
    SESSION_ID,
    CPU,
    DURABLE_LSN,
    LAST_UPDATE_TIMESTAMP,
    MASTER_SLAVE_LATENCY,
    REPLICA_LAG,
    LOG_STREAM_SPEED,
    IS_CURRENT,
    HIGHEST_LSN_RECEIVED,
    CURRENT_READ_LSN,
    CURRENT_REPLAY_LATENCY,
    COLUMNS,
};

enum kind { TEXT, REAL, COUNT, FLAG, TIME, KINDS };

static const struct {
    const char *name;
    enum kind kind;
} declared[COLUMNS] = {
    [SERVER_ID] = {"SERVER_ID", TEXT},
    [SESSION_ID] = {"SESSION_ID", TEXT},
    [CPU] = {"CPU", REAL},
    [DURABLE_LSN] = {"DURABLE_LSN", COUNT},
    [LAST_UPDATE_TIMESTAMP] = {"LAST_UPDATE_TIMESTAMP", TIME},
    [MASTER_SLAVE_LATENCY] = {"MASTER_SLAVE_LATENCY_IN_MICROSECONDS", COUNT},
    [REPLICA_LAG] = {"REPLICA_LAG_IN_MILLISECONDS", REAL},
    [LOG_STREAM_SPEED] = {"LOG_STREAM_SPEED_IN_KiB_PER_SECOND", REAL},
    [IS_CURRENT] = {"IS_CURRENT", FLAG},
    [HIGHEST_LSN_RECEIVED] = {"HIGHEST_LSN_RECEIVED", COUNT},
    [CURRENT_READ_LSN] = {"CURRENT_READ_LSN", COUNT},
    [CURRENT_REPLAY_LATENCY] = {"CURRENT_REPLAY_LATENCY_IN_MICROSECONDS", COUNT},
};

/* How the server makes and stores a kind of column. `type` and `field`: mangled names of the type handler
 * and of the class of a field; the store functions are members of the field. */
static struct {
    const char *type, *field, *store;
    unsigned length, is_unsigned;
    const void *class; /* found at init, as `call` */
    void *call;
} kinds[KINDS] = {
    [TEXT] = {"type_handler_varchar", "15Field_varstring", "_ZN15Field_varstring5storeEPKcmPK15charset_info_st", 100, 0,
              NULL, NULL},
    [REAL] = {"type_handler_double", "12Field_double", "_ZN12Field_double5storeEd", 22, 0, NULL, NULL},
    [COUNT] = {"type_handler_ulonglong", "14Field_longlong", "_ZN14Field_longlong5storeExb", 20, 1, NULL, NULL},
    [FLAG] = {"type_handler_stiny", "10Field_tiny", "_ZN10Field_tiny5storeExb", 1, 0, NULL, NULL},
    [TIME] = {"type_handler_datetime2", "15Field_datetimef", "_ZN14Field_datetime5storeEPKcmPK15charset_info_st", 6, 0,
              NULL, NULL},
};

typedef int store_text(void *field, const char *data, size_t length, const void *charset);
typedef int store_real(void *field, double value);
typedef int store_count(void *field, long long value, bool is_unsigned);
typedef bool store_record(void *thread, void *table);
typedef void convert_time(void *thread, struct server_time *result, long seconds);
typedef void report_error(unsigned number, const char *format, unsigned long flags, ...);

static store_record *put_record;
static convert_time *to_session_time;
static report_error *report;
static const void **charset;

static struct column columns[COLUMNS + 1];
static const struct schema_table *own_table;
static atomic_bool shape_seen;
static atomic_bool broken_file_told;

/* ---- what the server must look like ---- */

static bool find_symbols(void) {
    put_record = (store_record *)server_symbol("_Z25schema_table_store_recordP3THDP5TABLE");
    to_session_time = (convert_time *)server_symbol("thd_gmt_sec_to_TIME");
    report = (report_error *)server_symbol("my_printf_error");
    charset = server_symbol("system_charset_info");
    for (int i = 0; i < KINDS; i++) {
        kinds[i].class = server_class(kinds[i].field);
        kinds[i].call = server_symbol(kinds[i].store);
        if (kinds[i].class == NULL || kinds[i].call == NULL || server_symbol(kinds[i].type) == NULL)
            return false;
    }
    return put_record != NULL && to_session_time != NULL && report != NULL && charset != NULL;
}

/* What was passed to init: all zero but for the name, which may be set, and the marks of unused indexes. */
static bool is_new_table(const struct schema_table *table) {
    struct schema_table found, expected = {.index_1 = -1, .index_2 = -1};
    if (!memory_read(table, &found, sizeof found))
        return false;
    if (found.name != NULL && !memory_is_text(found.name, TABLE_NAME))
        return false;
    return found.columns == NULL && found.reset == NULL && found.fill == NULL && found.old_format == NULL &&
           found.process_table == NULL && found.index_1 == expected.index_1 && found.index_2 == expected.index_2 &&
           !found.hidden && found.requested_object == 0;
}

/* The server's first two tables are known: they show how tables and columns are laid out. */
static bool server_tables_are_as_expected(void) {
    const struct schema_table *(*get)(int) =
        (const struct schema_table *(*)(int))server_symbol("_Z16get_schema_table18enum_schema_tables");
    struct schema_table first;
    struct column name[2];
    if (get == NULL || get(1) != get(0) + 1 || !memory_read(get(0), &first, sizeof first))
        return false;
    return memory_is_text(first.name, "ALL_PLUGINS") && memory_read(first.columns, name, sizeof name) &&
           name[0].type == server_symbol(kinds[TEXT].type) && name[0].length == 64 && name[0].is_unsigned == 0 &&
           name[0].name.length == strlen("PLUGIN_NAME") && memory_is_text(name[0].name.data, "PLUGIN_NAME") &&
           name[0].nullable == 0 && name[1].length == 20 && memory_is_text(name[1].name.data, "PLUGIN_VERSION");
}

static void declare_columns(void) {
    for (int i = 0; i < COLUMNS; i++) {
        columns[i] = (struct column){
            .type = server_symbol(kinds[declared[i].kind].type),
            .length = kinds[declared[i].kind].length,
            .is_unsigned = kinds[declared[i].kind].is_unsigned,
            .name = {declared[i].name, strlen(declared[i].name)},
        };
    }
    columns[COLUMNS] = (struct column){.type = server_symbol(kinds[TEXT].type)};
}

/* ---- a query's table ---- */

static void *pointer_at(const void *object, enum place place) {
    void *result = NULL;
    if (object == NULL || !memory_read((const char *)object + place, &result, sizeof result))
        return NULL;
    return result;
}

static bool is_field(const void *field, int number) {
    struct text name;
    return field != NULL && memory_read((const char *)field + FIELD_NAME, &name, sizeof name) &&
           name.length == strlen(declared[number].name) && memory_is_text(name.data, declared[number].name);
}

/* Everything that a fill relies on, seen once with accesses that cannot fail. */
static bool see_shape(void *thread, void *list) {
    if (pointer_at(list, LIST_SCHEMA_TABLE) != own_table)
        return false;
    void *table = pointer_at(list, LIST_TABLE);
    if (table == NULL || pointer_at(table, TABLE_THREAD) != thread)
        return false;
    void *fields[COLUMNS + 1];
    if (!memory_read(pointer_at(table, TABLE_FIELDS), fields, sizeof fields) || fields[COLUMNS] != NULL)
        return false;
    for (int i = 0; i < COLUMNS; i++)
        if (!is_field(fields[i], i))
            return false;
    return true;
}

static void *direct(void *object, enum place place) {
    void *result;
    memcpy(&result, (char *)object + place, sizeof result);
    return result;
}

/* The query's table, NULL when it is not as expected. */
static void *open_table(void *thread, void *list) {
    if (!atomic_load(&shape_seen)) {
        if (!see_shape(thread, list))
            return NULL;
        atomic_store(&shape_seen, true);
    }
    if (direct(list, LIST_SCHEMA_TABLE) != own_table)
        return NULL;
    void *table = direct(list, LIST_TABLE);
    return direct(table, TABLE_THREAD) == thread ? table : NULL;
}

/* ---- rows ---- */

struct row {
    void *thread;
    void **fields;
};

/* The field to store in, or NULL: the server replaces fields that the query does not use. */
static void *field_of(const struct row *row, enum column_number number) {
    const void *class;
    memcpy(&class, row->fields[number], sizeof class);
    return class == kinds[declared[number].kind].class ? row->fields[number] : NULL;
}

static void set_text(const struct row *row, enum column_number number, const char *text) {
    void *field = field_of(row, number);
    if (field != NULL)
        ((store_text *)kinds[declared[number].kind].call)(field, text, strlen(text), *charset);
}

static void set_real(const struct row *row, enum column_number number, double value) {
    void *field = field_of(row, number);
    if (field != NULL)
        ((store_real *)kinds[REAL].call)(field, value > 0 ? value : 0);
}

static void set_count(const struct row *row, enum column_number number, double value) {
    void *field = field_of(row, number);
    if (field != NULL)
        ((store_count *)kinds[declared[number].kind].call)(field, value > 0 ? (long long)value : 0,
                                                           declared[number].kind == COUNT);
}

/* In the session's time zone, as NOW() is. */
static void set_time(const struct row *row, enum column_number number, double seconds) {
    struct server_time at = {0};
    char text[64];
    long whole = (long)seconds;
    unsigned micro = (unsigned)((seconds - (double)whole) * 1e6);
    to_session_time(row->thread, &at, whole);
    if (at.year < 1970 || at.year > 9999 || at.month > 12 || at.day > 31 || at.hour > 23)
        return;
    snprintf(text, sizeof text, "%04u-%02u-%02u %02u:%02u:%02u.%06u", at.year, at.month, at.day, at.hour, at.minute,
             at.second, micro);
    set_text(row, number, text);
}

/* A session identifier for a member that has told none: the same at every reading, in the form of a UUID. */
static void make_session_id(const char *instance_id, char *text, size_t size) {
    uint64_t half[2] = {0xcbf29ce484222325ull, 0x6c62272e07bb0142ull};
    for (const char *c = instance_id; *c != '\0'; c++)
        for (int i = 0; i < 2; i++)
            half[i] = (half[i] ^ (unsigned char)*c) * 0x100000001b3ull;
    snprintf(text, size, "%08x-%04x-%04x-%04x-%012llx", (unsigned)(half[0] >> 32), (unsigned)(half[0] >> 16) & 0xffff,
             (unsigned)half[0] & 0xffff, (unsigned)(half[1] >> 48), (unsigned long long)half[1] & 0xffffffffffffull);
}

static double first_known(double one, double other) {
    return one >= 0 ? one : other;
}

enum { CURRENT_SECONDS = 300 };

static bool put_member(const struct row *row, void *table, const struct member *member, double now) {
    char session[NAME_BYTES];
    double lag = member->writer ? 0 : member->lag_ms;
    double updated = first_known(member->updated_at, now);
    if (member->writer)
        snprintf(session, sizeof session, "MASTER_SESSION_ID");
    else if (member->session_id[0] != '\0')
        snprintf(session, sizeof session, "%s", member->session_id);
    else
        make_session_id(member->instance_id, session, sizeof session);
    set_text(row, SERVER_ID, member->instance_id);
    set_text(row, SESSION_ID, session);
    set_real(row, CPU, member->cpu);
    set_count(row, DURABLE_LSN, first_known(member->durable_lsn, member->replay_lsn));
    set_time(row, LAST_UPDATE_TIMESTAMP, updated);
    set_count(row, MASTER_SLAVE_LATENCY, lag * 1000);
    set_real(row, REPLICA_LAG, lag);
    set_real(row, LOG_STREAM_SPEED, member->log_kib_per_second);
    set_count(row, IS_CURRENT, now - updated <= CURRENT_SECONDS);
    set_count(row, HIGHEST_LSN_RECEIVED, first_known(member->receive_lsn, member->replay_lsn));
    set_count(row, CURRENT_READ_LSN, first_known(member->replay_lsn, member->durable_lsn));
    set_count(row, CURRENT_REPLAY_LATENCY, lag * 1000);
    return put_record(row->thread, table);
}

static void load(struct topology *topology) {
    enum topology_result result = topology_load(TOPOLOGY_FILE, topology); /* the server runs in its data directory */
    bool broken = result == TOPOLOGY_BROKEN;
    if (atomic_exchange(&broken_file_told, broken) != broken && broken)
        log_warning("%s cannot be read: replica_host_status shows this instance only", TOPOLOGY_FILE);
}

/* Makes the roles those that this instance knows, and adds it where it is missing. */
static void know_yourself(struct topology *topology, double now) {
    bool writer = !role_is_reader(), listed = false;
    const char *me = aurora_server_id != NULL ? aurora_server_id : "";
    for (size_t i = 0; i < topology->count; i++) {
        struct member *member = &topology->members[i];
        bool mine = strcmp(member->instance_id, me) == 0;
        member->writer = mine ? writer : member->writer && !writer;
        if (mine)
            member->updated_at = now;
        listed = listed || mine;
    }
    if (listed || me[0] == '\0')
        return;
    size_t place = topology->count < TOPOLOGY_MEMBERS ? topology->count++ : TOPOLOGY_MEMBERS - 1;
    struct member *own = &topology->members[place];
    member_clear(own);
    snprintf(own->instance_id, sizeof own->instance_id, "%s", me);
    own->writer = writer;
}

static double wall_clock(void) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static int put_rows(void *thread, void *table, const struct topology *topology, double now) {
    struct row row = {thread, direct(table, TABLE_FIELDS)};
    for (int writers = 1; writers >= 0; writers--) /* the writer comes first */
        for (size_t i = 0; i < topology->count; i++)
            if (topology->members[i].writer == (writers == 1) && put_member(&row, table, &topology->members[i], now))
                return 1;
    return 0;
}

static int fill(void *thread, void *list, void *condition) {
    enum { NOT_AVAILABLE = 1235 };
    (void)condition; /* the server filters the rows */
    void *table = open_table(thread, list);
    struct topology *topology = table == NULL ? NULL : malloc(sizeof *topology);
    if (topology == NULL) {
        report(NOT_AVAILABLE, "replica_host_status is not available on this server", 0);
        return 1;
    }
    double now = wall_clock();
    load(topology);
    know_yourself(topology, now);
    int failed = put_rows(thread, table, topology, now);
    free(topology);
    return failed;
}

int table_init(void *schema_table) {
    struct schema_table *table = schema_table;
    role_init(); /* not a matter of the table: tables come after InnoDB, whose options are set by now */
    if (!find_symbols() || !is_new_table(table) || !server_tables_are_as_expected()) {
        log_warning("replica_host_status is left out: this server makes tables in another way");
        return 1;
    }
    declare_columns();
    own_table = table;
    table->columns = columns;
    table->fill = fill;
    return 0;
}

int table_deinit(void *schema_table) {
    (void)schema_table;
    role_deinit();
    return 0;
}
