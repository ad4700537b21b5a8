-- No search_path and no object in pg_temp captures what the functions do: here every function and
-- operator of pg_catalog is shadowed by one that fails, and types and catalogs by ones that do not
-- work.
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

-- The default prefix is public, never the first schema of the path, nor pg_temp.
SET search_path = pg_temp, twin, public;
SELECT oban_cancel_job(1);
SET oban_manage.prefix = 'twin';
SELECT oban_cancel_job(1), tools.states('twin');
RESET oban_manage.prefix;
RESET search_path;

DROP TABLE pg_temp.oban_jobs, pg_temp.pg_class;
DROP SCHEMA tools, ex9, ex11, ex14, py, twin CASCADE;
-- In parts, for each object takes a lock.
\set ECHO none
SELECT format('DROP FUNCTION %s CASCADE', string_agg(f::text, ', '))
FROM (SELECT oid::regprocedure, row_number() OVER () / 300 FROM pg_proc
	WHERE pronamespace = 'evil'::regnamespace) p(f, part)
GROUP BY part \gexec
\set ECHO all
DROP SCHEMA evil CASCADE;
