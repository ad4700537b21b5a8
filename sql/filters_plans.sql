-- Which index serves a filter, on both dialects, and that each filter is planned with its own
-- values: a kept plan would be generic after five executions, which no partial index can serve, nor
-- one for rare values. The scans that PostgreSQL counts in a transaction tell.
-- Seen to fail with plans that are kept whatever the values are.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

-- 20,000 jobs: one in 20 waits to run, the rest is completed.
CREATE PROCEDURE tools.make_large(prefix text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format($q$
		INSERT INTO %1$I.oban_jobs (id, state, queue, worker, args, meta, tags, inserted_at,
			scheduled_at, completed_at, cancelled_at, discarded_at)
		OVERRIDING SYSTEM VALUE
		SELECT g, (CASE WHEN g %% 20 > 0 THEN 'completed' WHEN g %% 40 = 0 THEN 'available'
				WHEN g %% 60 = 0 THEN 'scheduled' WHEN g %% 100 = 0 THEN 'discarded'
				ELSE 'cancelled' END)::%1$I.oban_job_state,
			'q' || g / 20 %% 20, 'App.W' || g %% 501, jsonb_build_object('user_id', g %% 2001),
			jsonb_build_object('tenant', g %% 1001), ARRAY['t' || g %% 701, 'common'],
			t, t, CASE WHEN g %% 20 > 0 THEN t END, t, t
		FROM generate_series(1, 20000) g,
			LATERAL (SELECT timestamp '2024-01-01' + g * interval '1 second') s(t)
	$q$, prefix);
	EXECUTE format('ALTER TABLE %I.oban_jobs SET (autovacuum_enabled = off)', prefix);
END $$;

-- How a statement reads the table: the scans that it adds to those counted.
CREATE FUNCTION tools.scans(prefix text, OUT scans jsonb) LANGUAGE sql AS $$
	SELECT jsonb_object_agg(
		CASE relkind WHEN 'r' THEN 'sequential' ELSE replace(relname, 'oban_jobs_', '') END,
		pg_stat_get_xact_numscans(c.oid))
	FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
	WHERE format('%I.oban_jobs', prefix)::regclass IN (c.oid, i.indrelid)
$$;
CREATE FUNCTION tools.served_by(prefix text, statement text, times integer DEFAULT 8) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	before jsonb;
	found text;
	result text := '';
BEGIN
	FOR i IN 1..times LOOP
		before := tools.scans(prefix);
		BEGIN
			EXECUTE format('SELECT count(r) FROM (SELECT oban_' || statement || ') AS s(r)',
				prefix);
			RAISE EXCEPTION USING ERRCODE = 'P0099';
		EXCEPTION WHEN SQLSTATE 'P0099' THEN NULL;
		END;
		SELECT string_agg(key, ', ' ORDER BY key) INTO found FROM jsonb_each(tools.scans(prefix))
		WHERE value <> before -> key;
		-- The same every time.
		IF found IS DISTINCT FROM nullif(result, '') THEN
			result := concat_ws(', then ', nullif(result, ''), found);
		END IF;
	END LOOP;
	RETURN result;
END $$;
CREATE FUNCTION tools.serves(filter text, OUT ex14 text, OUT py text) LANGUAGE sql AS $$
	SELECT tools.served_by('ex14', format('all_jobs(%L, NULL, %%L)', filter)),
		tools.served_by('py', format('all_jobs(%L, NULL, %%L)', filter))
$$;
\set ECHO all
CALL tools.make_large('ex14');
CALL tools.make_large('py');
ANALYZE ex14.oban_jobs;
ANALYZE py.oban_jobs;
SELECT state, count(*) FROM ex14.oban_jobs GROUP BY state ORDER BY state::text;

-- With Oban's own indexes: none of a worker or a tag; of args and meta in Elixir's table only.
CREATE TABLE tools.filters (n serial, filter text);
INSERT INTO tools.filters (filter) VALUES ('{"worker": "App.W7"}'), ('{"args": {"user_id": 7}}'),
	('{"state": "available", "queue": "q2"}'), ('{"tags": "t7"}'), ('{"meta": {"tenant": 7}}');
SELECT f.filter, s.* FROM tools.filters f, tools.serves(f.filter) s ORDER BY n;
-- With an index for each that has none.
CREATE INDEX by_worker ON ex14.oban_jobs (worker);
CREATE INDEX by_worker ON py.oban_jobs (worker);
CREATE INDEX by_tags ON ex14.oban_jobs USING gin (tags);
CREATE INDEX by_tags ON py.oban_jobs USING gin (tags);
CREATE INDEX by_args ON py.oban_jobs USING gin (args jsonb_path_ops);
CREATE INDEX by_meta ON py.oban_jobs USING gin (meta);
SELECT f.filter, s.* FROM tools.filters f, tools.serves(f.filter) s ORDER BY n;

-- The verbs look for their jobs by the same indexes, and write them by id.
SELECT f.filter, v.name AS verb,
	tools.served_by('ex14', replace(v.call, 'F', quote_literal(f.filter))) AS ex14,
	tools.served_by('py', replace(v.call, 'F', quote_literal(f.filter))) AS py
FROM tools.filters f, (VALUES (1, 'cancel', 'cancel_all_jobs(F, NULL, %L)'),
	(2, 'retry', 'retry_all_jobs(F, NULL, %L)'), (3, 'delete', 'delete_all_jobs(F, NULL, %L)'),
	(4, 'update', 'update_all_jobs(F, ''{"priority": 1}'', NULL, %L)')) v(n, name, call)
ORDER BY f.n, v.n;

-- Other filters: ids; several queues; a state and its time, where Python's indexes are partial and
-- Elixir's begin with the state; several workers.
SELECT f AS filter, s.* FROM unnest(ARRAY['{"id": 7}', '{"id": [7, 8, 9, 99999]}',
	'{"state": ["available"], "queue": ["q2", "q4"]}',
	'{"state": "discarded", "discarded_at": {"before": "2024-01-01T00:30:00Z"}}',
	'{"state": "completed", "completed_at": {"before": "2024-01-01T00:00:30Z"}}',
	'{"state": ["scheduled", "retryable"], "scheduled_at": {"before": "2024-01-01T00:30:00Z"}}',
	'{"worker": ["App.W7", "App.W8"]}']) WITH ORDINALITY u(f, n), tools.serves(f) s ORDER BY n;

-- A common value is read sequentially, whatever was asked for before, and a rare one still is not.
-- (Which index of those that begin with the state is a matter of their sizes.)
SELECT i AS round, f AS filter, regexp_replace(s.ex14, 'state_.*', 'state…') AS ex14,
	regexp_replace(s.py, 'state_.*', 'state…') AS py
FROM generate_series(1, 2) i, unnest(ARRAY['{"state": "completed"}', '{"state": "available"}',
	'{"tags": "common"}', '{"tags": "t7"}']) WITH ORDINALITY u(f, n), tools.serves(f) s
ORDER BY i, n;

-- An index of one's own for one worker only.
DROP INDEX ex14.by_worker;
CREATE INDEX of_one ON ex14.oban_jobs (id) WHERE worker = 'App.W7';
SELECT tools.served_by('ex14', 'all_jobs(''{"worker": "App.W7"}'', NULL, %L)') AS one,
	tools.served_by('ex14', 'all_jobs(''{"worker": "App.W8"}'', NULL, %L)') AS another,
	tools.served_by('ex14', 'cancel_all_jobs(''{"worker": "App.W7"}'', NULL, %L)') AS cancel;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
