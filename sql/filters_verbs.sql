-- The functions that take a filter: what becomes of a job in each state, what running Obans are
-- told, how max_jobs bounds each, and that looking is only looking.
-- Seen to fail with a max_jobs that counts the jobs that a verb ignores, without ORDER BY, and when
-- max_attempts is not compared with the attempts made.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

-- Lists ids, "1,2,5", in the order in which they come.
CREATE FUNCTION tools.found(filter jsonb, max_jobs integer, prefix text) RETURNS text
LANGUAGE sql AS $$
	SELECT string_agg(id::text, ',') FROM oban_all_jobs(filter, max_jobs, prefix)
$$;
-- Runs a call and undoes it: what it gave, and the states of the jobs that it changed or removed.
CREATE FUNCTION tools.preview(call text, prefix text, OUT result text, OUT changed text)
LANGUAGE plpgsql AS $$
DECLARE
	before jsonb := tools.rows(prefix);
	after jsonb;
BEGIN
	BEGIN
		EXECUTE format('SELECT oban_' || call, prefix) INTO result;
		after := tools.rows(prefix);
		RAISE EXCEPTION USING ERRCODE = 'P0099';
	EXCEPTION WHEN SQLSTATE 'P0099' THEN NULL;
	END;
	SELECT string_agg(key || ' ' || coalesce(after -> key ->> 'state', 'gone'), ', '
		ORDER BY key::bigint)
	INTO changed FROM jsonb_each(before) WHERE value IS DISTINCT FROM after -> key;
END $$;
\set ECHO all

-- Each verb on every job: the state table of the contract. (That the rest of each row is as the
-- verb by ids leaves it is in filters.sql.)
CALL tools.make_jobs('ex9', 'ex14', 'py');
SELECT v AS verb, p AS prefix, t.*
FROM unnest('{cancel,retry,delete}'::text[]) WITH ORDINALITY u(v, n),
	unnest('{ex9,ex14,py}'::text[]) p,
	tools.preview(v || '_all_jobs(''{"all": true}'', NULL, %L)', p) t
ORDER BY n, p;
-- A filter by state picks states; those that the verb ignores stay as they are.
SELECT v AS verb, m.state, t.*
FROM unnest('{cancel,retry,delete}'::text[]) WITH ORDINALITY u(v, n), tools.model m,
	tools.preview(format('%s_all_jobs(''{"state": "%s"}'', NULL, %%L)', v, m.state), 'ex14') t
ORDER BY n, m.id;

-- Whom it tells: the workers of jobs that were executing, each queue once with something to run.
\set ECHO none
LISTEN "ex14.oban_signal";
LISTEN "ex14.oban_insert";
LISTEN "py.oban_signal";
LISTEN "py.oban_insert";
\set filter '|sed "s/ received from server process with PID [0-9]*[.]//"'
\pset tuples_only on
\pset format unaligned
\set ECHO all
CALL tools.make_jobs('ex14', 'py');
UPDATE py.oban_jobs SET state = 'executing' WHERE id IN (1, 8);
\o :filter
\qecho looking says nothing:
SELECT count(*) FROM oban_all_jobs('{"all": true}', NULL, 'ex14');
\qecho cancel, one executing:
SELECT oban_cancel_all_jobs('{"all": true}', NULL, 'ex14');
\qecho once more:
SELECT oban_cancel_all_jobs('{"all": true}', NULL, 'ex14');
\qecho cancel, three executing, the first two of them:
SELECT oban_cancel_all_jobs('{"state": "executing"}', 2, 'py');
\qecho retry, three queues:
SELECT oban_retry_all_jobs('{"all": true}', NULL, 'ex14');
\qecho once more:
SELECT oban_retry_all_jobs('{"all": true}', NULL, 'ex14');
\qecho retry in one queue:
SELECT oban_retry_all_jobs('{"queue": "mail"}', NULL, 'py');
\qecho delete:
SELECT oban_delete_all_jobs('{"queue": "mail"}', NULL, 'py');
\qecho update, one that becomes due, in its new queue:
SELECT oban_update_all_jobs('{"all": true}', '{"schedule_in": 0, "queue": "new"}', NULL, 'py');
\qecho update, none that was scheduled:
SELECT oban_update_all_jobs('{"all": true}', '{"schedule_in": 0, "priority": 1}', NULL, 'ex14');
\qecho turned off:
CALL tools.make_jobs('ex14');
SET oban_manage.notify = off;
SELECT oban_cancel_all_jobs('{"all": true}', NULL, 'ex14'),
	oban_retry_all_jobs('{"all": true}', NULL, 'ex14');
