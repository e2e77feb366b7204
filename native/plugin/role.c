/*
 * innodb_read_only as the mark of a reader.
 *
 * On Aurora a reader's InnoDB is read only. Here it is not, because it applies
 * the writer's log; what refuses its clients' writes is the server's read_only.
 * So the variable innodb_read_only is made to show read_only: the variable's
 * description is a plain structure of the public plugin interface that holds
 * the address of the value to show. InnoDB itself never reads through it.
 */
#include "abi.h"
#include "plugin.h"
#include "server.h"

#include <string.h>

/* How far into the server's variable object its description is looked for, in words. */
enum { WORDS = 48 };

static struct sysvar_bool *shown;
static char *original;

int role_is_reader(void) {
    const volatile char *read_only = server_symbol("opt_readonly");
    return read_only == NULL || *read_only != 0;
}

static bool is_description(const void *candidate) {
    struct sysvar_bool found;
    char value;
    if (candidate == NULL || !memory_read(candidate, &found, sizeof found))
        return false;
    return found.head.flags == (VAR_BOOL | VAR_READONLY | VAR_OPTIONAL_ARGUMENT) &&
           (memory_is_text(found.head.name, "innodb_read_only") || memory_is_text(found.head.name, "read_only")) &&
           memory_is_text(found.head.comment, "Start InnoDB in read only mode (off by default)") &&
           found.fallback == 0 && memory_read(found.value, &value, 1) && value == 0;
}

static struct sysvar_bool *find_description(const void *variable) {
    const void *const *words = variable, *word;
    if (!memory_read(words, &word, sizeof word) || word != server_class("17sys_var_pluginvar"))
        return NULL;
    for (int i = 1; i < WORDS && memory_read(words + i, &word, sizeof word); i++)
        if (is_description(word))
            return (struct sysvar_bool *)(uintptr_t)word;
    return NULL;
}

static const char *show_read_only(void) {
    void *(*find)(const char *, size_t) = (void *(*)(const char *, size_t))server_symbol("_Z19intern_find_sys_varPKcm");
    char *read_only = server_symbol("opt_readonly");
    if (find == NULL || read_only == NULL)
        return "the server does not export what is needed";
    const char name[] = "innodb_read_only";
    const void *variable = find(name, strlen(name));
    if (variable == NULL)
        return "there is no such variable";
    struct sysvar_bool *description = find_description(variable);
    if (description == NULL)
        return "it is on, or not described as expected";
    if (!memory_writable(&description->value, sizeof description->value))
        return "its description cannot be changed";
    original = description->value;
    shown = description;
    __atomic_store_n(&description->value, read_only, __ATOMIC_RELEASE);
    return NULL;
}

void role_init(void) {
    const char *trouble = show_read_only();
    if (trouble != NULL)
        log_warning("innodb_read_only does not show the instance's role: %s", trouble);
}

void role_deinit(void) {
    if (shown != NULL)
        __atomic_store_n(&shown->value, original, __ATOMIC_RELEASE);
    shown = NULL;
}
