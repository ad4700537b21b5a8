-- Signals as a listener sees them: what each call sends, to which channel, and when nothing is
-- sent. psql prints notifications with the sender's process id, which sed takes out; so the answers
-- of each block come after its statements.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO none
\set schema 'My "App".x'
\set version 14
\i :elixir
SELECT format('LISTEN %I', p || channel)
FROM unnest(ARRAY['ex14', 'py', 'My "App".x']) p,
	unnest('{.oban_signal,.oban_insert}'::text[]) channel
\gexec
\set filter '|sed "s/ received from server process with PID [0-9]*[.]//"'
\pset tuples_only on
\pset format unaligned
\set ECHO all

-- Cancel tells the worker of an executing job, and nobody else.
CALL tools.make_jobs('ex14', 'py', 'My "App".x');
\o :filter
\qecho each state by id:
SELECT id, oban_cancel_job(id, 'ex14') FROM tools.model WHERE id <> 3 ORDER BY id;
\qecho executing by id:
SELECT oban_cancel_job(3, 'ex14');
\qecho once more:
SELECT oban_cancel_job(3, 'ex14');
\qecho all by array:
SELECT oban_cancel_many_jobs('{8,7,6,5,4,3,2,1}', 'py');
\qecho a row, in an odd schema:
SELECT oban_cancel_job(j) FROM "My ""App"".x".oban_jobs j WHERE id = 3;
\qecho one a job, in id order:
UPDATE py.oban_jobs SET state = 'executing';
SELECT oban_cancel_many_jobs('{3,8,3,1,99,2}', 'py');
\o

-- Retry wakes each queue once a call; delete and get say nothing.
CALL tools.make_jobs('ex14', 'py', 'My "App".x');
\o :filter
\qecho each state by id:
SELECT id, oban_retry_job(id, 'ex14') FROM tools.model WHERE id IN (1, 3) ORDER BY id;
SELECT oban_retry_job(2, 'ex14');
SELECT oban_retry_job(6, 'ex14');
\qecho all by array, three queues:
SELECT oban_retry_many_jobs('{1,2,3,4,5,6,7,8}', 'py');
\qecho once more:
SELECT oban_retry_many_jobs('{1,2,3,4,5,6,7,8}', 'py');
\qecho an odd schema:
SELECT oban_retry_job(oban_get_job(5, 'My "App".x'));
\qecho for later, so nobody:
CALL tools.make_jobs('py');
SELECT oban_retry_job(2, 'py', now() + interval '1 second');
SELECT oban_retry_many_jobs('{4,5}', 'py', now() + interval '1 hour');
SELECT oban_retry_all_jobs('{"id": [6, 7]}', NULL, 'py', '9999-12-31');
\qecho for a time that has come, by a row, by array and by filter:
SELECT oban_retry_job(oban_get_job(2, 'py'), now());
SELECT oban_retry_many_jobs('{4}', 'py', '2001-01-01');
SELECT oban_retry_all_jobs('{"id": 6}', NULL, 'py', now() - interval '1 second');
\qecho no attempt can be left:
UPDATE py.oban_jobs SET attempt = 32767, max_attempts = 32767 WHERE id = 7;
SELECT oban_retry_job(7, 'py');
\qecho delete, get, cancelled:
SELECT oban_delete_many_jobs('{1,2,3,4,5,6,7,8}', 'py');
SELECT oban_get_job(3, 'ex14') IS NOT NULL, oban_job_cancelled(3, 'ex14');
\o

-- Update wakes the queue when a scheduled job becomes available, and under its new name.
CALL tools.make_jobs('ex14', 'py');
\o :filter
\qecho nothing to say:
SELECT id, state FROM oban_update_many_jobs('{1,2,3,4,5,6,7,8}', '{"priority": 1}', 'ex14');
SELECT id, state FROM oban_update_many_jobs('{1,3,4,5}', '{"schedule_in": 0}', 'ex14');
SELECT id, state FROM oban_update_job(1, '{"schedule_in": 60}', 'ex14');
\qecho due:
SELECT id, state FROM oban_update_job(2, '{"schedule_in": 0}', 'ex14');
\qecho due, in another queue:
SELECT id, state FROM oban_update_job(2, '{"schedule_in": 0, "queue": "new"}', 'py');
\qecho due, two in one queue and one already there:
UPDATE py.oban_jobs SET state = 'scheduled' WHERE id IN (6, 7, 8);
SELECT id, state FROM oban_update_many_jobs('{8,7,6,1}', '{"scheduled_at": "2024-01-01"}', 'py');
\o

