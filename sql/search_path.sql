-- No search_path and no object in pg_temp captures what the functions do, filters, outcomes and batches
-- among them: here every function and operator of pg_catalog is shadowed by one that fails, and types,
-- catalogs, the jobs table and oban_job by ones that do not work.
-- Seen to fail with a single = or @> that names no schema.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO none
\set hostile :abs_srcdir '/fixtures/hostile.sql'
\i :hostile

-- Callables whose bodies are parsed here, and triggers on tables of the application.
CREATE FUNCTION tools.tag(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN jsonb_build_object('tags', job.tags || coalesce(context ->> 'tag', context ->> 'op'),
		'meta', job.meta || jsonb_build_object('id', context #> '{new,id}'));
CREATE FUNCTION tools.by_json(job jsonb) RETURNS jsonb LANGUAGE sql
	RETURN CASE job ->> 'id' WHEN '2' THEN jsonb_build_object('schedule_in', '1 day', 'queue', 'b',
			'worker', 'B', 'max_attempts', 31)
		ELSE jsonb_build_object('args', job - 'prefix', 'priority', 1) END;
CREATE FUNCTION ex14.by_row(job ex14.oban_jobs) RETURNS jsonb LANGUAGE sql
	RETURN jsonb_build_object('args', jsonb_build_object('row', to_jsonb(job)));
CREATE FUNCTION twin.by_row(job twin.oban_jobs) RETURNS jsonb LANGUAGE sql
	RETURN jsonb_build_object('args', jsonb_build_object('row', to_jsonb(job)));
\set ECHO none
SELECT format($q$
	CREATE TABLE %1$I.orders (id integer, job integer, jobs bigint[]);
	CREATE TRIGGER a BEFORE INSERT ON %1$I.orders FOR EACH ROW
		EXECUTE FUNCTION public.oban_retry_job('job', %1$L);
	CREATE TRIGGER b AFTER INSERT OR DELETE ON %1$I.orders FOR EACH ROW
		EXECUTE FUNCTION public.oban_update_job_with('jobs',
			'tools.tag(public.oban_job, pg_catalog.jsonb)',
			%1$L);
	CREATE TRIGGER c AFTER INSERT ON %1$I.orders REFERENCING NEW TABLE AS n FOR EACH STATEMENT
		EXECUTE FUNCTION public.oban_update_job_with('jobs', 'tools.tag', %1$L);
	CREATE TRIGGER d AFTER DELETE ON %1$I.orders REFERENCING OLD TABLE AS o FOR EACH STATEMENT
		EXECUTE FUNCTION public.oban_update_job('jobs', '{"tags": ["gone"], "schedule_in": 5}',
			%1$L);
	CREATE TRIGGER e AFTER DELETE ON %1$I.orders REFERENCING OLD TABLE AS o FOR EACH STATEMENT
		EXECUTE FUNCTION public.oban_cancel_job('job', %1$L);
	CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON %1$I.oban_jobs
		FOR EACH ROW EXECUTE FUNCTION public.oban_guard_job()$q$, p)
FROM unnest('{ex14,twin}'::text[]) p \gexec
\set ECHO all

-- The same calls twice: for ex14 with the usual path, for twin with the hostile one.
CREATE TABLE tools.calls (n serial, call text);
INSERT INTO tools.calls (call) VALUES
	('oban_cancel_job(1, %L)'),
	('oban_cancel_job(3, %L)'),
	('oban_cancel_many_jobs(''{2,3,4}'', %L)'),
	('oban_retry_job(5, %L)'),
	('oban_retry_job(''{2,6,7}''::pg_catalog.int8[], %L)'),
	('oban_delete_job(1, %L)'),
	('oban_delete_many_jobs(''{1,3}'', %L)'),
	('oban_job_cancelled(4, %L)'),
	('oban_cancel_job(public.oban_get_job(5, %L))'),
	('oban_cancel_job(j) FROM %I.oban_jobs j WHERE id OPERATOR(pg_catalog.=) 6'),
	('oban_update_job(2, ''{"tags": [" B", "a", "B", 1.5, true], "queue": "q", "worker": "w",
		"meta": {"a": 1}, "args": {}, "priority": 3, "max_attempts": 30,
		"schedule_in": "5 minutes"}'', %L)'),
	('oban_update_job(7, ''{"scheduled_at": "2031-01-01T00:00:00+02:00"}'', %L)'),
	('oban_update_job(8, ''{"schedule_in": -1.5}'', %L)'),
	('oban_update_job(2, ''{"schedule_in": 0}'', %L)'),
	('oban_update_many_jobs(''{8,2}'', ''{}'', %L)');
INSERT INTO tools.calls (call) VALUES
	('oban_update_job_with(2, ''tools.tag'', ''{"tag": "called"}'', %L)'),
	('oban_update_many_jobs_with(''{2,8,7}'', ''tools.by_json'', NULL, %L)'),
	('oban_update_job_with(''{5,6}''::pg_catalog.int8[], ''%s.by_row'', NULL, %L)'),
	('oban_update_job_with(public.oban_get_job(7, %L), ''tools.by_json'')'),
	('oban_update_job_with(j, ''%s.by_row'') FROM %I.oban_jobs j
		WHERE id OPERATOR(pg_catalog.=) 7');
UPDATE tools.calls SET call = 'SELECT public.' || replace(call, '%', '%1$');
INSERT INTO tools.calls (call) VALUES
	('INSERT INTO %1$I.orders VALUES (1, 6, ''{5,8}''), (2, 4, ''{8}'')'),
	('DELETE FROM %1$I.orders'),
	('UPDATE %1$I.oban_jobs SET state = ''retryable'', errors = ''{1}''
		WHERE id OPERATOR(pg_catalog.=) 6');
SELECT string_agg(format(call, 'ex14'), '; ' ORDER BY n) AS usual,
	string_agg(format(call, 'twin'), '; ' ORDER BY n) AS hostile FROM tools.calls \gset
SELECT replace(replace(:'usual', '''ex14''', '''twin'''), 'ex14.', 'twin.') = :'hostile'
	AS same_calls;
\set bad_path 'pg_temp, evil, pg_catalog, public'

-- Both in one transaction, so that now() is the same. First with plans that are made under the
-- hostile path, then with ones made under the usual path, then with those of both.
\set ECHO none
\pset tuples_only on
\pset format unaligned
CALL tools.make_jobs('ex14', 'twin');
UPDATE ex14.oban_jobs SET meta = '{"uniq_bmp": [1]}' WHERE id > 4;
UPDATE twin.oban_jobs SET meta = '{"uniq_bmp": [1]}' WHERE id > 4;
BEGIN;
\o /dev/null
SET LOCAL search_path = :bad_path;
:hostile;
SET LOCAL search_path = DEFAULT;
:usual;
\o
SELECT 'first: ' || coalesce(tools.difference(tools.rows('twin'), tools.rows('ex14')),
	'no difference');
SELECT tools.states('twin');
COMMIT;
CALL tools.make_jobs('ex14', 'twin');
BEGIN;
\o /dev/null
:usual;
SET LOCAL search_path = :bad_path;
:hostile;
SET LOCAL search_path = DEFAULT;
\o
SELECT 'second: ' || coalesce(tools.difference(tools.rows('twin'), tools.rows('ex14')),
	'no difference');
COMMIT;
CALL tools.make_jobs('ex14', 'twin');
BEGIN;
\o /dev/null
SET LOCAL search_path = :bad_path;
:usual;
:hostile;
SET LOCAL search_path = DEFAULT;
\o
SELECT 'third: ' || coalesce(tools.difference(tools.rows('twin'), tools.rows('ex14')),
	'no difference');
COMMIT;
\pset format aligned
\pset tuples_only off
\set ECHO all

-- Results, by eye; and the trap is real: the operator and the function do fail under this path.
CALL tools.make_jobs('twin');
SET search_path = :bad_path;
SELECT public.oban_cancel_job(3, 'twin'), public.oban_retry_many_jobs('{4,5,6}', 'twin'),
	public.oban_delete_job(7, 'twin');
SELECT public.oban_job_cancelled(3, 'twin');
SELECT queue, priority, tags FROM public.oban_update_many_jobs('{2,1}',
	'{"queue": "q", "priority": 1, "tags": [" Z", "y"]}', 'twin');
SELECT queue, priority, tags FROM public.oban_update_many_jobs_with('{2,1}', 'tools.by_json', NULL,
	'twin');
SELECT public.oban_update_job_with(1, 'tools.no_such', NULL, 'twin');
SELECT public.oban_update_job_with(1, 'evil.now', NULL, 'twin');
INSERT INTO twin.orders VALUES (1, 6, '{5,8}');
SELECT public.oban_update_job(1, '{"scheduled_at": "not a time"}', 'twin');
SELECT public.oban_update_job(1, '{"prio": 1}', 'twin');
SELECT 1 = 1;
SELECT now();
RESET search_path;
SELECT tools.states('twin');
SELECT count(*) AS trap_untouched FROM pg_temp.oban_jobs WHERE state = 'available';

\set ECHO none
\pset null NULL
\set SHOW_CONTEXT never
-- Filters and outcomes, the same calls twice: for ex14 with the usual path, for twin with the hostile
-- one; what they give is kept in an array.
CREATE TABLE tools.filters (n serial, filter text);
INSERT INTO tools.filters (filter) VALUES ('{"all": true}'), ('{"id": 3, "state": "executing"}'),
	('{"id": [1, 2, 99999999999999999999], "state": ["available", "scheduled"]}'),
	('{"queue": "media", "worker": ["App.Worker", "x"], "priority": [2, 3]}'),
	('{"queue": ["mail", "media"], "worker": "App.Worker", "attempt": 3, "max_attempts": 20}'),
	('{"attempt": [0, 1], "max_attempts": [20, 21], "priority": 2}'),
	('{"args": {"n": 4}, "meta": {"from": "test"}}'), ('{"tags": "A"}'),
	('{"tags": ["b", " A"]}'), ('{"attempted_by": ["node-1", "x"], "error": "oop"}'),
	('{"not": {"error": "no such", "id": "1", "not": {"queue": "media"}}}'),
	('{"inserted_at": {"after": "2024-01-01", "before": "2024-01-01T00:00:00.1Z"},
	   "scheduled_at": {"before": "2030-01-01T00:00:00+01:00"}}'),
	('{"attempted_at": {"after": "2024-01-01"}, "completed_at": {"before": "2025-01-01"}}'),
	('{"cancelled_at": {"after": "2024-01-01"}}'), ('{"discarded_at": {"before": "2025-01-01"}}');
CREATE TABLE tools.filter_calls (n serial, call text);
INSERT INTO tools.filter_calls (call)
SELECT replace(c, 'FILTER', quote_literal(filter)) FROM tools.filters, unnest(ARRAY[
	'(SELECT pg_catalog.concat_ws('' '', pg_catalog.count(*), pg_catalog.min(id),
		pg_catalog.max(state)) FROM public.oban_all_jobs(FILTER, 5, %1$L))',
	'public.oban_update_all_jobs(FILTER,
		''{"priority": 2, "meta": {"from": "test"}, "schedule_in": "3 hours"}'', 7, %1$L)',
	'public.oban_cancel_all_jobs(FILTER, 2, %1$L)', 'public.oban_retry_all_jobs(FILTER, 3, %1$L)',
	'public.oban_update_all_jobs(FILTER, ''{}'', NULL, %1$L)',
	'public.oban_update_all_jobs(FILTER, ''{"schedule_in": 0}'', NULL, %1$L)'])
	WITH ORDINALITY u(c, m)
ORDER BY n, m;
INSERT INTO tools.filter_calls (call)
SELECT format('(SELECT pg_catalog.string_agg(pg_catalog.concat_ws('' '', job_id, outcome,
	old_state, new_state, reason), ''; '')
	FROM public.oban_manage_jobs(%L, ''{8,2,4,3,99,2}'', %L, %L, %%1$L))', a,
	CASE a WHEN 'update' THEN '{"schedule_in": 9, "tags": ["x"]}' END, d)
