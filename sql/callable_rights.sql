-- Callables, and types of their argument, in schemas that the caller may not use.
--
-- It fails when the right to the schema of a callable that is given by number is not asked for.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
\set VERBOSITY terse
CALL tools.make_jobs('ex14', 'py');
DROP ROLE IF EXISTS regress_oban_caller;
CREATE ROLE regress_oban_caller;

-- A callable by number, in a schema that the caller may not use
CREATE SCHEMA closed;
CREATE FUNCTION closed.keep(job oban_job) RETURNS jsonb LANGUAGE sql RETURN NULL::jsonb;
SELECT 'closed.keep'::regproc::oid AS keep \gset
GRANT USAGE ON SCHEMA ex14 TO regress_oban_caller;
GRANT SELECT, UPDATE ON ex14.oban_jobs TO regress_oban_caller;
SET ROLE regress_oban_caller;
SELECT oban_update_job_with(1, :keep, NULL, 'ex14');
RESET ROLE;

-- A callable whose job is of a type in such a schema, also where a kept plan has the type already
CREATE TABLE closed.jobs AS SELECT (oban_get_job(1, 'ex14')).*;
SELECT (SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = 'closed.jobs'::regclass AND attnum > 0) AS columns \gset
CREATE TYPE closed.job AS (:columns);
CREATE SCHEMA open;
GRANT USAGE ON SCHEMA open TO regress_oban_caller;
CREATE FUNCTION open.keep(job closed.job) RETURNS jsonb LANGUAGE sql RETURN NULL::jsonb;
SELECT (oban_update_job_with(1, 'open.keep', NULL, 'ex14')).id;
SET ROLE regress_oban_caller;
SELECT oban_update_job_with(1, 'open.keep', NULL, 'ex14');
RESET ROLE;
GRANT USAGE ON SCHEMA closed TO regress_oban_caller;
SET ROLE regress_oban_caller;
SELECT (oban_update_job_with(1, 'open.keep', NULL, 'ex14')).id;
RESET ROLE;
-- Without a job there is no table; types that no job has are refused all the same.
CREATE FUNCTION open.any_row(job record) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE DOMAIN open.job AS oban_job;
CREATE FUNCTION open.of_domain(job open.job) RETURNS jsonb LANGUAGE sql RETURN NULL::jsonb;
SET ROLE regress_oban_caller;
SELECT oban_update_job_with(NULL::oban_job, 'open.any_row');
SELECT oban_update_job_with(NULL::oban_job, 'open.of_domain');
SELECT oban_update_job_with(NULL::oban_job, 'open.keep');
RESET ROLE;
DROP SCHEMA open CASCADE;
DROP TYPE closed.job;
DROP TABLE closed.jobs;

DROP SCHEMA closed, tools, ex9, ex11, ex14, py CASCADE;
DROP ROLE regress_oban_caller;
