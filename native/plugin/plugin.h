/* The parts of the plugin, as aurora.c puts them together. */
#ifndef BOREALIS_PLUGIN_H
#define BOREALIS_PLUGIN_H

/* Options of the configuration file; NULL when they were not given. */
extern char *aurora_server_id;
extern char *aurora_engine_version;

/* table.c: information_schema.replica_host_status */
#define TABLE_NAME "REPLICA_HOST_STATUS"
int table_init(void *schema_table);
int table_deinit(void *schema_table);

/* role.c: innodb_read_only shows the instance's role. */
void role_init(void);
void role_deinit(void);
/* Whether this server refuses writes now: a reader. */
int role_is_reader(void);

/* function.c: AURORA_VERSION() */
extern const void *const function_builder;
int function_init(void *plugin);

#endif
