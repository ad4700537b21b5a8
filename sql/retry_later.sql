-- Retry at a time of the caller's, after a run that began later, and of jobs that have made as many
-- attempts as their table can count.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

-- Forms of the call.
CREATE TABLE tools.forms (n serial, form text, call text);
INSERT INTO tools.forms (form, call) VALUES
	('id', 'SELECT oban_retry_job(JOB_ID, PREFIX, AT)'),
	('row', 'SELECT oban_retry_job(j, AT) FROM ex14.oban_jobs j WHERE id = JOB_ID'),
	('oban_job', 'SELECT oban_retry_job(oban_get_job(JOB_ID, PREFIX), scheduled_at => AT)'),
	('array', 'SELECT oban_retry_job(''{JOB_ID}''::bigint[], PREFIX, AT)'),
	('many_jobs', 'SELECT oban_retry_many_jobs(''{JOB_ID,99,NULL}'', PREFIX, AT)'),
	('filter', 'SELECT oban_retry_all_jobs(''{"id": JOB_ID}'', NULL, PREFIX, AT)');

-- What a call makes of a job: its state, and how far its time is from now. All is undone.
CREATE FUNCTION tools.outcome(call text, id bigint, at text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	changed text;
	job ex14.oban_jobs;
	before ex14.oban_jobs;
BEGIN
	SELECT * INTO before FROM ex14.oban_jobs j WHERE j.id = outcome.id;
	call := replace(replace(replace(call, 'JOB_ID', id::text), 'PREFIX', '''ex14'''), 'AT', at);
	EXECUTE call INTO changed;
	SELECT * INTO job FROM ex14.oban_jobs j WHERE j.id = outcome.id;
	RAISE SQLSTATE 'DONE0' USING MESSAGE = CASE WHEN job = before THEN 'as it was'
		ELSE job.state || ' ' || job.scheduled_at - timezone('UTC', now())
			|| CASE WHEN job.completed_at IS NULL AND job.cancelled_at IS NULL
				AND job.discarded_at IS NULL AND job.max_attempts > job.attempt
				AND changed IN ('true', 't', '1') THEN '' ELSE ' broken' END END;
EXCEPTION
	WHEN SQLSTATE 'DONE0' THEN RETURN SQLERRM;
	WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

-- A time in the future makes the job scheduled for then, whatever it was; one that is not is now, and
-- so is NULL. All forms agree.
CALL tools.make_jobs('ex14', 'py');
SELECT m.state, t.name AS at, string_agg(DISTINCT o, ' / ') AS outcome, count(*) AS forms
FROM tools.model m, tools.forms,
	(VALUES (1, 'an hour', 'now() + interval ''1 hour'''), (2, 'a microsecond',
		'now() + interval ''1 microsecond'''), (3, 'now', 'now()'), (4, 'past',
		'''2001-01-01''::timestamptz'), (5, 'none', 'NULL::timestamptz')) t(n, name, at),
	tools.outcome(call, m.id, t.at) o
GROUP BY 1, t.n, 2 ORDER BY 1, t.n;

-- A cancel is undone, and the job keeps its time.
SELECT oban_cancel_job(2, 'ex14'), oban_retry_job(j, scheduled_at => j.scheduled_at)
FROM oban_get_job(2, 'ex14') j;
SELECT id, state, scheduled_at, cancelled_at FROM ex14.oban_jobs WHERE id = 2;
-- Positional, with a literal of no type.
SELECT oban_retry_job(4, 'py', '2098-01-02 12:00+00'),
	oban_retry_many_jobs('{5,6}', 'py', '2098-01-02 12:00+02'),
	oban_retry_all_jobs('{"state": "cancelled"}', NULL, 'py', '2098-01-02 12:00-02');
SELECT id, state, scheduled_at FROM py.oban_jobs WHERE id BETWEEN 4 AND 7 ORDER BY id;
-- Scheduled again, for another time; an executing and an available job stay.
SELECT oban_retry_many_jobs('{1,2,3,4,5,6,7,8}', 'py', '2099-03-04');
SELECT id, state, timezone('UTC', scheduled_at) FROM oban_all_jobs('{"all": true}', NULL, 'py');
-- max_jobs bounds them.
SELECT oban_retry_all_jobs('{"state": "scheduled"}', 2, 'py', '2099-05-06');
SELECT count(*) FROM py.oban_jobs WHERE scheduled_at >= '2099-05-05';

-- A time that no Oban for Python could read: refused in every form.
SELECT t.at, string_agg(DISTINCT o, ' / ') AS outcome
FROM tools.forms, unnest(ARRAY['infinity', '-infinity', '10000-01-01 00:00+00',
	'0001-01-01 00:00+00', '0001-12-31 23:59+00 BC']) WITH ORDINALITY t(at, n),
	tools.outcome(call, 7, quote_literal(t.at) || '::timestamptz') o
GROUP BY t.n, 1 ORDER BY t.n;
SELECT oban_retry_job(7, 'ex14', '9999-12-31 23:59:59.999999+00');
SELECT scheduled_at FROM ex14.oban_jobs WHERE id = 7;
SELECT tools.refusal('SELECT oban_retry_job(7, ''ex14'', ''infinity'')');
-- NULL is nothing to do, whatever the time.
SELECT oban_retry_job(NULL::bigint, 'no such', 'infinity'),
	oban_retry_job(NULL::oban_job, 'infinity'), oban_retry_many_jobs(NULL, NULL, 'infinity');
-- The spread of a batch ends in those years, too.
CALL oban_retry_in_batches('{"id": 7}', spread => '9000 years', prefix => 'ex14');

-- After a run that began later than this transaction: the schedule lies after it, by which the guard
-- knows that the job was retried since. The job is available, for no time in the future was asked for.
CALL tools.make_jobs('ex14', 'py');
BEGIN;
UPDATE ex14.oban_jobs SET attempted_at = timezone('UTC', now()) + CASE id % 3
	WHEN 0 THEN interval '5 seconds' WHEN 1 THEN interval '-5 seconds' END;
SELECT id, o AS now, l AS later
FROM ex14.oban_jobs, tools.outcome('SELECT oban_retry_job(JOB_ID, PREFIX)', id, '') o,
	tools.outcome('SELECT oban_retry_job(JOB_ID, PREFIX, AT)', id, 'now() + interval ''2 seconds''') l
ORDER BY id;
UPDATE ex14.oban_jobs SET attempted_at = timezone('UTC', now()), state = 'retryable';
SELECT oban_retry_all_jobs('{"id": [2, 3]}', NULL, 'ex14'), oban_retry_many_jobs('{4,5}', 'ex14'),
	oban_retry_job(7, 'ex14');
SELECT count(*), scheduled_at - attempted_at AS after_it FROM ex14.oban_jobs
WHERE state = 'available' GROUP BY 2;
ROLLBACK;
-- A spread, too.
CALL tools.make_jobs('ex14');
UPDATE ex14.oban_jobs SET attempted_at = '2098-01-02' WHERE id < 7;
CALL oban_retry_in_batches('{"id": [6, 7]}', spread => '1 hour', prefix => 'ex14');
SELECT id, state, CASE id WHEN 6 THEN scheduled_at END AS scheduled_at FROM ex14.oban_jobs
WHERE id IN (6, 7) ORDER BY id;

-- As many attempts as max_attempts can hold: no attempt more can be given, so the job is passed over,
-- in every form, and the others are retried.
CALL tools.make_jobs('ex14', 'py');
UPDATE py.oban_jobs SET attempt = 32767, max_attempts = 32767 WHERE id > 4;
UPDATE ex14.oban_jobs SET attempt = 2147483647, max_attempts = 2147483647 WHERE id > 4;
SELECT id, state, o AS by_id, a AS by_array, f AS by_filter FROM ex14.oban_jobs,
	tools.outcome('SELECT oban_retry_job(JOB_ID, PREFIX)', id, '') o,
	tools.outcome('SELECT oban_retry_many_jobs(''{JOB_ID}'', PREFIX)', id, '') a,
	tools.outcome('SELECT oban_retry_all_jobs(''{"id": JOB_ID}'', NULL, PREFIX, AT)', id, 'NULL') f
ORDER BY id;
SELECT dry_run, r.* FROM unnest('{true,false}'::boolean[]) dry_run,
	LATERAL oban_manage_jobs('retry', '{1,2,3,4,5,6,7,8}', NULL, dry_run, 'py') r
ORDER BY 1 DESC, 2;
-- One less can be.
UPDATE py.oban_jobs SET attempt = 32766, max_attempts = 32766 WHERE id = 6;
CALL oban_retry_in_batches('{"all": true}', 1, prefix => 'py');
SELECT id, state, attempt, max_attempts FROM py.oban_jobs ORDER BY id;
SELECT oban_retry_many_jobs('{4,5,6,7,8}', 'ex14'), tools.states('ex14');

-- The limit is that of max_attempts' column, whatever attempt's is, and never above that of oban_job.
CREATE TABLE tools.types (n int, attempt regtype, max_attempts regtype, made bigint);
INSERT INTO tools.types VALUES (1, 'smallint', 'integer', 32767), (2, 'integer', 'smallint', 32767),
	(3, 'integer', 'smallint', 40000), (4, 'bigint', 'integer', 2147483646),
	(5, 'bigint', 'integer', 2147483647), (6, 'bigint', 'integer', 3000000000),
	(7, 'integer', 'bigint', 2147483646), (8, 'integer', 'bigint', 2147483647),
	(9, 'bigint', 'bigint', 3000000000);
CREATE DOMAIN tools.small AS smallint;
INSERT INTO tools.types VALUES (10, 'tools.small', 'tools.small', 32767),
	(11, 'tools.small', 'tools.small', 32766);
ALTER TABLE ex14.oban_jobs DROP CONSTRAINT attempt_range;
CREATE FUNCTION tools.typed(t tools.types) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	outcome text;
BEGIN
	UPDATE ex14.oban_jobs SET attempt = 0, max_attempts = 20, state = 'discarded' WHERE id = 6;
	EXECUTE format('ALTER TABLE ex14.oban_jobs ALTER attempt TYPE %s, ALTER max_attempts TYPE %s',
		t.attempt, t.max_attempts);
	UPDATE ex14.oban_jobs SET attempt = t.made WHERE id = 6;
	SELECT r.outcome INTO outcome FROM oban_manage_jobs('retry', '{6}', prefix => 'ex14') r;
	RETURN outcome || ' ' || (SELECT max_attempts FROM ex14.oban_jobs WHERE id = 6);
END $$;
UPDATE ex14.oban_jobs SET attempt = 0, max_attempts = 20;
SELECT t.*, tools.typed(t) FROM tools.types t ORDER BY n;
-- No attempts are known to have been made.
ALTER TABLE ex14.oban_jobs ALTER attempt DROP NOT NULL;
UPDATE ex14.oban_jobs SET attempt = NULL, state = 'discarded' WHERE id = 6;
SELECT oban_retry_job(6, 'ex14');

-- A last run at the end of time, or beyond it, cannot be followed by anything.
CALL tools.fill(3, 'ex14');
UPDATE ex14.oban_jobs SET state = 'discarded', attempted_at = CASE id WHEN 1 THEN timestamp 'infinity'
	WHEN 2 THEN '9999-12-31 23:59:59.999999' ELSE '294276-12-31 23:59:59.999999' END;
SELECT oban_retry_many_jobs('{1,2,3}', 'ex14');
SELECT id, state, scheduled_at < '9999-01-01' AS now FROM ex14.oban_jobs ORDER BY id;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
