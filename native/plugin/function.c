/*
 * AURORA_VERSION(): a native function, so that it needs no schema and no
 * privilege. The parser asks a builder object for the expression; ours answers
 * with the expression that the parser makes of @@aurora_version.
 */
#include "abi.h"
#include "plugin.h"
#include "server.h"

#include <string.h>

enum { SCOPE_GLOBAL = 2, WRONG_PARAMETER_COUNT = 1582 };

typedef void *make_variable(void *thread, int scope, const struct text *name, const struct text *component);
typedef void report_error(unsigned number, unsigned long flags, ...);

static make_variable *variable_expression;
static report_error *report;

static void *build(const void *self, void *thread, const struct text *name, const void *arguments) {
    static const struct text variable = {"aurora_version", 14};
    static const struct text none = {NULL, 0};
    (void)self;
    if (arguments != NULL) {
        report(WRONG_PARAMETER_COUNT, 0, name->data);
        return NULL;
    }
    return variable_expression(thread, SCOPE_GLOBAL, &variable, &none);
}

static void destroy(const void *self) {
    (void)self; /* static: the server never destroys a builder */
}

/* As a C++ compiler lays it out: distance to the top, type information, functions. */
static const struct {
    ptrdiff_t top;
    const void *type;
    void *(*build)(const void *, void *, const struct text *, const void *);
    void (*destroy[2])(const void *);
} vtable = {0, NULL, build, {destroy, destroy}};

const void *const function_builder = &vtable.build;

/* The server's own builders have the call that we implement in the first place. */
static bool builders_are_as_expected(void) {
    const void *functions = server_class("18Create_native_func");
    const void *call =
        server_symbol("_ZN18Create_native_func11create_funcEP3THDPK25st_mysql_const_lex_stringP4ListI4ItemE");
    const void *first = NULL;
    return functions != NULL && call != NULL && memory_read(functions, &first, sizeof first) && first == call;
}

int function_init(void *plugin) {
    (void)plugin;
    variable_expression =
        (make_variable *)server_symbol("_Z14get_system_varP3THD13enum_var_typePK25st_mysql_const_lex_stringS4_");
    report = (report_error *)server_symbol("my_error");
    if (variable_expression != NULL && report != NULL && builders_are_as_expected())
        return 0;
    log_warning("AURORA_VERSION() is left out: this server makes functions in another way");
    return 1;
}
