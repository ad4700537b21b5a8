-- Filters, outcomes and batches on partitioned and foreign tables, and while the table changes.
-- Seen to fail with kept plans that are not bounded.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
\set SHOW_CONTEXT never
\set ECHO none
\set partitions :abs_srcdir '/fixtures/partitions.sql'
\i :partitions
\set ECHO none

-- What every function gives for filters that pick the odd ids of 1 to 2000 by their queue, and what
-- it leaves; each undone.
CREATE FUNCTION tools.exercise(p text, OUT call text, OUT result text, OUT left_in text)
RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
	f record;
BEGIN
	FOR f IN SELECT * FROM (VALUES
		('all', 'SELECT format(''%s from %s to %s, in order %s'', count(*), min(id), max(id),
			bool_and(lag < id))
			FROM (SELECT id, lag(id, 1, 0::bigint) OVER ()
				FROM oban_all_jobs(''{"queue": "odd"}'', NULL, $1)) j(id, lag)'),
		('all, 3', 'SELECT string_agg(id::text, '','')
			FROM oban_all_jobs(''{"queue": "odd"}'', 3, $1)'),
		('all, by args', 'SELECT string_agg(id::text, '','')
			FROM oban_all_jobs(''{"args": {"n": 7}, "tags": ["t7"]}'', NULL, $1)'),
		('cancel', 'SELECT oban_cancel_all_jobs(''{"queue": "odd"}'', NULL, $1)'),
		('cancel, 7',
			'SELECT oban_cancel_all_jobs(''{"queue": "odd", "state": ["available"]}'', 7, $1)'),
		('retry', 'SELECT oban_retry_all_jobs(''{"queue": "odd"}'', NULL, $1)'),
		('retry, 7', 'SELECT oban_retry_all_jobs(''{"all": true}'', 7, $1)'),
		('delete', 'SELECT oban_delete_all_jobs(''{"queue": "odd"}'', NULL, $1)'),
		('delete, 7', 'SELECT oban_delete_all_jobs(''{"all": true}'', 7, $1)'),
		('update', 'SELECT oban_update_all_jobs(''{"queue": "odd"}'',
			''{"priority": 5, "schedule_in": 60}'', NULL, $1)'),
		('update, 7', 'SELECT oban_update_all_jobs(''{"queue": "odd"}'', ''{"tags": []}'', 7, $1)'),
		('manage', 'SELECT string_agg(concat_ws('' '', job_id, outcome, new_state), '', '') FROM
			oban_manage_jobs(''cancel'', ''{2001,1999,5,4,3,2,1,3}'', NULL, false, $1)'),
		('dry', 'SELECT string_agg(concat_ws('' '', job_id, outcome, new_state), '', '') FROM
			oban_manage_jobs(''cancel'', ''{2001,1999,5,4,3,2,1,3}'', NULL, true, $1)'),
		('manage, update', 'SELECT string_agg(concat_ws('' '', job_id, outcome, new_state), '', '')
			FROM oban_manage_jobs(''update'', ''{2001,1999,5}'', ''{"schedule_in": 60}'', false,
			$1)')) v(call, query)
	LOOP
		BEGIN
			EXECUTE f.query USING p INTO result;
			EXECUTE format('SELECT string_agg(concat_ws('' '', n, s, q, p), '', '' ORDER BY s, q, p)
				FROM (SELECT count(*), state::text, queue, priority FROM %I.oban_jobs
					GROUP BY 2, 3, 4) j(n, s, q, p)', p) INTO left_in;
			RAISE EXCEPTION USING ERRCODE = 'P0099';
		EXCEPTION WHEN SQLSTATE 'P0099' THEN NULL;
		END;
		call := f.call;
		RETURN NEXT;
	END LOOP;
END $$;
CREATE PROCEDURE tools.make_odd(VARIADIC prefixes text[]) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..cardinality(prefixes) LOOP
		EXECUTE format('DELETE FROM %I.oban_jobs', prefixes[i]);
		EXECUTE format($q$
			INSERT INTO %1$I.oban_jobs (id, worker, state, queue, args, tags) %2$s
			SELECT g, 'App.Worker', (CASE WHEN g < 4 THEN 'executing'
					WHEN g %% 4 < 2 THEN 'available' ELSE 'completed' END)::%3$s,
				CASE g %% 2 WHEN 1 THEN 'odd' ELSE 'even' END, jsonb_build_object('n', g),
				ARRAY['t' || g]
			FROM generate_series(1, 2000) g ORDER BY g * 7919 %% 2003
		$q$, prefixes[i], CASE WHEN prefixes[i] = 'py' THEN 'OVERRIDING SYSTEM VALUE' ELSE '' END,
			(SELECT atttypid::regtype FROM pg_attribute
			 WHERE attrelid = format('%I.oban_jobs', prefixes[i])::regclass AND attname = 'state'));
	END LOOP;
END $$;
\set ECHO all

-- The same on every layout as on a plain table: the ids are not those of another partition's rows.
CALL tools.make_odd('ex14', 'py', 'by_hash', 'by_state');
SELECT * FROM tools.exercise('py');
SELECT p AS prefix, count(*) AS calls,
	string_agg(format('%s: %s, %s', e.call, e.result, e.left_in), '; ')
	FILTER (WHERE (e.result, e.left_in) IS DISTINCT FROM (w.result, w.left_in)) AS mismatch
FROM unnest('{ex14,by_hash,by_state}'::text[]) p,
	tools.exercise(p) e JOIN tools.exercise('py') w USING (call)
GROUP BY p ORDER BY p;
-- Only the partition of the state is read, more than five times.
CREATE FUNCTION tools.scans() RETURNS TABLE (part text, n numeric) LANGUAGE sql AS $$
	SELECT t.relid::regclass::text, pg_stat_get_xact_numscans(t.relid)
		+ (SELECT sum(pg_stat_get_xact_numscans(indexrelid)) FROM pg_index WHERE indrelid = t.relid)
	FROM pg_partition_tree('by_state.oban_jobs') t WHERE isleaf
$$;
CREATE FUNCTION tools.parts_read(filter jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before jsonb;
	found text[] := '{}';
BEGIN
	FOR i IN 1..7 LOOP
		SELECT jsonb_object_agg(part, n) INTO before FROM tools.scans();
		PERFORM oban_all_jobs(filter, NULL, 'by_state');
		found := found || (SELECT string_agg(part, ', ' ORDER BY part) FROM tools.scans()
			WHERE n > (before ->> part)::numeric);
	END LOOP;
	RETURN (SELECT string_agg(DISTINCT f, ' / ') FROM unnest(found) f);
END $$;
SELECT f AS filter, tools.parts_read(f::jsonb)
FROM unnest(ARRAY['{"state": "completed"}', '{"state": ["cancelled", "discarded"]}',
	'{"state": "available", "id": 5}', '{"id": 5}']) WITH ORDINALITY u(f, n) ORDER BY n;
-- Batches; a job that moves to another partition is visited once.
CALL oban_cancel_in_batches('{"queue": "odd"}', 200, prefix => 'by_state');
CALL oban_cancel_in_batches('{"queue": "odd"}', 200, prefix => 'by_hash');
SELECT tableoid::regclass AS part, state, queue, count(*) FROM by_state.oban_jobs
GROUP BY 1, 2, 3 ORDER BY tableoid::regclass::text, 2, 3;
CALL oban_retry_in_batches('{"all": true}', 333, '0', '1 day', prefix => 'by_state');
CALL oban_retry_in_batches('{"all": true}', 333, '0', '1 day', prefix => 'by_hash');
CALL oban_update_in_batches('{"queue": "even"}', '{"schedule_in": 0}', 400, prefix => 'by_state');
CALL oban_update_in_batches('{"queue": "even"}', '{"schedule_in": 0}', 400, prefix => 'by_hash');
CALL oban_delete_in_batches('{"state": "available"}', 100, prefix => 'by_state');
CALL oban_delete_in_batches('{"state": "available"}', 100, prefix => 'by_hash');
SELECT count(*), count(*) FILTER (WHERE h.state::text = s.state::text) AS the_same
FROM by_hash.oban_jobs h FULL JOIN by_state.oban_jobs s USING (id);
-- A partition that is detached, and attached again, while filters are used.
CALL tools.make_odd('by_state');
ALTER TABLE by_state.oban_jobs DETACH PARTITION by_state.completed;
SELECT count(*) FROM oban_all_jobs('{"all": true}', NULL, 'by_state');
SELECT oban_retry_all_jobs('{"all": true}', NULL, 'by_state');
ALTER TABLE by_state.oban_jobs ATTACH PARTITION by_state.completed FOR VALUES IN ('completed');
SELECT count(*) FROM oban_all_jobs('{"all": true}', NULL, 'by_state');
SELECT oban_retry_all_jobs('{"all": true}', NULL, 'by_state');

-- Jobs on another server, which is this one.
\set ECHO none
\set foreign :abs_srcdir '/fixtures/foreign.sql'
\i :foreign
CALL tools.make_odd('py');
SELECT count(*) AS calls, string_agg(format('%s: %s, %s', e.call, e.result, e.left_in), '; ')
	FILTER (WHERE (e.result, e.left_in) IS DISTINCT FROM (w.result, w.left_in)) AS mismatch
FROM tools.exercise('far') e JOIN tools.exercise('ex14') w USING (call);
SELECT id, state, tags, prefix
FROM oban_all_jobs('{"tags": ["t7"], "scheduled_at": {"after": "2024-01-01"}}', NULL, 'far');
SELECT tools.refusal('SELECT oban_all_jobs(''{"state": "gone"}'', NULL, ''far'')');
CALL oban_cancel_in_batches('{"queue": "odd"}', 200, prefix => 'far');
CALL oban_retry_in_batches('{"state": "cancelled"}', 500, '0', '1 day', prefix => 'far');
CALL oban_update_in_batches('{"queue": "odd"}', '{"priority": 3}', 999, prefix => 'far');
CALL oban_delete_in_batches('{"queue": "even"}', 400, prefix => 'far');
SELECT state, queue, priority, count(*), min(id), max(id) FROM py.oban_jobs
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT job_id, outcome, old_state, new_state
FROM oban_manage_jobs('delete', '{3,1,4,99}', NULL, true, 'far');
SELECT job_id, outcome, old_state, new_state
FROM oban_manage_jobs('delete', '{3,1,4,99}', NULL, false, 'far');
DROP EXTENSION postgres_fdw CASCADE;

-- The table changes between calls of one session, each of which was made more than five times
-- before.
CREATE FUNCTION tools.often(p text, n integer DEFAULT 7) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
	r record;
BEGIN
	CALL tools.fill(6, p);
	FOR i IN 1..n LOOP
		SELECT oban_cancel_all_jobs('{"worker": "App.Worker", "state": "available"}', 4,
			p) AS cancelled,
			oban_retry_all_jobs('{"all": true}', NULL, p) AS retried,
			(SELECT count(*) FROM oban_all_jobs('{"queue": "default", "priority": [0, 1]}', NULL,
				p)) AS seen,
			oban_update_all_jobs('{"tags": ["a"]}', '{"priority": 2}', NULL, p) AS updated,
			(SELECT string_agg(outcome, ' ') FROM oban_manage_jobs('cancel', '{1,99}', NULL, true,
				p)) AS outcomes,
			oban_delete_all_jobs('{"args": {"no": 1}}', NULL, p) AS deleted INTO r;
		IF found IS DISTINCT FROM r::text THEN
			found := concat_ws(', then ', found, r);
		END IF;
	END LOOP;
	RETURN found;
END $$;
SELECT p, tools.often(p) FROM unnest('{ex9,ex11,ex14,py}'::text[]) p ORDER BY p;
-- An enum value is added, as the migration to v14 does: refused before, found from then on.
SELECT tools.refusal('SELECT oban_all_jobs(''{"state": "suspended"}'', NULL, ''ex11'')');
ALTER TYPE ex11.oban_job_state ADD VALUE 'suspended' BEFORE 'scheduled';
SELECT count(*) FROM oban_all_jobs('{"state": "suspended"}', NULL, 'ex11');
UPDATE ex11.oban_jobs SET state = 'suspended' WHERE id = 2;
SELECT id, state FROM oban_all_jobs('{"state": ["suspended", "executing"]}', NULL, 'ex11');
SELECT job_id, outcome, old_state, new_state
FROM oban_manage_jobs('retry', '{2}', NULL, false, 'ex11');
-- One that nobody knows.
ALTER TYPE ex11.oban_job_state ADD VALUE 'paused';
UPDATE ex11.oban_jobs SET state = 'paused' WHERE id = 3;
SELECT oban_retry_all_jobs('{"state": "paused"}', NULL, 'ex11'), tools.states('ex11');
-- Values renamed: the old name is refused.
ALTER TYPE ex11.oban_job_state RENAME VALUE 'paused' TO 'stopped';
SELECT tools.refusal('SELECT oban_all_jobs(''{"state": "paused"}'', NULL, ''ex11'')');
SELECT count(*) FROM oban_all_jobs('{"state": "stopped"}', NULL, 'ex11');
-- Types of columns: smallint, integer and back; errors to jsonb; tags to text[].
SELECT count(*) FROM oban_all_jobs('{"priority": [40000, 0]}', NULL, 'ex14');
ALTER TABLE ex14.oban_jobs ALTER attempt TYPE smallint, ALTER max_attempts TYPE smallint,
	ALTER priority TYPE smallint, ALTER id TYPE integer, ALTER tags TYPE text[],
	ALTER queue TYPE varchar(30), ALTER errors DROP DEFAULT,
	ALTER errors TYPE jsonb USING to_jsonb(errors), ALTER errors SET DEFAULT '[]';
SELECT count(*) FROM oban_all_jobs('{"priority": [40000, 0]}', NULL, 'ex14');
SELECT tools.often('ex14');
-- A column renamed, and renamed back; two that swap their names.
SELECT count(*) FROM oban_all_jobs('{"worker": "App.Worker"}', NULL, 'py');
ALTER TABLE py.oban_jobs RENAME worker TO w;
SELECT tools.refusal('SELECT oban_cancel_all_jobs(''{"worker": "App.Worker"}'', NULL, ''py'')');
SELECT tools.refusal('SELECT oban_all_jobs(''{"queue": "default"}'', NULL, ''py'')');
CALL oban_cancel_in_batches('{"worker": "App.Worker"}', prefix => 'py');
ALTER TABLE py.oban_jobs RENAME w TO worker;
SELECT tools.often('py');
ALTER TABLE py.oban_jobs RENAME queue TO q;
ALTER TABLE py.oban_jobs RENAME worker TO queue;
ALTER TABLE py.oban_jobs RENAME q TO worker;
SELECT count(*) FROM oban_all_jobs('{"worker": "App.Worker"}', NULL, 'py');
SELECT count(*) FROM oban_all_jobs('{"queue": "App.Worker"}', NULL, 'py');
ALTER TABLE py.oban_jobs RENAME queue TO q;
ALTER TABLE py.oban_jobs RENAME worker TO queue;
ALTER TABLE py.oban_jobs RENAME q TO worker;
-- Dropped, and made again as the other dialect's; in one transaction, too.
DROP SCHEMA ex9 CASCADE;
SELECT tools.refusal('SELECT oban_cancel_all_jobs(''{"worker": "App.Worker"}'', NULL, ''ex9'')');
CALL oban_cancel_in_batches('{"worker": "App.Worker"}', prefix => 'ex9');
\set ECHO none
\set schema ex9
\i :python
\set ECHO all
SELECT tools.often('ex9');
CALL oban_delete_in_batches('{"worker": "App.Worker"}', 4, prefix => 'ex9');
BEGIN;
DROP TABLE ex9.oban_jobs;
SELECT tools.refusal('SELECT oban_delete_all_jobs(''{"all": true}'', NULL, ''ex9'')');
ROLLBACK;
SELECT tools.often('ex9');
-- The search of a table without a primary key is slower, not wrong.
ALTER TABLE ex9.oban_jobs DROP CONSTRAINT oban_jobs_pkey;
SELECT tools.often('ex9');
CALL oban_delete_in_batches('{"worker": "App.Worker"}', 4, prefix => 'ex9');

-- 800 kinds of filters in one session, with six functions: kept plans are bounded.
CREATE FUNCTION tools.kinds(first integer, last integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	keys text[] := '{id,not,worker,priority,attempt,max_attempts,args,meta,tags,state}';
	wanted jsonb := '{"id": 3, "worker": ["App.Worker", "B"],
		"priority": [0, 1], "attempt": 0, "max_attempts": [20, 30], "args": {"a": 1},
		"not": {"queue": "media", "not": {"error": "no such", "attempted_by": "nobody"}},
		"meta": {"b": 2}, "tags": "a", "state": ["available", "cancelled"]}';
	filter jsonb;
BEGIN
	FOR i IN first..last LOOP
		SELECT jsonb_object_agg(k, wanted -> k) INTO filter
		FROM unnest(keys) WITH ORDINALITY u(k, n) WHERE i >> (n - 1)::integer & 1 = 1;
		ASSERT oban_cancel_all_jobs(filter, NULL, 'ex14') = 1, filter;
		ASSERT oban_retry_all_jobs(filter, NULL, 'ex14') = 1, filter;
		ASSERT (SELECT min(id) FROM oban_all_jobs(filter, NULL, 'ex14')) = 3, filter;
		ASSERT oban_update_all_jobs(filter, '{"priority": 1}', 1, 'ex14') = 1, filter;
		ASSERT oban_update_all_jobs(filter, '{"queue": "default"}', 1, 'ex14') = 1, filter;
		ASSERT oban_delete_all_jobs(filter || '{"id": 99}', NULL, 'ex14') = 0, filter;
	END LOOP;
	RETURN format('%s to %s', first, last);
END $$;
CALL tools.fill(1, 'ex14');
UPDATE ex14.oban_jobs SET id = 3, args = '{"a": 1}', meta = '{"b": 2}', tags = '{a,b}';
SELECT tools.kinds(1, 300);
SELECT count(*) AS plans FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource' \gset
SELECT tools.kinds(301, 800);
SELECT count(*) <= :plans + 20 AS bounded FROM pg_backend_memory_contexts
WHERE name = 'CachedPlanSource';
SELECT tools.kinds(1, 10);

DROP SCHEMA by_hash, by_state CASCADE;
DROP SCHEMA far, tools, ex9, ex11, ex14, py CASCADE;
