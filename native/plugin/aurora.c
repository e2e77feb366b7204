/*
 * A plugin for an unmodified MariaDB 10.11 server: what Aurora MySQL's clients
 * ask an instance about itself and its cluster.
 *
 *   @@aurora_version, AURORA_VERSION()        the engine's version
 *   @@aurora_server_id                        the instance's identifier
 *   @@innodb_read_only                        1 on a reader, 0 on the writer
 *   information_schema.replica_host_status    the cluster's members
 *
 * Every account can read them, without any privilege.
 *
 * SETTINGS, in the server's configuration file:
 *
 *   plugin_dir = <directory of libborealis_mariadb.so: borealis/_native>
 *   plugin_load_add = libborealis_mariadb.so
 *   loose_aurora_server_id = <instance identifier>
 *   loose_aurora_engine_version = <what @@aurora_version shows>
 *   read_only = 1        (the role follows it: SET GLOBAL read_only = 0 makes the writer)
 *
 * `loose_` lets the server start when the plugin is missing or does not take
 * to this server. Not to be set: `version` (the plugin knows the server by it),
 * `plugin_maturity` above stable, `innodb_read_only`. The engine's user must be
 * able to read the library.
 *
 * DATA: aurora_topology.json in the data directory (see topology.h), replaced
 * atomically by the volume driver; without it an instance knows itself only.
 *
 * This plugin never writes, starts no thread, and never changes what the server
 * does: it only answers. What it needs of the server's inner structures is
 * checked first; a check that fails costs that one feature and leaves a line
 * in the error log.
 */
#include "abi.h"
#include "plugin.h"
#include "server.h"

char *aurora_server_id;
char *aurora_engine_version;

static struct sysvar_text server_id = {
    {VAR_TEXT | VAR_READONLY, "server_id", "Identifier of this instance", NULL, NULL},
    &aurora_server_id,
    (char *)"",
};
static struct sysvar_text version = {
    {VAR_TEXT | VAR_READONLY | VAR_NO_OPTION, "version", "Version of the Aurora-compatible engine", NULL, NULL},
    &aurora_engine_version,
    (char *)"",
};
/* `aurora_version` as an option belongs to the function of that name: it turns the function on and off. */
static struct sysvar_text engine_version = {
    {VAR_TEXT | VAR_READONLY | VAR_HIDDEN, "engine_version", "What aurora_version shows", NULL, NULL},
    &aurora_engine_version,
    (char *)"",
};
static struct sysvar *variables[] = {
    (struct sysvar *)&server_id,
    (struct sysvar *)&version,
    (struct sysvar *)&engine_version,
    NULL,
};

static int daemon_descriptor[2];
static int table_descriptor[2];
static struct function_descriptor function_descriptor;

/* The server compares the descriptors with its own version before it calls anything. */
__attribute__((constructor)) static void describe(void) {
    int interface = server_interface();
    if (interface == 0)
        log_warning("this plugin is for MariaDB 10.11 only");
    daemon_descriptor[0] = interface;
    table_descriptor[0] = interface;
    function_descriptor.interface_version = interface;
    function_descriptor.builder = &function_builder;
}

EXPORT extern int _maria_plugin_interface_version_;
EXPORT extern int _maria_sizeof_struct_st_plugin_;
EXPORT extern struct plugin _maria_plugin_declarations_[];

int _maria_plugin_interface_version_ = PLUGIN_INTERFACE;
int _maria_sizeof_struct_st_plugin_ = sizeof(struct plugin);

#define VERSION 0x0100
#define VERSION_TEXT "1.0"
#define AUTHOR "Borealis"

struct plugin _maria_plugin_declarations_[] = {
    {TYPE_DAEMON, daemon_descriptor, "aurora", AUTHOR, "What an instance knows of itself", LICENSE_GPL, NULL, NULL,
     VERSION, NULL, variables, VERSION_TEXT, MATURITY_STABLE},
    {TYPE_FUNCTION, &function_descriptor, "aurora_version", AUTHOR, "Function AURORA_VERSION()", LICENSE_GPL,
     function_init, NULL, VERSION, NULL, NULL, VERSION_TEXT, MATURITY_STABLE},
    {TYPE_TABLE, table_descriptor, TABLE_NAME, AUTHOR, "The cluster's members, and this instance's role", LICENSE_GPL,
     table_init, table_deinit, VERSION, NULL, NULL, VERSION_TEXT, MATURITY_STABLE},
    {0},
};
