/*
 * AURORA_VERSION(): a native function, so that it needs no schema and no
 * privilege. The parser asks a builder object for the expression; ours answers
 * with what the parser makes of RTRIM(@@aurora_version). The variable inside is
 * given the function's call as its name: that is how it is printed, so that a
 * view keeps a text that can be read again. (Alone, the variable would be
 * printed by the name of the view's column.)
 */
#include "abi.h"
#include "plugin.h"
#include "server.h"

#include <string.h>

enum { SCOPE_GLOBAL = 2, WRONG_PARAMETER_COUNT = 1582 };

typedef void *make_variable(void *thread, int scope, const struct text *name, const struct text *component);
typedef void set_name(void *expression, void *thread, const char *name, size_t length, const void *charset);
typedef void *make_one_argument(const void *builder, void *thread, void *argument);
typedef void report_error(unsigned number, unsigned long flags, ...);

static make_variable *variable_expression;
static set_name *name_expression;
static make_one_argument *rtrim_expression;
static const void *rtrim_builder;
static const void *const *charset;
static report_error *report;

static void *build(const void *self, void *thread, const struct text *name, const void *arguments) {
    static const struct text variable = {"aurora_version", 14};
    static const struct text none = {NULL, 0};
    static const char call[] = "aurora_version()";
    (void)self;
    if (arguments != NULL) {
        report(WRONG_PARAMETER_COUNT, 0, name->data);
        return NULL;
    }
    void *expression = variable_expression(thread, SCOPE_GLOBAL, &variable, &none);
    if (expression == NULL)
        return NULL;
    name_expression(expression, thread, call, strlen(call), *charset);
    return rtrim_expression(rtrim_builder, thread, expression);
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
    name_expression = (set_name *)server_symbol("_ZN4Item8set_nameEP3THDPKcmPK15charset_info_st");
    rtrim_expression = (make_one_argument *)server_symbol("_ZN17Create_func_rtrim12create_1_argEP3THDP4Item");
    rtrim_builder = server_symbol("_ZN17Create_func_rtrim11s_singletonE");
    charset = server_symbol("system_charset_info");
    report = (report_error *)server_symbol("my_error");
    bool found = variable_expression && name_expression && rtrim_expression && rtrim_builder && charset && report;
    if (found && builders_are_as_expected())
        return 0;
    log_warning("AURORA_VERSION() is left out: this server makes functions in another way");
    return 1;
}