FROM unnest('{update,cancel,retry,delete}'::text[]) a, unnest('{true,false}'::boolean[]) d;
INSERT INTO tools.filter_calls (call)
SELECT replace('public.oban_delete_all_jobs(FILTER, 1, %1$L)', 'FILTER', quote_literal(filter))
FROM tools.filters WHERE n IN (6, 14) ORDER BY n;
UPDATE tools.filter_calls SET call = call || '::pg_catalog.text';
SELECT format('SELECT ARRAY[%s] AS result', string_agg(format(call, 'ex14'), ', ' ORDER BY n))
		AS usual,
	format('SELECT ARRAY[%s] AS result', string_agg(format(call, 'twin'), ', ' ORDER BY n))
		AS hostile
FROM tools.filter_calls \gset
-- Where the two differ, in what the calls gave and in the rows.
CREATE FUNCTION tools.compare(hostile text[], usual text[]) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(nullif(concat_ws('; ',
		string_agg(format('call %s: %s, not %s', n, h, u), '; ' ORDER BY n),
		tools.difference(tools.rows('twin'), tools.rows('ex14'))), ''), 'no difference')
	FROM unnest(hostile, usual) WITH ORDINALITY r(h, u, n)
	WHERE replace(h, 'twin', 'ex14') IS DISTINCT FROM u
