-- The roles of a managed server. rdsadmin, the superuser, was made with the database system.

CREATE ROLE rds_superuser NOLOGIN;

CREATE ROLE rds_iam NOLOGIN;

CREATE ROLE rds_replication NOLOGIN;

CREATE ROLE rds_password NOLOGIN;

GRANT pg_monitor, pg_signal_backend, rds_iam, rds_replication, rds_password TO rds_superuser WITH ADMIN OPTION;

-- Roles that later versions have, as far as they are there.
DO $$
DECLARE granted name;
BEGIN
    FOR granted IN SELECT rolname FROM pg_roles
        WHERE rolname IN ('pg_checkpoint', 'pg_use_reserved_connections', 'pg_create_subscription', 'pg_maintain')
    LOOP
        EXECUTE format('GRANT %I TO rds_superuser WITH ADMIN OPTION', granted);
    END LOOP;
END $$;

-- Settings that only a superuser may change by default, and a master user may change for a session.
DO $$
DECLARE setting text;
BEGIN
    FOREACH setting IN ARRAY ARRAY['deadlock_timeout', 'log_duration', 'log_error_verbosity', 'log_executor_stats',
        'log_lock_waits', 'log_min_duration_statement', 'log_min_error_statement', 'log_min_messages',
        'log_parser_stats', 'log_planner_stats', 'log_replication_commands', 'log_statement',
        'log_statement_stats', 'log_temp_files', 'session_replication_role', 'track_activities', 'track_counts',
        'track_functions', 'track_io_timing', 'temp_file_limit']
    LOOP
        EXECUTE format('GRANT SET ON PARAMETER %I TO rds_superuser', setting);
    END LOOP;
END $$;

-- Up to version 15 whoever may create roles may also grant every role that is not a superuser, and these three
-- are the way out of the database into the server's file system. Marked as superusers (which membership does
-- not hand on) they can be granted by a superuser only. From version 16 on nobody can grant what he was not
-- given to administer.
UPDATE pg_authid SET rolsuper = true
WHERE rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
  AND current_setting('server_version_num')::int < 160000;

