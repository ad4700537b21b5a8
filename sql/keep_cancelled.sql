-- The guard of the jobs table: late acknowledgements of both Obans on a cancelled job, and what
-- must pass it. It fails when the guard looks at less than both states and cancelled_at, or at any
-- other state, and without the check of when it fires.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
-- What a worker writes when its job ends, by id alone, in either dialect.
CREATE TABLE tools.acknowledgements (n serial, name text, elixir text, python text);
INSERT INTO tools.acknowledgements (name, elixir, python) VALUES
	('completed', $$state = 'completed', completed_at = timezone('UTC', now())$$,
		$$state = 'completed', completed_at = timezone('UTC', now())$$),
	('error', $$state = 'retryable', scheduled_at = '2098-01-01', errors = array_append(errors,
		'{"error": "late"}')$$,
		$$state = 'retryable', scheduled_at = '2098-01-01',
		errors = errors || '[{"error": "late"}]',
		attempt = 4$$),
	('snooze', $$state = 'scheduled', scheduled_at = '2098-01-01', max_attempts = max_attempts + 1,
		meta = jsonb_set(meta, '{snoozed}', '1')$$,
		$$state = 'scheduled', scheduled_at = '2098-01-01', attempt = greatest(attempt - 1, 0),
		meta = meta || '{"snoozed": 1}'$$),
	('discarded', $$state = 'discarded', discarded_at = timezone('UTC', now()),
		errors = array_append(errors, '{"error": "late"}')$$,
		$$state = 'discarded', discarded_at = timezone('UTC', now()),
		errors = errors || '[{"error": "late"}]'$$),
	('cancelled', $$state = 'cancelled', cancelled_at = timezone('UTC', now()),
		errors = array_append(errors, '{"error": "late"}')$$,
		$$state = 'cancelled', cancelled_at = timezone('UTC', now()),
		errors = errors || '[{"error": "late"}]'$$),
	-- Not acknowledgements: retries, and other updates.
	('retry', $$state = 'available', cancelled_at = NULL, scheduled_at = timezone('UTC', now())$$,
		$$state = 'available', cancelled_at = NULL, scheduled_at = timezone('UTC', now())$$),
	('available', $$state = 'available'$$, $$state = 'available'$$),
	('reschedule', $$state = 'scheduled', cancelled_at = NULL, scheduled_at = '2098-01-01'$$,
		$$state = 'scheduled', cancelled_at = NULL, scheduled_at = '2098-01-01'$$),
	('retryable again', $$state = 'retryable', cancelled_at = NULL$$,
		$$state = 'retryable', cancelled_at = NULL$$),
	('annotate', $$meta = '{"m": 1}', priority = 0$$, $$meta = '{"m": 1}', priority = 0$$),
	('execute', $$state = 'executing', attempted_at = timezone('UTC', now())$$,
		$$state = 'executing', attempted_at = timezone('UTC', now())$$);

-- What an acknowledgement of a job makes of it, without the guard and with it: where they differ.
CREATE FUNCTION tools.job_after(prefix text, id bigint, assignments text) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
	after jsonb;
BEGIN
	EXECUTE format('UPDATE %I.oban_jobs AS j SET %s WHERE id = %s', prefix, assignments, id);
	after := tools.rows(prefix);
	RAISE EXCEPTION USING ERRCODE = 'P0099';
EXCEPTION WHEN SQLSTATE 'P0099' THEN
	RETURN after;
