-- Reading a job: oban_get_job, oban_job_cancelled.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

CALL tools.make_jobs('ex9', 'ex14', 'py');

-- The worker's question: stop once the job is cancelled or gone.
SELECT m.state, oban_job_cancelled(m.id, 'ex9') AS ex9, oban_job_cancelled(m.id, 'ex14') AS ex14,
	oban_job_cancelled(m.id, 'py') AS py
FROM tools.model m WHERE m.state <> 'suspended' ORDER BY m.id;
SELECT oban_job_cancelled(99, 'py') AS gone, oban_job_cancelled(-1, 'ex14') AS never;
SELECT oban_job_cancelled(8, 'ex14') AS suspended, oban_job_cancelled(NULL, 'py') AS no_id;
SELECT oban_cancel_job(3, 'py');
SELECT oban_job_cancelled(3, 'py') AS cancelled;
SELECT oban_delete_job(3, 'py');
SELECT oban_job_cancelled(3, 'py') AS gone;
SELECT oban_retry_job(7, 'ex14');
SELECT oban_job_cancelled(7, 'ex14') AS retried;

-- With the attempt that it runs: stop once the job is not executing with that attempt. Job 3
-- executes with attempt 1; 8 is suspended.
SELECT p, m.state, m.attempt, oban_job_cancelled(m.id, p, m.attempt) AS own,
	oban_job_cancelled(m.id, p, m.attempt + 1) AS another, oban_job_cancelled(m.id, p, NULL) AS none
FROM (VALUES ('ex14'), ('py')) v(p), tools.model m WHERE (m.id, p) NOT IN ((3, 'py'), (7, 'ex14'))
ORDER BY p, m.id;
SELECT oban_job_cancelled(99, 'py', 1) AS gone, oban_job_cancelled(NULL, 'py', 1) AS no_id,
	oban_job_cancelled(3, 'ex14', 2147483647) AS most, oban_job_cancelled(3, 'ex14', -1) AS least,
	oban_job_cancelled(4, 'py', 32768) AS beyond_its_column,
	oban_job_cancelled(3, attempt => 1, prefix => 'ex14') AS by_name;
-- Cancelled, and retried at once: no longer cancelled, but that run is over; so it is when the job
-- runs again.
SELECT oban_cancel_job(3, 'ex14'), oban_retry_job(3, 'ex14');
SELECT oban_job_cancelled(3, 'ex14') AS cancelled, oban_job_cancelled(3, 'ex14', 1) AS run_1;
UPDATE ex14.oban_jobs SET state = 'executing', attempt = attempt + 1 WHERE id = 3;
SELECT oban_job_cancelled(3, 'ex14') AS cancelled, oban_job_cancelled(3, 'ex14', 1) AS run_1,
	oban_job_cancelled(3, 'ex14', 2) AS run_2;

-- The job, or NULL.
SELECT j.id, j.state, j.queue, j.prefix FROM oban_get_job(3, 'ex14') j;
SELECT oban_get_job(99, 'ex14') IS NULL AS missing, oban_get_job(NULL, 'ex14') IS NULL AS no_id;
SELECT count(*) FROM generate_series(1, 9) g, oban_get_job(g, 'ex14') j WHERE j.id = g;
SELECT oban_get_job(99, 'ex14') AS missing;

-- Narrow ids and untyped ones.
SELECT (oban_get_job('4', 'py')).state, (oban_get_job(5::smallint, 'py')).state;

-- Reads see their own transaction's changes, and lock nothing.
BEGIN;
UPDATE py.oban_jobs SET queue = 'mine' WHERE id = 1;
SELECT queue FROM oban_get_job(1, 'py');
ROLLBACK;
BEGIN;
SELECT queue FROM oban_get_job(1, 'py');
SELECT oban_job_cancelled(2, 'py');
SELECT mode FROM pg_locks
WHERE pid = pg_backend_pid() AND relation = 'py.oban_jobs'::regclass ORDER BY mode;
SELECT pg_current_xact_id_if_assigned() IS NULL AS wrote_nothing;
COMMIT;

-- Safe in a parallel worker, which takes the setting along.
SET oban_manage.prefix = 'ex14';
SELECT count(set_config(name, 'on', false)) FROM pg_settings
WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT state, prefix, oban_job_cancelled(3), oban_job_cancelled(99) AS gone FROM oban_get_job(3);
EXPLAIN (COSTS OFF) SELECT oban_job_cancelled(3);
SELECT count(set_config(name, 'off', false)) FROM pg_settings
WHERE name IN ('force_parallel_mode', 'debug_parallel_query');

-- In a statement that changes the table, the answer is as of the start of that statement, for the
-- functions are STABLE.
WITH changed AS (
	UPDATE py.oban_jobs SET state = 'cancelled' WHERE id = 2 RETURNING id
) SELECT oban_job_cancelled(id, 'py') FROM changed;
SELECT oban_job_cancelled(2, 'py');

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
