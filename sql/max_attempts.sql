-- How few max_attempts an update may set: more than the attempts made while the job may still run, at
-- least as many once it is over. Either Oban stops the whole queue over a waiting job that has no
-- attempt left. The states are the same in each form of call, on each dialect, whatever else changes.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

-- A callable that gives what it is told to.
CREATE FUNCTION tools.gives(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql RETURN context;
-- An application's table, whose trigger updates a job.
CREATE TABLE tools.app (job bigint);

-- Ways to update a job.
CREATE TABLE tools.forms (n serial, form text, call text);
INSERT INTO tools.forms (form, call) VALUES
	('id', 'SELECT oban_update_job(JOB_ID, %1$L, %2$L)'),
	('row', 'SELECT oban_update_job(j, %1$L) FROM PREFIX.oban_jobs j WHERE id = JOB_ID'),
	('array', 'SELECT oban_update_many_jobs(''{JOB_ID}'', %1$L, %2$L)'),
	('array of two', 'SELECT oban_update_many_jobs(''{99,JOB_ID}'', %1$L, %2$L)'),
	('filter', 'SELECT oban_update_all_jobs(''{"id": JOB_ID}'', %1$L, NULL, %2$L)'),
	('outcomes', 'SELECT oban_manage_jobs(''update'', ''{JOB_ID}'', %1$L, false, %2$L)'),
	('dry run', 'SELECT oban_manage_jobs(''update'', ''{JOB_ID}'', %1$L, true, %2$L)'),
	('callable', 'SELECT oban_update_job_with(JOB_ID, ''tools.gives'', %1$L, %2$L)'),
	('callable, two', 'SELECT oban_update_many_jobs_with(''{99,JOB_ID}'', ''tools.gives'', %1$L, %2$L)'),
	('trigger', 'INSERT INTO tools.app VALUES (JOB_ID)');

-- What becomes of a call: the new max_attempts, or the SQLSTATE and the number in the hint. All is
-- undone.
CREATE FUNCTION tools.outcome(form text, prefix text, id bigint, changes jsonb) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	call text := (SELECT f.call FROM tools.forms f WHERE f.form = outcome.form);
	result text;
	hint text;
BEGIN
	call := replace(replace(call, 'JOB_ID', id::text), 'PREFIX', quote_ident(prefix));
	IF form = 'trigger' THEN
		EXECUTE format('CREATE TRIGGER t AFTER INSERT ON tools.app FOR EACH ROW
			EXECUTE FUNCTION oban_update_job(''job'', %L, %L)', changes, prefix);
	END IF;
	EXECUTE format(call, changes, prefix);
	EXECUTE format('SELECT max_attempts FROM %I.oban_jobs WHERE id = %s', prefix, id) INTO result;
	RAISE SQLSTATE 'DONE0' USING MESSAGE = coalesce(result, 'none');
EXCEPTION
	WHEN SQLSTATE 'DONE0' THEN RETURN SQLERRM;
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
		RETURN SQLSTATE || coalesce(' ' || substring(hint FROM 'at least \d+'), '');
END $$;

-- Every job has made 3 attempts; job 99 none.
CALL tools.make_jobs('ex9', 'ex14', 'py');
UPDATE ex9.oban_jobs SET attempt = 3;
UPDATE ex14.oban_jobs SET attempt = 3;
UPDATE py.oban_jobs SET attempt = 3;
INSERT INTO ex9.oban_jobs (id, worker) VALUES (99, 'W');
INSERT INTO ex14.oban_jobs (id, worker) VALUES (99, 'W');
INSERT INTO py.oban_jobs (id, worker) OVERRIDING SYSTEM VALUE VALUES (99, 'W');

-- The changes by which each form is called, besides max_attempts.
CREATE TABLE tools.others (other jsonb);
INSERT INTO tools.others VALUES ('{}'), ('{"schedule_in": -60}'), ('{"schedule_in": 60, "tags": []}');
CREATE VIEW tools.results AS
	SELECT m.state, p AS prefix, form, other,
		tools.outcome(form, p, m.id, other || '{"max_attempts": 2}') AS two,
		tools.outcome(form, p, m.id, other || '{"max_attempts": 3}') AS three,
		tools.outcome(form, p, m.id, other || '{"max_attempts": 4}') AS four
	FROM tools.model m, unnest('{ex9,ex14,py}'::text[]) p, tools.forms, tools.others
	WHERE m.state <> 'suspended' OR p <> 'ex9';
-- A dry run that is not refused leaves the 20 that were there.
SELECT state, form = 'dry run' AS dry_run, string_agg(DISTINCT two, ', ') AS two,
	string_agg(DISTINCT three, ', ') AS three, string_agg(DISTINCT four, ', ') AS four,
	count(DISTINCT form) AS forms, count(*) AS calls
FROM tools.results GROUP BY 1, 2 ORDER BY 2, min(two || three), 1;

-- The error in full, for a job that may run, for one that may not, and after a single attempt.
SELECT tools.refusal('SELECT oban_update_job(4, ''{"max_attempts": 3}'', ''py'')');
SELECT tools.refusal('SELECT oban_update_job(7, ''{"max_attempts": 2}'', ''ex14'')');
UPDATE py.oban_jobs SET attempt = 1 WHERE id < 9;
SELECT tools.refusal('SELECT oban_update_many_jobs(''{99,3}'', ''{"max_attempts": 1}'', ''py'')');
-- A job that has made none needs no more than one.
SELECT max_attempts FROM oban_update_job(99, '{"max_attempts": 1}', 'py');
-- The largest numbers: there is none that is enough.
UPDATE ex14.oban_jobs SET attempt = 2147483647, max_attempts = 2147483647 WHERE id = 2;
SELECT tools.refusal('SELECT oban_update_job(2, ''{"max_attempts": 2147483647}'', ''ex14'')');

-- In batches: what was committed before stays.
UPDATE py.oban_jobs SET attempt = 3 WHERE id BETWEEN 5 AND 8;
CALL oban_update_in_batches('{"all": true}', '{"max_attempts": 3}', 4, prefix => 'py');
SELECT max_attempts, string_agg(id::text, ' ' ORDER BY id) AS ids FROM py.oban_jobs
GROUP BY 1 ORDER BY 1;

-- A callable that changes the states of jobs whose changes wait to be written: they count as they are
-- then. Job 1 was over when it was looked at, and may run again.
CALL tools.fill(3, 'ex14');
UPDATE ex14.oban_jobs SET attempt = 3, state = 'completed' WHERE id = 1;
CREATE FUNCTION tools.moves_first(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = 2 THEN
		UPDATE ex14.oban_jobs SET state = (context ->> 'state')::ex14.oban_job_state WHERE id = 1;
	END IF;
	RETURN '{"max_attempts": 3}';
END $$;
SELECT tools.refusal($$SELECT oban_update_many_jobs_with('{1,2,3}', 'tools.moves_first',
	'{"state": "available"}', 'ex14')$$);
SELECT id, state, max_attempts
FROM oban_update_many_jobs_with('{1,2,3}', 'tools.moves_first', '{"state": "discarded"}', 'ex14');

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
