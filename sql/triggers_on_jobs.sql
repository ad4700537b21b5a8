-- Triggers on the jobs table itself that call a verb, on other jobs and on the same, with an end
-- and without one.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
ALTER TABLE ex9.oban_jobs ADD follow_ups bigint[], ADD parent bigint;
ALTER TABLE py.oban_jobs ADD follow_ups integer[], ADD parent integer;
-- A chain of 20 jobs, each followed by the next, the last by the first and by one that does not
-- exist.
CREATE PROCEDURE tools.chain(prefix text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('ALTER TABLE %I.oban_jobs DISABLE TRIGGER USER', prefix);
	CALL tools.fill(20, prefix);
	EXECUTE format('UPDATE %I.oban_jobs SET parent = id - 1,
		follow_ups = CASE id WHEN 20 THEN ''{1,99}'' ELSE ARRAY[id + 1] END', prefix);
	EXECUTE format('ALTER TABLE %I.oban_jobs ENABLE TRIGGER USER', prefix);
END $$;
\set ECHO all

-- To cancel a job is to cancel what follows it, to its end: a trigger that fires itself.
CREATE TRIGGER follow AFTER UPDATE OF state ON ex9.oban_jobs FOR EACH ROW
	WHEN (NEW.state = 'cancelled') EXECUTE FUNCTION oban_cancel_job('follow_ups', 'ex9');
CREATE TRIGGER follow AFTER UPDATE ON py.oban_jobs REFERENCING NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION oban_cancel_job('follow_ups', 'py');
CALL tools.chain('ex9');
CALL tools.chain('py');
UPDATE ex9.oban_jobs SET state = 'completed' WHERE id IN (9, 15);
SELECT oban_cancel_job(3, 'ex9'), oban_cancel_many_jobs('{13,12}', 'ex9');
SELECT tools.states('ex9');
SELECT oban_cancel_many_jobs('{5,6,7}', 'py');
SELECT count(*) FILTER (WHERE state = 'cancelled') AS cancelled FROM py.oban_jobs;
-- In one statement with the job that set it off, and undone with it.
CALL tools.chain('ex9');
BEGIN;
SELECT oban_cancel_job(1, 'ex9');
SELECT count(*) FROM ex9.oban_jobs WHERE state = 'cancelled';
ROLLBACK;
SELECT count(*) FROM ex9.oban_jobs WHERE state = 'cancelled';
DROP TRIGGER follow ON ex9.oban_jobs;
DROP TRIGGER follow ON py.oban_jobs;

-- To delete a job is to delete what follows it; before each row, and by statement.
CREATE TRIGGER follow BEFORE DELETE ON ex9.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('follow_ups', 'ex9');
CREATE TRIGGER follow AFTER DELETE ON py.oban_jobs REFERENCING OLD TABLE AS o
	FOR EACH STATEMENT EXECUTE FUNCTION oban_delete_job('follow_ups', 'py');
CALL tools.chain('ex9');
CALL tools.chain('py');
SELECT oban_delete_many_jobs('{4,9}', 'ex9'), oban_delete_many_jobs('{14,15,18}', 'py');
SELECT tools.states('ex9');
SELECT tools.states('py');
-- PostgreSQL's own rule for BEFORE triggers that change rows of the same statement.
SELECT code, message FROM tools.try('SELECT oban_delete_many_jobs(''{11,12}'', ''ex9'')');
DROP TRIGGER follow ON ex9.oban_jobs;
DROP TRIGGER follow ON py.oban_jobs;

-- A new job takes its parent's place: by the worker's own INSERT.
CREATE TRIGGER replace AFTER INSERT ON ex9.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('NEW.parent', '{"meta": {"replaced": true}, "priority": 3}',
		'ex9');
CALL tools.chain('ex9');
INSERT INTO ex9.oban_jobs (id, worker, parent) VALUES (101, 'W', 1), (102, 'W', 101),
	(103, 'W', 999);
SELECT id, priority, meta FROM ex9.oban_jobs WHERE id IN (1, 101, 102, 103) ORDER BY id;
DROP TRIGGER replace ON ex9.oban_jobs;

-- A callable on the jobs table, which gets the other job and the row that changed.
CREATE FUNCTION tools.adds_up(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('meta', job.meta || jsonb_build_object('done',
		coalesce(job.meta -> 'done', '[]') || (context #> '{new,id}')))
$$;
CREATE TRIGGER add_up AFTER UPDATE OF state ON py.oban_jobs FOR EACH ROW
	WHEN (NEW.state = 'completed')
	EXECUTE FUNCTION oban_update_job_with('parent', 'tools.adds_up', 'py');
CALL tools.chain('py');
UPDATE py.oban_jobs SET parent = 1;
UPDATE py.oban_jobs SET state = 'completed' WHERE id IN (2, 3, 4);
UPDATE py.oban_jobs SET state = 'completed' WHERE id = 5;
SELECT meta FROM py.oban_jobs WHERE id = 1;
DROP TRIGGER add_up ON py.oban_jobs;

-- An update that sets off another of the same job, which ends because nothing is left to change.
CREATE FUNCTION tools.raise_once(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$SELECT CASE WHEN job.priority < 5 THEN jsonb_build_object('priority', job.priority + 1) END$$;
CREATE TRIGGER again AFTER UPDATE OF priority ON py.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('id', 'tools.raise_once', 'py');
CALL tools.chain('py');
SELECT id, priority FROM oban_update_job(1, '{"priority": 1}', 'py');
SELECT id, priority FROM oban_update_many_jobs('{2,3}', '{"priority": 3}', 'py');
SELECT id, priority FROM py.oban_jobs WHERE id < 5 ORDER BY id;
DROP TRIGGER again ON py.oban_jobs;

-- One without an end: PostgreSQL's stack limit ends it, and nothing is changed; the session goes
-- on.
CREATE TRIGGER endless AFTER UPDATE ON py.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('follow_ups', '{"priority": 9}', 'py');
CREATE TRIGGER endless AFTER UPDATE ON ex9.oban_jobs REFERENCING NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('follow_ups', 'tools.adds_up', 'ex9');
CALL tools.chain('py');
CALL tools.chain('ex9');
SET max_stack_depth = '200kB';
SELECT code, message FROM tools.try('SELECT oban_update_job(1, ''{"priority": 9}'', ''py'')');
SELECT code, message
FROM tools.try('SELECT oban_update_many_jobs(''{1,2}'', ''{"priority": 9}'', ''py'')');
SELECT code, message
FROM tools.try('UPDATE ex9.oban_jobs SET priority = 9 WHERE id = 7 RETURNING 1');
RESET max_stack_depth;
SELECT (SELECT count(*) FROM py.oban_jobs WHERE priority = 9) AS py,
	(SELECT count(*) FROM ex9.oban_jobs WHERE priority = 9) AS ex9;
DROP TRIGGER endless ON py.oban_jobs;
DROP TRIGGER endless ON ex9.oban_jobs;
SELECT priority FROM oban_update_job(1, '{"priority": 8}', 'py');

-- Before the row is written, it cannot be written by its own trigger: PostgreSQL says so.
CREATE TRIGGER itself BEFORE UPDATE OF priority ON py.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('id', '{"queue": "q"}', 'py');
SELECT code, message
FROM tools.try('UPDATE py.oban_jobs SET priority = 7 WHERE id = 1 RETURNING 1');
SELECT code, message FROM tools.try('SELECT oban_update_job(1, ''{"priority": 7}'', ''py'')');
SELECT id, queue, priority FROM py.oban_jobs WHERE id = 1;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
