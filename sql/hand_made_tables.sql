-- Tables and settings that no migration makes: they must give the right result or a clear error.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers

-- A queue that is NULL has nobody to wake; attempts that are NULL are not too many.
ALTER TABLE py.oban_jobs ALTER queue DROP NOT NULL, ALTER attempt DROP NOT NULL;
CALL tools.make_jobs('py');
UPDATE py.oban_jobs SET queue = NULL, attempt = NULL;
SET oban_manage.prefix = 'py';
SELECT oban_retry_job(5) AS one, oban_retry_many_jobs('{2,6,7}') AS many;
UPDATE py.oban_jobs SET state = 'scheduled';
SELECT id, state, queue, max_attempts
FROM oban_update_many_jobs('{1,2}', '{"schedule_in": 0, "max_attempts": 3}');
SELECT id, state, queue, attempt, max_attempts
FROM oban_update_job(3, '{"schedule_in": 0, "max_attempts": 3}');
SELECT id, max_attempts FROM oban_update_job(4, '{"max_attempts": 3}');
RESET oban_manage.prefix;

-- A jobs table that is itself a partition, of a table with another name.
CREATE TABLE tools.all_jobs (LIKE ex14.oban_jobs INCLUDING DEFAULTS) PARTITION BY RANGE (id);
CREATE SCHEMA part;
CREATE TABLE part.oban_jobs PARTITION OF tools.all_jobs FOR VALUES FROM (0) TO (100);
INSERT INTO part.oban_jobs (id, worker) VALUES (1, 'App.Worker');
SELECT oban_cancel_job(job) FROM part.oban_jobs AS job;
SELECT oban_retry_job(job) FROM tools.all_jobs AS job;

-- Domains.
CREATE DOMAIN tools.state AS ex14.oban_job_state;
CREATE DOMAIN tools.args AS jsonb;
CREATE DOMAIN tools.queue AS text;
ALTER TABLE ex11.oban_jobs ALTER queue TYPE tools.queue;
CALL tools.make_jobs('ex11');
SELECT id, queue FROM oban_update_job(1, '{"queue": "of a domain"}', 'ex11');
ALTER TABLE ex11.oban_jobs ALTER args TYPE tools.args;
SELECT oban_cancel_job(1, 'ex11');
ALTER TABLE tools.all_jobs ALTER state TYPE tools.state USING state::text::tools.state;
SELECT oban_cancel_job(1, 'part');

-- A plan is made by index, also when PostgreSQL has to plan anew. (Sequential scans are counted for
-- the transaction; the table is small enough for the planner to prefer one.)
CALL tools.fill(20, 'ex14');
ANALYZE ex14.oban_jobs;
CREATE FUNCTION tools.sequential_scans() RETURNS bigint LANGUAGE sql AS
	$$SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'ex14.oban_jobs'::regclass$$;
BEGIN;
SELECT tools.sequential_scans() AS before \gset
SELECT oban_cancel_many_jobs('{1,2}', 'ex14');
SET LOCAL search_path = tools, public;
SELECT oban_cancel_many_jobs('{3,4}', 'ex14');
SELECT tools.sequential_scans() - :before AS scans;
COMMIT;
CREATE ROLE regress_oban_one;
CREATE ROLE regress_oban_other;
GRANT USAGE ON SCHEMA ex14 TO regress_oban_one, regress_oban_other;
GRANT SELECT, UPDATE ON ex14.oban_jobs TO regress_oban_one, regress_oban_other;
ALTER TABLE ex14.oban_jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON ex14.oban_jobs USING (worker = 'App.Worker' AND current_user <> 'nobody');
BEGIN;
SELECT tools.sequential_scans() AS before \gset
SET LOCAL ROLE regress_oban_one;
SELECT oban_cancel_many_jobs('{5,6}', 'ex14');
SET LOCAL ROLE regress_oban_other;
SELECT oban_cancel_many_jobs('{7,8}', 'ex14');
RESET ROLE;
SELECT tools.sequential_scans() - :before AS scans;
COMMIT;

-- Ids that no constraint keeps apart: a job that is there twice does not stand for one that is not.
CREATE SCHEMA twice;
CREATE TABLE twice.oban_jobs (LIKE py.oban_jobs INCLUDING DEFAULTS);
CREATE INDEX ON twice.oban_jobs (id);
INSERT INTO twice.oban_jobs SELECT j.* FROM py.oban_jobs j, generate_series(1, 2) WHERE id IN (4, 5);
SELECT code, message FROM tools.try(
	'SELECT count(*) FROM oban_update_many_jobs(''{4,99}'', ''{"priority": 7}'', ''twice'')');