RESET oban_manage.notify;
\qecho rolled back:
BEGIN;
SELECT oban_cancel_all_jobs('{"all": true}', NULL, 'ex14');
ROLLBACK;
\o
\pset tuples_only off
\pset format aligned
UNLISTEN *;

-- max_jobs: the jobs found or updated, and those changed by the other verbs, lowest ids first.
CALL tools.make_jobs('ex14', 'py');
SELECT m AS max_jobs, tools.found('{"all": true}', m, p) AS found, p AS prefix
FROM unnest('{NULL,0,1,3,8,9,2147483647}'::integer[]) WITH ORDINALITY u(m, n),
	unnest('{ex14,py}'::text[]) p
ORDER BY n, p;
SELECT v AS verb, m AS max_jobs, t.*
FROM (VALUES (1, 'cancel', 'cancel_all_jobs(''{"all": true}'', %s, %%L)'),
		(2, 'retry', 'retry_all_jobs(''{"all": true}'', %s, %%L)'),
		(3, 'delete', 'delete_all_jobs(''{"all": true}'', %s, %%L)'),
		(4, 'update', 'update_all_jobs(''{"all": true}'', ''{"schedule_in": 60}'', %s, %%L)'))
			v(n, v, call),
	unnest('{NULL,0,1,2,5,100}'::text[]) WITH ORDINALITY u(m, k),
	LATERAL tools.preview(format(call, coalesce(m, 'NULL')), 'py') t
