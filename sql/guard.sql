-- The guard of the jobs table: late answers of both Obans' workers, what must pass it, and where it
-- stands beside other triggers. What it does about statements that judged an older version of a row
-- is in specs/guard_*.spec. Each rule of the guard has a cell in the table of cases, which changes
-- without it.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set partitions :abs_srcdir '/fixtures/partitions.sql'
\set ECHO none
\i :helpers
\i :partitions
\pset null NULL

-- Jobs as they come to be, and the runs that their errors have entries about.
CREATE TABLE tools.jobs (n serial, name text, state text, attempt integer, scheduled_at timestamp,
	attempted_at timestamp, cancelled_at timestamp, runs integer[]);
INSERT INTO tools.jobs (name, state, attempt, scheduled_at, attempted_at, cancelled_at, runs) VALUES
	('never ran',			'available', 0, '2024-01-02', NULL, NULL, '{}'),
	('retried',				'available', 1, '2024-01-05', '2024-01-03', NULL, '{}'),
	('retried, ran twice',	'available', 2, '2024-01-05', '2024-01-03', NULL, '{1,2}'),
	('retried for later',	'scheduled', 1, '2098-01-05', '2024-01-03', NULL, '{1}'),
	('rescued',				'available', 2, '2024-01-02', '2024-01-03', NULL, '{1}'),
	('failed and staged',	'available', 1, '2024-01-05', '2024-01-03', NULL, '{1}'),
	('snoozed',				'scheduled', 0, '2098-01-05', '2024-01-03', NULL, '{}'),
	('failed',				'retryable', 2, '2098-01-05', '2024-01-03', NULL, '{1,2}'),
	('failed, no entry',	'retryable', 2, '2098-01-05', '2024-01-03', NULL, '{1}'),
	('suspended, ran',		'suspended', 1, '2024-01-05', '2024-01-03', NULL, '{}'),
	('runs',				'executing', 1, '2024-01-02', '2024-01-03', NULL, '{}'),
	('runs again',			'executing', 2, '2024-01-02', '2024-01-03', NULL, '{1}'),
	('completed',			'completed', 1, '2024-01-02', '2024-01-03', NULL, '{}'),
	('discarded',			'discarded', 3, '2024-01-02', '2024-01-03', NULL, '{1,2,3}'),
	('cancelled',			'cancelled', 1, '2024-01-02', '2024-01-03', '2024-01-04', '{}'),
	('cancelled, no time',	'cancelled', 1, '2024-01-02', '2024-01-03', NULL, '{}');

-- What is done to them, by id alone. An entry of errors is written as ENTRY(attempt).
CREATE TABLE tools.statements (n serial, name text, assignments text);
INSERT INTO tools.statements (name, assignments) VALUES
	('complete',	$$state = 'completed', completed_at = '2026-01-01'$$),
	('error 1',		$$state = 'retryable', scheduled_at = '2098-02-02', errors = ENTRY(1)$$),
	('error 2',		$$state = 'retryable', scheduled_at = '2098-02-02', errors = ENTRY(2)$$),
	('error "1"',	$$state = 'retryable', scheduled_at = '2098-02-02', errors = ENTRY("1")$$),
	('error 9',		$$state = 'retryable', scheduled_at = '2098-02-02', errors = ENTRY(9)$$),
	('error ?',		$$state = 'retryable', scheduled_at = '2098-02-02', errors = ENTRY(null)$$),
	('snooze EX',	$$state = 'scheduled', scheduled_at = '2098-02-02',
		max_attempts = max_attempts + 1, meta = meta || '{"snoozed": 1}'$$),
	('snooze PY',	$$state = 'scheduled', scheduled_at = '2098-02-02',
		attempt = greatest(attempt - 1, 0), meta = meta || '{"snoozed": 1}'$$),
	('discard 1',	$$state = 'discarded', discarded_at = '2026-01-01', errors = ENTRY(1)$$),
	('cancel 1',	$$state = 'cancelled', cancelled_at = '2026-01-01', errors = ENTRY(1)$$),
	('cancel 2',	$$state = 'cancelled', cancelled_at = '2026-01-01', errors = ENTRY(2)$$),
	-- No answers: what other statements, or people, do.
	('cancel',		$$state = 'cancelled', cancelled_at = '2026-01-01'$$),
	('discard',		$$state = 'discarded', discarded_at = '2026-01-01'$$),
	('later',		$$state = 'scheduled', scheduled_at = '2098-03-03'$$),
	('one more',	$$state = 'scheduled', max_attempts = max_attempts + 1$$),
	('fail',		$$state = 'retryable'$$),
	('stage',		$$state = 'available'$$),
	('rescue',		$$state = 'available', meta = meta || '{"rescued": 1}'$$),
	('retry',		$$state = 'available', scheduled_at = '2026-01-01', cancelled_at = NULL,
		completed_at = NULL, discarded_at = NULL, max_attempts = attempt + 1$$),
	('fetch',		$$state = 'executing', attempted_at = '2026-01-01', attempt = attempt + 1$$),
	('rewrite',		$$state = state, meta = '{"m": 1}', errors = NONE$$),
	('delete',		NULL);