-- Who was executing, or scheduled, is seen as well where PostgreSQL plans with the values: it reads
-- them once then, whatever the jobs.
SET plan_cache_mode = force_custom_plan;
CALL tools.make_jobs('ex14', 'py');
\o :filter
\qecho executing, by id and among others:
SELECT oban_cancel_job(3, 'ex14');
SELECT oban_cancel_many_jobs('{1,2,3,4}', 'py');
\qecho due:
CALL tools.make_jobs('ex14', 'py');
SELECT id, state FROM oban_update_job(2, '{"schedule_in": 0}', 'py');
SELECT id, state FROM oban_update_many_jobs('{1,2,3}', '{"schedule_in": 0}', 'ex14');
\o
RESET plan_cache_mode;

-- The queue is JSON-escaped, whatever it holds.
CALL tools.make_jobs('py');
UPDATE py.oban_jobs SET queue = E'a"b\\c\td\ne/\u0001é' WHERE id = 5;
UPDATE py.oban_jobs SET queue = repeat('q', 2000) WHERE id = 6;
\o '|sed "s/ received from server process with PID [0-9]*[.]//;s/q\\{2000\\}/<2000 q>/"'
SELECT oban_retry_job(5, 'py');
SELECT oban_retry_job(6, 'py');
\o
-- Far too long for NOTIFY's 8000 bytes: the job is retried all the same.
ALTER TABLE py.oban_jobs DROP CONSTRAINT queue_not_empty;
\set ECHO none
SELECT format('DROP INDEX %s', indexrelid::regclass) FROM pg_index
WHERE indrelid = 'py.oban_jobs'::regclass AND NOT indisprimary \gexec
\set ECHO all
UPDATE py.oban_jobs SET queue = repeat('q', 9000) WHERE id = 7;
UPDATE py.oban_jobs SET queue = '' WHERE id = 8;
\o :filter
SELECT oban_retry_job(7, 'py');
\qecho an empty queue:
SELECT oban_retry_job(8, 'py');
\o
SELECT tools.states('py');

-- Sent at commit; what is rolled back, to a savepoint too, says nothing.
CALL tools.make_jobs('ex14');
UPDATE ex14.oban_jobs SET state = 'executing' WHERE id < 5;
\o :filter
BEGIN;
SELECT oban_cancel_job(1, 'ex14');
\qecho nothing yet
COMMIT;
\qecho rolled back:
BEGIN;
SELECT oban_cancel_job(2, 'ex14');
ROLLBACK;
\qecho the first only:
BEGIN;
SELECT oban_cancel_job(2, 'ex14');
SAVEPOINT s;
SELECT oban_cancel_job(3, 'ex14'), oban_retry_job(5, 'ex14');
ROLLBACK TO s;
COMMIT;
\o
SELECT tools.states('ex14');

-- The setting turns both off.
SHOW oban_manage.notify;
SET oban_manage.notify = off;
\o :filter
\qecho off:
SELECT oban_cancel_many_jobs('{3,4}', 'ex14'), oban_retry_many_jobs('{3,4,5}', 'ex14');
SELECT state FROM oban_update_job(3, '{"schedule_in": 60}', 'ex14');
SELECT state FROM oban_update_job(3, '{"schedule_in": 0}', 'ex14');
SET oban_manage.notify = on;
\qecho on:
SELECT oban_retry_many_jobs('{6,7}', 'ex14');
\o
SELECT tools.states('ex14');

-- A trigger that vetoes the change vetoes the signal.
CALL tools.make_jobs('ex14');
CREATE FUNCTION tools.veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER veto BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.veto();
\o :filter
\qecho vetoed:
SELECT oban_cancel_job(3, 'ex14'), oban_cancel_many_jobs('{3}', 'ex14'), oban_retry_job(5, 'ex14'),
	oban_retry_many_jobs('{5,6}', 'ex14');
\o

\pset tuples_only off
\pset format aligned
UNLISTEN *;
DROP SCHEMA tools, ex9, ex11, ex14, py, "My ""App"".x" CASCADE;
