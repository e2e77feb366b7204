"""Words that an engine keeps for itself: no master user and no database may be called so.

Owns the lists, in lower case. Which engine has which is in `engine_profiles`.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


POSTGRESQL = _words(
    """
    admin all analyse analyze and any array as asc asymmetric authorization between binary both case cast
    check collate collation column concurrently constraint create cross current_catalog current_date
    current_role current_schema current_time current_timestamp current_user default deferrable desc
    distinct do else end except false fetch for foreign freeze from full grant group having ilike in
    initially inner intersect into is isnull join lateral leading left like limit localtime localtimestamp
    natural none not notnull null offset on only or order outer overlaps placing primary public references
    returning right select session_user similar some symmetric table tablesample template0 template1 then
    to trailing true union unique user using variadic verbose when where window with
    """
)

MYSQL_SYSTEM = _words("information_schema mariadb mysql performance_schema root sys")
"""Schemas and accounts of the server's own."""

MYSQL = MYSQL_SYSTEM | _words(
    """
    accessible add all alter analyze and as asc asensitive before between bigint binary blob both by call
    cascade case change char character check collate column condition constraint continue convert create
    cross current_date current_role current_time current_timestamp current_user cursor database databases
    day_hour day_microsecond day_minute day_second dec decimal declare default delayed delete desc
    describe deterministic distinct distinctrow div do_domain_ids double drop dual each else elseif
    enclosed escaped except exists exit explain false fetch float float4 float8 for force foreign from
    fulltext function general grant group grouping groups having high_priority hour_microsecond
    hour_minute hour_second if ignore ignore_domain_ids ignore_server_ids in index infile inner inout
    insensitive insert int int1 int2 int3 int4 int8 integer intersect interval into is iterate join
    json_table key keys kill lateral leading leave left like limit linear lines load localtime
    localtimestamp lock long longblob longtext loop low_priority master_bind master_heartbeat_period
    master_ssl_verify_server_cert match maxvalue mediumblob mediumint mediumtext middleint
    minute_microsecond minute_second mod modifies natural not no_write_to_binlog null numeric offset on
    optimize option optionally or order out outer outfile over page_checksum parse_vcol_expr partition
    precision primary procedure purge range rank read reads read_write real recursive references regexp
    release rename repeat replace require resignal restrict return returning revoke right rlike rows
    row_number schema schemas second_microsecond select sensitive separator set show signal slow smallint
    spatial specific sql sqlexception sqlstate sqlwarning sql_big_result sql_calc_found_rows
    sql_small_result ssl starting stats_auto_recalc stats_persistent stats_sample_pages straight_join
    system table terminated then tinyblob tinyint tinytext to trailing trigger true undo union unique
    unlock unsigned update usage use using utc_date utc_time utc_timestamp values varbinary varchar
    varcharacter varying when where while window with write xor year_month zerofill
    """
)
