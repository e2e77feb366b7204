-- What Aurora's own functions answer, in plain SQL. Run once in each template database: a database made from
-- either template has them. A statement ends with a semicolon and an empty line, and holds no empty line.
-- Function bodies replicate to readers, so what is true of one instance only is read from that instance's
-- command line (aurora.*) and from aurora_topology.json in its data directory.

CREATE FUNCTION pg_catalog.aurora_version() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN current_setting('aurora.version', true);

CREATE FUNCTION pg_catalog.aurora_db_instance_identifier() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN current_setting('aurora.instance_id', true);

CREATE FUNCTION pg_catalog.aurora_replica_status(
    OUT server_id text,
    OUT session_id text,
    OUT durable_lsn bigint,
    OUT highest_lsn_rcvd bigint,
    OUT current_read_lsn bigint,
    OUT cur_replay_latency_in_usec bigint,
    OUT active_txns bigint,
    OUT is_current boolean,
    OUT last_transport_error integer,
    OUT last_error_timestamp timestamptz,
    OUT last_update_timestamp timestamptz,
    OUT feedback_xmin bigint,
    OUT feedback_epoch bigint,
    OUT replica_lag_in_msec double precision,
    OUT log_stream_speed_in_kib_per_second double precision,
    OUT log_buffer_sequence_number bigint,
    OUT oldest_read_view_trx_id bigint,
    OUT oldest_read_view_lsn bigint,
    OUT pending_read_ios bigint,
    OUT read_ios bigint,
    OUT iops bigint,
    OUT cpu double precision)
RETURNS SETOF record
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
WITH topology AS MATERIALIZED (
    SELECT coalesce(pg_read_file('aurora_topology.json', 0, 1048576, true)::jsonb -> 'members', '[]') AS listed,
           current_setting('aurora.instance_id', true) AS me,
           NOT pg_is_in_recovery() AS writer
), own AS MATERIALIZED (
    SELECT me AS instance_id, writer,
           CASE WHEN writer THEN pg_current_wal_flush_lsn() - '0/0' ELSE pg_last_wal_replay_lsn() - '0/0' END AS lsn
    FROM topology
), members AS (
    SELECT m.*
    FROM topology, jsonb_to_recordset(listed) AS m(instance_id text, role text, session_id text,
        durable_lsn bigint, receive_lsn bigint, replay_lsn bigint, lag_ms double precision,
        active_txns bigint, feedback_xmin bigint, log_kib_per_second double precision,
        cpu double precision, updated_at double precision)
    UNION ALL
    SELECT me, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM topology WHERE NOT listed @> jsonb_build_array(jsonb_build_object('instance_id', me))
), known AS (
    -- This instance knows its own role best: a topology from before a failover must not show two writers.
    SELECT m.*, m.instance_id = o.instance_id AS mine, o.lsn AS own_lsn,
           CASE WHEN m.instance_id = o.instance_id THEN o.writer ELSE m.role = 'writer' AND NOT o.writer END AS writer
    FROM members m, own o
)
SELECT instance_id,
       CASE WHEN writer THEN 'MASTER_SESSION_ID' ELSE coalesce(session_id, md5(instance_id)::uuid::text) END,
       coalesce(CASE WHEN mine THEN own_lsn END, durable_lsn, replay_lsn)::bigint,
       CASE WHEN writer THEN NULL WHEN mine THEN own_lsn ELSE coalesce(receive_lsn, replay_lsn) END::bigint,
       CASE WHEN writer THEN NULL WHEN mine THEN own_lsn ELSE replay_lsn END::bigint,
       CASE WHEN writer THEN NULL ELSE (lag_ms * 1000)::bigint END,
       active_txns,
       true,
       0,
       NULL::timestamptz,
       CASE WHEN mine OR updated_at IS NULL THEN clock_timestamp() ELSE to_timestamp(updated_at) END,
       feedback_xmin & 4294967295,
       feedback_xmin >> 32,
       CASE WHEN writer THEN NULL ELSE lag_ms END,
       log_kib_per_second,
       NULL::bigint, NULL::bigint,
       CASE WHEN mine THEN own_lsn ELSE replay_lsn END::bigint,
       NULL::bigint, NULL::bigint, NULL::bigint,
       cpu
FROM known
ORDER BY writer DESC, instance_id
$$;

-- rds.extensions is how drivers tell Aurora from a plain server, and they look for it here. A custom setting is
-- not listed by pg_show_all_settings(), so the view adds it. Its update rules stay as they are.
SET allow_system_table_mods = on;

CREATE OR REPLACE VIEW pg_catalog.pg_settings AS
SELECT * FROM pg_show_all_settings()
UNION ALL
SELECT 'rds.extensions', current_setting('rds.extensions', true), NULL::text, 'Customized Options',
       'List of the extensions that can be created.', NULL::text, 'postmaster', 'string', 'command line',
       NULL::text, NULL::text, NULL::text[], '', current_setting('rds.extensions', true), NULL::text, NULL::integer,
       false
WHERE current_setting('rds.extensions', true) IS NOT NULL;

