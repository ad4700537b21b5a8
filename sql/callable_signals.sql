-- What running Obans are told by updates with a callable and by triggers: the same as by the calls.
-- psql prints notifications with the sender's process id, which sed takes out; so the answers of
-- each block come after its statements.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO none
SELECT format('LISTEN %I', p || channel)
FROM unnest('{ex14,py}'::text[]) p, unnest('{.oban_signal,.oban_insert}'::text[]) channel
\gexec
\set filter '|sed "s/ received from server process with PID [0-9]*[.]//"'
\pset tuples_only on
\pset format unaligned
\set ECHO all
CREATE FUNCTION tools.by_id(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT context -> job.id::text$$;
CREATE TABLE tools.app (id integer, job bigint);

-- A callable wakes a queue when it makes a scheduled job available, once for each queue of a call,
-- under its new name; jobs of one call that are in other states, or come to be later, wake none.
CALL tools.make_jobs('ex14', 'py');
\o :filter
\qecho nothing to say:
SELECT id, state FROM oban_update_many_jobs_with('{1,2,4}', 'tools.by_id',
	'{"1": {"schedule_in": 0}, "2": {"priority": 1}, "4": {"scheduled_at": "2000-01-01"}}', 'py');
SELECT state FROM oban_update_job_with(2, 'tools.by_id', '{"2": {"schedule_in": 60}}', 'py');
SELECT state FROM oban_update_job_with(2, 'tools.by_id', '{"2": {}}', 'py');
\qecho one:
SELECT state FROM oban_update_job_with(2, 'tools.by_id', '{"2": {"schedule_in": 0}}', 'py');
\qecho of several that do and do not:
UPDATE py.oban_jobs SET state = 'scheduled', scheduled_at = '2099-01-01' WHERE id <> 8;
SELECT id, state, queue FROM oban_update_many_jobs_with('{1,2,3,4,5,6,7,8}', 'tools.by_id', '{
	"1": {"schedule_in": 0}, "2": {"schedule_in": 0, "queue": "new name"}, "3": {"queue": "media"},
	"4": {"schedule_in": 60}, "5": {"scheduled_at": "2000-01-01"}, "6": {"schedule_in": -1},
	"7": {"schedule_in": 0}, "8": {"schedule_in": 0}}', 'py');
\qecho rolled back:
BEGIN;
SELECT state FROM oban_update_job_with(3, 'tools.by_id', '{"3": {"schedule_in": 0}}', 'py');
ROLLBACK;
\qecho turned off:
SET oban_manage.notify = off;
SELECT state FROM oban_update_job_with(3, 'tools.by_id', '{"3": {"schedule_in": 0}}', 'py');
RESET oban_manage.notify;
\qecho more than one batch:
CALL tools.fill(1500, 'py');
UPDATE py.oban_jobs SET state = 'scheduled', queue = 'q' || id % 2;
CREATE FUNCTION tools.soon(job jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb '{"schedule_in": 0}'$$;
SELECT count(*) FROM oban_update_many_jobs_with((SELECT array_agg(id) FROM py.oban_jobs),
	'tools.soon', NULL, 'py') WHERE state = 'available';
\o

-- Triggers: a cancelled job that was executing, retried and rescheduled ones; by row and by
-- statement.
CREATE TRIGGER d AFTER DELETE ON tools.app REFERENCING OLD TABLE AS o FOR EACH STATEMENT
	EXECUTE FUNCTION oban_cancel_job('job', 'ex14');
CREATE TRIGGER i AFTER INSERT ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_retry_job('job', 'ex14');
CREATE TRIGGER u BEFORE UPDATE ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('job', '{"schedule_in": 0}', 'ex14');
CREATE TRIGGER w AFTER UPDATE ON tools.app REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.soon', 'py');
\o :filter
\qecho retry, a row each:
INSERT INTO tools.app VALUES (1, 1), (3, 3), (5, 5), (6, 6), (2, 2);
\qecho update, each way:
UPDATE ex14.oban_jobs SET state = 'scheduled' WHERE id = 6;
UPDATE py.oban_jobs SET state = 'scheduled' WHERE id = 6;
UPDATE tools.app SET id = id WHERE id = 6;
\qecho cancel, in one call:
UPDATE ex14.oban_jobs SET state = 'executing' WHERE id = 5;
DELETE FROM tools.app;
\qecho a callable of a statement that is rolled back:
BEGIN;
UPDATE py.oban_jobs SET state = 'scheduled' WHERE id = 6;
INSERT INTO tools.app VALUES (6, 6);
UPDATE tools.app SET id = id WHERE id = 6;
ROLLBACK;
\o

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