$$;
\set ECHO all
SELECT count(*) AS calls FROM tools.filter_calls;

-- Both in one transaction, so that now() is the same. First with plans that are made under the
-- hostile path, then with ones made under the usual path, then with those of both.
\set ECHO none
\pset tuples_only on
\pset format unaligned
CALL tools.make_jobs('ex14', 'twin');
BEGIN;
SET LOCAL search_path = :bad_path;
:hostile \gset h_
SET LOCAL search_path = DEFAULT;
:usual \gset u_
SELECT 'first: ' || tools.compare(:'h_result', :'u_result');
COMMIT;
CALL tools.make_jobs('ex14', 'twin');
BEGIN;
:usual \gset u_
SET LOCAL search_path = :bad_path;
:hostile \gset h_
SET LOCAL search_path = DEFAULT;
SELECT 'second: ' || tools.compare(:'h_result', :'u_result');
COMMIT;
CALL tools.make_jobs('ex14', 'twin');
BEGIN;
SET LOCAL search_path = :bad_path;
:usual \gset u_
:hostile \gset h_
SET LOCAL search_path = DEFAULT;
SELECT 'third: ' || tools.compare(:'h_result', :'u_result');
COMMIT;
\pset format aligned
\pset tuples_only off
\set ECHO all
-- What they gave; the trap was not touched.
SELECT n, left(regexp_replace(call, '\s+', ' ', 'g'), 60) AS call, left(result, 150) AS result
FROM tools.filter_calls JOIN unnest(:'h_result'::text[]) WITH ORDINALITY r(result, n) USING (n)
WHERE n % 7 = 1 ORDER BY n;
SELECT tools.states('twin'), tools.states('ex14') = tools.states('twin') AS the_same;
SELECT count(*) AS trap_untouched FROM pg_temp.oban_jobs
WHERE state = 'available' AND worker = 'Trap';