SELECT id, priority FROM oban_update_many_jobs('{5,4}', '{"priority": 8}', 'twice');
SELECT id, priority, count(*) FROM twice.oban_jobs GROUP BY 1, 2 ORDER BY 1;
SELECT oban_delete_many_jobs('{5,4}', 'twice');

-- A cast of the enum to text is its owner's; who only reads does not run it.
CALL tools.make_jobs('py');
CREATE FUNCTION tools.liar(py.oban_job_state) RETURNS text LANGUAGE plpgsql
	AS 'BEGIN RAISE WARNING ''run as %'', current_user; RETURN ''available''; END';
CREATE CAST (py.oban_job_state AS text) WITH FUNCTION tools.liar;
SELECT (oban_get_job(3, 'py')).state;
SELECT id, state FROM oban_update_job(3, '{"priority": 2}', 'py');
SELECT * FROM oban_manage_jobs('cancel', '{3,6}', dry_run => true, prefix => 'py');
SELECT * FROM oban_manage_jobs('update', '{2,3}', '{"schedule_in": 0}', true, 'py');
SELECT * FROM oban_manage_jobs('retry', '{3,6}', prefix => 'py');
DROP CAST (py.oban_job_state AS text);

-- A SECURITY DEFINER function must not leave the prefix to its caller: this one does not.
CREATE FUNCTION tools.cancel_one(id bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp SET oban_manage.prefix = 'ex14'
	AS 'SELECT public.oban_cancel_job(id)';
GRANT EXECUTE ON FUNCTION tools.cancel_one TO regress_oban_one;
SET ROLE regress_oban_one;
SET oban_manage.prefix = 'py';
SELECT tools.cancel_one(9), tools.cancel_one(9) AS again;
SHOW oban_manage.prefix;
RESET oban_manage.prefix;
RESET ROLE;

-- A filter by a column that the table has not, and a change to it
ALTER TABLE py.oban_jobs RENAME meta TO mata;
SELECT oban_all_jobs('{"meta": {"a": 1}}', NULL, 'py');
ALTER TABLE py.oban_jobs RENAME mata TO meta;
ALTER TABLE py.oban_jobs RENAME max_attempts TO most;
SELECT oban_update_job(1, '{"max_attempts": 3}', 'py');
ALTER TABLE py.oban_jobs RENAME most TO max_attempts;

\pset null NULL
-- A state that is NULL, under the guard of a table that allows one
ALTER TABLE py.oban_jobs ALTER state DROP NOT NULL;
CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON py.oban_jobs
	FOR EACH ROW EXECUTE FUNCTION oban_guard_job();
UPDATE py.oban_jobs SET state = NULL WHERE id = 7 RETURNING id, state;
UPDATE py.oban_jobs SET state = 'retryable' WHERE id = 7 RETURNING id, state;

-- A table with its errors in a column that is neither Oban's
CREATE SCHEMA odd;
CREATE TABLE odd.errors (LIKE ex14.oban_jobs INCLUDING ALL);
ALTER TABLE odd.errors ALTER errors DROP DEFAULT, ALTER errors TYPE text[] USING NULL;
ALTER TABLE odd.errors RENAME TO oban_jobs;
SELECT oban_cancel_job(1, 'odd');
ALTER TABLE odd.oban_jobs ALTER errors TYPE jsonb USING NULL, ALTER id TYPE smallint;
INSERT INTO odd.oban_jobs (id, state, queue, worker, errors)
VALUES (1, 'available', 'default', 'W', '[]');
SELECT oban_cancel_job(1, 'odd');
SELECT oban_job_cancelled(1, 'odd');

ALTER TABLE odd.oban_jobs RENAME TO errors;
CREATE TABLE odd.oban_jobs (LIKE ex14.oban_jobs);
ALTER TABLE odd.oban_jobs ALTER priority TYPE text;
SELECT oban_cancel_job(1, 'odd');

SET client_min_messages = warning;
DROP SCHEMA odd, part, twice, tools, ex9, ex11, ex14, py CASCADE;
DROP ROLE regress_oban_one, regress_oban_other;