ORDER BY v.n, k;
-- The ids need not be in the order in which they are stored.
UPDATE ex14.oban_jobs SET id = 100 - id;
SELECT tools.found('{"queue": "default"}', 2, 'ex14') AS found, t.*
FROM tools.preview('delete_all_jobs(''{"queue": "default"}'', 2, %L)', 'ex14') t;
-- Called until nothing is left.
CREATE FUNCTION tools.until_done(p text, VARIADIC calls text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	call text;
	n bigint;
	found text;
BEGIN
	FOREACH call IN ARRAY calls LOOP
		found := concat_ws('; ', found, call);
		LOOP
			EXECUTE format('SELECT oban_%s_all_jobs(''{"worker": "App.Worker"}'', 4, %L)', call, p)
				INTO n;
			found := concat_ws(' ', found, n);
			EXIT WHEN n = 0;
		END LOOP;
	END LOOP;
	RETURN found;
END $$;
CALL tools.fill(10, 'ex14', 'py');
SELECT p, tools.until_done(p, 'cancel', 'retry', 'cancel', 'delete')
FROM unnest('{ex14,py}'::text[]) p;

-- What an update by filter writes: each key, the columns named and no other, whatever the state.
CALL tools.make_jobs('ex9', 'ex14', 'py');
SELECT c AS changes, p AS prefix, t.* FROM unnest(ARRAY['{"priority": 1}', '{}',
	'{"tags": [" New", "new"]}', '{"max_attempts": 30}', '{"schedule_in": 600}',
	'{"scheduled_at": "2024-01-02T00:00:00Z"}',
	'{"args": {}, "meta": {"a": 1}, "queue": "q", "worker": "w"}'])
	WITH ORDINALITY u(c, n), unnest('{ex14,py}'::text[]) p,
	tools.preview(format(
		'update_all_jobs(''{"state": ["available", "scheduled", "executing", "completed"]}'',
		%L, NULL, %%L)', c), p) t
ORDER BY n, p;
-- {} counts those that match, within max_jobs, and neither writes nor locks.
CALL tools.make_jobs('py');
SELECT oban_update_all_jobs('{"all": true}', '{}', m, 'py') FROM unnest('{NULL,3,0}'::integer[]) m;
SELECT count(*) AS touched FROM py.oban_jobs WHERE xmax <> 0;
-- The result agrees with update by ids, column by column. (More in filters.sql.)
BEGIN;
SELECT '{"args": {"a": 1}, "meta": {"b": 2}, "priority": 3, "queue": "q", "worker": "App.New",
	"tags": ["T", 1], "schedule_in": "1 hour", "max_attempts": 25}' AS changes \gset
SELECT oban_update_all_jobs('{"worker": "App.Worker"}', :'changes', NULL, 'ex14');
SELECT count(*) FROM oban_update_many_jobs('{1,2,3,4,5,6,7,8}', :'changes', 'py');
SELECT DISTINCT args, meta, priority, queue, worker, tags, max_attempts,
	scheduled_at = timezone('UTC', now()) + interval '1 hour' AS in_an_hour FROM ex14.oban_jobs;
SELECT count(*) AS different FROM ex14.oban_jobs JOIN py.oban_jobs p USING (id)
WHERE to_jsonb(oban_jobs) - 'errors' IS DISTINCT FROM to_jsonb(p) - 'errors';
ROLLBACK;
-- Too few max_attempts for the attempts that a job has made: nothing is changed, as with ids.
SELECT tools.refusal('SELECT oban_' || call) FROM unnest(ARRAY[
	'update_all_jobs(''{"queue": ["media", "mail"]}'', ''{"max_attempts": 2}'', NULL, ''py'')',
	'update_all_jobs(''{"queue": ["media", "mail"]}'', ''{"max_attempts": 2}'', NULL, ''ex14'')',
	'update_many_jobs(''{3,4,6,7}'', ''{"max_attempts": 2}'', ''py'')']) WITH ORDINALITY u(call, n)
ORDER BY n;
SELECT oban_update_all_jobs('{"queue": ["media", "mail"]}', '{"max_attempts": 3}', 2, 'py')
	AS within_max_jobs;
SELECT id, max_attempts FROM py.oban_jobs ORDER BY id;
-- A CHECK of the table, with the jobs in the error's context.
SELECT code, message, context FROM tools.try(
	'SELECT oban_update_all_jobs(''{"id": 1}'', jsonb_build_object(''queue'', repeat(''q'', 128)),
	NULL, ''ex14'')');
-- A filter by what is written: each job is judged once.
SELECT oban_update_all_jobs('{"priority": 2}', '{"priority": 3}', NULL, 'ex9'),
	oban_update_all_jobs('{"priority": 2}', '{"priority": 3}', NULL, 'ex9') AS again;

-- Looking is only looking: the jobs as they are, in a transaction that may not write, without a
-- lock on them, and, as with any query, as of the statement's start.
BEGIN READ ONLY;
SELECT id, state, prefix FROM oban_all_jobs('{"queue": "media"}', NULL, 'py');
SELECT code, message
FROM tools.try('SELECT oban_cancel_all_jobs(''{"queue": "media"}'', NULL, ''py'')');
COMMIT;
BEGIN;
SELECT count(*) FROM oban_all_jobs('{"all": true}', NULL, 'py');
SELECT DISTINCT mode FROM pg_locks WHERE relation = 'py.oban_jobs'::regclass;
COMMIT;
SELECT pg_typeof(j) AS type, count(*) FROM oban_all_jobs('{"all": true}', NULL, 'py') j GROUP BY 1;
CALL tools.make_jobs('py');
WITH gone AS (DELETE FROM py.oban_jobs WHERE id > 2 RETURNING id)
SELECT (SELECT count(*) FROM gone) AS gone,
	(SELECT count(*) FROM oban_all_jobs('{"all": true}', NULL, 'py')) AS seen;
-- What it gives may be handed to any verb, while it is being read too.
CALL tools.make_jobs('ex14', 'py');
SELECT string_agg(id || ' ' || oban_cancel_job(j), ', ' ORDER BY id)
FROM oban_all_jobs('{"all": true}', NULL, 'py') j;
SELECT oban_delete_many_jobs(array_agg(id), 'py') FROM oban_all_jobs('{"queue": "media"}', 1, 'py');
SELECT tools.states('py');
SELECT (oban_update_job(j, '{"priority": 0}')).prefix
FROM oban_all_jobs('{"state": "executing"}', 1, 'ex14') j;
-- In a parallel worker, in a LATERAL of many filters, with NULL as prefix, in a cursor.
SELECT count(set_config(name, 'on', false)) FROM pg_settings
WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
EXPLAIN (COSTS off) SELECT count(*) FROM oban_all_jobs('{"all": true}', NULL, 'ex14');
SELECT count(*) FROM oban_all_jobs('{"all": true}', NULL, 'ex14');
SELECT count(set_config(name, 'off', false)) FROM pg_settings
WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SET oban_manage.prefix = 'ex14';
SELECT s, string_agg(j.id::text, ',' ORDER BY j.id) AS ids
FROM unnest('{executing,completed,retryable}'::text[]) s
	LEFT JOIN oban_all_jobs(jsonb_build_object('state', s)) j ON true GROUP BY s ORDER BY s;
SELECT count(*) FROM oban_all_jobs(prefix => NULL, filter => '{"all": true}', max_jobs => 5);
SELECT oban_cancel_all_jobs('{"all": true}', prefix => NULL), oban_cancel_all_jobs('{"all": true}');
RESET oban_manage.prefix;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id, state FROM oban_all_jobs('{"all": true}', NULL, 'py');
FETCH 2 FROM c;
SELECT oban_delete_all_jobs('{"all": true}', NULL, 'py');
FETCH 2 FROM c;
FETCH BACKWARD 1 FROM c;
COMMIT;
SELECT tools.states('py');

-- 30,000 jobs with little memory: in id order, and none twice.
CALL tools.fill(1, 'py', 'ex14');
INSERT INTO py.oban_jobs (id, worker, args) OVERRIDING SYSTEM VALUE
	SELECT g, 'App.Worker', jsonb_build_object('n', g) FROM generate_series(2, 30000) g
	ORDER BY g * 7919 % 30011;
SET work_mem = '64kB';
SELECT count(*), count(DISTINCT id), bool_and(id = lag) AS in_order FROM (
	SELECT id, 1 + lag(id, 1, 0::bigint) OVER ()
	FROM oban_all_jobs('{"worker": "App.Worker"}', NULL, 'py')) j(id, lag);
SELECT oban_cancel_all_jobs('{"all": true}', 20000, 'py'),
	oban_cancel_all_jobs('{"all": true}', 20000, 'py'),
	oban_retry_all_jobs('{"id": [5, 30000, 6]}', 2, 'py'),
	oban_update_all_jobs('{"all": true}', '{"priority": 1}', NULL, 'py'),
	oban_delete_all_jobs('{"all": true}', 29000, 'py');
RESET work_mem;
SELECT count(*), min(id), max(id), min(priority) FROM py.oban_jobs;

-- A trigger that suppresses the change takes the job out of the count, and no signal is sent.
CALL tools.make_jobs('ex14');
CREATE FUNCTION tools.veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER veto BEFORE UPDATE OR DELETE ON ex14.oban_jobs FOR EACH ROW
	WHEN (OLD.id IN (2, 3, 5)) EXECUTE FUNCTION tools.veto();
LISTEN "ex14.oban_signal";
SELECT v AS verb, t.* FROM unnest('{cancel,retry,delete}'::text[]) WITH ORDINALITY u(v, n),
	tools.preview(v || '_all_jobs(''{"all": true}'', NULL, %L)', 'ex14') t ORDER BY n;
SELECT * FROM tools.preview('update_all_jobs(''{"all": true}'', ''{"priority": 1}'', NULL, %L)',
	'ex14');
SELECT oban_cancel_all_jobs('{"id": [2, 3]}', NULL, 'ex14');
UNLISTEN *;
-- A trigger that changes what the filter asks for, in the same row and in others.
DROP TRIGGER veto ON ex14.oban_jobs;
CREATE FUNCTION tools.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE ex14.oban_jobs SET queue = 'meddled' WHERE id = OLD.id + 1 AND queue <> 'meddled';
	RETURN NULL;
END $$;
CREATE TRIGGER meddle AFTER UPDATE ON ex14.oban_jobs FOR EACH ROW WHEN (NEW.state = 'cancelled')
	EXECUTE FUNCTION tools.meddle();
SELECT oban_cancel_all_jobs('{"queue": "default"}', NULL, 'ex14'), tools.states('ex14');

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