-- Batches, first under the hostile path.
CALL tools.fill(8, 'ex14', 'twin');
SET search_path = :bad_path;
CALL public.oban_cancel_in_batches('{"worker": "App.Worker", "id": [1, 2, 3, 4, 5]}', 2, '0.001 s',
	prefix => 'twin');
CALL public.oban_retry_in_batches('{"state": "cancelled"}', 2, '0', '1 day', prefix => 'twin');
CALL public.oban_update_in_batches('{"tags": [], "all": true}', '{"priority": 1}',
	prefix => 'twin');
CALL public.oban_update_in_batches('{"all": true}',
	'{"priority": 1, "tags": ["b", "A"], "schedule_in": "1 day"}', 3, prefix => 'twin');
CALL public.oban_delete_in_batches('{"tags": ["a", "b"], "id": [7, 8]}', 1, prefix => 'twin');
-- Refusals, and the trap: the operator and the function do fail under this path.
SELECT public.oban_all_jobs('{"state": "gone"}', NULL, 'twin');
SELECT public.oban_cancel_all_jobs('{"inserted_at": {"after": "soon"}}', NULL, 'twin');
SELECT public.oban_manage_jobs('update', '{1}', '{"prio": 1}', true, 'twin');
SELECT 1 = 1;
SELECT now();
RESET search_path;
CALL oban_cancel_in_batches('{"worker": "App.Worker", "id": [1, 2, 3, 4, 5]}', 2, '0.001 s',
	prefix => 'ex14');
CALL oban_retry_in_batches('{"state": "cancelled"}', 2, '0', '1 day', prefix => 'ex14');
CALL oban_update_in_batches('{"all": true}',
	'{"priority": 1, "tags": ["b", "A"], "schedule_in": "1 day"}', 3, prefix => 'ex14');
CALL oban_delete_in_batches('{"tags": ["a", "b"], "id": [7, 8]}', 1, prefix => 'ex14');
SELECT tools.states('twin'), tools.states('ex14') = tools.states('twin') AS the_same;

-- The default prefix is public, never the first schema of the path, nor pg_temp.
SET search_path = pg_temp, twin, public;
SELECT oban_cancel_job(1);
SELECT count(*) FROM oban_all_jobs('{"all": true}');
CALL oban_cancel_in_batches('{"all": true}');
SET oban_manage.prefix = 'twin';
SELECT oban_cancel_job(1), tools.states('twin');
SELECT count(*) FROM oban_all_jobs('{"all": true}');
RESET oban_manage.prefix;
RESET search_path;

DROP TABLE pg_temp.oban_jobs, pg_temp.pg_class, pg_temp.pg_enum;
DROP SCHEMA tools, ex9, ex11, ex14, py, twin CASCADE;
-- In parts, for each object takes a lock.
\set ECHO none
SELECT format('DROP FUNCTION %s CASCADE', string_agg(f::text, ', '))
FROM (SELECT oid::regprocedure, row_number() OVER () / 300 FROM pg_proc
	WHERE pronamespace = 'evil'::regnamespace) p(f, part)
GROUP BY part \gexec
\set ECHO all
DROP SCHEMA evil CASCADE;