END $$;
CREATE FUNCTION tools.guarded(prefix text, p_id bigint, assignments text, p_when text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	plain jsonb;
	guarded jsonb;
BEGIN
	CALL tools.make_jobs(prefix);
	-- Job 3 was executing when it was cancelled.
	PERFORM oban_cancel_job(3, prefix);
	plain := tools.job_after(prefix, p_id, assignments);
	EXECUTE format('CREATE TRIGGER keep_cancelled BEFORE UPDATE ON %I.oban_jobs FOR EACH ROW %s
		EXECUTE FUNCTION oban_keep_cancelled()', prefix, p_when);
	guarded := tools.job_after(prefix, p_id, assignments);
	EXECUTE format('DROP TRIGGER keep_cancelled ON %I.oban_jobs', prefix);
	RETURN coalesce(tools.difference(guarded, plain), 'let through');
END $$;
\set when 'WHEN (OLD.state = ''cancelled'' AND NEW.state IN (''retryable'', ''scheduled'') AND NEW.cancelled_at IS NOT NULL)'
\set ECHO all

-- Job 3, cancelled while it was executing, on each dialect: the guard keeps the state and nothing
-- else.
SELECT a.name, tools.guarded('ex9', 3, elixir, :'when') AS ex9,
	tools.guarded('ex14', 3, elixir, :'when') AS ex14,
	tools.guarded('py', 3, python, :'when') AS py
FROM tools.acknowledgements a ORDER BY n;
-- The same without the WHEN clause.
SELECT count(*) AS cells, count(*) FILTER (WHERE tools.guarded(p, id, CASE p WHEN 'py' THEN python
	ELSE elixir END, '') = tools.guarded(p, id, CASE p WHEN 'py' THEN python ELSE elixir END,
	:'when'))
	AS alike
FROM tools.acknowledgements a, unnest('{ex9,ex11,ex14,py}'::text[]) p, tools.model m WHERE id < 8;
-- Jobs in any other state are let through.
SELECT m.state, string_agg(DISTINCT tools.guarded('py', id, python, ''), ' | ') AS guarded
FROM tools.acknowledgements a, tools.model m GROUP BY m.state ORDER BY m.state;

-- Whole rows, as an application has it: with the contract's own CREATE TRIGGER.
CALL tools.make_jobs('ex14');
SET search_path = ex14, public;
CREATE TRIGGER keep_cancelled BEFORE UPDATE ON oban_jobs FOR EACH ROW
	WHEN (OLD.state = 'cancelled' AND NEW.state IN ('retryable', 'scheduled')
		AND NEW.cancelled_at IS NOT NULL)
	EXECUTE FUNCTION oban_keep_cancelled();
RESET search_path;
SELECT oban_cancel_many_jobs('{2,3}', 'ex14');
UPDATE ex14.oban_jobs SET state = 'retryable', scheduled_at = '2098-01-01', attempt = 5,
	errors = errors || '{"error": "late"}'::jsonb, meta = meta || '{"late": true}'
	WHERE id IN (2, 3, 7);
SELECT id, state, attempt, errors, meta, scheduled_at, cancelled_at IS NOT NULL AS cancelled_at
FROM ex14.oban_jobs WHERE id IN (2, 3, 7) ORDER BY id;
-- The verbs pass: a retry, an update of the schedule and by a callable; and a late answer
-- thereafter.
CREATE FUNCTION tools.later(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb '{"schedule_in": 3600, "tags": ["later"]}'$$;
SELECT state, tags FROM oban_update_job_with(7, 'tools.later', prefix => 'ex14');
SELECT oban_retry_many_jobs('{2,3,7}', 'ex14');
SELECT id, state FROM oban_update_many_jobs('{2,3}', '{"schedule_in": 60}', 'ex14');
SELECT oban_cancel_job(2, 'ex14');
UPDATE ex14.oban_jobs SET state = 'retryable' WHERE id IN (2, 3, 7);
SELECT tools.states('ex14');
-- Together with a trigger that fires after it and sees the state that stays.
CREATE FUNCTION tools.tells() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'job %: % to %', NEW.id, OLD.state, NEW.state;
	RETURN NULL;
END $$;
CREATE TRIGGER tells AFTER UPDATE ON ex14.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.tells();
UPDATE ex14.oban_jobs SET state = 'scheduled' WHERE id = 2;

-- Columns elsewhere: dropped ones before them, others behind and a generated one.
ALTER TABLE py.oban_jobs ADD extra text DEFAULT 'x', DROP worker, DROP queue,
	ADD uniq_key text GENERATED ALWAYS AS (meta ->> 'key') STORED;
INSERT INTO py.oban_jobs (id, state, cancelled_at) OVERRIDING SYSTEM VALUE
VALUES (101, 'cancelled', '2024-01-01'), (102, 'cancelled', NULL), (103, 'executing', '2024-01-01');
CREATE TRIGGER keep BEFORE UPDATE ON py.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION oban_keep_cancelled();
UPDATE py.oban_jobs SET state = 'retryable', meta = '{"key": "k"}' WHERE id > 100;
SELECT id, state, meta, extra, uniq_key, cancelled_at FROM py.oban_jobs WHERE id > 100 ORDER BY id;
ALTER TABLE py.oban_jobs RENAME cancelled_at TO ended_at;
UPDATE py.oban_jobs SET state = 'retryable' WHERE id = 101;
ALTER TABLE py.oban_jobs RENAME ended_at TO cancelled_at;
UPDATE py.oban_jobs SET state = 'scheduled', attempt = 2 WHERE id = 101;
SELECT id, state, attempt FROM py.oban_jobs WHERE id = 101;

-- A table that is partitioned by state: the row stays where it is.
CREATE SCHEMA by_state;
CREATE TABLE by_state.oban_jobs (LIKE ex9.oban_jobs INCLUDING DEFAULTS, PRIMARY KEY (id, state))
	PARTITION BY LIST (state);
CREATE TABLE by_state.cancelled PARTITION OF by_state.oban_jobs FOR VALUES IN ('cancelled');
CREATE TABLE by_state.others PARTITION OF by_state.oban_jobs DEFAULT;
CREATE TRIGGER keep BEFORE UPDATE ON by_state.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION oban_keep_cancelled();
INSERT INTO by_state.oban_jobs (id, worker, state) SELECT g, 'W', 'executing'
	FROM generate_series(1, 4) g;
SELECT oban_cancel_many_jobs('{1,2,3}', 'by_state');
UPDATE by_state.oban_jobs SET state = 'retryable', errors = ARRAY[jsonb '"late"']
	WHERE id IN (1, 4);
UPDATE by_state.oban_jobs SET state = 'completed' WHERE id = 2;
SELECT oban_retry_job(3, 'by_state');
SELECT id, tableoid::regclass AS part, state, errors FROM by_state.oban_jobs ORDER BY id;
-- On the partition itself.
DROP TRIGGER keep ON by_state.oban_jobs;
CREATE TRIGGER keep BEFORE UPDATE ON by_state.cancelled FOR EACH ROW
	EXECUTE FUNCTION oban_keep_cancelled();
UPDATE by_state.oban_jobs SET state = 'scheduled', attempt = 7 WHERE id = 1;
SELECT id, tableoid::regclass AS part, state, attempt FROM by_state.oban_jobs WHERE id = 1;

-- Refused: at another time or event, for a statement, on another table.
CREATE FUNCTION tools.refused(definition text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	r record;
BEGIN
	CALL tools.fill(2, 'ex11');
	EXECUTE 'CREATE TRIGGER the_guard ' || definition;
	r := tools.try(statement);
	EXECUTE 'DROP TRIGGER the_guard ON ' || substring(definition, ' ON (\S+) ');
	RETURN concat_ws(' ', r.code, r.message, '/', r.hint, '/ names it:',
	r.message ~ 'trigger "the_guard"');
END $$;
SELECT d, tools.refused(d || ' EXECUTE FUNCTION oban_keep_cancelled()', s) FROM (VALUES
	('AFTER UPDATE ON ex11.oban_jobs FOR EACH ROW',
	'UPDATE ex11.oban_jobs SET priority = 1 RETURNING 1'),
	('BEFORE UPDATE ON ex11.oban_jobs FOR EACH STATEMENT',
		'UPDATE ex11.oban_jobs SET priority = 1 RETURNING 1'),
	('BEFORE INSERT ON ex11.oban_jobs FOR EACH ROW',
		'INSERT INTO ex11.oban_jobs (worker) VALUES (''W'') RETURNING 1'),
	('BEFORE DELETE ON ex11.oban_jobs FOR EACH ROW', 'DELETE FROM ex11.oban_jobs RETURNING 1'),
	('BEFORE TRUNCATE ON ex11.oban_jobs FOR EACH STATEMENT', 'TRUNCATE ex11.oban_jobs'),
	('BEFORE INSERT OR UPDATE ON ex11.oban_jobs FOR EACH ROW',
		'UPDATE ex11.oban_jobs SET priority = 1 RETURNING ''done for UPDATE'''),
	('BEFORE UPDATE ON tools.model FOR EACH ROW',
	'UPDATE tools.model SET id = id RETURNING ''done''')) t(d, s);
CREATE TABLE tools.no_time (state text);
CREATE TABLE tools.no_state (cancelled_at timestamp);
INSERT INTO tools.no_time VALUES ('cancelled');
INSERT INTO tools.no_state VALUES ('2024-01-01');
SELECT tools.refused('BEFORE UPDATE ON tools.no_time FOR EACH ROW
	EXECUTE FUNCTION oban_keep_cancelled()',
	'UPDATE tools.no_time SET state = ''retryable'' RETURNING 1');
SELECT tools.refused('BEFORE UPDATE ON tools.no_state FOR EACH ROW
	EXECUTE FUNCTION oban_keep_cancelled()',
	'UPDATE tools.no_state SET cancelled_at = now() RETURNING 1');
SELECT count(*) FROM ex11.oban_jobs WHERE priority = 1;

DROP SCHEMA tools, ex9, ex11, ex14, py, by_state CASCADE;