CREATE FUNCTION tools.entries(prefix text, runs text[]) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN prefix IN ('py', 'by_state') THEN format('%L::jsonb', '[' || list || ']')
		ELSE format('%L::jsonb[]', coalesce((SELECT array_agg(e)
			FROM jsonb_array_elements(('[' || list || ']')::jsonb) e), '{}')) END
	FROM (SELECT coalesce(string_agg(format('{"at": "2024-01-03T00:00:00Z", "attempt": %s,
		"error": "oops"}', r), ','), '') FROM unnest(runs) r
		WHERE r IS NOT NULL) l(list)
$$;
CREATE PROCEDURE tools.make_job(prefix text, job text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('DELETE FROM %I.oban_jobs', prefix);
	EXECUTE format('INSERT INTO %I.oban_jobs (id, state, worker, attempt, max_attempts, meta,
		scheduled_at, attempted_at, cancelled_at, errors) OVERRIDING SYSTEM VALUE
		SELECT 1, %L, ''W'', attempt, 20, ''{"m": 0}'', scheduled_at, attempted_at, cancelled_at, %s
		FROM tools.jobs WHERE name = %L', prefix,
		(SELECT state FROM tools.jobs WHERE name = job),
		tools.entries(prefix, (SELECT runs::text[] FROM tools.jobs WHERE name = job)), job);
END $$;
CREATE FUNCTION tools.statement(prefix text, assignments text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN assignments IS NULL THEN format('DELETE FROM %I.oban_jobs WHERE id = 1', prefix)
		ELSE format('UPDATE %I.oban_jobs SET %s WHERE id = 1', prefix,
			replace(replace(assignments, 'NONE', tools.entries(prefix, '{}')),
				coalesce(substring(assignments, 'ENTRY\(.*\)'), 'NONE'), 'errors || ' ||
				tools.entries(prefix, ARRAY[substring(assignments, 'ENTRY\((.*)\)')]))) END
$$;
-- What the guard makes of a statement about a job: + it goes through, K the job is kept and what
-- the worker reports is written, 0 it is passed over; else how the row differs.
CREATE FUNCTION tools.guarded(prefix text, job text, assignments text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	statement text := tools.statement(prefix, assignments);
	before jsonb;
	plain jsonb;
	guarded jsonb;
	returned bigint;
	reported text[] := '{errors,meta,max_attempts}';
BEGIN
	SET LOCAL oban_manage.guard = off;
	CALL tools.make_job(prefix, job);
	before := tools.rows(prefix);
	EXECUTE statement;
	plain := tools.rows(prefix);
	CALL tools.make_job(prefix, job);
	SET LOCAL oban_manage.guard = on;
	EXECUTE statement;
	GET DIAGNOSTICS returned = ROW_COUNT;
	guarded := tools.rows(prefix);
	RETURN CASE WHEN guarded = before AND returned = 0 THEN '0'
		WHEN returned <> 1 THEN returned || ' rows'
		WHEN guarded = plain THEN '+'
		WHEN guarded #- '{1,errors}' #- '{1,meta}' #- '{1,max_attempts}'
				= before #- '{1,errors}' #- '{1,meta}' #- '{1,max_attempts}'
			AND (SELECT bool_and(guarded['1'][c] = plain['1'][c]) FROM unnest(reported) c) THEN 'K'
		ELSE tools.difference(guarded, plain) END;
END $$;
-- A line for each job, a column for each statement.
CREATE TABLE tools.cases (prefix text, n integer, line text);
CREATE PROCEDURE tools.find_cases(prefix text) LANGUAGE plpgsql AS $$
DECLARE
	job record;
BEGIN
	FOR job IN SELECT * FROM tools.jobs
		WHERE prefix NOT IN ('ex9', 'ex11') OR state <> 'suspended' ORDER BY n LOOP
		INSERT INTO tools.cases SELECT prefix, job.n, rpad(job.name, 20)
			|| string_agg(rpad(tools.guarded(prefix, job.name, assignments), 10), '' ORDER BY n)
		FROM tools.statements;
		COMMIT;
	END LOOP;
END $$;
SELECT format('CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON %I.oban_jobs
	FOR EACH ROW EXECUTE FUNCTION oban_guard_job()', p)
FROM unnest('{ex9,ex11,ex14,py,by_hash,by_state}'::text[]) p \gexec
\set ECHO all

-- The cases, in Python's table.
CALL tools.find_cases('py');
\pset format unaligned
SELECT rpad('', 20) || string_agg(rpad(name, 10), '' ORDER BY n) AS cases FROM tools.statements
UNION ALL (SELECT line FROM tools.cases ORDER BY n);
\pset format aligned
-- The same in Elixir's tables, and where the tables are partitioned, by the state too.
CALL tools.find_cases('ex9');
CALL tools.find_cases('ex11');
CALL tools.find_cases('ex14');
CALL tools.find_cases('by_hash');
CALL tools.find_cases('by_state');
SELECT c.prefix, count(*) AS jobs, count(*) FILTER (WHERE c.line = p.line) AS alike
FROM tools.cases c JOIN tools.cases p ON p.prefix = 'py' AND p.n = c.n
GROUP BY c.prefix ORDER BY c.prefix;

-- Whole rows, as an application has it: with the contract's own CREATE TRIGGER.
CALL tools.make_jobs('ex14');
SET search_path = ex14, public;
DROP TRIGGER oban_guard ON oban_jobs;
CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON oban_jobs
	FOR EACH ROW EXECUTE FUNCTION oban_guard_job();
RESET search_path;
SELECT oban_cancel_many_jobs('{2,3}', 'ex14');
UPDATE ex14.oban_jobs SET cancelled_at = '2024-02-02' WHERE id IN (2, 3);
WITH u AS (UPDATE ex14.oban_jobs SET state = 'retryable', scheduled_at = '2098-01-01', attempt = 5,
	errors = errors || '{"error": "late"}'::jsonb, meta = meta || '{"late": true}', priority = 1
	WHERE id IN (2, 3, 7)
	RETURNING id, state, attempt, errors, meta, priority, scheduled_at, cancelled_at)
SELECT * FROM u ORDER BY id;
-- What the extension itself writes goes through: a retry, an update of the schedule, by a callable
-- too, a cancel, a delete; and a trigger of ours on another table.
CREATE FUNCTION tools.later(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb '{"schedule_in": 3600, "tags": ["later"]}'$$;
SELECT state, tags FROM oban_update_job_with(7, 'tools.later', prefix => 'ex14');
SELECT oban_retry_many_jobs('{2,3,7}', 'ex14');
SELECT id, state FROM oban_update_many_jobs('{2,3}', '{"schedule_in": 60}', 'ex14');
SELECT id, state FROM oban_update_many_jobs('{2,3}', '{"schedule_in": 0}', 'ex14');
SELECT state, max_attempts FROM oban_update_job(3, '{"max_attempts": 21, "schedule_in": 60}', 'ex14');
SELECT oban_cancel_many_jobs('{2,3}', 'ex14'), oban_delete_job(2, 'ex14');
CREATE TABLE tools.rows (job_id bigint);
INSERT INTO tools.rows VALUES (3);
CREATE TRIGGER retries AFTER DELETE ON tools.rows FOR EACH ROW
	EXECUTE FUNCTION oban_retry_job('job_id', 'ex14');
DELETE FROM tools.rows;
SELECT tools.states('ex14');
-- Not what a trigger of the jobs writes in its turn, in a call of ours too.
CREATE FUNCTION tools.answers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE ex14.oban_jobs SET state = 'completed' WHERE id = 3;
	RETURN NULL;
END $$;
CREATE TRIGGER answers AFTER UPDATE OF priority ON ex14.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.answers();
SELECT state FROM oban_update_job(3, '{"priority": 3}', 'ex14');
SELECT state, priority FROM ex14.oban_jobs WHERE id = 3;
DROP TRIGGER answers ON ex14.oban_jobs;

-- By hand the job is closed all the same, with the guard off.
UPDATE ex14.oban_jobs SET state = 'completed', completed_at = '2026-01-01' WHERE id = 3
	RETURNING state, completed_at;
BEGIN;
SET LOCAL oban_manage.guard = off;
UPDATE ex14.oban_jobs SET state = 'completed', completed_at = '2026-01-01' WHERE id = 3
	RETURNING state, completed_at;
ROLLBACK;
SHOW oban_manage.guard;

-- Beside other BEFORE triggers: one before it in the order of names has had its say when the guard
-- looks, one after it gets the row that the guard has made.
CREATE FUNCTION tools.tells() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING '% %: % to %', TG_NAME, TG_OP, OLD.state, NEW.state;
	IF NEW.meta ? 'by_hand' THEN
		NEW.state := 'discarded';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER a_tells BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.tells();
CREATE TRIGGER z_tells BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.tells();
SELECT oban_cancel_job(7, 'ex14');
UPDATE ex14.oban_jobs SET state = 'retryable' WHERE id = 7 RETURNING state;
UPDATE ex14.oban_jobs SET state = 'retryable', meta = '{"by_hand": 1}' WHERE id = 7 RETURNING state;
DROP TRIGGER a_tells ON ex14.oban_jobs;
DROP TRIGGER z_tells ON ex14.oban_jobs;

-- ON CONFLICT, MERGE and COPY. A job that they insert is no business of the guard's.
SELECT oban_retry_job(7, 'ex14');
INSERT INTO ex14.oban_jobs (id, worker, state) VALUES (7, 'W', 'completed'), (70, 'W', 'completed')
	ON CONFLICT (id) DO UPDATE SET state = excluded.state RETURNING id, state;
MERGE INTO ex14.oban_jobs j USING (VALUES (7), (71)) v(id) ON j.id = v.id
	WHEN MATCHED THEN UPDATE SET state = 'completed'
	WHEN NOT MATCHED THEN INSERT (id, worker, state) VALUES (v.id, 'W', 'retryable');
COPY ex14.oban_jobs (id, worker, state, attempted_at, attempt) FROM stdin;
72	W	completed	2024-01-01	1
\.
MERGE INTO ex14.oban_jobs j USING (VALUES (71), (72)) v(id) ON j.id = v.id
	WHEN MATCHED AND j.id = 71 THEN UPDATE SET state = 'completed' WHEN MATCHED THEN DELETE;
SELECT id, state FROM ex14.oban_jobs WHERE id IN (7, 70, 71, 72) ORDER BY id;

-- Errors that are no entries, stored out of line, NULL, or replaced.
CALL tools.make_job('py', 'runs again');
SELECT errors, tools.try(format($$UPDATE py.oban_jobs SET state = 'retryable', errors = %L
	WHERE id = 1 RETURNING state$$, errors)), tools.try($$UPDATE py.oban_jobs SET
	state = 'executing', errors = '[{"attempt": 1}]' RETURNING state$$)
FROM (VALUES ('{}'), ('null'), ('[1, 1]'), ('[1, [{"attempt": 1}]]'), ('[1, {"attempt": "x"}]'),
	('[1, {"error": "x"}]'), ('[1, {"attempt": ""}]'), ('[1, {"attempt": {}}]'), ('[1, {"attempt": 1.5}]'),
	('[1, {"attempt": 1e400}]'), ('[1, {"attempt": -1}]'), ('[1, {"attempt": 1.0}]'),
	('[{"attempt": 1, "other": 1}]'), ('[1, {"attempt": 1}, {"attempt": 2}]'),
	('[1, {"attempt": 2}, {"attempt": 1}]')) e(errors);
UPDATE py.oban_jobs SET errors = (SELECT jsonb_agg(jsonb_build_object('attempt', 1, 'error',
	repeat(md5(g::text), 100))) FROM generate_series(1, 100) g) WHERE id = 1;
UPDATE py.oban_jobs SET state = 'retryable' WHERE id = 1 RETURNING state, jsonb_array_length(errors);
UPDATE py.oban_jobs SET state = 'executing' WHERE id = 1;
UPDATE py.oban_jobs SET state = 'retryable', errors = errors || jsonb '{"attempt": 1}' WHERE id = 1
	RETURNING state, jsonb_array_length(errors);
-- Of the same length, and yet others.
UPDATE py.oban_jobs SET state = 'executing', errors = '[{"attempt": 7}]' WHERE id = 1;
UPDATE py.oban_jobs SET state = 'retryable', errors = '[{"attempt": 1}]' WHERE id = 1
	RETURNING state, errors;
ALTER TABLE ex14.oban_jobs ALTER errors DROP NOT NULL, ALTER attempt DROP NOT NULL,
	ALTER scheduled_at DROP NOT NULL;
UPDATE ex14.oban_jobs SET errors = NULL, attempt = NULL WHERE id = 3;
UPDATE ex14.oban_jobs SET state = 'completed' WHERE id = 3;
UPDATE ex14.oban_jobs SET state = 'executing', errors = NULL, attempt = 2 WHERE id = 3;
UPDATE ex14.oban_jobs SET state = 'retryable' WHERE id = 3 RETURNING state, errors;
UPDATE ex14.oban_jobs SET state = 'executing' WHERE id = 3;
UPDATE ex14.oban_jobs SET state = 'retryable', errors = '{NULL,"{\"attempt\": 1}"}' WHERE id = 3
	RETURNING state;
UPDATE ex14.oban_jobs SET state = 'retryable', errors = '{NULL,NULL,NULL}' WHERE id = 3
	RETURNING state;
-- A schedule that is NULL: the job was not retried, and a snooze gives it one.
UPDATE ex14.oban_jobs SET state = 'available', scheduled_at = NULL, attempted_at = '2024-01-01'
	WHERE id = 3;
UPDATE ex14.oban_jobs SET state = 'scheduled', max_attempts = max_attempts + 1 WHERE id = 3
	RETURNING state, scheduled_at;
UPDATE ex14.oban_jobs SET state = 'scheduled', max_attempts = max_attempts + 1,
	scheduled_at = '2098-01-01' WHERE id = 3 RETURNING state, scheduled_at;
UPDATE ex14.oban_jobs SET state = 'scheduled', max_attempts = max_attempts + 1, scheduled_at = NULL
	WHERE id = 3 RETURNING state, scheduled_at;

-- Columns elsewhere: dropped ones before them, others behind and a generated one.
ALTER TABLE py.oban_jobs ADD extra text DEFAULT 'x', DROP args, ADD args jsonb NOT NULL DEFAULT '{}',
	ADD uniq_key text GENERATED ALWAYS AS (meta ->> 'key') STORED;
CALL tools.make_job('py', 'cancelled');
UPDATE py.oban_jobs SET state = 'retryable', meta = '{"key": "k"}' WHERE id = 1
	RETURNING state, meta, extra, uniq_key, cancelled_at;
-- A state that was renamed, or added, since the guard last looked.
ALTER TYPE py.oban_job_state RENAME VALUE 'retryable' TO 'paused';
ALTER TYPE py.oban_job_state ADD VALUE 'retryable';
UPDATE py.oban_jobs SET state = 'retryable' RETURNING state;
UPDATE py.oban_jobs SET state = 'paused' RETURNING state;
UPDATE py.oban_jobs SET state = 'available' RETURNING state;
-- A column that was renamed, or has another type.
ALTER TABLE py.oban_jobs RENAME cancelled_at TO ended_at;
SELECT tools.refusal($$UPDATE py.oban_jobs SET state = 'executing' RETURNING state$$);
ALTER TABLE py.oban_jobs RENAME ended_at TO cancelled_at;
ALTER TABLE py.oban_jobs ALTER attempted_at TYPE timestamptz;
SELECT tools.refusal($$UPDATE py.oban_jobs SET state = 'executing' RETURNING state$$);
ALTER TABLE py.oban_jobs ALTER attempted_at TYPE timestamp, DROP meta CASCADE;
SELECT tools.refusal($$UPDATE py.oban_jobs SET state = 'executing' RETURNING state$$);
SELECT tools.refusal($$DELETE FROM py.oban_jobs RETURNING state$$);

-- A worker's answer moves the row to another partition, which is an UPDATE and a DELETE.
CALL tools.make_job('by_state', 'runs');
UPDATE by_state.oban_jobs SET state = 'completed' WHERE id = 1 RETURNING tableoid::regclass, state;
SELECT oban_retry_job(1, 'by_state'), oban_cancel_job(1, 'by_state');
UPDATE by_state.oban_jobs SET state = 'retryable' WHERE id = 1 RETURNING tableoid::regclass, state;
-- In one transaction, rows of several partitions; and triggers within triggers.
CALL tools.make_job('by_state', 'runs');
INSERT INTO by_state.oban_jobs (id, state, worker) OVERRIDING SYSTEM VALUE
	SELECT g, 'executing', 'W' FROM generate_series(2, 12) g;
BEGIN;
UPDATE by_state.oban_jobs SET state = 'completed' WHERE id = 2;
UPDATE by_state.oban_jobs SET state = 'scheduled' WHERE id = 3;
DELETE FROM by_state.oban_jobs WHERE id = 2 RETURNING id;
ROLLBACK;
CREATE FUNCTION tools.next_too() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE by_state.oban_jobs SET state = NEW.state WHERE id = NEW.id + 1;
	RETURN NEW;
END $$;
CREATE TRIGGER next_too BEFORE UPDATE ON by_state.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.next_too();
UPDATE by_state.oban_jobs SET state = 'discarded' WHERE id = 1;
SELECT tools.states('by_state');
\c -
-- The first that the guard sees is a delete.
WITH d AS (DELETE FROM by_state.oban_jobs WHERE id > 1 RETURNING id) SELECT count(*) FROM d;

-- Foreign tables: the guard judges an answer, and does not know how old a row is.
\getenv abs_srcdir PG_ABS_SRCDIR
\set foreign :abs_srcdir '/fixtures/foreign.sql'
\set ECHO none
SET client_min_messages = warning;
\i :foreign
CREATE SCHEMA elixir;
IMPORT FOREIGN SCHEMA ex14 LIMIT TO (oban_jobs) FROM SERVER elsewhere INTO elixir;
DROP TRIGGER oban_guard ON ex14.oban_jobs;
CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON elixir.oban_jobs
	FOR EACH ROW EXECUTE FUNCTION oban_guard_job();
CALL tools.make_job('ex14', 'cancelled');
UPDATE elixir.oban_jobs SET state = 'retryable' RETURNING state;
CALL tools.make_job('ex14', 'retried for later');
UPDATE elixir.oban_jobs SET state = 'available' RETURNING state;
CALL tools.make_job('ex14', 'runs');
DELETE FROM elixir.oban_jobs RETURNING state;
DROP SCHEMA elixir CASCADE;
DROP EXTENSION postgres_fdw CASCADE;
DROP SCHEMA far CASCADE;

-- Refused: at another time or event, for a statement, on another table; called by hand.
CREATE FUNCTION tools.refused(definition text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	CALL tools.fill(2, 'ex11');
	DROP TRIGGER IF EXISTS oban_guard ON ex11.oban_jobs;
	EXECUTE 'CREATE TRIGGER the_guard ' || definition || ' EXECUTE FUNCTION oban_guard_job()';
	r := tools.try(statement);
	EXECUTE 'DROP TRIGGER the_guard ON ' || substring(definition, ' ON (\S+) ');
	RETURN concat_ws(' ', r.code, r.message, '/', r.hint, '/ names it:',
		r.message ~ 'trigger "the_guard"');
END $$;
SELECT d, tools.refused(d, s) FROM (VALUES
	('AFTER UPDATE ON ex11.oban_jobs FOR EACH ROW',
		'UPDATE ex11.oban_jobs SET priority = 1 RETURNING 1'),
	('BEFORE UPDATE ON ex11.oban_jobs FOR EACH STATEMENT',
		'UPDATE ex11.oban_jobs SET priority = 1 RETURNING 1'),
	('BEFORE INSERT ON ex11.oban_jobs FOR EACH ROW',
		'INSERT INTO ex11.oban_jobs (worker) VALUES (''W'') RETURNING 1'),
	('BEFORE TRUNCATE ON ex11.oban_jobs FOR EACH STATEMENT', 'TRUNCATE ex11.oban_jobs'),
	('BEFORE INSERT OR UPDATE ON ex11.oban_jobs FOR EACH ROW',
		'UPDATE ex11.oban_jobs SET priority = 1 RETURNING ''done for UPDATE'''),
	('BEFORE UPDATE ON tools.model FOR EACH ROW',
		'UPDATE tools.model SET id = id RETURNING ''done''')) t(d, s);
SELECT count(*) FROM ex11.oban_jobs WHERE priority = 1;
SELECT tools.refusal('SELECT oban_guard_job()');

DROP SCHEMA tools, ex9, ex11, ex14, py, by_hash, by_state CASCADE;
