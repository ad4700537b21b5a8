-- Jobs on another server, by postgres_fdw; the other server is this one.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO none
\set foreign :abs_srcdir '/fixtures/foreign.sql'
\i :foreign
SET oban_manage.prefix = 'far';

CALL tools.make_jobs('py');
SELECT id, state FROM py.oban_jobs ORDER BY id;
SELECT oban_cancel_job(1) AS one, oban_cancel_many_jobs('{1,2,3,4,5,6,7,8,99}') AS many;
SELECT tools.states('py');
SELECT oban_retry_job(1) AS one, oban_retry_many_jobs('{1,2,3,4,99}') AS many;
SELECT tools.states('py');
SELECT id, state, tags, prefix FROM oban_update_many_jobs('{3,1}', '{"tags": ["b", "A"], "schedule_in": 60}');
SELECT id, state, prefix FROM oban_update_job(1, '{"schedule_in": 0}');
SELECT oban_update_many_jobs('{1,99}', '{"priority": 1}');
SELECT job.id, oban_delete_job(job) FROM far.oban_jobs AS job WHERE id = 2;
SELECT oban_delete_many_jobs('{1,2,3,99}');
SELECT tools.states('py');
SELECT (oban_get_job(4)).state, oban_job_cancelled(1) AS gone;

RESET oban_manage.prefix;
SET client_min_messages = warning;
DROP EXTENSION postgres_fdw CASCADE;
DROP SCHEMA far, tools, ex9, ex11, ex14, py CASCADE;
