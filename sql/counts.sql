-- What counts, and who is told, goes by the state that is in the table afterwards: a BEFORE trigger
-- of the table may keep a job as it is, or give it another state than the verb did.
-- Seen to fail, for each verb and each way to call it, with all rows that were written counted
-- (count_done), told (count_and_signal), or woken whatever their state (append_written, wake_queue).
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set helpers :abs_srcdir '/fixtures/partitions.sql'
\i :helpers
\set ECHO none
\pset null NULL
-- Gives the row the state in its argument, or the one that it had.
CREATE FUNCTION tools.gives() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.state := CASE TG_ARGV[0] WHEN 'old' THEN OLD.state::text ELSE TG_ARGV[0] END;
	RETURN NEW;
END $$;
-- For jobs with these ids; no trigger without ids.
CREATE PROCEDURE tools.stubborn(p text, ids text, state text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('DROP TRIGGER IF EXISTS stubborn ON %I.oban_jobs', p);
	IF ids <> '{}' THEN
		EXECUTE format('CREATE TRIGGER stubborn BEFORE UPDATE ON %I.oban_jobs FOR EACH ROW
			WHEN (OLD.id = ANY (%L)) EXECUTE FUNCTION tools.gives(%L)', p, ids, state);
	END IF;
END $$;
CREATE FUNCTION tools.due(job jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb '{"schedule_in": 0}'$$;
CREATE FUNCTION tools.moved(job jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb '{"queue": "new"}'$$;
CREATE TABLE tools.app (job bigint);
CREATE PROCEDURE tools.make_parts() LANGUAGE sql AS $$
	DELETE FROM by_state.oban_jobs;
	INSERT INTO by_state.oban_jobs OVERRIDING SYSTEM VALUE SELECT * FROM py.oban_jobs;
$$;
LISTEN "ex14.oban_signal";
LISTEN "ex14.oban_insert";
LISTEN "py.oban_signal";
LISTEN "py.oban_insert";
LISTEN "by_state.oban_signal";
LISTEN "by_state.oban_insert";
\set filter '|sed "s/ received from server process with PID [0-9]*[.]//"'
\pset tuples_only on
\pset format unaligned
\set ECHO all

-- Cancel: job 3 is executing, and stays so.
CALL tools.make_jobs('ex14', 'py');
CALL tools.stubborn('ex14', '{3}', 'old');
CALL tools.stubborn('py', '{3}', 'old');
\o :filter
\qecho one job, by id, by a row, by an oban_job, in an array:
SELECT oban_cancel_job(3, 'ex14'), oban_cancel_job(3, 'py');
SELECT oban_cancel_job(j) FROM py.oban_jobs j WHERE id = 3;
SELECT oban_cancel_job(oban_get_job(3, 'ex14'));
SELECT oban_cancel_job('{3}'::bigint[], 'ex14'), oban_cancel_many_jobs('{3}', 'py');
\qecho one that is not executing, and is kept:
CALL tools.stubborn('ex14', '{1,3}', 'old');
SELECT oban_cancel_job(1, 'ex14'), oban_cancel_many_jobs('{1}', 'ex14');
\qecho among others, two of which are executing:
UPDATE ex14.oban_jobs SET state = 'executing' WHERE id IN (2, 4);
SELECT oban_cancel_many_jobs('{1,2,3,4,5}', 'ex14');
SELECT tools.states('ex14');
\qecho by filter:
CALL tools.make_jobs('ex14');
SELECT oban_cancel_all_jobs('{"id": [1, 2, 3, 4]}', NULL, 'ex14');
\qecho by an application, a row and a statement:
CALL tools.make_jobs('ex14');
CREATE TRIGGER by_row AFTER INSERT ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('job', 'ex14');
INSERT INTO tools.app VALUES (1), (3);
CREATE TRIGGER by_statement AFTER DELETE ON tools.app REFERENCING OLD TABLE AS gone
	FOR EACH STATEMENT EXECUTE FUNCTION oban_cancel_job('job', 'ex14');
DELETE FROM tools.app;
DROP TRIGGER by_row ON tools.app;
DROP TRIGGER by_statement ON tools.app;
\qecho in batches:
CALL oban_cancel_in_batches('{"all": true}', 2, prefix => 'ex14');
SELECT tools.states('ex14');
\qecho with outcomes, and what a dry run says:
CALL tools.make_jobs('ex14');
SELECT * FROM oban_manage_jobs('cancel', '{1,3,4,5}', NULL, true, 'ex14');
SELECT * FROM oban_manage_jobs('cancel', '{1,3,4,5}', NULL, false, 'ex14');
\qecho a trigger that makes it available: nothing was cancelled, and so none is woken
CALL tools.make_jobs('py');
CALL tools.stubborn('py', '{3}', 'available');
SELECT oban_cancel_job(3, 'py');
CALL tools.make_jobs('py');
SELECT * FROM oban_manage_jobs('cancel', '{3}', NULL, false, 'py');
\o

-- Retry: job 6 stays discarded, 5 becomes scheduled though it was to run now; 7 is available.
CALL tools.make_jobs('ex14', 'py');
CREATE TRIGGER later BEFORE UPDATE ON py.oban_jobs FOR EACH ROW WHEN (OLD.id = 5)
	EXECUTE FUNCTION tools.gives('scheduled');
CALL tools.stubborn('py', '{6}', 'old');
UPDATE py.oban_jobs SET queue = 'q' || id;
\o :filter
\qecho by id, by array, by filter:
SELECT oban_retry_job(6, 'py'), oban_retry_job(5, 'py'), oban_retry_job(7, 'py');
UPDATE py.oban_jobs SET state = 'completed' WHERE id = 5;
UPDATE py.oban_jobs SET state = 'cancelled' WHERE id = 7;
SELECT oban_retry_many_jobs('{4,5,6,7}', 'py');
SELECT oban_retry_all_jobs('{"id": [4, 5, 6, 7]}', NULL, 'py');
SELECT tools.states('py');
\qecho with outcomes:
SELECT * FROM oban_manage_jobs('retry', '{2,5,6}', NULL, false, 'py');
\qecho spread over a time: 5 is scheduled as it was to be, 6 is kept, 8 is available before its time
CALL tools.make_jobs('py');
UPDATE py.oban_jobs SET state = 'completed' WHERE id = 8;
CREATE TRIGGER sooner BEFORE UPDATE ON py.oban_jobs FOR EACH ROW WHEN (OLD.id = 8)
	EXECUTE FUNCTION tools.gives('available');
UPDATE py.oban_jobs SET queue = 'q' || id WHERE id <> 8;
CALL oban_retry_in_batches('{"id": [4, 5, 6, 7, 8]}', 2, spread => '1 hour', prefix => 'py');
SELECT tools.states('py');
\o
DROP TRIGGER later ON py.oban_jobs;
DROP TRIGGER sooner ON py.oban_jobs;

-- Update counts and returns what it wrote; the queue of job 2 is woken only when that is available.
CALL tools.make_jobs('ex14', 'py');
CALL tools.stubborn('ex14', '{2}', 'old');
CALL tools.stubborn('py', '{}', 'old');
\o :filter
\qecho kept:
SELECT id, state FROM oban_update_job(2, '{"schedule_in": 0}', 'ex14');
SELECT id, state FROM oban_update_many_jobs('{2,1}', '{"schedule_in": 0}', 'ex14');
SELECT oban_update_all_jobs('{"id": 2}', '{"schedule_in": 0}', NULL, 'ex14');
SELECT * FROM oban_manage_jobs('update', '{2}', '{"schedule_in": 0}', false, 'ex14');
SELECT id, state FROM oban_update_job_with(2, 'tools.due', NULL, 'ex14');
CALL oban_update_in_batches('{"id": 2}', '{"schedule_in": 0}', prefix => 'ex14');
\qecho not kept:
SELECT id, state FROM oban_update_job(2, '{"schedule_in": 0}', 'py');
\o

-- A job that is moved to another queue, and is available there, wakes that queue.
CALL tools.make_jobs('ex14', 'py');
CALL tools.make_parts();
CALL tools.stubborn('ex14', '{}', 'old');
INSERT INTO tools.app VALUES (1), (2), (3);
CREATE TRIGGER moves BEFORE UPDATE ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('job', '{"queue": "row"}', 'ex14');
CREATE TRIGGER moves_all AFTER UPDATE ON tools.app REFERENCING NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job('job', '{"queue": "statement"}', 'py');
CREATE TRIGGER moves_with AFTER UPDATE ON tools.app REFERENCING NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('job', 'tools.moved', 'py');
\o :filter
\qecho by id, each state; only 1 is available:
SELECT id, state FROM generate_series(1, 8) g, oban_update_job(g, '{"queue": "one"}', 'ex14') j;
\qecho by array:
SELECT count(*) FROM oban_update_many_jobs('{1,2,3}', '{"queue": "many"}', 'ex14');
\qecho none is available:
SELECT count(*) FROM oban_update_many_jobs('{2,3,4}', '{"queue": "none"}', 'ex14');
\qecho nobody is moved:
SELECT count(*) FROM oban_update_many_jobs('{1,2,3}', '{"priority": 3, "tags": []}', 'ex14');
\qecho moved to where it is:
SELECT id, queue FROM oban_update_job(1, '{"queue": "many"}', 'ex14');
\qecho moved, and no longer available:
SELECT id, state FROM oban_update_job(1, '{"queue": "later", "schedule_in": 60}', 'ex14');
SELECT id, state FROM oban_update_job(1, '{"queue": "now", "schedule_in": 0}', 'ex14');
\qecho by filter:
SELECT oban_update_all_jobs('{"all": true}', '{"queue": "filter"}', NULL, 'ex14');
SELECT oban_update_all_jobs('{"state": "executing"}', '{"queue": "filter none"}', NULL, 'ex14');
\qecho by callable:
SELECT id, state FROM oban_update_many_jobs_with('{1,2,3}', 'tools.moved', NULL, 'ex14');
\qecho with outcomes, the dry run first:
SELECT job_id, outcome FROM oban_manage_jobs('update', '{1,3}', '{"queue": "dry"}', true, 'ex14');
SELECT job_id, outcome FROM oban_manage_jobs('update', '{1,3}', '{"queue": "outcomes"}', false,
	'ex14');
\qecho in batches:
CALL oban_update_in_batches('{"id": [1, 3]}', '{"queue": "batches"}', 1, prefix => 'ex14');
\qecho by an application, a row and two statements:
UPDATE tools.app SET job = job;
\qecho partitions by state:
SELECT count(*) FROM oban_update_many_jobs('{1,2,3}', '{"queue": "parts"}', 'by_state');
\qecho a trigger that makes it available, by each way that returns other things:
CALL tools.stubborn('ex14', '{3}', 'available');
SELECT id, state FROM oban_update_job(3, '{"queue": "made"}', 'ex14');
UPDATE ex14.oban_jobs SET state = 'suspended' WHERE id = 3;
SELECT oban_update_all_jobs('{"id": 3}', '{"queue": "made by filter"}', NULL, 'ex14');
\qecho and one that does not let it stay so:
CALL tools.stubborn('ex14', '{1}', 'suspended');
SELECT id, state FROM oban_update_job(1, '{"queue": "not made"}', 'ex14');
UPDATE ex14.oban_jobs SET state = 'available' WHERE id = 1;
SELECT oban_update_all_jobs('{"id": 1}', '{"queue": "not made by filter"}', NULL, 'ex14');
\qecho turned off:
SET oban_manage.notify = off;
SELECT id, state FROM oban_update_many_jobs('{1,2}', '{"queue": "silent"}', 'py');
RESET oban_manage.notify;
\o

-- On a table partitioned by state, where a new state moves the row: a trigger that keeps it where it
-- is, and one that sends it elsewhere.
CALL tools.make_jobs('py');
CALL tools.make_parts();
CALL tools.stubborn('by_state', '{3}', 'old');
CREATE TRIGGER elsewhere BEFORE UPDATE ON by_state.oban_jobs FOR EACH ROW WHEN (OLD.id = 4)
	EXECUTE FUNCTION tools.gives('suspended');
\o :filter
SELECT oban_cancel_job(3, 'by_state'), oban_cancel_job(4, 'by_state');
SELECT oban_cancel_many_jobs('{1,2,3,4}', 'by_state');
SELECT * FROM oban_manage_jobs('cancel', '{3,4,8}', NULL, false, 'by_state');
SELECT tools.states('by_state');
\o

-- A child table that repeats an id: one of the two is cancelled, and counts.
CALL tools.make_jobs('ex14');
CREATE TABLE ex14.archive () INHERITS (ex14.oban_jobs);
INSERT INTO ex14.archive SELECT * FROM ONLY ex14.oban_jobs WHERE id = 3;
\o :filter
CALL tools.stubborn('ex14', '{3}', 'old');
SELECT oban_cancel_many_jobs('{3}', 'ex14');
UPDATE ex14.archive SET state = 'executing';
SELECT job_id, outcome, old_state, new_state FROM oban_manage_jobs('cancel', '{3}', prefix => 'ex14');
\o

\pset tuples_only off
\pset format aligned
UNLISTEN *;
DROP SCHEMA by_hash, by_state CASCADE;
DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
